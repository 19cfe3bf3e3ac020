"""Published weights all the way to a phone's file, on real images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from keras_resnet import ResNet8, ResNet20
from keras_resnet.classifier import ImageClassifier
from tflite.convert import convert
from tflite.evidence.verify import verify

IMAGES = 500


def cifar10(test_data: Path, split: str) -> Iterator[tuple[np.ndarray, int]]:
    import tensorflow_datasets as tfds

    folder = test_data / "tensorflow_datasets"
    dataset = tfds.load("cifar10", split=split, data_dir=folder, download=False, as_supervised=True)
    return ((image, int(label)) for image, label in tfds.as_numpy(dataset))


def resnet20(checkpoints: Path) -> ImageClassifier:
    pytest.importorskip("torch")
    return ResNet20(weights=checkpoints / "cifar10-torch/resnet20-12fca82f.th", shortcut="A")


def resnet8(checkpoints: Path) -> ImageClassifier:
    return ResNet8(weights=checkpoints / "mlperf-tiny/pretrainedResnet.h5")


@pytest.mark.parametrize(
    "build",
    [pytest.param(resnet20, marks=pytest.mark.slow), resnet8],
    ids=lambda build: build.__name__,
)
def test_converts_and_verifies(test_data: Path, tmp_path: Path, build) -> None:
    model = build(test_data / "checkpoints")
    calibration = [image for image, _ in cifar10(test_data, "train[:100]")]
    files = convert(model, tmp_path, calibration=calibration)
    report = verify(model, files, cifar10(test_data, f"test[:{IMAGES}]"), max_drop=1.5)
    for row in report.to_dict()["kinds"]:
        assert not row["broken"], row
        # Of 500 images: one where nothing is quantized to 8 bits, twenty elsewhere.
        assert row["agreement"] >= (99.8 if row["kind"].startswith("float") else 96), row
