"""What int8 costs on real networks and photographs (targets: docs/quantization.md)."""

import keras
import numpy as np
import pytest

import keras_resnet
from tflite.classifier import Classifier
from tflite.convert import convert, save_for_device
from tflite.kinds import ConversionSource
from tflite.model.flatbuffer import pack, unpack
from tflite.quantization.int8 import quantize_int8
from training.config import DataConfig
from training.data.pipeline import images
from training.data.sources import open_source

TEST_IMAGES = 3000

# Checkpoint, options, and the agreement on all 10,000 images, less three standard errors of the
# mean of 3,000.
NETWORKS = [
    ("ResNet8", "mlperf-tiny/pretrainedResnet.h5", {}, 98.65),
    pytest.param(
        *("ResNet20", "cifar10-torch/resnet20-12fca82f.th", {"shortcut": "A"}, 99.05),
        marks=pytest.mark.slow,
    ),
]


@pytest.fixture(scope="module")
def cifar10(test_data):
    folder = str(test_data / "tensorflow_datasets")
    return open_source(DataConfig(source="tfds:cifar10", data_dir=folder), seed=0)


@pytest.mark.parametrize(("name", "checkpoint", "options", "agreement"), NETWORKS)
def test_int8_agrees_with_float(name, checkpoint, options, agreement, cifar10, test_data, tmp_path):
    if checkpoint.endswith(".th"):
        pytest.importorskip("torch")
    weights = test_data / "checkpoints" / checkpoint
    model = getattr(keras_resnet, name)(weights=weights, **options)
    model.contract = model.contract.replace(crop_fraction=1.0)
    calibration = [image for image, _ in images(cifar10.train, model.contract, 100)]
    test, labels = map(np.array, zip(*images(cifar10.test, model.contract, TEST_IMAGES)))
    files = convert(model, tmp_path, ["float32", "int8"], calibration)
    exact, int8 = (Classifier(files[k]).probabilities(test).argmax(1) for k in files)
    assert 100 * np.mean(exact == int8) >= agreement
    assert 100 * abs(np.mean(exact == labels) - np.mean(int8 == labels)) < 0.5
    keras.backend.clear_session()


def test_resnet8_is_no_larger_than_tflite_converters(test_data, tmp_path):
    model = keras_resnet.ResNet8(weights=test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5")
    save_for_device(model, tmp_path)
    noise = list(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8"))
    graph = unpack(ConversionSource(tmp_path).float32)
    assert len(pack(quantize_int8(graph, noise))) <= 97_384
