"""Residual blocks, stems and heads: functions from tensor to tensor.

From He et al. 2015 (arXiv:1512.03385) unless another source is given. Every shortcut ends in
``layers.Add``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import initializers, layers

from keras_resnet.block_config import BlockConfig, BlockSpec
from keras_resnet.layers import BatchNormalization, BlurPool, PadChannels, StochasticDepth

Tensor = Any
Block = Callable[..., Tensor]

# Wu & He 2018, Group Normalization, arXiv:1803.08494, section 4.
NORM_GROUPS = 32


def basic_block(
    x: Tensor, filters: int, spec: BlockSpec = BlockSpec(), config: BlockConfig = BlockConfig()
) -> Tensor:
    """Two 3×3 convolutions beside a shortcut (figure 5, left).

    Args:
        x: ``(batch, height, width, channels)``.
        filters: Output channels.
        spec: Name, dilation and stride, which is that of the first convolution and the shortcut.
        config: The options of the network.

    Returns:
        ``(batch, ceil(height / stride), ceil(width / stride), filters)``.
    """
    name = spec.name
    shortcut = _shortcut(x, filters, spec, config)
    x = conv_norm_relu(x, filters, 3, config, name, 1, spec, dilation=spec.dilation[0])
    x = conv(x, filters, 3, config, f"{name}_conv2", dilation=spec.dilation[1])
    x = norm(x, config, f"{name}_norm2", zero=config.zero_init_residual)
    return layers.ReLU(name=f"{name}_out")(_join(x, shortcut, spec, config))


def bottleneck_block(
    x: Tensor, filters: int, spec: BlockSpec = BlockSpec(), config: BlockConfig = BlockConfig()
) -> Tensor:
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (figure 5, right).

    Args:
        x: ``(batch, height, width, channels)``.
        filters: The width of the stage; the block has four times as many output channels.
        spec: Name, dilation and stride; the variant decides which convolution has the stride.
        config: The options of the network.

    Returns:
        ``(batch, ceil(height / stride), ceil(width / stride), 4 * filters)``.
    """
    name, inner, groups = spec.name, config.inner(filters), config.architecture.groups
    on_first = config.variant.stride_on == "1x1"
    first, second = (spec, None) if on_first else (None, spec)
    dilation = spec.dilation[1 if on_first else 0]
    shortcut = _shortcut(x, 4 * filters, spec, config)
    x = conv_norm_relu(x, inner, 1, config, name, 1, first)
    x = conv_norm_relu(x, inner, 3, config, name, 2, second, dilation, groups)
    x = conv(x, 4 * filters, 1, config, f"{name}_conv3")
    x = norm(x, config, f"{name}_norm3", zero=config.zero_init_residual)
    return layers.ReLU(name=f"{name}_out")(_join(x, shortcut, spec, config))


def preact_basic_block(
    x: Tensor, filters: int, spec: BlockSpec = BlockSpec(), config: BlockConfig = BlockConfig()
) -> Tensor:
    """``basic_block`` with norm and ReLU before each convolution (He et al. 2016, figure 1b).

    No operation follows the addition, so that the identity shortcuts carry the input of the first
    block unchanged to the last.
    """
    name, (before, after) = spec.name, spec.dilation
    activated = norm_relu(x, config, name, 1)
    shortcut = _preact_shortcut(x, activated, filters, spec, config)
    stride = _layer_stride(spec.stride, config)
    x = conv(activated, filters, 3, config, f"{name}_conv1", stride, before)
    x = _blur_transition(norm_relu(x, config, name, 2), spec, config)
    zero = config.zero_init_residual
    x = conv(x, filters, 3, config, f"{name}_conv2", 1, after, norm_follows=False, zero=zero)
    return _join(x, shortcut, spec, config)


def preact_bottleneck_block(
    x: Tensor, filters: int, spec: BlockSpec = BlockSpec(), config: BlockConfig = BlockConfig()
) -> Tensor:
    """``bottleneck_block`` with norm and ReLU before each convolution (He et al. 2016)."""
    name, inner, groups = spec.name, config.inner(filters), config.architecture.groups
    activated = norm_relu(x, config, name, 1)
    shortcut = _preact_shortcut(x, activated, 4 * filters, spec, config)
    x = conv(activated, inner, 1, config, f"{name}_conv1")
    x = norm_relu(x, config, name, 2)
    stride = _layer_stride(spec.stride, config)
    x = conv(x, inner, 3, config, f"{name}_conv2", stride, spec.dilation[0], groups)
    x = _blur_transition(norm_relu(x, config, name, 3), spec, config)
    zero = config.zero_init_residual
    x = conv(x, 4 * filters, 1, config, f"{name}_conv3", norm_follows=False, zero=zero)
    return _join(x, shortcut, spec, config)


# The key is the kind of block, and whether norm and ReLU come before each convolution.
BLOCKS: dict[tuple[str, bool], Block] = {
    ("basic", False): basic_block,
    ("bottleneck", False): bottleneck_block,
    ("basic", True): preact_basic_block,
    ("bottleneck", True): preact_bottleneck_block,
}


def cifar_stem(x: Tensor, config: BlockConfig) -> Tensor:
    """One 3×3 convolution of stride 1 (section 4.2)."""
    return _plain_stem(x, 3, 1, config)


def imagenet_stem(x: Tensor, config: BlockConfig) -> Tensor:
    """A 7×7 convolution of stride 2 (table 1)."""
    return _plain_stem(x, 7, 2, config)


def _plain_stem(x: Tensor, kernel_size: int, stride: int, config: BlockConfig) -> Tensor:
    preact = config.variant.preactivation  # then the first block begins with norm and ReLU
    filters = config.architecture.stem_filters
    x = conv(x, filters, kernel_size, config, "stem_conv", stride, norm_follows=not preact)
    return x if preact else layers.ReLU(name="stem_relu")(norm(x, config, "stem_norm"))


def deep_stem(x: Tensor, config: BlockConfig) -> Tensor:
    """Three 3×3 convolutions, the first of stride 2 (He et al. 2018, section 4.2, ResNet-C)."""
    filters = config.variant.deep_stem
    for i, (width, stride) in enumerate(((filters, 2), (filters, 1), (2 * filters, 1)), start=1):
        x = conv(x, width, 3, config, f"stem_conv{i}", stride)
        x = layers.ReLU(name=f"stem_relu{i}")(norm(x, config, f"stem_norm{i}"))
    return x


def stem_pool(x: Tensor, config: BlockConfig) -> Tensor:
    """3×3 max-pool of stride 2 (table 1)."""
    # After a ReLU, padding with zeros is the same as PyTorch's padding with −inf. v2 pools
    # before any ReLU, and pads with zeros as keras.applications does.
    x = layers.ZeroPadding2D(1, data_format=config.data_format, name="stem_pool_pad")(x)
    stride = _layer_stride(2, config)
    x = layers.MaxPooling2D(3, stride, data_format=config.data_format, name="stem_pool")(x)
    return _blur(x, 2, config, "stem_pool")


def stem_pool_conv(x: Tensor, config: BlockConfig) -> Tensor:
    """3×3 convolution of stride 2 in place of the max-pool (Bello et al. 2021, section 5)."""
    filters = x.shape[config.channel_axis]
    x = conv(x, filters, 3, config, "stem_pool_conv", _layer_stride(2, config))
    x = _blur(x, 2, config, "stem_pool")
    return layers.ReLU(name="stem_pool_relu")(norm(x, config, "stem_pool_norm"))


def conv(
    x: Tensor,
    filters: int,
    kernel_size: int,
    config: BlockConfig,
    name: str,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    norm_follows: bool = True,
    zero: bool = False,
) -> Tensor:
    """A convolution whose padding depends on the kernel only, not on the input size.

    ``zero`` initializes the kernel with zeros.
    """
    row, data_format, padding = config.architecture, config.data_format, "same"
    if stride > 1 and kernel_size > 1 and row.padding == "symmetric":
        pad = kernel_size // 2
        x = layers.ZeroPadding2D(pad, data_format=data_format, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation,
        groups=groups,
        # keras.applications' pre-activation networks have a bias if no norm follows.
        use_bias=row.conv_bias or (not norm_follows and row.family == "imagenet"),
        kernel_initializer="zeros" if zero else _he_normal(),
        name=name,
    )(x)


def norm(x: Tensor, config: BlockConfig, name: str, zero: bool = False) -> Tensor:
    """The configured normalization; ``zero`` initializes gamma with zeros instead of ones."""
    axis, gamma = config.channel_axis, "zeros" if zero else "ones"
    if config.norm == "group":
        return layers.GroupNormalization(
            math.gcd(NORM_GROUPS, x.shape[axis]),
            axis=axis,
            epsilon=config.epsilon,
            gamma_initializer=gamma,
            name=name,
        )(x)
    return BatchNormalization(
        axis=axis,
        momentum=config.batch_norm_momentum,
        epsilon=config.epsilon,
        gamma_initializer=gamma,
        synchronized=config.norm == "sync_batch",
        name=name,
    )(x)


def norm_relu(x: Tensor, config: BlockConfig, name: str, number: int) -> Tensor:
    """Norm and ReLU, as before each convolution of a pre-activation block."""
    return layers.ReLU(name=f"{name}_relu{number}")(norm(x, config, f"{name}_norm{number}"))


def conv_norm_relu(
    x: Tensor,
    filters: int,
    kernel_size: int,
    config: BlockConfig,
    name: str,
    number: int,
    strides: BlockSpec | None = None,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution, norm and ReLU; ``strides`` is the block's spec if this one has its stride."""
    stride = _layer_stride(strides.stride, config) if strides else 1
    x = conv(x, filters, kernel_size, config, f"{name}_conv{number}", stride, dilation, groups)
    x = norm_relu(x, config, name, number)
    return _blur_transition(x, strides, config) if strides else x


def squeeze_excite(x: Tensor, config: BlockConfig, name: str) -> Tensor:
    """Scales channels by a function of their means over all pixels (Hu et al. 2017, section 3).

    The inner width is rounded as in timm, so that timm's published weights fit.
    """
    channels, data_format = x.shape[config.channel_axis], config.data_format
    inner = max(8, int(channels * config.architecture.se_ratio + 4) // 8 * 8)
    pool = layers.GlobalAveragePooling2D(data_format, keepdims=True, name=f"{name}_se_pool")
    scale = pool(x)
    for width, activation, part in ((inner, "relu", "reduce"), (channels, "sigmoid", "expand")):
        scale = layers.Conv2D(
            width,
            1,
            activation=activation,
            data_format=data_format,
            kernel_initializer=_he_normal(),
            name=f"{name}_se_{part}",
        )(scale)
    return layers.Multiply(name=f"{name}_se_scale")([x, scale])


def _join(x: Tensor, shortcut: Tensor | None, spec: BlockSpec, config: BlockConfig) -> Tensor:
    """The end of the residual branch, and its sum with the shortcut."""
    if config.architecture.se_ratio:
        x = squeeze_excite(x, config, spec.name)
    if shortcut is None:
        return x
    if spec.drop_rate:
        x = StochasticDepth(spec.drop_rate, name=f"{spec.name}_drop")(x)
    return layers.Add(name=f"{spec.name}_add")([x, shortcut])


def _layer_stride(stride: int, config: BlockConfig) -> int:
    """The stride of the layer itself: 1 if a blur subsamples instead."""
    return 1 if config.antialias else stride


def _blur(x: Tensor, stride: int, config: BlockConfig, name: str) -> Tensor:
    if not config.antialias:
        return x
    return BlurPool(stride, data_format=config.data_format, name=f"{name}_blur")(x)


def _blur_transition(x: Tensor, spec: BlockSpec, config: BlockConfig) -> Tensor:
    return _blur(x, spec.stride, config, spec.name) if spec.transition else x


def _shortcut(x: Tensor, filters: int, spec: BlockSpec, config: BlockConfig) -> Tensor | None:
    if config.shortcut == "none":
        return None
    channels = x.shape[config.channel_axis]
    if spec.stride == 1 and channels == filters:
        return x
    if config.shortcut == "A":
        return _pad(_subsample(x, spec, config), filters - channels, spec, config)
    x, stride = _pooled(x, spec, config)
    x = conv(x, filters, 1, config, f"{spec.name}_shortcut_conv", stride)
    if not config.architecture.shortcut_norm:
        return x
    return norm(x, config, f"{spec.name}_shortcut_norm")


def _preact_shortcut(
    x: Tensor, activated: Tensor, filters: int, spec: BlockSpec, config: BlockConfig
) -> Tensor | None:
    """The input itself if its channels fit; else made from the activated input, without norm."""
    if config.shortcut == "none":
        return None
    channels = x.shape[config.channel_axis]
    if channels == filters:
        return _subsample(x, spec, config)
    if config.shortcut == "A":
        return _pad(_subsample(activated, spec, config), filters - channels, spec, config)
    activated, stride = _pooled(activated, spec, config)
    name = f"{spec.name}_shortcut_conv"
    return conv(activated, filters, 1, config, name, stride, norm_follows=False)


def _pooled(x: Tensor, spec: BlockSpec, config: BlockConfig) -> tuple[Tensor, int]:
    """The input of a projection, pooled if the variant does so, and the projection's stride."""
    if not config.variant.pooled_shortcut or not spec.transition:
        return x, spec.stride
    name, padding, data_format = f"{spec.name}_shortcut_pool", "same", config.data_format
    if spec.stride == 1:
        # If the stride was replaced by dilation, timm includes the padding of the last row and
        # column in the average.
        pad = ((0, 1), (0, 1))
        x = layers.ZeroPadding2D(pad, data_format=data_format, name=f"{name}_pad")(x)
        padding = "valid"
    # At the edge of an odd size, "same" averages only the pixels inside the image, as PyTorch's
    # ceil_mode with count_include_pad=False does.
    pool = layers.AveragePooling2D(2, spec.stride, padding, data_format=data_format, name=name)
    return pool(x), 1


def _subsample(x: Tensor, spec: BlockSpec, config: BlockConfig) -> Tensor:
    if spec.stride == 1:
        return x
    name = f"{spec.name}_shortcut_subsample"
    # Pooling over one pixel takes every stride-th pixel.
    return layers.MaxPooling2D(1, spec.stride, data_format=config.data_format, name=name)(x)


def _pad(x: Tensor, extra: int, spec: BlockSpec, config: BlockConfig) -> Tensor:
    before, name = extra // 2, f"{spec.name}_shortcut_pad"
    return PadChannels(before, extra - before, data_format=config.data_format, name=name)(x)


def _he_normal() -> initializers.Initializer:
    # Fan-out, as in PyTorch's ResNets (He et al. 2015, arXiv:1502.01852, section 2.2).
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
