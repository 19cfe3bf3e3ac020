"""The graph that a device runs answers as the trained model does."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import preprocess_input
from keras_resnet.saving import load_model

CONTRACT = Contract(None, None, mean=(120, 110, 100), std=(50, 60, 70), labels=tuple("abcdefghij"))


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (4, 32, 32, 3)).astype("float32")


def compute_dtypes(model: keras.Model) -> set[str]:
    """Of the layers that compute: models and inputs only hand tensors on."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    holders = (keras.Model, keras.layers.InputLayer)
    return {layer.compute_dtype for layer in layers if not isinstance(layer, holders)}


def network(**options: Any) -> ImageClassifier:
    return ResNet8(contract=CONTRACT, batch_norm_momentum=0.5, **options)


def settled(model: ImageClassifier, pixels: np.ndarray) -> ImageClassifier:
    """With moving statistics that are no longer those of a new network."""
    for _ in range(3):
        model(preprocess_input(pixels, model.contract), training=True)
    return model


@pytest.mark.parametrize("options", [{}, {"shortcut": "A"}], ids=str)
def test_normalization_moves_inside(pixels: np.ndarray, options: dict[str, Any]) -> None:
    model = settled(network(**options), pixels)
    device = deployable(model)
    assert device.contract == model.contract.replace(normalization="inside")
    assert device.input_shape == model.input_shape
    expected = model(preprocess_input(pixels, model.contract))
    np.testing.assert_allclose(device(pixels), expected, atol=1e-5)


def test_normalization_inside_stays(pixels: np.ndarray) -> None:
    model = settled(network(include_preprocessing=True), pixels)
    device = deployable(model)
    assert device.contract == model.contract
    np.testing.assert_array_equal(device(pixels), model(pixels))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_becomes_float32(
    policy: Any, pixels: np.ndarray, name: str, inside: bool
) -> None:
    policy(name)
    model = settled(network(include_preprocessing=inside), pixels)
    device = deployable(model)  # while the policy is still the global one
    assert compute_dtypes(device) == {"float32"}
    expected = model(preprocess_input(pixels, model.contract))
    np.testing.assert_allclose(device(pixels), expected, atol=0.03)
    policy("float32")
    exact = settled(network(include_preprocessing=inside), pixels)
    exact.set_weights(model.get_weights())
    expected = exact(preprocess_input(pixels, model.contract))
    np.testing.assert_allclose(device(pixels), expected, atol=1e-5)


def test_weights_are_a_copy(pixels: np.ndarray) -> None:
    model = ResNet8(contract=CONTRACT)
    device = deployable(model)
    before = np.asarray(device(pixels))
    model.set_weights([weight * 0 for weight in model.get_weights()])
    np.testing.assert_array_equal(device(pixels), before)


def test_any_size_stays_any_size(rng: np.random.Generator) -> None:
    device = deployable(ResNet8(input_shape=(None, None, 1), contract=CONTRACT))
    assert device(rng.uniform(0, 255, (1, 40, 33, 1)).astype("float32")).shape == (1, 10)


def test_can_be_saved_and_loaded(pixels: np.ndarray, tmp_path: Any) -> None:
    device = deployable(ResNet8(contract=CONTRACT))
    device.save(tmp_path / "device.keras")
    loaded = load_model(tmp_path / "device.keras")
    assert loaded.contract == device.contract
    np.testing.assert_array_equal(loaded(pixels), device(pixels))
    np.testing.assert_array_equal(deployable(device)(pixels), device(pixels))
