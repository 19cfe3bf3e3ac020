"""Residual networks for Keras, from images to a phone."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# Importing Keras takes seconds. The one program that must answer before that is the
# command itself: `keras-resnet --help` imports keras_resnet.cli, and that this package.
_PROGRAM = Path(getattr(sys, "argv", [""])[0] or "").name

if _PROGRAM not in ("keras-resnet", "keras-resnet.exe"):
    from keras_resnet.classifier import ImageClassifier, load_model
    from keras_resnet.contract import Contract
    from keras_resnet.deployable import deployable
    from keras_resnet.models import (
        ResNet8,
        ResNet18,
        ResNet20,
        ResNet32,
        ResNet34,
        ResNet44,
        ResNet50,
        ResNet56,
        ResNet101,
        ResNet110,
        ResNet152,
        ResNet1202,
        create_model,
        list_models,
    )
    from keras_resnet.preprocessing import decode_predictions, load_image, preprocess_input

    __all__ = [
        "Contract",
        "ImageClassifier",
        "ResNet8",
        "ResNet18",
        "ResNet20",
        "ResNet32",
        "ResNet34",
        "ResNet44",
        "ResNet50",
        "ResNet56",
        "ResNet101",
        "ResNet110",
        "ResNet152",
        "ResNet1202",
        "create_model",
        "decode_predictions",
        "deployable",
        "list_models",
        "load_image",
        "load_model",
        "preprocess_input",
    ]
