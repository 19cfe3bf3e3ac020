"""An ``Architecture`` and options in, a functional ``keras.Model`` out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import layers

from keras_resnet.architectures import Architecture
from keras_resnet.blocks import BATCH_NORM_MOMENTUM, BLOCKS, STEMS, Style
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract, one_of

MIN_SIZE = 32


@dataclass(frozen=True)
class Options:
    """The choices that a constructor offers beyond keras.applications' arguments.

    Attributes:
        variant: ``"v1.5"`` strides on the 3×3 of a bottleneck block, ``"v1"`` on the first
            1×1. Networks of basic blocks are the same in both.
        shortcut: ``"B"`` projects where shapes differ, ``"A"`` subsamples and zero-pads.
        zero_init_residual: Whether each block starts as the identity.
        batch_norm_momentum: Keras's momentum, 1 − PyTorch's.
        batch_norm_epsilon: ``None`` for the architecture's own.
        include_preprocessing: Whether the graph takes raw pixels 0–255 and normalizes them.
        contract: What the model expects and answers; size, channels and normalization are
            filled in from the other arguments.
    """

    variant: Literal["v1", "v1.5"] = "v1.5"
    shortcut: Literal["A", "B"] = "B"
    zero_init_residual: bool = False
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    batch_norm_epsilon: float | None = None
    include_preprocessing: bool = False
    contract: Contract | None = None


def build(
    architecture: Architecture,
    *,
    include_top: bool,
    input_tensor: Any,
    input_shape: tuple[int | None, ...] | None,
    pooling: str | None,
    classes: int | None,
    classifier_activation: str | Callable | None,
    name: str | None,
    options: Options,
) -> ImageClassifier:
    """Builds the graph. ``keras_resnet.create_model`` documents the arguments."""
    classes = architecture.classes if classes is None else classes
    _check(pooling, classes, options)
    inputs = _input(architecture, input_tensor, input_shape)
    contract = _contract(inputs.shape[1:], classes if include_top else None, options)

    x = normalize(inputs, contract) if options.include_preprocessing else inputs
    x = _body(x, architecture, _style(architecture, options))
    x = _head(x, include_top, pooling, classes, classifier_activation)

    sources = keras.utils.get_source_inputs(inputs)
    model = ImageClassifier(sources[0] if len(sources) == 1 else sources, x, name=name)
    model.contract = contract
    return model


def _body(x: Any, architecture: Architecture, style: Style) -> Any:
    x = STEMS[architecture.family](x, architecture.widths[0], style)
    block = BLOCKS[architecture.block]
    for stage, (depth, width) in enumerate(zip(architecture.depths, architecture.widths), start=1):
        for i in range(1, depth + 1):
            stride = 2 if i == 1 and stage > 1 else 1
            x = block(x, width, stride, style=style, name=f"stage{stage}_block{i}")
    return x


def _head(
    x: Any,
    include_top: bool,
    pooling: str | None,
    classes: int,
    activation: str | Callable | None,
) -> Any:
    if include_top or pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="pool")(x)
    if include_top:
        # Softmax in half precision loses small probabilities, whatever the policy.
        head = layers.Dense(classes, activation=activation, dtype="float32", name="predictions")
        x = head(x)
    return x


def normalize(x: Any, contract: Contract) -> Any:
    """Raw pixels 0–255 to what the network was trained on, as a layer of the graph."""
    scale = [1 / std for std in contract.std]
    offset = [-mean / std for mean, std in zip(contract.mean, contract.std)]
    # Raw pixels are exact in float32; in bfloat16 they are not.
    return layers.Rescaling(scale, offset, dtype="float32", name="normalize")(x)


def _style(architecture: Architecture, options: Options) -> Style:
    epsilon = options.batch_norm_epsilon
    return Style(
        shortcut=options.shortcut,
        shortcut_norm=architecture.shortcut_norm,
        stride_on="1x1" if options.variant == "v1" else "3x3",
        conv_bias=architecture.conv_bias,
        padding=architecture.padding,
        zero_init_residual=options.zero_init_residual,
        batch_norm_momentum=options.batch_norm_momentum,
        batch_norm_epsilon=architecture.batch_norm_epsilon if epsilon is None else epsilon,
    )


def _contract(shape: tuple[int | None, ...], classes: int | None, options: Options) -> Contract:
    height, width, channels = shape
    contract = (options.contract or Contract(None, None)).replace(
        height=height,
        width=width,
        channels=channels,
        normalization="inside" if options.include_preprocessing else "outside",
    )
    if classes is not None and contract.labels and len(contract.labels) != classes:
        raise ValueError(
            f"The contract names {len(contract.labels)} labels for {classes} classes. "
            "Pass one label a class, or none."
        )
    return contract


def _check(pooling: str | None, classes: int, options: Options) -> None:
    one_of("pooling", pooling, (None, "avg", "max"))
    one_of("variant", options.variant, ("v1", "v1.5"))
    one_of("shortcut", options.shortcut, ("A", "B"))
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be an integer of at least 1. Received: classes={classes!r}")
    momentum, epsilon = options.batch_norm_momentum, options.batch_norm_epsilon
    if not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
        raise ValueError(
            "batch_norm_momentum must be at least 0 and below 1. "
            f"Received: batch_norm_momentum={momentum!r}"
        )
    if epsilon is not None and (not isinstance(epsilon, (int, float)) or not epsilon > 0):
        raise ValueError(
            "batch_norm_epsilon must be above 0, or None for the architecture's own. "
            f"Received: batch_norm_epsilon={epsilon!r}"
        )
    if options.contract is not None and not isinstance(options.contract, Contract):
        raise ValueError(
            "contract must be a keras_resnet.Contract or None. "
            f"Received: contract={options.contract!r}"
        )


def _input(
    architecture: Architecture, input_tensor: Any, input_shape: tuple[int | None, ...] | None
) -> Any:
    if input_tensor is None:
        shape = _checked_shape(architecture.input_shape if input_shape is None else input_shape)
        return keras.Input(shape, name="image")
    if not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            "input_tensor must be a symbolic Keras tensor, such as keras.Input((224, 224, 3)). "
            f"Received: {type(input_tensor).__name__}"
        )
    shape = _checked_shape(tuple(input_tensor.shape[1:]))
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            "input_shape and input_tensor must agree; pass one of them. "
            f"Received: input_shape={tuple(input_shape)}, input_tensor of shape {shape}"
        )
    return input_tensor


def _checked_shape(shape: tuple[int | None, ...]) -> tuple[int | None, int | None, int]:
    received = f"Received: input_shape={shape!r}"
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(
            f"input_shape must be (height, width, channels), such as (224, 224, 3). {received}"
        )
    for size in shape[:2]:
        if size is not None and (not isinstance(size, int) or size < MIN_SIZE):
            raise ValueError(
                f"Height and width must be integers of at least {MIN_SIZE}, or None for any. "
                f"{received}"
            )
    height, width, channels = shape
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(f"The number of channels must be an integer of at least 1. {received}")
    return height, width, channels
