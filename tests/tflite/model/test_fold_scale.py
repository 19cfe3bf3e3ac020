"""Normalization by one operation, and models that must not be changed."""

import keras
import numpy as np
import pytest

from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.models import ResNet18, ResNet20
from tests.tflite.interpreted import interpreted
from tflite.convert import save_for_device
from tflite.kinds import ConversionSource, float16
from tflite.model.flatbuffer import pack, unpack
from tflite.model.fold_scale import fold_scale

CONTRACT = Contract(32, 32, 3, mean=(120.0, 110.0, 90.0), std=(50.0, 60.0, 70.0))
# Without softmax, which hides everything in networks that were not trained.
OPTIONS = {
    "input_shape": (32, 32, 3),
    "classes": 10,
    "contract": CONTRACT,
    "classifier_activation": None,
}
MODELS = {
    "same padding": lambda: ResNet20(**OPTIONS),
    "a PAD between": lambda: ResNet18(**OPTIONS),
    "inside already": lambda: ResNet20(**OPTIONS, include_preprocessing=True),
}


def before_the_stem(graph):
    """Names of the operations on pixels before the first convolution."""
    names = [op.name for op in graph.operations if op.name != "DEQUANTIZE"]
    return [name for name in names[: names.index("CONV_2D")] if name != "PAD"]


@pytest.fixture(scope="module", params=MODELS)
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(0)
    save_for_device(MODELS[request.param](), folder)
    return ConversionSource(folder)


def test_the_scale_goes_into_the_kernel_and_no_output_changes(source):
    plain = unpack(source.float32)
    folded = fold_scale(plain)
    assert before_the_stem(plain) == ["MUL", "ADD"]
    assert before_the_stem(folded) == ["ADD"]
    assert abs(len(pack(folded)) - len(source.float32)) < 1000
    # Bright to the very edge, where zero padding must not be taken for black pixels.
    images = np.random.default_rng(0).integers(200, 256, (8, 32, 32, 3), "uint8")
    expected = interpreted(source.float32, images)
    spread = np.ptp(expected, axis=0).max()
    assert spread > 0.01 * np.abs(expected).max()  # the images matter
    np.testing.assert_allclose(interpreted(pack(folded), images), expected, atol=1e-4 * spread)
    assert fold_scale(folded) is folded


@pytest.mark.slow
def test_half_precision_weights_stay_so(source):
    model = float16(source, lambda *_: None).model
    graph = unpack(model)
    assert before_the_stem(graph) == ["ADD"]
    kernels = [t for t in graph.tensors if t.constant and len(t.shape) == 4 and t.name != "shift"]
    assert {t.dtype for t in kernels} == {"float16"}
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), "uint8")
    expected = interpreted(source.float32, images)
    tolerance = 0.01 * np.abs(expected).max()  # eleven bits, twice for the stem's
    np.testing.assert_allclose(interpreted(model, images), expected, atol=tolerance)


def test_a_network_without_normalization_is_not_changed(test_data):
    raw = (test_data / "checkpoints/mlperf-tiny/pretrainedResnet.tflite").read_bytes()
    graph = unpack(raw)
    assert fold_scale(graph) is graph


def test_a_kernel_that_two_layers_share_is_not_changed(tmp_path):
    pixels = keras.Input((16, 16, 3))
    stem = keras.layers.Conv2D(3, 3, padding="same", activation="relu")
    x = keras.layers.GlobalAveragePooling2D()(stem(stem(pixels)))
    model = ImageClassifier(pixels, keras.layers.Dense(4, activation="softmax")(x))
    model.contract = CONTRACT.replace(height=16, width=16)
    save_for_device(model, tmp_path)
    plain = ConversionSource(tmp_path).float32
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), "uint8")
    folded = pack(fold_scale(unpack(plain)))
    np.testing.assert_allclose(interpreted(folded, images), interpreted(plain, images), atol=1e-5)
