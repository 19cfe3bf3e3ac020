"""Which network a file's weights look like: a hint for the error that they do not fit."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from keras_resnet.architectures import ARCHITECTURES, VARIANTS, Architecture
from keras_resnet.block_config import BlockConfig
from keras_resnet.weights.mapping import Convention

# A weight's name in our files, in PyTorch's and in those of keras.applications.
STEM = ("stem_conv/kernel", "conv1.weight", "conv1_conv/kernel")
DEEP_STEM = ("stem_conv1/kernel", "conv1.0.weight")
SECOND = ("stage1_block1_conv2/kernel", "layer1.0.conv2.weight", "conv2_block1_2_conv/kernel")
THIRD = ("stage1_block1_conv3/kernel", "layer1.0.conv3.weight", "conv2_block1_3_conv/kernel")
LAST_NORM = ("post_norm/gamma", "norm.weight", "post_bn/gamma")
BLOCK = re.compile(r"(?:layer(\d+)\.|(?:stage|conv)(\d+)_block)(\d+)")
# A projection that pools first is a Sequential of three in PyTorch; Keras's names do not show it.
POOLED_SHORTCUT = "layer2.0.downsample.2.weight"


def likely(arrays: Mapping[str, np.ndarray], convention: Convention) -> str | None:
    """The network whose depths, block and first shapes are those of a file's weights.

    Returns:
        Such as ``"ResNet50 with variant='d'"``, or ``None`` if no network of the table fits.
    """
    found = _of_file(arrays, convention)
    if found is None:
        return None
    names = (
        name for name, network in _networks().items() if _of_network(network)[: len(found)] == found
    )
    first = next(names, None)
    return first and first + _shortcut(arrays)


def _networks() -> dict[str, Architecture]:
    """All networks by name; those in a variant other than their own last."""
    networks = dict(ARCHITECTURES)
    for name, row in ARCHITECTURES.items():
        for variant in VARIANTS:
            with contextlib.suppress(ValueError):  # this network has no such variant
                networks.setdefault(f"{name} with variant={variant!r}", row.with_variant(variant))
    return networks


def _of_file(arrays: Mapping[str, np.ndarray], convention: Convention) -> tuple[object, ...] | None:
    """What ``_of_network`` returns, without the last trait where names do not show it."""
    stem, second = (
        next((arrays[name] for name in names if name in arrays), None)
        for names in ((*STEM, *DEEP_STEM), SECOND)
    )
    if stem is None or second is None or {stem.ndim, second.ndim} != {4}:
        return None
    if convention == "torch":
        stem, second = (array.transpose(2, 3, 1, 0) for array in (stem, second))
    blocks = {match.groups() for name in arrays if (match := BLOCK.match(name))}
    depths = Counter(int(torch or keras) for torch, keras, _ in blocks)
    traits = (
        tuple(depths[stage] for stage in sorted(depths)),
        any(name in arrays for name in THIRD),
        (stem.shape[0], stem.shape[3]),
        second.shape[2:],
        any(name in arrays for name in DEEP_STEM),
        any(".se." in name or "_se_" in name for name in arrays),
        any(name in arrays for name in LAST_NORM),
    )
    return (*traits, POOLED_SHORTCUT in arrays) if convention == "torch" else traits


def _of_network(row: Architecture) -> tuple[object, ...]:
    """The traits of a network that names and shapes show."""
    variant = VARIANTS[row.variant]
    bottleneck = row.block == "bottleneck"
    filters = BlockConfig(row).inner(row.widths[0]) if bottleneck else row.widths[0]
    seven = row.family == "imagenet" and not variant.deep_stem
    return (
        row.depths,
        bottleneck,
        (7 if seven else 3, variant.deep_stem or row.stem_filters),
        (filters // row.groups, filters),
        bool(variant.deep_stem),
        row.se_ratio > 0,
        variant.preactivation,
        variant.pooled_shortcut,
    )


def _shortcut(arrays: Mapping[str, np.ndarray]) -> str:
    """Option A has no weights in its shortcuts, and neither has a plain network."""
    projects = any(re.search(r"downsample|shortcut|_0_conv", name) for name in arrays)
    return "" if projects else " with shortcut='A'"
