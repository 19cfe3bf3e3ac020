"""Residual blocks, stems and heads: functions from tensor to tensor.

He et al. 2015 (arXiv:1512.03385) unless another source is named. Every shortcut ends in
``layers.Add``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from keras import initializers, layers

from keras_resnet.layers import BatchNormalization, BlurPool, PadChannels, StochasticDepth

Tensor = Any
Block = Callable[..., Tensor]

# A batch of 256 and torch's momentum of 0.1: the setting every published recipe assumes.
BATCH_NORM_MOMENTUM = 0.9
# Wu & He 2018, Group Normalization, arXiv:1803.08494, section 4.
NORM_GROUPS = 32


@dataclass(frozen=True)
class Style:
    """What all blocks of one network have in common.

    Attributes:
        shortcut: Where shapes differ, ``"B"`` projects by a 1×1 convolution and ``"A"``
            subsamples and pads with zero channels (section 3.3); ``"none"`` makes a plain
            network, the paper's control, without any shortcut.
        shortcut_norm: Whether a batch norm follows the projection.
        pooled_shortcut: Whether a projection that strides averages 2×2 pixels first (ResNet-D:
            He et al. 2018, arXiv:1812.01187, section 4.2).
        stride_on: Which convolution of a bottleneck block strides: ``"1x1"`` the first, as
            in the paper (v1), or ``"3x3"`` (v1.5), which throws no activations away.
        groups: Groups of the 3×3 convolution of a bottleneck block (ResNeXt: Xie et al. 2016,
            arXiv:1611.05431).
        width_per_group: Filters of each group where the block has 64.
        se_ratio: Inner channels of squeeze-and-excitation as a share of the block's; 0 for
            none.
        conv_bias: Whether convolutions carry a bias although a norm follows.
        bare_conv_bias: Whether convolutions carry a bias where no norm follows, as those of
            keras.applications' pre-activation networks do.
        padding: ``"symmetric"`` pads strided convolutions on both sides as PyTorch does;
            ``"same"`` as TensorFlow does.
        antialias: Whether strided convolutions and pools run at full resolution and a blur
            subsamples after them (Zhang 2019, arXiv:1904.11486; arranged as in timm).
        zero_init_residual: Whether the last gamma of each block starts at zero, or its last
            kernel where no norm follows, so that each block starts as the identity (Goyal et
            al. 2017, arXiv:1706.02677, section 5.1).
        norm: ``"batch"``, ``"sync_batch"`` (statistics over all devices) or ``"group"``.
        batch_norm_momentum: Keras's momentum, 1 − PyTorch's.
        batch_norm_epsilon: Added to the variance.
        data_format: ``"channels_last"`` or ``"channels_first"``.
    """

    shortcut: Literal["A", "B", "none"] = "B"
    shortcut_norm: bool = True
    pooled_shortcut: bool = False
    stride_on: Literal["1x1", "3x3"] = "3x3"
    groups: int = 1
    width_per_group: int = 64
    se_ratio: float = 0.0
    conv_bias: bool = False
    bare_conv_bias: bool = False
    padding: Literal["symmetric", "same"] = "symmetric"
    antialias: bool = False
    zero_init_residual: bool = False
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    batch_norm_epsilon: float = 1e-5
    data_format: Literal["channels_last", "channels_first"] = "channels_last"

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def inner(self, filters: int) -> int:
        """Filters of the 3×3 convolution of a bottleneck block."""
        return filters * self.width_per_group // 64 * self.groups


@dataclass(frozen=True)
class Place:
    """Where a block stands in its network.

    Attributes:
        name: Prefix of the layers' names.
        stride: By how much the block shrinks height and width.
        dilation: Of the convolution that would stride; and of the 3×3 convolutions after it
            in the same block. They differ in a block whose stride became dilation (Yu et al.
            2017, arXiv:1705.09914).
        drop_rate: Probability that the residual branch is dropped in training.
    """

    name: str = "block"
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    drop_rate: float = 0.0

    @property
    def transition(self) -> bool:
        """Whether the block shrinks its input, or would if that had not become dilation."""
        return self.stride > 1 or self.dilation[0] != self.dilation[1]


def basic_block(x: Tensor, filters: int, place: Place = Place(), style: Style = Style()) -> Tensor:
    """Two 3×3 convolutions beside a shortcut (figure 5, left).

    Args:
        x: ``(batch, height, width, channels)``.
        filters: Channels put out.
        place: Stride, dilation and name; the first convolution and the shortcut stride.
        style: What all blocks of the network have in common.

    Returns:
        ``(batch, ceil(height / stride), ceil(width / stride), filters)``.
    """
    name = place.name
    shortcut = _shortcut(x, filters, place, style)
    x = conv_norm_relu(x, filters, 3, style, name, 1, place, dilation=place.dilation[0])
    x = conv(x, filters, 3, style, f"{name}_conv2", dilation=place.dilation[1])
    x = norm(x, style, f"{name}_norm2", zero=style.zero_init_residual)
    return layers.ReLU(name=f"{name}_out")(_join(x, shortcut, place, style))


def bottleneck_block(
    x: Tensor, filters: int, place: Place = Place(), style: Style = Style()
) -> Tensor:
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (figure 5, right).

    Args:
        x: ``(batch, height, width, channels)``.
        filters: The width of the stage; the block puts out four times as many.
        place: Stride, dilation and name; ``style.stride_on`` says which convolution strides.
        style: What all blocks of the network have in common.

    Returns:
        ``(batch, ceil(height / stride), ceil(width / stride), 4 * filters)``.
    """
    name, inner = place.name, style.inner(filters)
    on_first = style.stride_on == "1x1"
    first, second = (place, None) if on_first else (None, place)
    dilation = place.dilation[1 if on_first else 0]
    shortcut = _shortcut(x, 4 * filters, place, style)
    x = conv_norm_relu(x, inner, 1, style, name, 1, first)
    x = conv_norm_relu(x, inner, 3, style, name, 2, second, dilation, style.groups)
    x = conv(x, 4 * filters, 1, style, f"{name}_conv3")
    x = norm(x, style, f"{name}_norm3", zero=style.zero_init_residual)
    return layers.ReLU(name=f"{name}_out")(_join(x, shortcut, place, style))


def preact_basic_block(
    x: Tensor, filters: int, place: Place = Place(), style: Style = Style()
) -> Tensor:
    """``basic_block`` with norm and ReLU before each convolution (He et al. 2016, figure 1b).

    Nothing comes after the addition, so that the shortcuts carry the input of the first block
    unchanged to the last.
    """
    name = place.name
    activated = norm_relu(x, style, name, 1)
    shortcut = _preact_shortcut(x, activated, filters, place, style)
    x = conv(
        activated, filters, 3, style, f"{name}_conv1", _own(place.stride, style), place.dilation[0]
    )
    x = norm_relu(x, style, name, 2)
    if place.transition:
        x = _blurred(x, place.stride, style, name)
    dilation, zero = place.dilation[1], style.zero_init_residual
    x = conv(x, filters, 3, style, f"{name}_conv2", 1, dilation, bare=True, zero=zero)
    return _join(x, shortcut, place, style)


def preact_bottleneck_block(
    x: Tensor, filters: int, place: Place = Place(), style: Style = Style()
) -> Tensor:
    """``bottleneck_block`` with norm and ReLU before each convolution (He et al. 2016)."""
    name, inner = place.name, style.inner(filters)
    activated = norm_relu(x, style, name, 1)
    shortcut = _preact_shortcut(x, activated, 4 * filters, place, style)
    x = conv(activated, inner, 1, style, f"{name}_conv1")
    x = norm_relu(x, style, name, 2)
    x = conv(
        x,
        inner,
        3,
        style,
        f"{name}_conv2",
        _own(place.stride, style),
        place.dilation[0],
        style.groups,
    )
    x = norm_relu(x, style, name, 3)
    if place.transition:
        x = _blurred(x, place.stride, style, name)
    zero = style.zero_init_residual
    x = conv(x, 4 * filters, 1, style, f"{name}_conv3", bare=True, zero=zero)
    return _join(x, shortcut, place, style)


# By kind of block, and whether norm and ReLU come before each convolution.
BLOCKS: dict[tuple[str, bool], Block] = {
    ("basic", False): basic_block,
    ("bottleneck", False): bottleneck_block,
    ("basic", True): preact_basic_block,
    ("bottleneck", True): preact_bottleneck_block,
}


def cifar_stem(x: Tensor, filters: int, style: Style, activate: bool = True) -> Tensor:
    """One 3×3 convolution that keeps the size (section 4.2)."""
    x = conv(x, filters, 3, style, "stem_conv", bare=not activate)
    return layers.ReLU(name="stem_relu")(norm(x, style, "stem_norm")) if activate else x


def imagenet_stem(x: Tensor, filters: int, style: Style, activate: bool = True) -> Tensor:
    """A 7×7 convolution of stride 2 (table 1); the first block of a v2 network activates."""
    x = conv(x, filters, 7, style, "stem_conv", 2, bare=not activate)
    return layers.ReLU(name="stem_relu")(norm(x, style, "stem_norm")) if activate else x


def deep_stem(x: Tensor, filters: int, style: Style) -> Tensor:
    """Three 3×3 convolutions, the first of stride 2 (He et al. 2018, section 4.2, ResNet-C)."""
    for i, (width, stride) in enumerate(((filters, 2), (filters, 1), (2 * filters, 1)), start=1):
        x = conv(x, width, 3, style, f"stem_conv{i}", stride)
        x = layers.ReLU(name=f"stem_relu{i}")(norm(x, style, f"stem_norm{i}"))
    return x


def stem_pool(x: Tensor, style: Style) -> Tensor:
    """3×3 max-pool of stride 2 (table 1)."""
    # After a ReLU, padding with zeros is the same as PyTorch's padding with −inf. v2 pools
    # before any ReLU, and pads with zeros as keras.applications does.
    x = layers.ZeroPadding2D(1, data_format=style.data_format, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, _own(2, style), data_format=style.data_format, name="stem_pool")(x)
    return _blurred(x, 2, style, "stem_pool")


def stem_pool_conv(x: Tensor, style: Style) -> Tensor:
    """3×3 convolution of stride 2 in place of the max-pool (Bello et al. 2021, section 5)."""
    x = conv(x, x.shape[style.channel_axis], 3, style, "stem_pool_conv", _own(2, style))
    x = _blurred(x, 2, style, "stem_pool")
    return layers.ReLU(name="stem_pool_relu")(norm(x, style, "stem_pool_norm"))


def conv(
    x: Tensor,
    filters: int,
    kernel_size: int,
    style: Style,
    name: str,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bare: bool = False,
    zero: bool = False,
) -> Tensor:
    """A convolution whose padding depends on the kernel alone, not on the input size.

    ``bare`` says that no norm follows, and ``zero`` starts the kernel at zero.
    """
    padding = "same"
    if stride > 1 and kernel_size > 1 and style.padding == "symmetric":
        pad = kernel_size // 2
        x = layers.ZeroPadding2D(pad, data_format=style.data_format, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        data_format=style.data_format,
        dilation_rate=dilation,
        groups=groups,
        use_bias=style.bare_conv_bias if bare else style.conv_bias,
        kernel_initializer="zeros" if zero else _he_normal(),
        name=name,
    )(x)


def norm(x: Tensor, style: Style, name: str, zero: bool = False) -> Tensor:
    """The normalization that the style asks for; ``zero`` starts gamma at zero instead of one."""
    gamma = "zeros" if zero else "ones"
    if style.norm == "group":
        channels = x.shape[style.channel_axis]
        return layers.GroupNormalization(
            math.gcd(NORM_GROUPS, channels),
            axis=style.channel_axis,
            epsilon=style.batch_norm_epsilon,
            gamma_initializer=gamma,
            name=name,
        )(x)
    return BatchNormalization(
        axis=style.channel_axis,
        momentum=style.batch_norm_momentum,
        epsilon=style.batch_norm_epsilon,
        gamma_initializer=gamma,
        synchronized=style.norm == "sync_batch",
        name=name,
    )(x)


def norm_relu(x: Tensor, style: Style, name: str, number: int) -> Tensor:
    """What comes before a convolution of a pre-activation block."""
    return layers.ReLU(name=f"{name}_relu{number}")(norm(x, style, f"{name}_norm{number}"))


def conv_norm_relu(
    x: Tensor,
    filters: int,
    kernel_size: int,
    style: Style,
    name: str,
    number: int,
    strides: Place | None = None,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution of a block and what comes after it; ``strides`` is the place if it does."""
    own = _own(strides.stride, style) if strides else 1
    x = conv(x, filters, kernel_size, style, f"{name}_conv{number}", own, dilation, groups)
    x = norm_relu(x, style, name, number)
    return _blurred(x, strides.stride, style, name) if strides and strides.transition else x


def squeeze_excite(x: Tensor, style: Style, name: str) -> Tensor:
    """Scales channels by what all pixels together say (Hu et al. 2017, section 3).

    The inner width is rounded as in timm, whose weights are the published ones.
    """
    axis = style.channel_axis
    channels = x.shape[axis]
    inner = max(8, int(channels * style.se_ratio + 4) // 8 * 8)
    scale = layers.GlobalAveragePooling2D(
        data_format=style.data_format, keepdims=True, name=f"{name}_se_pool"
    )(x)
    for width, activation, part in ((inner, "relu", "reduce"), (channels, "sigmoid", "expand")):
        scale = layers.Conv2D(
            width,
            1,
            activation=activation,
            data_format=style.data_format,
            kernel_initializer=_he_normal(),
            name=f"{name}_se_{part}",
        )(scale)
    return layers.Multiply(name=f"{name}_se_scale")([x, scale])


def _join(x: Tensor, shortcut: Tensor | None, place: Place, style: Style) -> Tensor:
    """The end of the residual branch, and its sum with the shortcut."""
    if style.se_ratio:
        x = squeeze_excite(x, style, place.name)
    if shortcut is None:
        return x
    if place.drop_rate:
        x = StochasticDepth(place.drop_rate, name=f"{place.name}_drop")(x)
    return layers.Add(name=f"{place.name}_add")([x, shortcut])


def _own(stride: int, style: Style) -> int:
    """The stride of the layer itself, where a blur may subsample in its stead."""
    return 1 if style.antialias else stride


def _blurred(x: Tensor, stride: int, style: Style, name: str) -> Tensor:
    if not style.antialias:
        return x
    return BlurPool(stride, data_format=style.data_format, name=f"{name}_blur")(x)


def _shortcut(x: Tensor, filters: int, place: Place, style: Style) -> Tensor | None:
    if style.shortcut == "none":
        return None
    channels = x.shape[style.channel_axis]
    if place.stride == 1 and channels == filters:
        return x
    if style.shortcut == "A":
        return _pad(_subsample(x, place, style), filters - channels, place, style)
    x, stride = _pooled(x, place, style)
    x = conv(x, filters, 1, style, f"{place.name}_shortcut_conv", stride)
    return norm(x, style, f"{place.name}_shortcut_norm") if style.shortcut_norm else x


def _preact_shortcut(
    x: Tensor, activated: Tensor, filters: int, place: Place, style: Style
) -> Tensor | None:
    """The input itself where it fits; otherwise made from the activated input, without norm."""
    if style.shortcut == "none":
        return None
    channels = x.shape[style.channel_axis]
    if channels == filters:
        return _subsample(x, place, style)
    if style.shortcut == "A":
        return _pad(_subsample(activated, place, style), filters - channels, place, style)
    activated, stride = _pooled(activated, place, style)
    return conv(activated, filters, 1, style, f"{place.name}_shortcut_conv", stride, bare=True)


def _pooled(x: Tensor, place: Place, style: Style) -> tuple[Tensor, int]:
    """The input of a projection and the stride that is left for it to take."""
    if not style.pooled_shortcut or not place.transition:
        return x, place.stride
    name, padding = f"{place.name}_shortcut_pool", "same"
    if place.stride == 1:
        # Where the stride became dilation, timm counts the padding of the last row and column.
        pad = ((0, 1), (0, 1))
        x = layers.ZeroPadding2D(pad, data_format=style.data_format, name=f"{name}_pad")(x)
        padding = "valid"
    # At the edge of an odd size, "same" averages the pixels that are there, as PyTorch's
    # ceil_mode without counting the padding does.
    pool = layers.AveragePooling2D(
        2, place.stride, padding=padding, data_format=style.data_format, name=name
    )
    return pool(x), 1


def _subsample(x: Tensor, place: Place, style: Style) -> Tensor:
    if place.stride == 1:
        return x
    # Pooling over one pixel takes every stride-th pixel.
    return layers.MaxPooling2D(
        1, place.stride, data_format=style.data_format, name=f"{place.name}_shortcut_subsample"
    )(x)


def _pad(x: Tensor, extra: int, place: Place, style: Style) -> Tensor:
    return PadChannels(
        extra // 2,
        extra - extra // 2,
        data_format=style.data_format,
        name=f"{place.name}_shortcut_pad",
    )(x)


def _he_normal() -> initializers.Initializer:
    # Fan-out, as PyTorch initializes ResNets (He et al. 2015, arXiv:1502.01852, section 2.2).
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
