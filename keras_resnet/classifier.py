"""The model classes: functional ``keras.Model``s with a contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import keras

from keras_resnet.block_config import BlockConfig
from keras_resnet.contract import Contract
from keras_resnet.layers import PACKAGE
from keras_resnet.weights.report import LoadReport

HEAD = "predictions"  # the name of the classifier in our networks
PROBABILITIES = ("softmax", "sigmoid")  # activations whose outputs are probabilities

# Keras traverses a graph recursively, with a few calls per layer: ResNet1202 needs about 5,000,
# and Python's default limit is 1,000. Frames of Python functions use no C stack.
RECURSION_LIMIT = 20_000


class ImageModel(keras.Model):
    """A functional model with a ``contract`` that is saved and loaded with it.

    Everything else is ``keras.Model``: it is built as ``ImageModel(inputs, outputs)``, and
    ``save`` and ``load_model`` work as usual. ``keras.models.clone_model`` copies none of the
    attributes below: use ``copy.deepcopy(model)``, or set them on the clone.

    Attributes:
        contract: Preprocessing of images, and the meaning of the outputs.
        block_config: The options of a network of this package, saved with the model; ``None``
            for any other graph.
        load_report: What ``weights=`` loaded; not saved.
    """

    contract: Contract = Contract(None, None)
    block_config: BlockConfig | None = None
    load_report: LoadReport | None = None

    # Keras recognizes a functional model by the names of these parameters.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            [inputs] = inputs  # or Keras warns when it is called with a tensor, not a list
        with deep_recursion():
            super().__init__(inputs, outputs, name=name, **kwargs)

    def get_config(self) -> dict[str, Any]:
        own: dict[str, Any] = {"contract": self.contract.to_dict()}
        if self.block_config:
            own["block_config"] = self.block_config.to_dict()
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        contract = Contract.from_dict(config.pop("contract"))
        chosen = config.pop("block_config", None)
        block_config = None if chosen is None else BlockConfig.from_dict(chosen)
        model = super().from_config(config, custom_objects=custom_objects)
        model.contract, model.block_config = contract, block_config
        model.check_contract()
        return model

    def check_contract(self) -> None:
        """Raises ValueError if the contract does not fit this graph."""
        contract, first = self.contract, self.block_config and self.block_config.data_format
        size = (contract.height, contract.width, contract.channels)
        shape = (size[2], *size[:2]) if first == "channels_first" else size
        graph = tuple(self.inputs[0].shape[1:]) if len(self.inputs) == 1 else shape
        if graph != shape and size != (None, None, contract.channels):
            raise ValueError(f"the contract is about images {shape}, and the graph takes {graph}")


@keras.saving.register_keras_serializable(package=PACKAGE)
class ImageClassifier(ImageModel):
    """An ``ImageModel`` that classifies: output ``(batch, classes)``."""

    def check_contract(self) -> None:
        super().check_contract()
        labels, outputs = self.contract.outputs, self.output_shape[-1]
        headless = self.block_config and all(layer.name != HEAD for layer in self.layers)
        if labels and len(self.output_shape) == 2 and labels != outputs and not headless:
            raise ValueError(f"the contract names {labels} labels for {outputs} outputs")


def head_activation(model: keras.Model) -> str:
    """What a graph ends in: ``"softmax"``, ``"sigmoid"``, ``"linear"`` (logits) or another name.

    The name of an activation of ``keras.activations``, or else of the last layer or operation, in
    lower case; ``"features"`` for a network of this package without its classifier.
    """
    own = getattr(model, "block_config", None)
    if own and all(layer.name != HEAD for layer in model.layers):
        return "features"
    history = model.outputs[0]._keras_history
    operation = history.operation
    if isinstance(operation, keras.Model):  # a whole network as a layer, as deployable builds it
        return head_activation(operation)
    activation = getattr(operation, "activation", None)
    return (getattr(activation, "__name__", "") or type(operation).__name__).lower()


def require_probabilities(model: ImageClassifier) -> None:
    """Raises ValueError if the outputs of a model cannot be read as probabilities by its contract.

    Softmax and sigmoid are. Any other activation of Keras is refused, above all none at all
    (logits), and so is a network without a classifier. A last layer that Keras does not know as an
    activation (an average of two softmaxes, a layer of the user's own) is trusted.
    """
    activation, task = head_activation(model), model.contract.task
    if activation == "features" or len(model.output_shape) != 2:
        raise ValueError(
            f"{model.name} has no classifier: its output {model.output_shape} is features, not "
            "probabilities. Build it with include_top=True"
        )
    known = hasattr(keras.activations, activation)
    if known and activation not in PROBABILITIES:
        logits = "logits (activation None)" if activation == "linear" else activation
        needed = "softmax" if task == "single" else "sigmoid"
        raise ValueError(
            f"{model.name} outputs {logits}, which are not probabilities. Build it with "
            f"classifier_activation={needed!r}; weights= takes its .keras file"
        )
    check_head(model.output_shape[-1], activation, task)


def check_head(outputs: int, activation: Any, task: str) -> None:
    """Raises ValueError if a number of outputs and an activation cannot mean what a task says."""
    if task != "single" and activation == "softmax":
        raise ValueError(
            f"task={task!r} needs a sigmoid for each output. Received: activation 'softmax'. "
            "Build the network with classifier_activation='sigmoid'"
        )
    if outputs == 1 and task == "single":
        raise ValueError(
            "One output chooses among no classes (softmax makes it 1.0 for every image). "
            f"Received: classes=1, activation {activation!r}, task='single'. For two classes build "
            "the network with classes=1, classifier_activation='sigmoid' and a contract with "
            "task='binary', or with classes=2"
        )


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Raises the recursion limit, so that Keras can traverse the deepest networks."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
