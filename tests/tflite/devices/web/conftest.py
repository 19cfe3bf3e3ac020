"""A run folder whose files tell pictures apart, made in seconds."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import load_image, preprocess_input
from tflite.convert import convert

LABELS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
CONTRACT = Contract(96, 80, labels=LABELS)


@pytest.fixture(scope="session")
def flowers_run(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, but normalized to what they see, so that answers differ between pictures."""
    paths = sorted((test_data / "flowers/train").glob("*/*.jpg"))[::10]
    photographs = [load_image(path, CONTRACT) for path in paths]
    keras.utils.set_random_seed(7)
    model = ResNet8(input_shape=(96, 80, 3), classes=len(LABELS), contract=CONTRACT)
    seen = preprocess_input(np.stack(photographs), CONTRACT)
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.0  # one pass sets the statistics
    model(seen, training=True)
    head = next(layer for layer in reversed(model.layers) if hasattr(layer, "kernel"))
    logits = np.log(model.predict(seen, verbose=0))
    logits -= logits.mean(axis=1, keepdims=True)
    head.kernel.assign(head.kernel / logits.std(axis=0))
    head.bias.assign(-(logits / logits.std(axis=0)).mean(axis=0))
    folder = tmp_path_factory.mktemp("runs") / "flowers"
    folder.mkdir()
    model.save(folder / "model.keras")
    convert(model, folder / "tflite", calibration=photographs)
    return folder
