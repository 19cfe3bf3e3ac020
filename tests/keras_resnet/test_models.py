"""The constructors: arguments, shapes, dtypes and refusals."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8, ResNet18, ResNet20, ResNet50, create_model, list_models


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, "float32")


def test_resnet50_is_the_imagenet_network_by_default() -> None:
    model = ResNet50()
    assert (model.input_shape, model.output_shape) == ((None, 224, 224, 3), (None, 1000))
    assert model.name == "resnet50"
    probabilities = model.predict(zeros(1, 224, 224, 3), verbose=0)
    assert probabilities.sum() == pytest.approx(1)


def test_every_listed_model_is_a_constructor() -> None:
    assert list_models() == list(ARCHITECTURES)
    for name in list_models():
        constructor = getattr(keras_resnet, name)
        assert constructor.architecture is ARCHITECTURES[name]
        assert constructor.__name__ == name
        assert "Args:" in constructor.__doc__


def test_create_model_takes_the_constructors_arguments() -> None:
    model = create_model("RESNET8", classes=7, name="mine")
    assert (model.name, model.output_shape) == ("mine", (None, 7))


def test_arguments_are_named_and_ordered_as_in_keras_applications() -> None:
    theirs = list(inspect.signature(keras.applications.ResNet50).parameters)
    ours = inspect.signature(ResNet50).parameters
    positional = [name for name, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == theirs
    assert all(p.kind is p.KEYWORD_ONLY for name, p in ours.items() if name not in theirs)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 32), (97, 101)])
@pytest.mark.parametrize("constructor", [ResNet8, ResNet18], ids=lambda c: c.__name__)
def test_sizes_shrink_by_rounding_up(constructor: Any, size: tuple[int, int]) -> None:
    model = constructor(input_shape=(*size, 3), include_top=False)
    stride = 4 if constructor is ResNet8 else 32
    expected = tuple(-(-length // stride) for length in size)
    assert model.output_shape[1:3] == expected
    assert model(zeros(1, *size, 3)).shape[1:3] == expected


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_channels(channels: int) -> None:
    model = ResNet8(input_shape=(32, 32, channels))
    assert model(zeros(2, 32, 32, channels)).shape == (2, 10)
    assert model.contract.channels == channels == len(model.contract.mean)


def test_unknown_height_and_width_take_any_size() -> None:
    model = ResNet20(input_shape=(None, None, 3))
    assert (model.contract.height, model.contract.width) == (None, None)
    for size in ((32, 32), (45, 33)):
        assert model(zeros(1, *size, 3)).shape == (1, 10)


@pytest.mark.parametrize(
    ("pooling", "shape"), [(None, (None, 8, 8, 64)), ("avg", (None, 64)), ("max", (None, 64))]
)
def test_without_the_top(pooling: Any, shape: tuple[int | None, ...]) -> None:
    assert ResNet8(include_top=False, pooling=pooling).output_shape == shape


def test_pooling_takes_the_mean_or_the_maximum(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    features = ResNet8(include_top=False)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        pooled = ResNet8(include_top=False, pooling=pooling)
        pooled.set_weights(features.get_weights())
        expected = reduce(np.asarray(features(x)), axis=(1, 2))
        np.testing.assert_allclose(pooled(x), expected, atol=1e-6)


def test_classifier_activation_none_gives_logits(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    logits, softmax = ResNet8(classifier_activation=None), ResNet8()
    softmax.set_weights(logits.get_weights())
    np.testing.assert_allclose(keras.ops.softmax(logits(x)), softmax(x), atol=1e-6)


def test_input_tensor_is_built_upon(rng: np.random.Generator) -> None:
    pixels = keras.Input((32, 32, 1))
    model = ResNet8(input_tensor=keras.layers.Concatenate()([pixels] * 3))
    assert model.inputs == [pixels]
    plain = ResNet8()
    plain.set_weights(model.get_weights())
    x = rng.normal(size=(2, 32, 32, 1)).astype("float32")
    np.testing.assert_allclose(model(x), plain(np.repeat(x, 3, axis=-1)), atol=1e-6)


def strides_of_bottleneck(variant: Any) -> list[int]:
    model = ResNet50(input_shape=(32, 32, 3), variant=variant)
    return [model.get_layer(f"stage2_block1_conv{i}").strides[0] for i in (1, 2, 3)]


def test_variant_says_which_convolution_strides() -> None:
    assert strides_of_bottleneck("v1.5") == [1, 2, 1]
    assert strides_of_bottleneck("v1") == [2, 1, 1]


def test_include_preprocessing_takes_raw_pixels(rng: np.random.Generator) -> None:
    inside, outside = ResNet8(include_preprocessing=True), ResNet8()
    inside.set_weights(outside.get_weights())
    assert inside.contract.normalization == "inside"
    pixels = rng.integers(0, 256, (2, 32, 32, 3)).astype("float32")
    normalized = keras_resnet.preprocess_input(pixels, outside.contract)
    np.testing.assert_allclose(inside(pixels), outside(normalized), atol=1e-5)


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_head_is_float32_under_mixed_precision(policy: Any, name: str) -> None:
    policy(name)
    model = ResNet8()
    assert model.get_layer("stage1_block1_conv1").compute_dtype == name.removeprefix("mixed_")
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert keras.backend.standardize_dtype(model(zeros(1, 32, 32, 3)).dtype) == "float32"
    assert all(weight.dtype == "float32" for weight in model.weights)


def test_weights_are_read_from_a_file(tmp_path: Path) -> None:
    saved = ResNet8()
    for name in ("saved.weights.h5", "saved.keras"):
        path = tmp_path / name
        saved.save_weights(path) if name.endswith(".h5") else saved.save(path)
        loaded = ResNet8(weights=path)
        for ours, theirs in zip(loaded.get_weights(), saved.get_weights()):
            np.testing.assert_array_equal(ours, theirs)


BAD = [
    ({"input_shape": (31, 32, 3)}, r"from 32 to 16384.*input_shape=\(31, 32, 3\)"),
    ({"input_shape": (32.5, 32, 3)}, r"integers.*input_shape=\(32.5, 32, 3\)"),
    ({"input_shape": (3, 32, 32)}, r"from 32 to 16384.*input_shape=\(3, 32, 32\)"),
    ({"input_shape": (32, 32)}, r"\(height, width, channels\).*input_shape=\(32, 32\)"),
    ({"input_shape": 32}, r"\(height, width, channels\).*input_shape=32"),
    ({"input_shape": (32, 32, 0)}, r"channels.*from 1 to 1024.*\(32, 32, 0\)"),
    ({"input_shape": (32, 32, None)}, r"channels.*from 1 to 1024.*\(32, 32, None\)"),
    ({"classes": 0}, r"at least 1.*classes=0"),
    ({"classes": 2.5}, r"integer.*classes=2\.5"),
    ({"classes": True}, r"integer.*classes=True"),
    ({"pooling": "mean"}, r"None, 'avg', 'max'.*pooling='mean'"),
    ({"variant": "v3"}, r"'v1', 'v1\.5'.*variant='v3'"),
    ({"variant": ["d"]}, r"'v1', 'v1\.5'.*variant=\['d'\]"),
    ({"variant": "d"}, r"3×3 stem already.*variant='d'"),
    ({"shortcut": "C"}, r"'A', 'B', 'none'.*shortcut='C'"),
    ({"norm": "layer"}, r"'batch', 'sync_batch', 'group'.*norm='layer'"),
    ({"output_stride": 3}, r"one of 1, 2, 4.*output_stride=3"),
    ({"stochastic_depth": 1.0}, r"below 1.*stochastic_depth=1\.0"),
    ({"dropout_rate": -0.1}, r"at least 0.*dropout_rate=-0\.1"),
    ({"data_format": "NCHW"}, r"channels_last.*data_format='NCHW'"),
    ({"batch_norm_momentum": 1}, r"below 1.*batch_norm_momentum=1"),
    ({"batch_norm_momentum": "0.9"}, r"below 1.*batch_norm_momentum='0\.9'"),
    ({"batch_norm_epsilon": 0}, r"above 0.*batch_norm_epsilon=0"),
    ({"classifier_activation": "sofmax"}, r"sofmax"),
    ({"input_tensor": np.zeros((1, 32, 32, 3))}, r"symbolic.*keras\.Input.*ndarray"),
    ({"contract": {"height": 32}}, r"keras_resnet\.Contract.*\{'height': 32\}"),
    ({"contract": Contract(32, 32, labels=("a", "b"))}, r"2 labels for 10 classes"),
    ({"weights": "imagenet"}, r"'imagenet'.*ResNet8.*There are: cifar10"),
    ({"weights": "missing.weights.h5"}, r"no weights file missing\.weights\.h5"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_bad_argument_says_what_was_received_and_what_would_do(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet8(**arguments)


def test_input_shape_must_agree_with_input_tensor() -> None:
    with pytest.raises(ValueError, match=r"\(64, 64, 3\).*\(32, 32, 3\)"):
        ResNet8(input_tensor=keras.Input((32, 32, 3)), input_shape=(64, 64, 3))


def test_a_name_must_be_a_name() -> None:
    with pytest.raises(ValueError, match=r"such as 'ResNet50'.*Received: 50"):
        create_model(50)  # type: ignore[arg-type]


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        ResNet8(True, None, None, None, None, 10, None, "name", "v1")


def test_a_model_from_a_file_takes_bare_images_without_a_warning(tmp_path: Path) -> None:
    ResNet8(input_shape=(32, 32, 3)).save(tmp_path / "model.keras")
    model = keras_resnet.load_model(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(zeros(1, 32, 32, 3))
        keras_resnet.ImageClassifier(model.inputs, model.outputs)(zeros(1, 32, 32, 3))


@pytest.mark.parametrize(
    "arguments",
    [
        {"classes": 0},
        {"pooling": "mean"},
        {"norm": "layer"},
        {"shortcut": "C"},
        {"output_stride": 3},
        {"dropout_rate": 2},
        {"classifier_activation": "soft"},
        {"contract": "rgb"},
        {"contract": keras_resnet.Contract(None, None, labels=("a", "b")), "classes": 3},
        {"input_shape": (10, 10, 3)},
        {"width": 9},
    ],
    ids=str,
)
def test_arguments_are_checked_before_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    fetched = []
    monkeypatch.setattr("keras_resnet.weights.load.fetch", lambda *what: fetched.append(what))
    with pytest.raises(ValueError):
        keras_resnet.ResNet18(weights="imagenet", **arguments)
    assert not fetched


def test_the_contract_is_that_of_the_whole_graph() -> None:
    inputs = keras.Input((48, 40, 1))
    x = keras.layers.Concatenate()([keras.layers.Resizing(64, 64)(inputs)] * 3)
    model = keras_resnet.ResNet8(input_tensor=x, classes=3)
    contract = model.contract
    assert (contract.height, contract.width, contract.channels) == (48, 40, 1)
    assert keras_resnet.ImageClassifier.from_config(model.get_config()).contract == contract
