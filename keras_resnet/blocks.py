"""Residual blocks, stems and heads: functions from tensor to tensor.

He et al. 2015 (arXiv:1512.03385) unless another source is named. Every shortcut ends in
``layers.Add``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from keras import initializers, layers

from keras_resnet.layers import BatchNormalization, PadChannels

Tensor = Any
Block = Callable[..., Tensor]

# A batch of 256 and torch's momentum of 0.1: the setting every published recipe assumes.
BATCH_NORM_MOMENTUM = 0.9


@dataclass(frozen=True)
class Style:
    """What all blocks of one network have in common.

    Attributes:
        shortcut: Where shapes differ, ``"B"`` projects by a 1×1 convolution and ``"A"``
            subsamples and pads with zero channels (section 3.3).
        shortcut_norm: Whether a batch norm follows the projection.
        stride_on: Which convolution of a bottleneck block strides: ``"1x1"`` the first, as
            in the paper (v1), or ``"3x3"`` (v1.5), which throws no activations away.
        conv_bias: Whether convolutions carry a bias although a batch norm follows.
        padding: ``"symmetric"`` pads strided convolutions on both sides as PyTorch does;
            ``"same"`` as TensorFlow does.
        zero_init_residual: Whether the last gamma of each block starts at zero, so that each
            block starts as the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        batch_norm_momentum: Keras's momentum, 1 − PyTorch's.
        batch_norm_epsilon: Added to the variance.
    """

    shortcut: Literal["A", "B"] = "B"
    shortcut_norm: bool = True
    stride_on: Literal["1x1", "3x3"] = "3x3"
    conv_bias: bool = False
    padding: Literal["symmetric", "same"] = "symmetric"
    zero_init_residual: bool = False
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    batch_norm_epsilon: float = 1e-5


def basic_block(
    x: Tensor, filters: int, stride: int = 1, *, style: Style = Style(), name: str = "block"
) -> Tensor:
    """Two 3×3 convolutions beside a shortcut (figure 5, left).

    Args:
        x: ``(batch, height, width, channels)``.
        filters: Channels put out.
        stride: Stride of the first convolution and of the shortcut.
        style: What all blocks of the network have in common.
        name: Prefix of the layers' names.

    Returns:
        ``(batch, ceil(height / stride), ceil(width / stride), filters)``.
    """
    shortcut = _shortcut(x, filters, stride, style, name)
    x = conv(x, filters, 3, stride, style, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(norm(x, style, f"{name}_norm1"))
    x = conv(x, filters, 3, 1, style, f"{name}_conv2")
    x = norm(x, style, f"{name}_norm2", zero=style.zero_init_residual)
    return _add(x, shortcut, name)


def bottleneck_block(
    x: Tensor, filters: int, stride: int = 1, *, style: Style = Style(), name: str = "block"
) -> Tensor:
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (figure 5, right).

    Args:
        x: ``(batch, height, width, channels)``.
        filters: Channels of the 3×3 convolution; the block puts out four times as many.
        stride: Stride of the block; ``style.stride_on`` says which convolution takes it.
        style: What all blocks of the network have in common.
        name: Prefix of the layers' names.

    Returns:
        ``(batch, ceil(height / stride), ceil(width / stride), 4 * filters)``.
    """
    stride1, stride2 = (stride, 1) if style.stride_on == "1x1" else (1, stride)
    shortcut = _shortcut(x, 4 * filters, stride, style, name)
    x = conv(x, filters, 1, stride1, style, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(norm(x, style, f"{name}_norm1"))
    x = conv(x, filters, 3, stride2, style, f"{name}_conv2")
    x = layers.ReLU(name=f"{name}_relu2")(norm(x, style, f"{name}_norm2"))
    x = conv(x, 4 * filters, 1, 1, style, f"{name}_conv3")
    x = norm(x, style, f"{name}_norm3", zero=style.zero_init_residual)
    return _add(x, shortcut, name)


BLOCKS: dict[str, Block] = {"basic": basic_block, "bottleneck": bottleneck_block}


def imagenet_stem(x: Tensor, filters: int, style: Style) -> Tensor:
    """7×7 convolution and 3×3 max-pool, each with stride 2 (table 1)."""
    x = conv(x, filters, 7, 2, style, "stem_conv")
    x = layers.ReLU(name="stem_relu")(norm(x, style, "stem_norm"))
    # After a ReLU, padding with zeros is the same as PyTorch's padding with −inf.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def cifar_stem(x: Tensor, filters: int, style: Style) -> Tensor:
    """One 3×3 convolution that keeps the size (section 4.2)."""
    x = conv(x, filters, 3, 1, style, "stem_conv")
    return layers.ReLU(name="stem_relu")(norm(x, style, "stem_norm"))


STEMS: dict[str, Block] = {"imagenet": imagenet_stem, "cifar": cifar_stem, "tiny": cifar_stem}


def conv(x: Tensor, filters: int, kernel_size: int, stride: int, style: Style, name: str) -> Tensor:
    """A convolution whose padding depends on the kernel alone, not on the input size."""
    padding = "same"
    if stride > 1 and kernel_size > 1 and style.padding == "symmetric":
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=style.conv_bias,
        kernel_initializer=_he_normal(),
        name=name,
    )(x)


def norm(x: Tensor, style: Style, name: str, zero: bool = False) -> Tensor:
    """Batch normalization; ``zero`` starts gamma at zero instead of one."""
    return BatchNormalization(
        momentum=style.batch_norm_momentum,
        epsilon=style.batch_norm_epsilon,
        gamma_initializer="zeros" if zero else "ones",
        name=name,
    )(x)


def _add(x: Tensor, shortcut: Tensor, name: str) -> Tensor:
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


def _shortcut(x: Tensor, filters: int, stride: int, style: Style, name: str) -> Tensor:
    channels = x.shape[-1]
    if stride == 1 and channels == filters:
        return x
    if style.shortcut == "A":
        return _subsample_and_pad(x, filters - channels, stride, name)
    x = conv(x, filters, 1, stride, style, f"{name}_shortcut_conv")
    return norm(x, style, f"{name}_shortcut_norm") if style.shortcut_norm else x


def _subsample_and_pad(x: Tensor, extra: int, stride: int, name: str) -> Tensor:
    if stride > 1:  # pooling over one pixel takes every stride-th pixel
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut_subsample")(x)
    return PadChannels(extra // 2, extra - extra // 2, name=f"{name}_shortcut_pad")(x)


def _he_normal() -> initializers.Initializer:
    # Fan-out, as PyTorch initializes ResNets (He et al. 2015, arXiv:1502.01852, section 2.2).
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
