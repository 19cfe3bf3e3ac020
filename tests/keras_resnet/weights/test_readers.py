"""Weights files of every format, as the libraries themselves write them."""

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from keras_resnet.models import ResNet8
from keras_resnet.weights.formats.readers import read_tensors

STATE = {
    "conv1.weight": np.arange(24, dtype="float32").reshape(4, 1, 2, 3),
    "bn1.weight": np.array([1, 2, 3], "float16"),
    "bn1.running_var": np.array([], "float64"),
    "fc.bias": np.array(7.0, "float32"),
}


def small_model(**norm: Any) -> keras.Model:
    """Names that are not in alphabetical order, and a model within the model."""
    image = keras.Input((6, 6, 2), name="image")
    x = keras.layers.Conv2D(3, 3, name="zebra_conv")(image)
    x = keras.layers.BatchNormalization(name="bn", **norm)(x)
    x = keras.layers.Conv2D(3, 3, name="alpha_conv", use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")], name="head")
    return keras.Model(image, head(x))


EXPECTED = {
    "zebra_conv/kernel": 0,
    "zebra_conv/bias": 1,
    "bn/gamma": 2,
    "bn/beta": 3,
    "bn/moving_mean": 4,
    "bn/moving_variance": 5,
    "alpha_conv/kernel": 6,
    "head/fc/kernel": 7,
    "head/fc/bias": 8,
}


def assert_equal(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(arrays) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize(
    ("name", "format"),
    [("m.h5", "keras-h5"), ("m.weights.h5", "keras-weights-h5"), ("m.keras", "keras")],
)
def test_keras_files_give_layer_and_variable_and_no_optimizer(
    name: str, format: str, tmp_path: Path
) -> None:
    model = small_model()
    model.compile("adam", "mse")
    model.fit(np.ones((2, 6, 6, 2)), np.ones((2, 2)), verbose=0)
    (model.save_weights if ".weights." in name else model.save)(tmp_path / name)
    tensors = read_tensors(tmp_path / name)
    assert tensors.format == format
    values = model.get_weights()
    assert_equal(tensors.arrays, {key: values[i] for key, i in EXPECTED.items()})


def test_legacy_keras_keeps_the_order_of_the_layers(tmp_path: Path) -> None:
    small_model().save(tmp_path / "m.h5")
    assert list(read_tensors(str(tmp_path / "m.h5")).arrays) == list(EXPECTED)


def test_legacy_file_of_a_sequential_model(tmp_path: Path) -> None:
    """Keras 3 puts the name of the model before that of the layer."""
    dense = keras.layers.Dense(2, name="fc")
    keras.Sequential([keras.Input((4,)), dense], name="outer").save(tmp_path / "m.h5")
    assert list(read_tensors(tmp_path / "m.h5").arrays) == ["fc/kernel", "fc/bias"]


def test_keras_3_keeps_the_order_of_the_layers_of_each_class(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(3) for _ in range(12))])
    model.save(tmp_path / "m.keras")
    kernels = [f"{layer.name}/kernel" for layer in model.layers]
    assert list(read_tensors(tmp_path / "m.keras").arrays)[::2] == kernels


def test_our_model_files(tmp_path: Path) -> None:
    model = ResNet8()
    model.save(tmp_path / "m.keras")
    arrays = read_tensors(tmp_path / "m.keras").arrays
    assert_equal(arrays, {weight.path: weight.numpy() for weight in model.weights})


def test_variables_stay_numbers_where_their_count_leaves_a_doubt(tmp_path: Path) -> None:
    small_model(scale=False).save(tmp_path / "m.keras")
    arrays = read_tensors(tmp_path / "m.keras").arrays
    assert [name for name in arrays if name.startswith("bn/")] == ["bn/0", "bn/1", "bn/2"]


def test_bfloat16_of_keras_becomes_float32(tmp_path: Path) -> None:
    dense = keras.layers.Dense(2, name="fc", dtype="bfloat16")
    model = keras.Sequential([keras.Input((4,)), dense])
    model.save_weights(tmp_path / "m.weights.h5")
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(dense.kernel, "float32"))
    arrays = read_tensors(tmp_path / "m.weights.h5").arrays
    assert_equal(arrays, {"fc/kernel": kernel, "fc/bias": np.zeros(2, "float32")})


def test_layer_names_that_fill_several_attributes(tmp_path: Path) -> None:
    """Keras cuts a list of names that passes HDF5's limit of 64 KiB."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names0"] = np.array([b"conv2d"])
        file.attrs["layer_names1"] = np.array([b"dense", b"flatten"])
        for layer, weight in (("conv2d", "conv2d/kernel:0"), ("dense", "kernel:0")):
            file.create_group(layer).attrs["weight_names"] = np.array([weight.encode()])
            file[layer][weight] = np.ones(3, "float32")
        file.create_group("flatten").attrs["weight_names"] = np.array([])
    assert list(read_tensors(tmp_path / "m.h5").arrays) == ["conv2d/kernel", "dense/kernel"]


def test_safetensors(tmp_path: Path) -> None:
    halves = np.array([1.5, -2], ml_dtypes.bfloat16)
    counter = np.array(5, "int64")
    safetensors.numpy.save_file(
        {**STATE, "half": halves, "bn1.num_batches_tracked": counter}, tmp_path / "m.safetensors"
    )
    tensors = read_tensors(tmp_path / "m.safetensors")
    assert tensors.format == "safetensors"
    assert_equal(tensors.arrays, {**STATE, "half": np.array([1.5, -2], "float32")})


@pytest.mark.parametrize("start", [b"\x80", b"PK"], ids=["pickle", "zip"])
def test_safetensors_whose_length_looks_like_another_format(tmp_path: Path, start: bytes) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    length = next(n for n in range(1024, 2**20) if n.to_bytes(8, "little").startswith(start))
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length).encode() + bytes(4))
    assert_equal(read_tensors(path).arrays, {"a": np.zeros(1, "float32")})


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("suffix", [".pth", ".th", ".pt", ".bin"])
def test_torch(zipped: bool, wrapper: str | None, suffix: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / f"m{suffix}"
    state = {f"module.{name}": torch.from_numpy(array) for name, array in STATE.items()}
    state["module.bn1.num_batches_tracked"] = torch.tensor(5)
    content = {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapper else state
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    tensors = read_tensors(path)
    path.unlink()  # the arrays are no view of the file
    assert tensors.format == "torch"
    assert list(tensors.arrays) == list(STATE)
    assert_equal(tensors.arrays, STATE)


def test_torch_tensors_that_numpy_has_not(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rows = torch.arange(6.0).reshape(2, 3)
    halves = torch.tensor([1.5], dtype=torch.bfloat16)
    parameter = torch.nn.Parameter(rows.T)
    torch.save({"half": halves, "transposed": parameter}, tmp_path / "m.pth")
    expected = {"half": np.array([1.5], "float32"), "transposed": rows.T.numpy()}
    assert_equal(read_tensors(tmp_path / "m.pth").arrays, expected)


def test_a_prefix_that_not_all_names_have_is_a_name(tmp_path: Path) -> None:
    arrays = {"module.a": np.ones(1, "float32"), "b": np.ones(1, "float32")}
    safetensors.numpy.save_file(arrays, tmp_path / "m.safetensors")
    assert set(read_tensors(tmp_path / "m.safetensors").arrays) == {"module.a", "b"}


def test_without_torch_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(1)}, tmp_path / "m.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"pip install 'keras-resnet\[torch\]'.*safetensors"):
        read_tensors(tmp_path / "m.pth")


def test_safetensors_needs_neither_torch_nor_a_backend(tmp_path: Path, python: Any) -> None:
    safetensors.numpy.save_file(STATE, tmp_path / "m.safetensors")
    printed = python(
        "import sys; sys.argv[0] = 'keras-resnet'\n"
        "from keras_resnet.weights.formats.readers import read_tensors\n"
        "read_tensors(sys.argv[1])\n"
        "print({'torch', 'keras', 'tensorflow'} & set(sys.modules))",
        tmp_path / "m.safetensors",
    )
    assert printed.strip() == "set()"


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_real_torch_checkpoints(depth: int, test_data: Path) -> None:
    pytest.importorskip("torch")
    (path,) = (test_data / "checkpoints/cifar10-torch").glob(f"resnet{depth}-*.th")
    tensors = read_tensors(path)
    assert tensors.format == "torch"
    assert next(iter(tensors.arrays)) == "conv1.weight"
    assert tensors.arrays["layer1.0.conv1.weight"].shape == (16, 16, 3, 3)
    blocks = (depth - 2) // 2
    assert len(tensors.arrays) == 5 + blocks * 10 + 2


def test_real_keras_checkpoint(test_data: Path) -> None:
    tensors = read_tensors(test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5")
    assert tensors.format == "keras-h5"
    assert list(tensors.arrays)[:3] == [
        "conv2d/kernel",
        "conv2d/bias",
        "batch_normalization/gamma",
    ]
    # 78,666 is what the README of the data states; it counts the moving statistics.
    assert sum(array.size for array in tensors.arrays.values()) == 78_666
