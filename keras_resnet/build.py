"""An ``Architecture`` and options in, a functional ``keras.Model`` out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import layers

from keras_resnet.architectures import VARIANTS, Architecture, Variant
from keras_resnet.blocks import (
    BATCH_NORM_MOMENTUM,
    BLOCKS,
    Place,
    Style,
    cifar_stem,
    deep_stem,
    imagenet_stem,
    norm,
    stem_pool,
    stem_pool_conv,
)
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract, default_contract, one_of

MIN_SIZE = 32


@dataclass(frozen=True)
class Options:
    """The choices that a constructor offers beyond keras.applications' arguments.

    The constructors document them.
    """

    shortcut: Literal["A", "B", "none"] = "B"
    output_stride: int | None = None
    antialias: bool = False
    stochastic_depth: float = 0.0
    dropout_rate: float = 0.0
    zero_init_residual: bool = False
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    batch_norm_epsilon: float | None = None
    data_format: str = "channels_last"
    include_preprocessing: bool = False
    contract: Contract | None = None


def build(
    architecture: Architecture,
    inputs: Any,
    *,
    include_top: bool,
    pooling: str | None,
    classes: int | None,
    classifier_activation: str | Callable | None,
    name: str | None,
    options: Options,
) -> ImageClassifier:
    """Builds the graph on ``make_input``'s tensor; the constructors document the arguments."""
    classes = architecture.classes if classes is None else classes
    style = _style(architecture, options)
    _check(pooling, classes, options)
    _check_output_stride(architecture, options.output_stride)
    contract = _contract(architecture, inputs, style, classes if include_top else None, options)

    x = inputs
    if options.include_preprocessing:
        x = normalize(x, contract, style.data_format)
    x = _body(x, architecture, style, options)
    x = _head(x, include_top, pooling, classes, classifier_activation, style, options)

    sources = keras.utils.get_source_inputs(inputs)
    model = ImageClassifier(sources[0] if len(sources) == 1 else sources, x, name=name)
    model.contract = contract
    return model


def places(
    architecture: Architecture, output_stride: int | None = None, stochastic_depth: float = 0.0
) -> Iterator[tuple[int, Place]]:
    """The width and the place of each block, from the first to the last.

    Once the network has shrunk its input by ``output_stride``, every further stride becomes
    dilation. Blocks are dropped the more often the deeper they stand, from never to
    ``stochastic_depth`` (Huang et al. 2016, arXiv:1603.09382, equation 4).
    """
    last = sum(architecture.depths) - 1
    shrunk, dilation = _stem_stride(architecture), 1
    for i, (name, width, stride) in enumerate(_natural_places(architecture)):
        before = dilation
        if output_stride is not None and shrunk * stride > output_stride:
            dilation, stride = dilation * stride, 1
        shrunk *= stride
        drop_rate = stochastic_depth * i / max(last, 1)
        yield width, Place(name, stride, (before, dilation), drop_rate)


def _natural_places(architecture: Architecture) -> Iterator[tuple[str, int, int]]:
    # The v2 networks of keras.applications, as TensorFlow's before them, shrink in the last
    # block of a stage; all others shrink in the first block of the next.
    early = VARIANTS[architecture.variant].preactivation and architecture.family == "imagenet"
    stages = len(architecture.depths)
    for stage, (depth, width) in enumerate(zip(architecture.depths, architecture.widths), start=1):
        for number in range(1, depth + 1):
            shrinks = (number == depth and stage < stages) if early else (number == 1 and stage > 1)
            yield f"stage{stage}_block{number}", width, 2 if shrinks else 1


def _stem_stride(architecture: Architecture) -> int:
    return 4 if architecture.family == "imagenet" else 1


def _body(x: Any, architecture: Architecture, style: Style, options: Options) -> Any:
    variant = VARIANTS[architecture.variant]
    x = _stem(x, architecture, variant, style)
    block = BLOCKS[architecture.block, variant.preactivation]
    for width, place in places(architecture, options.output_stride, options.stochastic_depth):
        x = block(x, width, place, style)
    if variant.preactivation:
        x = layers.ReLU(name="post_relu")(norm(x, style, "post_norm"))
    return x


def _stem(x: Any, architecture: Architecture, variant: Variant, style: Style) -> Any:
    activate = not variant.preactivation
    if architecture.family != "imagenet":
        return cifar_stem(x, architecture.stem_filters, style, activate)
    if variant.deep_stem:
        x = deep_stem(x, variant.deep_stem, style)
    else:
        x = imagenet_stem(x, architecture.stem_filters, style, activate)
    return stem_pool_conv(x, style) if architecture.convolved_pool else stem_pool(x, style)


def _head(
    x: Any,
    include_top: bool,
    pooling: str | None,
    classes: int,
    activation: str | Callable | None,
    style: Style,
    options: Options,
) -> Any:
    if include_top or pooling == "avg":
        x = layers.GlobalAveragePooling2D(data_format=style.data_format, name="pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(data_format=style.data_format, name="pool")(x)
    if include_top:
        if options.dropout_rate:
            x = layers.Dropout(options.dropout_rate, name="dropout")(x)
        # Softmax in half precision loses small probabilities, whatever the policy.
        head = layers.Dense(classes, activation=activation, dtype="float32", name="predictions")
        x = head(x)
    return x


def normalize(x: Any, contract: Contract, data_format: str = "channels_last") -> Any:
    """Raw RGB pixels 0–255 to what the network was trained on, as a layer of the graph."""
    scale: list = [1 / std for std in contract.std]
    offset: list = [-mean / std for mean, std in zip(contract.mean, contract.std)]
    if data_format == "channels_first":
        scale, offset = ([[[value]] for value in values] for values in (scale, offset))
    # Raw pixels are exact in float32; in bfloat16 they are not.
    return layers.Rescaling(scale, offset, dtype="float32", name="normalize")(x)


def _style(architecture: Architecture, options: Options) -> Style:
    variant = VARIANTS[architecture.variant]
    epsilon = options.batch_norm_epsilon
    return Style(
        shortcut=options.shortcut,
        shortcut_norm=architecture.shortcut_norm,
        pooled_shortcut=variant.pooled_shortcut,
        stride_on=variant.stride_on,
        groups=architecture.groups,
        width_per_group=architecture.width_per_group,
        se_ratio=architecture.se_ratio,
        conv_bias=architecture.conv_bias,
        bare_conv_bias=architecture.conv_bias or architecture.family == "imagenet",
        padding=architecture.padding,
        antialias=options.antialias,
        zero_init_residual=options.zero_init_residual,
        norm=options.norm,
        batch_norm_momentum=options.batch_norm_momentum,
        batch_norm_epsilon=architecture.batch_norm_epsilon if epsilon is None else epsilon,
        data_format=options.data_format,  # type: ignore[arg-type]
    )


def _contract(
    architecture: Architecture, inputs: Any, style: Style, classes: int | None, options: Options
) -> Contract:
    height, width, channels = input_size(inputs, style.data_format)
    contract = options.contract or default_contract(architecture)
    inside = options.include_preprocessing
    contract = contract.replace(
        height=height,
        width=width,
        channels=channels,
        normalization="inside" if inside else "outside",
        order="rgb" if inside or channels != 3 else contract.order,
    )
    if classes is not None and contract.labels and len(contract.labels) != classes:
        raise ValueError(
            f"The contract names {len(contract.labels)} labels for {classes} classes. "
            "Pass one label a class, or none."
        )
    return contract


def _check(pooling: str | None, classes: int, options: Options) -> None:
    one_of("pooling", pooling, (None, "avg", "max"))
    one_of("shortcut", options.shortcut, ("A", "B", "none"))
    one_of("norm", options.norm, ("batch", "sync_batch", "group"))
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be an integer of at least 1. Received: classes={classes!r}")
    for argument in ("batch_norm_momentum", "stochastic_depth", "dropout_rate"):
        value = getattr(options, argument)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(
                f"{argument} must be at least 0 and below 1. Received: {argument}={value!r}"
            )
    epsilon = options.batch_norm_epsilon
    if epsilon is not None and (not isinstance(epsilon, (int, float)) or not epsilon > 0):
        raise ValueError(
            "batch_norm_epsilon must be above 0, or None for the architecture's own. "
            f"Received: batch_norm_epsilon={epsilon!r}"
        )
    if options.shortcut == "none":
        for argument in ("stochastic_depth", "zero_init_residual"):
            if getattr(options, argument):
                raise ValueError(
                    f"{argument} needs shortcuts: without them nothing would reach the output. "
                    f"Received: shortcut='none', {argument}={getattr(options, argument)!r}"
                )
    if options.contract is not None and not isinstance(options.contract, Contract):
        raise ValueError(
            "contract must be a keras_resnet.Contract or None. "
            f"Received: contract={options.contract!r}"
        )


def _check_output_stride(architecture: Architecture, output_stride: int | None) -> None:
    first = _stem_stride(architecture)
    allowed = tuple(first * 2**i for i in range(len(architecture.depths)))
    if output_stride is not None and output_stride not in allowed:
        raise ValueError(
            f"output_stride of {architecture.name} must be one of "
            f"{', '.join(map(str, allowed))}, or None. Received: output_stride={output_stride!r}"
        )


def checked_data_format(data_format: str | None) -> str:
    """The format of images, Keras's own setting by default.

    Raises:
        ValueError: It is unknown, or cannot be run here.
    """
    one_of("data_format", data_format, (None, "channels_last", "channels_first"))
    data_format = data_format or keras.config.image_data_format()
    first_on_tensorflow = (data_format, keras.backend.backend()) == ("channels_first", "tensorflow")
    # Keras has imported TensorFlow where it is the backend; this package never does.
    if first_on_tensorflow and not sys.modules["tensorflow"].config.list_physical_devices("GPU"):
        raise ValueError(
            "TensorFlow convolves channels_first only on a GPU, and there is none. Use "
            "data_format='channels_last', which is also what TFLite takes. "
            "Received: data_format='channels_first'"
        )
    return data_format


def input_size(inputs: Any, data_format: str) -> tuple[Any, Any, Any]:
    """Height, width and channels of a tensor."""
    _, height, width, channels = _channels_last(tuple(inputs.shape), data_format)
    return height, width, channels


def _channels_last(shape: tuple[Any, ...], data_format: str) -> tuple[Any, ...]:
    """``(batch, height, width, channels)`` or ``(height, width, channels)``, of either format."""
    if data_format == "channels_last":
        return shape
    *batch, channels, height, width = shape
    return (*batch, height, width, channels)


def make_input(
    architecture: Architecture,
    input_tensor: Any,
    input_shape: tuple[int | None, ...] | None,
    data_format: str,
) -> Any:
    """The symbolic tensor that a network is built on; checks what is given."""
    if input_tensor is None:
        if input_shape is None:
            height, width, channels = architecture.input_shape
            first = data_format == "channels_first"
            input_shape = (channels, height, width) if first else (height, width, channels)
        return keras.Input(_checked_shape(input_shape, data_format), name="image")
    if not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            "input_tensor must be a symbolic Keras tensor, such as keras.Input((224, 224, 3)). "
            f"Received: {type(input_tensor).__name__}"
        )
    shape = _checked_shape(tuple(input_tensor.shape[1:]), data_format)
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            "input_shape and input_tensor must agree; pass one of them. "
            f"Received: input_shape={tuple(input_shape)}, input_tensor of shape {shape}"
        )
    return input_tensor


def _checked_shape(shape: tuple[int | None, ...], data_format: str) -> tuple[int | None, ...]:
    received = f"Received: input_shape={shape!r}"
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(
            f"input_shape must be (height, width, channels), such as (224, 224, 3). {received}"
        )
    height, width, channels = _channels_last(tuple(shape), data_format)
    for size in (height, width):
        if size is not None and (not isinstance(size, int) or size < MIN_SIZE):
            raise ValueError(
                f"Height and width must be integers of at least {MIN_SIZE}, or None for any. "
                f"{received}"
            )
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(f"The number of channels must be an integer of at least 1. {received}")
    return tuple(shape)
