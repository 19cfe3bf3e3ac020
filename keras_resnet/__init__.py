"""Residual networks for Keras, from images to a phone.

Public names are imported on first use (PEP 562): ``keras-resnet --help`` and the subprocesses
that read files import this package, and importing Keras takes seconds.
"""

import importlib
import importlib.abc
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
    "decide": "preprocessing",
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
    from keras_resnet.preprocessing import (
        decide,
        decode_predictions,
        load_image,
        preprocess_input,
    )
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


class _RegisterWithKeras(importlib.abc.MetaPathFinder):
    """Registers our layers and models when Keras is imported, for keras.saving.load_model."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: Any) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    importlib.import_module(f"{__name__}.classifier")


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _RegisterWithKeras())
