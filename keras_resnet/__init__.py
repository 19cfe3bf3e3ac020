"""Residual networks for Keras, from images to a phone."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# Importing Keras takes seconds. The one program that must answer before that is the
# command itself: `keras-resnet --help` imports keras_resnet.cli, and that this package.
_PROGRAM = Path(getattr(sys, "argv", [""])[0] or "").name

if _PROGRAM not in ("keras-resnet", "keras-resnet.exe"):
    from keras_resnet import models
    from keras_resnet.classifier import ImageClassifier, load_model
    from keras_resnet.contract import Contract
    from keras_resnet.deployable import deployable
    from keras_resnet.fine_tuning import freeze
    from keras_resnet.models import *  # noqa: F403
    from keras_resnet.preprocessing import decode_predictions, load_image, preprocess_input
    from keras_resnet.pyramid import FeaturePyramid, features
    from keras_resnet.weights.load import LoadReport, load_weights
    from keras_resnet.weights.save import save_weights

    __all__ = [
        "Contract",
        "FeaturePyramid",
        "ImageClassifier",
        "LoadReport",
        "decode_predictions",
        "deployable",
        "features",
        "freeze",
        "load_image",
        "load_model",
        "load_weights",
        "preprocess_input",
        "save_weights",
        *models.__all__,
    ]
