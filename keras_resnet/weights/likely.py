"""Which network a file's weights look like they are of, for the error that says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_resnet.architectures import ARCHITECTURES, VARIANTS, Architecture
from keras_resnet.block_config import BlockConfig
from keras_resnet.weights.mapping import Convention


@dataclass(frozen=True)
class Traits:
    """What names and shapes tell apart.

    Attributes:
        depths: Blocks in each stage.
        bottleneck: Whether blocks have a third convolution.
        first: Height of the first convolution's kernel, and its filters.
        inner: Inputs of a group and filters of the second convolution of the first block.
        deep_stem: Whether the stem has several convolutions.
        squeeze: Whether there is squeeze-and-excitation.
        preactivation: Whether a norm follows the last block.
        pooled_shortcut: Whether a pool stands before the projections; ``None`` where names do
            not tell.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    first: tuple[int, int]
    inner: tuple[int, int]
    deep_stem: bool
    squeeze: bool
    preactivation: bool
    pooled_shortcut: bool | None = None


def likely(arrays: Mapping[str, np.ndarray], convention: Convention) -> str | None:
    """The networks, and variants of them, that have the traits of a file's weights.

    Returns:
        Such as ``"ResNet50 with variant='d'"``, or ``None`` where nothing known fits.
    """
    found = _of_torch(arrays) if convention == "torch" else _of_keras(arrays)
    if found is None:
        return None
    fits: list[tuple[bool, str]] = []
    for row in ARCHITECTURES.values():
        for variant in VARIANTS:
            try:
                candidate = row.with_variant(variant)
            except ValueError:
                continue
            if _of_row(candidate, told_by=found) == found:
                own = variant == row.variant
                fits.append((not own, row.name if own else f"{row.name} with variant={variant!r}"))
    return min(fits)[1] + _shortcut(arrays) if fits else None


def _shortcut(arrays: Mapping[str, np.ndarray]) -> str:
    """Option A has no weights in its shortcuts, and neither has a plain network."""
    if any(re.search(r"downsample|shortcut|_0_conv", name) for name in arrays):
        return ""
    return " with shortcut='A'"


def _of_row(row: Architecture, told_by: Traits) -> Traits:
    """The traits of a network, as far as those of a file tell."""
    variant = VARIANTS[row.variant]
    bottleneck = row.block == "bottleneck"
    filters = BlockConfig(row).inner(row.widths[0]) if bottleneck else row.widths[0]
    seven = row.family == "imagenet" and not variant.deep_stem
    return Traits(
        depths=row.depths,
        bottleneck=bottleneck,
        first=(7 if seven else 3, variant.deep_stem or row.stem_filters),
        inner=(filters // row.groups, filters),
        deep_stem=bool(variant.deep_stem),
        squeeze=row.se_ratio > 0,
        preactivation=variant.preactivation,
        pooled_shortcut=None if told_by.pooled_shortcut is None else variant.pooled_shortcut,
    )


def _of_torch(arrays: Mapping[str, np.ndarray]) -> Traits | None:
    first = arrays.get("conv1.weight", arrays.get("conv1.0.weight"))
    second = arrays.get("layer1.0.conv2.weight")
    if first is None or second is None or {first.ndim, second.ndim} != {4}:
        return None
    return Traits(
        depths=_depths(arrays, r"layer(\d+)\.(\d+)\."),
        bottleneck="layer1.0.conv3.weight" in arrays,
        first=(first.shape[2], first.shape[0]),
        inner=(second.shape[1], second.shape[0]),
        deep_stem="conv1.0.weight" in arrays,
        squeeze=any(".se." in name for name in arrays),
        preactivation="norm.weight" in arrays,
        # In a Sequential, the pool takes the number that the convolution has elsewhere.
        pooled_shortcut="layer2.0.downsample.2.weight" in arrays,
    )


def _of_keras(arrays: Mapping[str, np.ndarray]) -> Traits | None:
    first = next(
        (
            arrays[name]
            for name in ("stem_conv/kernel", "stem_conv1/kernel", "conv1_conv/kernel")
            if name in arrays
        ),
        None,
    )
    ours = "stage1_block1_conv2/kernel" in arrays
    second = arrays.get("stage1_block1_conv2/kernel" if ours else "conv2_block1_2_conv/kernel")
    if first is None or second is None or {first.ndim, second.ndim} != {4}:
        return None
    return Traits(
        depths=_depths(arrays, r"(?:stage|conv)(\d+)_block(\d+)_"),
        bottleneck=bool({"stage1_block1_conv3/kernel", "conv2_block1_3_conv/kernel"} & set(arrays)),
        first=(first.shape[0], first.shape[3]),
        inner=(second.shape[2], second.shape[3]),
        deep_stem="stem_conv1/kernel" in arrays,
        squeeze=any("_se_" in name for name in arrays),
        preactivation=bool({"post_norm/gamma", "post_bn/gamma"} & set(arrays)),
    )


def _depths(arrays: Mapping[str, np.ndarray], pattern: str) -> tuple[int, ...]:
    """How many blocks each stage has, by the names of their weights."""
    blocks = {match.groups() for name in arrays if (match := re.match(pattern, name))}
    stages = sorted({int(stage) for stage, _ in blocks})
    return tuple(sum(int(stage) == s for stage, _ in blocks) for s in stages)
