"""Loading of ``.keras`` files, which are checked before Keras reads them."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from keras_resnet.classifier import ImageClassifier
from keras_resnet.weights.formats.archive import KERAS_WEIGHTS, check_archive
from keras_resnet.weights.formats.limits import blames_the_file, reason
from keras_resnet.weights.formats.sandbox import read_hdf5_sandboxed


def load_model(path: str | os.PathLike[str]) -> ImageClassifier:
    """Loads a model with a contract from a ``.keras`` file. Code in the file is not executed.

    Raises:
        ValueError: The file is missing, damaged or hostile, or its model has no contract.
        OSError: The file may be good, but could not be read here, for lack of memory or room.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no model file {path}")
    try:
        check_archive(path)
        # Keras reads the weights in this process, where the HDF5 library could hang or crash.
        read_hdf5_sandboxed(path, KERAS_WEIGHTS)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises a dozen types for damaged files
        if not blames_the_file(error):
            raise OSError(f"{path} could not be read here: {reason(error)}") from error
        raise ValueError(f"{path} is not a readable .keras file: {reason(error)}") from error
    if not isinstance(model, ImageClassifier):
        raise ValueError(
            f"{path} holds a {type(model).__name__} without a contract. Build the model with "
            "keras_resnet, or wrap it: ImageClassifier(model.inputs, model.outputs)."
        )
    return model
