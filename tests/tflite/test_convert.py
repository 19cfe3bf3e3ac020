"""The files that conversion writes, and what it refuses."""

import errno
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
from tflite.model.flatbuffer import unpack
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
def test_files_map_raw_float32_pixels_to_float32_probabilities(files, kind):
    interpreter = opened(files[kind])
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["dtype"], list(image["shape"])) == (np.float32, [1, 32, 32, 1])
    assert (output["dtype"], list(output["shape"])) == (np.float32, [1, 10])
    assert list(interpreter.get_signature_list()) == ["serve"]


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float32", 1e-4), ("float16", 5e-3), ("dynamic", 0.2), ("int8", 0.3)]
)
def test_probabilities_are_those_of_keras(model, files, digits, kind, tolerance):
    images = digits[0][1500:1600]
    expected = deployable(model).predict(images.astype("float32"), verbose=0)
    probabilities = Classifier(files[kind]).probabilities(images)
    assert np.abs(probabilities - expected).max() < tolerance
    assert np.mean(probabilities.argmax(1) == expected.argmax(1)) >= 0.95


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


def test_progress_is_reported(model, calibration, tmp_path):
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


@pytest.mark.parametrize(
    "full_at",
    ["float32", *(pytest.param(at, marks=pytest.mark.slow) for at in ("SavedModel", "mixed"))],
)
def test_a_disk_that_fills_up_ends_in_one_line_and_leaves_no_file(full_at, tmp_path):
    """A real limit of the system, from the start or from the first report of a kind on."""
    code = """
import os, resource, sys
import numpy as np
from keras_resnet import ResNet8
from tflite.convert import convert

def fill(reached, *_):
    if reached == sys.argv[1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

model = ResNet8(input_shape=(32, 32, 3), classes=10)
images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8")
fill("SavedModel")
try:
    convert(model, "out", ["float32", "mixed"], list(images), fill)
except OSError as error:
    print(error.errno, len(str(error).splitlines()), error)
print(sorted(os.listdir("out")), sorted(n for n in os.listdir("tmp") if "autograph" not in n))
"""
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code, full_at],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error, left = done.stdout.splitlines()
    assert error.startswith(f"{errno.EFBIG} 1 [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}")
    finished = ["model_float32.tflite"] if full_at == "mixed" else []
    assert left == f"{finished} []"


@pytest.fixture(scope="module")
def elsewhere(model, calibration, tmp_path_factory):
    """The same conversion from the saved model, in a process of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    model.save(folder / "model.keras")
    np.save(folder / "images.npy", calibration)
    code = """
import sys, keras, numpy
print("after the imports of Keras", file=sys.stderr, flush=True)
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


@pytest.mark.slow
def test_conversion_prints_nothing(elsewhere):
    done = elsewhere[1]
    _, marker, printed = done.stderr.partition("after the imports of Keras\n")
    assert marker, done.stderr
    assert (done.returncode, done.stdout, printed) == (0, "", "")


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_the_same_model_gives_the_same_bytes_in_another_process(files, elsewhere, kind):
    assert sha256(elsewhere[0] / files[kind].name) == sha256(files[kind])


def test_a_file_made_by_others_predicts_the_same_with_a_contract_attached(test_data, tmp_path):
    """MLPerf Tiny's ResNet-8 on real photographs, before and after."""
    original = test_data / "checkpoints/mlperf-tiny/pretrainedResnet.tflite"
    with pytest.raises(ValueError, match="holds no contract"):
        Classifier(original)
    path = tmp_path / "model.tflite"
    contract = Contract(32, 32, 3, mean=(0.0,), std=(1.0,), normalization="inside")
    path.write_bytes(attach_contract(unpack(original.read_bytes()), contract))

    photographs = sorted((test_data / "flowers/val").glob("*/*.jpg"))[::30]
    images = np.stack([load_image(photograph, contract) for photograph in photographs])
    bare = open_interpreter(original, threads=2)
    expected = []
    for image in images:
        bare.set_tensor(bare.get_input_details()[0]["index"], image[np.newaxis].astype("float32"))
        bare.invoke()
        expected.append(bare.get_tensor(bare.get_output_details()[0]["index"])[0])
    assert len({int(scores.argmax()) for scores in expected}) > 1
    np.testing.assert_array_equal(Classifier(path).probabilities(images), expected)


def test_a_missing_package_is_not_the_models_fault(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_quantizer", None)
    with pytest.raises(ValueError) as error:
        convert(model, tmp_path, ["dynamic"])
    line = "litert-quantizer is not installed: pip install litert-quantizer"
    assert str(error.value) == line
