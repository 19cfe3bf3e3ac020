"""What comes out of the conversion, and what it refuses."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import load_image
from tflite.classifier import Classifier
from tflite.convert import USUAL_KINDS, convert
from tflite.model.interpreter import open_interpreter
from tflite.model.metadata import attach_contract


def opened(path):
    """Without XNNPACK, which would hide the operations that it takes over."""
    from ai_edge_litert.interpreter import OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return interpreter


def operations(path):
    return Counter(op["op_name"] for op in opened(path)._get_ops_details())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_takes_raw_float32_pixels_and_answers_float32_probabilities(files, kind):
    interpreter = opened(files[kind])
    (taken,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (taken["dtype"], list(taken["shape"])) == (np.float32, [1, 32, 32, 1])
    assert (answered["dtype"], list(answered["shape"])) == (np.float32, [1, 10])
    assert list(interpreter.get_signature_list()) == ["serve"]


@pytest.mark.parametrize(
    ("kind", "apart"), [("float32", 1e-4), ("float16", 5e-3), ("dynamic", 0.2), ("int8", 0.3)]
)
def test_answers_as_keras_does(model, files, digits, kind, apart):
    images = digits[0][1500:1600]
    expected = deployable(model).predict(images.astype("float32"), verbose=0)
    answered = Classifier(files[kind]).probabilities(images)
    assert np.abs(answered - expected).max() < apart
    assert np.mean(answered.argmax(1) == expected.argmax(1)) >= 0.95


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic"])
def test_normalization_costs_one_operation_beside_the_network(files, kind):
    # Convolutions: the stem, two in each of three blocks, two projections. Batch
    # normalization is folded into them: ADD is the mean's subtraction and the three shortcuts.
    found = operations(files[kind])
    found.pop("DEQUANTIZE", None)  # float16 weights, unpacked once
    assert found == {
        "ADD": 4,
        "CONV_2D": 9,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }


def test_int8_computes_in_int8_with_a_scale_a_channel(files):
    # The normalization is in the first kernel; the head computes in float32.
    assert operations(files["int8"]) == {
        "QUANTIZE": 1,
        "CONCATENATION": 1,
        "CONV_2D": 9,
        "ADD": 3,
        "DEQUANTIZE": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    interpreter = opened(files["int8"])
    tensors = {t["index"]: t for t in interpreter.get_tensor_details()}
    for op in interpreter._get_ops_details():
        if op["op_name"] != "CONV_2D":
            continue
        activations, weights = (tensors[i] for i in op["inputs"][:2])
        assert activations["dtype"] == weights["dtype"] == np.int8
        assert len(weights["quantization_parameters"]["scales"]) == weights["shape"][0]


def test_size_shrinks_with_the_kind(files):
    size = {kind: path.stat().st_size for kind, path in files.items()}
    assert size["float16"] < 0.6 * size["float32"]
    assert max(size["dynamic"], size["int8"]) < 0.35 * size["float32"]


def test_converts_a_saved_model_without_leaving_anything_else(model, files, tmp_path):
    model.save(tmp_path / "model.keras")
    paths = convert(tmp_path / "model.keras", tmp_path / "out", ["float32"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model_float32.tflite"]
    assert sha256(paths["float32"]) == sha256(files["float32"])


def test_says_how_far_it_is(model, calibration, tmp_path):
    seen = []
    convert(model, tmp_path, ["float32", "int8"], calibration[:2], lambda *step: seen.append(step))
    assert seen[:3] == [("float32", 0, 1), ("float32", 1, 1), ("int8", 0, 1)]
    shares = [done / total for kind, done, total in seen if kind == "int8"]
    assert len(shares) > 10 and shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision_becomes_float32(policy, digits, tmp_path):
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        mixed = ResNet8(input_shape=(32, 32, 1), classes=10, include_preprocessing=True)
    finally:
        keras.config.set_dtype_policy(before)
    path = convert(mixed, tmp_path, ["float32"])["float32"]
    assert {t["dtype"] for t in opened(path).get_tensor_details()} <= {np.float32, np.int32}
    images = digits[0][:5]
    expected = mixed.predict(images.astype("float32"), verbose=0)
    assert np.abs(Classifier(path).probabilities(images) - expected).max() < 0.05


def test_parameter_free_shortcuts_stay_in_int8(calibration, tmp_path):
    model = ResNet8(input_shape=(32, 32, 3), classes=10, shortcut="A")
    path = convert(model, tmp_path, ["int8"], calibration[:4].repeat(3, axis=3))["int8"]
    assert not set(operations(path)) & {"FLEX", "CUSTOM", "TRANSPOSE"}
    assert operations(path)["DEQUANTIZE"] == 1


@pytest.mark.parametrize("calibration", [None, []])
def test_int8_without_calibration_images_is_refused(model, tmp_path, calibration):
    with pytest.raises(ValueError, match="int8 needs calibration images and none were given"):
        convert(model, tmp_path / "out", calibration=calibration)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "image", [np.zeros((32, 32, 3), "uint8"), np.zeros((32, 32, 1), "float32")]
)
def test_calibration_images_that_do_not_fit_are_refused(model, tmp_path, image):
    with pytest.raises(ValueError, match=r"must be uint8 \(32, 32, 1\).*Received"):
        convert(model, tmp_path, ["int8"], [image])


def test_a_model_of_any_size_is_refused(tmp_path):
    model = ResNet8(input_shape=(None, None, 3), classes=10)
    with pytest.raises(ValueError, match="fixed input size"):
        convert(model, tmp_path, ["float32"])


@pytest.mark.parametrize("kinds", [["int4"], [], "int8"])
def test_unknown_kinds_are_refused(model, tmp_path, kinds):
    with pytest.raises(ValueError, match="kinds must be a list of float32"):
        convert(model, tmp_path, kinds)


def test_the_package_itself_loads_nothing():
    code = "import sys, tflite; print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_full_disk_leaves_the_old_file_whole(model, tmp_path, monkeypatch):
    path = tmp_path / "model_float32.tflite"
    path.write_bytes(b"of an earlier run")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        convert(model, tmp_path, ["float32"])
    assert path.read_bytes() == b"of an earlier run"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def elsewhere(model, calibration, tmp_path_factory):
    """The same conversion from the saved model, in a process of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    model.save(folder / "model.keras")
    np.save(folder / "images.npy", calibration)
    code = """
import sys, keras, numpy
print("TensorFlow has greeted", file=sys.stderr, flush=True)
from tflite.convert import convert
from tflite.classifier import Classifier
images = numpy.load("images.npy")
for path in convert("model.keras", "out", calibration=images).values():
    Classifier(path).probabilities(images[:1])
"""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return folder / "out", subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_conversion_says_nothing_of_its_own(elsewhere):
    done = elsewhere[1]
    _, greeting, said = done.stderr.partition("TensorFlow has greeted\n")
    assert greeting, done.stderr
    assert (done.returncode, done.stdout, said) == (0, "", "")


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_the_same_model_gives_the_same_bytes_in_another_process(files, elsewhere, kind):
    assert sha256(elsewhere[0] / files[kind].name) == sha256(files[kind])


def test_a_file_made_by_others_answers_the_same_with_a_contract_behind_it(test_data, tmp_path):
    """MLPerf Tiny's ResNet-8 on real photographs, before and after."""
    original = test_data / "checkpoints/mlperf-tiny/pretrainedResnet.tflite"
    with pytest.raises(ValueError, match="holds no contract"):
        Classifier(original)
    path = tmp_path / "model.tflite"
    contract = Contract(32, 32, 3, mean=(0.0,), std=(1.0,), normalization="inside")
    path.write_bytes(attach_contract(original.read_bytes(), contract))

    photographs = sorted((test_data / "flowers/val").glob("*/*.jpg"))[::30]
    images = np.stack([load_image(photograph, contract) for photograph in photographs])
    bare = open_interpreter(original, threads=2)
    expected = []
    for image in images:
        bare.set_tensor(bare.get_input_details()[0]["index"], image[np.newaxis].astype("float32"))
        bare.invoke()
        expected.append(bare.get_tensor(bare.get_output_details()[0]["index"])[0])
    assert len({int(answer.argmax()) for answer in expected}) > 1
    np.testing.assert_array_equal(Classifier(path).probabilities(images), expected)
