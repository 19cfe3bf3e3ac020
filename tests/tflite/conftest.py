"""A small network trained on real handwritten digits, and the files made from it."""

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import preprocess_input
from keras_resnet.saving import load_model
from tests.made_once import made_once
from tflite.convert import USUAL_KINDS, convert

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN = 1500


@pytest.fixture(scope="session")
def digits():
    """1,797 scans of 8 × 8 pixels, each pixel repeated to 32 × 32: (images, labels)."""
    scans, labels = load_digits(return_X_y=True)
    pixels = np.rint(scans.reshape(-1, 8, 8, 1) * (255 / 16)).astype("uint8")
    return pixels.repeat(4, axis=1).repeat(4, axis=2), labels


@pytest.fixture(scope="session")
def held_out(digits):
    """The (image, label) pairs that the model was not trained on."""
    return list(zip(digits[0][TRAIN:], digits[1][TRAIN:]))


@pytest.fixture(scope="session")
def calibration(digits):
    return digits[0][:100]


@pytest.fixture(scope="session")
def model(digits, tmp_path_factory):
    def make(folder: Path) -> None:
        keras.utils.set_random_seed(0)
        # Trained on whole scans: told to crop, it would get half of the digits wrong.
        contract = Contract(32, 32, 1, mean=(78.0,), std=(96.0,), labels=LABELS, crop_fraction=1.0)
        model = ResNet8(input_shape=(32, 32, 1), classes=10, contract=contract)
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        x = preprocess_input(digits[0][:TRAIN], model.contract)
        model.fit(x, digits[1][:TRAIN], batch_size=50, epochs=3, verbose=0)
        model.save(folder / "model.keras")

    return load_model(made_once(tmp_path_factory, "digits-model", make) / "model.keras")


@pytest.fixture(scope="session")
def files(model, calibration, tmp_path_factory) -> dict[str, Path]:
    folder = made_once(
        tmp_path_factory,
        "tflite",
        lambda folder: convert(model, folder, calibration=calibration),
    )
    return {kind: folder / f"model_{kind}.tflite" for kind in USUAL_KINDS}
