"""Other inputs and outputs: the same predictions, and a file that describes them."""

import hashlib
import itertools
import json
import warnings
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet.models import ResNet8
from tflite.classifier import Classifier
from tflite.convert import USUAL_KINDS, convert
from tflite.evidence.golden import golden, write_golden
from tflite.kinds import KINDS
from tflite.model.flatbuffer import unpack
from tflite.model.interpreter import open_interpreter
from tflite.model.io_spec import IOSpec
from tflite.model.metadata import attach_contract, read_contract
from tflite.model.rewrite_io import rewrite_io
from tflite.model.sandbox import trust

# The network between is the same, operation by operation; other kernels may run it.
SAME = 1e-6
INTERFACES = [
    IOSpec(io, batch, **outputs)
    for io, batch, outputs in itertools.product(
        ("float32", "uint8", "int8"), (1, 3), ({}, {"logits": True}, {"top_k": 4})
    )
][1:]  # the first is the universal one


def opened(path):
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return interpreter


@pytest.fixture(scope="module")
def plain(files, model, calibration, tmp_path_factory):
    """Every kind with the universal input and output."""
    folder = tmp_path_factory.mktemp("rare")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "int16x8 has no fast kernels")
        return files | convert(model, folder, ["int16x8", "mixed"], calibration[:5])


@pytest.fixture(scope="module")
def with_io(plain, tmp_path_factory):
    """The same files with other inputs and outputs, rewritten as by ``convert``."""
    folder = tmp_path_factory.mktemp("rewritten")

    def make(kind, io_spec):
        path = folder / f"{kind} {io_spec}.tflite"
        graph = rewrite_io(unpack(plain[kind].read_bytes()), io_spec)
        file = attach_contract(graph, read_contract(plain[kind]), io_spec)
        path.write_bytes(file)
        trust(file)
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("io_spec", INTERFACES, ids=str)
def test_predictions_do_not_depend_on_input_and_outputs(plain, with_io, digits, io_spec, kind):
    count = 1 if kind == "int16x8" else 7  # no multiple of the batch; int16x8 is slow
    images = digits[0][1500 : 1500 + count]
    expected, rewritten = Classifier(plain[kind]), Classifier(with_io(kind, io_spec))
    assert (rewritten.io_spec, rewritten.contract) == (io_spec, expected.contract)
    # int16's softmax is a table: it is coarser than the one that replaces it.
    tolerance = 2e-3 if kind == "int16x8" and io_spec.logits else SAME
    for a, b in zip(*(c.predict(list(images), top=4) for c in (expected, rewritten))):
        assert [name for name, _ in a] == [name for name, _ in b]
        np.testing.assert_allclose([p for _, p in a], [p for _, p in b], atol=tolerance)
    if io_spec.top_k is None:
        np.testing.assert_allclose(
            rewritten.probabilities(images), expected.probabilities(images), atol=tolerance
        )


@pytest.fixture(scope="module")
def converted(model, calibration, tmp_path_factory):
    """Two conversions of every usual kind."""
    folder = tmp_path_factory.mktemp("converted")
    io_spec = IOSpec("uint8", 2, top_k=3)
    return [
        convert(model, folder / name, calibration=calibration[:5], io_spec=io_spec)
        for name in ("a", "b")
    ]


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_two_conversions_give_the_same_bytes(converted, kind):
    first, second = (hashlib.sha256(files[kind].read_bytes()).hexdigest() for files in converted)
    assert first == second


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_a_conversion_has_the_requested_input_and_outputs(converted, kind):
    assert Classifier(converted[0][kind]).io_spec == IOSpec("uint8", 2, top_k=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("io_spec", "pixels", "outputs"),
    [
        (IOSpec("uint8"), (np.uint8, (1.0, 0)), {"probabilities": (1, 10)}),
        (IOSpec("int8", 2), (np.int8, (1.0, -128)), {"probabilities": (2, 10)}),
        (IOSpec(logits=True), (np.float32, (0.0, 0)), {"logits": (1, 10)}),
        (
            IOSpec(batch=5, top_k=3),
            (np.float32, (0.0, 0)),
            {"probabilities": (5, 3), "classes": (5, 3)},
        ),
    ],
    ids=str,
)
def test_tensors_and_signature_describe_input_and_outputs(with_io, kind, io_spec, pixels, outputs):
    interpreter = opened(with_io(kind, io_spec))
    (image,), details = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["name"], image["dtype"], image["quantization"]) == ("image", *pixels)
    assert {one["name"]: tuple(one["shape"]) for one in details} == outputs
    assert interpreter.get_signature_list() == {
        "serve": {"inputs": ["image"], "outputs": sorted(outputs)}
    }


def test_int8_pixels_go_straight_into_the_int8_network(with_io):
    counts = {}
    for io in ("float32", "uint8", "int8"):
        operations = opened(with_io("int8", IOSpec(io)))._get_ops_details()
        counts[io] = [op["op_name"] for op in operations].count("QUANTIZE")
    assert counts == {"float32": 1, "uint8": 1, "int8": 0}


@pytest.mark.parametrize("shortcut", ["A", pytest.param("B", marks=pytest.mark.slow)])
def test_a_batch_passes_every_kind_of_shortcut(shortcut, digits, tmp_path):
    from keras_resnet.models import ResNet20

    model = ResNet20(input_shape=(32, 32, 3), classes=10, shortcut=shortcut)
    images = digits[0][:4].repeat(3, axis=3)
    plain, four = (
        Classifier(convert(model, tmp_path / str(n), ["float32"], io_spec=IOSpec(batch=n))
                   ["float32"]).probabilities(images)
        for n in (1, 4)
    )  # fmt: skip
    np.testing.assert_allclose(four, plain, atol=SAME)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"io": "int16"}, "io must be one of 'float32', 'uint8', 'int8'"),
        ({"batch": 0}, "batch must be an integer of at least 1"),
        ({"batch": True}, "batch must be an integer of at least 1"),
        ({"top_k": 0}, "top_k must be an integer of at least 1"),
        ({"logits": True, "top_k": 3}, "Probabilities cannot be computed from top-k logits"),
    ],
)
def test_an_impossible_io_spec_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        IOSpec(**wrong)


def test_more_classes_than_there_are_is_refused_before_anything_is_made(
    model, calibration, tmp_path
):
    with pytest.raises(ValueError, match="top_k must be at most the model's 10 classes"):
        convert(model, tmp_path, calibration=calibration, io_spec=IOSpec(top_k=11))
    assert not list(tmp_path.iterdir())


def test_a_model_without_softmax_has_none_to_leave_out(tmp_path):
    sigmoids = ResNet8(input_shape=(32, 32, 3), classes=10, classifier_activation="sigmoid")
    with pytest.raises(ValueError, match="is no softmax that could be left out"):
        convert(sigmoids, tmp_path, ["float32"], io_spec=IOSpec(logits=True))


def test_what_needs_the_universal_io_says_so(with_io, digits, tmp_path):
    likeliest = with_io("float32", IOSpec(top_k=3))
    integers = with_io("float32", IOSpec("uint8"))
    with pytest.raises(ValueError, match="gives only the 3 likeliest classes"):
        Classifier(likeliest).probabilities(digits[0][:1])
    with pytest.raises(ValueError, match=r"uint8 images, 1 at a time.*convert without --io"):
        open_interpreter(integers, threads=1)
    with pytest.raises(ValueError, match="convert without --io"):
        golden({"float32": integers}, list(digits[0][:1]))
    with pytest.raises(ValueError, match="A golden output is all probabilities of one image"):
        write_golden(likeliest, digits[0][:1], tmp_path / "golden.zip")


def test_golden_inputs_have_the_type_of_the_input(with_io, digits, tmp_path):
    write_golden(with_io("int8", IOSpec("int8")), digits[0][:1], tmp_path / "golden.zip")
    with zipfile.ZipFile(tmp_path / "golden.zip") as archive:
        assert json.loads(archive.read("golden.json"))["input"]["dtype"] == "int8"
        given = np.frombuffer(archive.read("0000.input.bin"), "int8").astype(int) + 128
    np.testing.assert_array_equal(given.reshape(digits[0][0].shape), digits[0][0])
