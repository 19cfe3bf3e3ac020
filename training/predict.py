"""The same answer from a ``.keras`` file and a SavedModel: a function from pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.saving import load_model

Predictor = Callable[[np.ndarray], np.ndarray]


def keras_predictor(path: Path) -> tuple[Contract, Predictor]:
    """Opens a ``.keras`` file.

    Returns:
        Its contract, and a function from uint8 ``(images, height, width, channels)`` to
        probabilities ``(images, classes)``.
    """
    model = deployable(load_model(path))
    return model.contract, lambda pixels: np.asarray(model(pixels.astype("float32")))


def saved_model_predictor(folder: Path) -> tuple[Contract, Predictor]:
    """Opens a folder that ``export_saved_model`` wrote; returns as ``keras_predictor``."""
    import tensorflow as tf

    from training.export import read_contract

    contract = read_contract(folder)
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a readable SavedModel: {error}") from None
    return contract, lambda pixels: np.asarray(loaded.serve(tf.constant(pixels))["probabilities"])
