"""Functions from pixels to probabilities, for ``.keras`` files and SavedModels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_resnet.classifier import require_probabilities
from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.prediction import Predictor, predictor
from keras_resnet.saving import load_model
from keras_resnet.subprocess_call import is_of_machine


def keras_predictor(path: Path) -> tuple[Contract, Predictor]:
    """Opens a ``.keras`` file, on any Keras backend.

    Returns:
        Its contract, and a function from uint8 ``(images, height, width, channels)`` to
        probabilities ``(images, contract.outputs)``.

    Raises:
        ValueError: The file is not readable, or the model does not output probabilities.
    """
    model = load_model(path)
    require_probabilities(model)
    model = deployable(model)
    return model.contract, predictor(model)


def saved_model_predictor(folder: Path) -> tuple[Contract, Predictor]:
    """Opens a folder that ``export_saved_model`` wrote; returns the same as ``keras_predictor``.

    Raises:
        ValueError: The folder is not such an export, or TensorFlow cannot read it.
        OSError: It could not be read here, for a reason that says nothing about the folder.
    """
    import tensorflow as tf

    from training.export import read_contract

    contract = read_contract(folder)
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        if is_of_machine(error) or isinstance(error, tf.errors.ResourceExhaustedError):
            raise OSError(f"{folder} could not be read here: {reason}") from error
        raise ValueError(f"{folder} is not a readable SavedModel: {reason}") from None

    def predict(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(loaded.serve(tf.constant(pixels))["probabilities"])

    return contract, predict
