"""The model class: a functional ``keras.Model`` that carries its contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import keras

from keras_resnet.contract import Contract
from keras_resnet.layers import PACKAGE
from keras_resnet.weights.report import LoadReport

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


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Lets Keras walk the deepest of our graphs."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
