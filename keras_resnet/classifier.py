"""The model class: a functional ``keras.Model`` that carries its contract."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras

from keras_resnet.contract import Contract
from keras_resnet.layers import PACKAGE
from keras_resnet.weights.formats.archive import KERAS_WEIGHTS, check_archive
from keras_resnet.weights.formats.limits import reason
from keras_resnet.weights.formats.sandbox import read_hdf5_sandboxed

if TYPE_CHECKING:
    from keras_resnet.weights.load import LoadReport

# Keras walks a graph by recursion, a few calls a layer: ResNet1202 needs about 5,000 of
# them where Python allows 1,000. Frames of Python functions take no C stack.
RECURSION_LIMIT = 20_000


class ImageModel(keras.Model):
    """A functional model with a ``contract`` that is saved and loaded with it.

    ``load_report`` tells what ``weights=`` put into it; it is not saved.

    Everything else is ``keras.Model``: it is built as ``ImageModel(inputs, outputs)``,
    and ``save`` and ``load_model`` work as ever. ``keras.models.clone_model`` knows nothing of
    the contract: use ``copy.deepcopy(model)``, or set the clone's.
    """

    contract: Contract = Contract(None, None)
    load_report: LoadReport | None = None

    # The parameters of Keras's own functional models: by their names it recognizes this as one.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            [inputs] = inputs  # or Keras warns wherever the model is given the bare images
        with deep_recursion():
            super().__init__(inputs, outputs, name=name, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "contract": self.contract.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        contract = config.pop("contract")
        model = super().from_config(config, custom_objects=custom_objects)
        model.contract = Contract.from_dict(contract)
        return model


@keras.saving.register_keras_serializable(package=PACKAGE)
class ImageClassifier(ImageModel):
    """An ``ImageModel`` that tells classes apart: output ``(batch, classes)``."""


def load_model(path: str | os.PathLike[str]) -> ImageClassifier:
    """Reads a ``.keras`` file that holds a model with a contract. No code in it is run.

    Raises:
        ValueError: The file is missing, damaged, hostile, or holds a model without a contract.
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
        raise ValueError(f"{path} is not a readable .keras file: {reason(error)}") from error
    if not isinstance(model, ImageClassifier):
        raise ValueError(
            f"{path} holds a {type(model).__name__} without a contract. Build the model with "
            "keras_resnet, or wrap it: ImageClassifier(model.inputs, model.outputs)."
        )
    return model


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Lets Keras walk the deepest of our graphs."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
