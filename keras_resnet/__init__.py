"""Residual networks for Keras, from images to a phone.

Public names are imported on first use (PEP 562): ``keras-resnet --help`` and the subprocesses
that read files import this package, and importing Keras takes seconds.
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from keras_resnet.architectures import ARCHITECTURES

__version__ = "0.1.0"

# The module of each public name.
_MODULES = {
    "Contract": "contract",
    "FeaturePyramid": "pyramid",
    "ImageClassifier": "classifier",
    "LoadReport": "weights.report",
    "decode_predictions": "preprocessing",
    "deployable": "deployment",
    "features": "pyramid",
    "freeze": "fine_tuning",
    "load_image": "preprocessing",
    "load_model": "saving",
    "load_weights": "weights.load",
    "preprocess_input": "preprocessing",
    "save_weights": "weights.save",
    **dict.fromkeys([*ARCHITECTURES, "create_model", "list_models"], "models"),
}
__all__ = sorted(_MODULES)

if TYPE_CHECKING:  # for editors and type checkers
    from keras_resnet.classifier import ImageClassifier
    from keras_resnet.contract import Contract
    from keras_resnet.deployment import deployable
    from keras_resnet.fine_tuning import freeze
    from keras_resnet.models import *  # noqa: F403
    from keras_resnet.preprocessing import decode_predictions, load_image, preprocess_input
    from keras_resnet.pyramid import FeaturePyramid, features
    from keras_resnet.saving import load_model
    from keras_resnet.weights.load import load_weights
    from keras_resnet.weights.report import LoadReport
    from keras_resnet.weights.save import save_weights


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "keras" in sys.modules:
    # Registers our layers and models, so that keras.saving.load_model finds them.
    importlib.import_module(f"{__name__}.classifier")
