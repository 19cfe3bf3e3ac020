"""The constructors that people call: ``ResNet50()`` and its kin."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, Literal

from keras_resnet.architectures import ARCHITECTURES, Architecture, find
from keras_resnet.blocks import BATCH_NORM_MOMENTUM
from keras_resnet.build import Options, build
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract


class Constructor:
    """Builds one named network; ``keras_resnet.ResNet50`` is one of these."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.__name__ = self.__qualname__ = architecture.name
        self.__doc__ = f"{architecture.name} ({architecture.paper}).\n\n{_ARGUMENTS}"

    def __repr__(self) -> str:
        return f"<keras_resnet.{self.architecture.name}>"

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: Literal["avg", "max"] | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable | None = "softmax",
        name: str | None = None,
        *,
        variant: Literal["v1", "v1.5"] = "v1.5",
        shortcut: Literal["A", "B"] = "B",
        zero_init_residual: bool = False,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
        batch_norm_epsilon: float | None = None,
        include_preprocessing: bool = False,
        contract: Contract | None = None,
    ) -> ImageClassifier:
        model = build(
            self.architecture,
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name or self.architecture.name.lower(),
            options=Options(
                variant=variant,
                shortcut=shortcut,
                zero_init_residual=zero_init_residual,
                batch_norm_momentum=batch_norm_momentum,
                batch_norm_epsilon=batch_norm_epsilon,
                include_preprocessing=include_preprocessing,
                contract=contract,
            ),
        )
        if weights is not None:
            _load(model, weights)
        return model


_ARGUMENTS = """\
Args:
    include_top: Whether the pooled, fully connected classifier ends the network.
    weights: ``None`` for random weights, or the path of a ``.weights.h5`` or ``.keras``
        file saved from the same network.
    input_tensor: A Keras tensor to build upon, instead of a new ``keras.Input``.
    input_shape: ``(height, width, channels)``; height and width at least 32 or ``None``
        for any; 1 to N channels. The architecture's own by default.
    pooling: Without the top: ``None`` gives ``(batch, h, w, channels)``; ``"avg"`` and
        ``"max"`` give ``(batch, channels)``.
    classes: Number of classes. The architecture's own by default.
    classifier_activation: ``"softmax"``, or ``None`` for logits.
    name: Name of the model.
    variant: ``"v1.5"`` strides on the 3×3 convolution of a bottleneck block, ``"v1"`` on
        the first 1×1. Networks of basic blocks are the same in both.
    shortcut: ``"B"`` projects where shapes differ; ``"A"`` subsamples and pads with zero
        channels, as the paper does on CIFAR-10.
    zero_init_residual: Whether the last gamma of each block starts at zero, so that each
        block starts as the identity followed by its ReLU.
    batch_norm_momentum: Keras's momentum, 1 − PyTorch's.
    batch_norm_epsilon: ``None`` for the architecture's own.
    include_preprocessing: Whether the graph takes raw pixels 0–255 and normalizes them
        itself.
    contract: Normalization, labels and resize rule that travel with the model.

Returns:
    A functional ``keras.Model``. The classifier computes in float32 under any policy.

Raises:
    ValueError: An argument is out of range; says what was received and what would do.
"""

ResNet8 = Constructor(ARCHITECTURES["ResNet8"])
ResNet18 = Constructor(ARCHITECTURES["ResNet18"])
ResNet20 = Constructor(ARCHITECTURES["ResNet20"])
ResNet32 = Constructor(ARCHITECTURES["ResNet32"])
ResNet34 = Constructor(ARCHITECTURES["ResNet34"])
ResNet44 = Constructor(ARCHITECTURES["ResNet44"])
ResNet50 = Constructor(ARCHITECTURES["ResNet50"])
ResNet56 = Constructor(ARCHITECTURES["ResNet56"])
ResNet101 = Constructor(ARCHITECTURES["ResNet101"])
ResNet110 = Constructor(ARCHITECTURES["ResNet110"])
ResNet152 = Constructor(ARCHITECTURES["ResNet152"])
ResNet1202 = Constructor(ARCHITECTURES["ResNet1202"])


def list_models() -> list[str]:
    """Names of all networks, for ``create_model``."""
    return list(ARCHITECTURES)


def create_model(name: str, /, **kwargs: Any) -> ImageClassifier:
    """Builds a network by name: ``create_model("resnet50", classes=10)``.

    Args:
        name: One of ``list_models()``; upper and lower case do not matter.
        **kwargs: The arguments of the constructor of that name.

    Raises:
        ValueError: There is no such network; the message suggests the nearest.
    """
    return Constructor(find(name))(**kwargs)


def _load(model: ImageClassifier, weights: str | os.PathLike[str]) -> None:
    path = os.fspath(weights)
    if not path.endswith((".weights.h5", ".keras")):
        raise ValueError(
            "weights must be None or the path of a .weights.h5 or .keras file. "
            f"Received: weights={path!r}"
        )
    if not os.path.isfile(path):
        raise ValueError(f"There is no weights file {path!r}")
    try:
        with warnings.catch_warnings():  # Keras warns of what it then raises an error for
            warnings.simplefilter("ignore")
            model.load_weights(path)
    except Exception as error:  # h5py, zipfile and Keras raise a dozen types
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path!r} does not hold the weights of this network. Build the one that was saved, "
            f"with the same options and classes. Keras says: {reason}"
        ) from error
