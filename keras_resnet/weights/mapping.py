"""Names that our layers and variables have in other libraries' files.

A file follows one convention, which its names identify:

``ours``                 ``stage1_block1_conv1/kernel``
``torch``                ``layer1.0.conv1.weight``: torchvision, timm, and the many CIFAR
                         checkpoints derived from them
``keras.applications``   ``conv2_block1_1_conv/kernel``
``created``              ``conv2d_7/kernel``: a network of Keras whose layers were given no
                         names, and are numbered in the order in which they were made
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

import keras
import numpy as np

Convention = Literal["ours", "torch", "keras.applications", "created"]

# The epsilon that the weights of a convention were trained with, where it is known.
EPSILON = {"torch": 1e-5, "keras.applications": 1.001e-5}

_TORCH_STEM = {
    "stem_conv": ("conv1",),
    "stem_norm": ("bn1",),
    # A deep stem is a Sequential: 0, 3 and 6 are its convolutions, 2 and 5 its ReLUs.
    "stem_conv1": ("conv1.0",),
    "stem_norm1": ("conv1.1",),
    "stem_conv2": ("conv1.3",),
    "stem_norm2": ("conv1.4",),
    "stem_conv3": ("conv1.6",),
    "stem_norm3": ("bn1",),
    "stem_pool_conv": ("maxpool.0",),
    "stem_pool_norm": ("maxpool.1",),
    "post_norm": ("norm",),
    "predictions": ("fc", "linear"),
}
_TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CREATED = {
    "conv2d": keras.layers.Conv2D,
    "batch_normalization": keras.layers.BatchNormalization,
    "dense": keras.layers.Dense,
}
_APPLICATIONS = {
    "stem_conv": ("conv1_conv",),
    "stem_norm": ("conv1_bn",),
    "post_norm": ("post_bn",),
    "predictions": ("predictions", "probs"),
}


def convention(names: Iterable[str]) -> Convention | None:
    """Which convention the names of a file follow, or ``None`` if none that is known."""
    names = set(names)
    if names & {"stem_conv/kernel", "stem_conv1/kernel"}:
        return "ours"
    if names & {"conv1.weight", "conv1.0.weight"}:
        return "torch"
    if "conv1_conv/kernel" in names:
        return "keras.applications"
    if any(re.match(r"conv2d(_\d+)?/kernel$", name) for name in names):
        return "created"
    return None


def layer_names(
    model: keras.Model, convention: Convention, found: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """For each of our layers with weights, the names that it may have in the file.

    Args:
        model: A network of this package.
        convention: What the file follows.
        found: The names in the file.
    """
    layers = [layer for layer in model.layers if layer.weights]
    if convention == "torch":
        all_names = {layer.name for layer in model.layers}
        return {layer.name: torch_names(layer.name, all_names) for layer in layers}
    if convention == "keras.applications":
        preactivation = any(layer.name == "post_norm" for layer in layers)
        return {layer.name: _application_names(layer.name, preactivation) for layer in layers}
    if convention == "created":
        return _created(layers, found)
    return {layer.name: (layer.name,) for layer in layers}


def head_names(convention: Convention) -> tuple[str, ...]:
    """What the classifier is called."""
    return {
        "ours": ("predictions",),
        "torch": _TORCH_STEM["predictions"],
        "keras.applications": _APPLICATIONS["predictions"],
        "created": ("dense",),
    }[convention]


def torch_names(layer: str, among: Collection[str]) -> tuple[str, ...]:
    """What a layer is called in PyTorch; the first is torchvision's or timm's name.

    Args:
        layer: Our name.
        among: Names of all layers of the model: those without weights count in a Sequential.
    """
    if layer == "stem_pool_norm" and "stem_pool_blur" in among:
        return ("maxpool.2",)
    block = re.fullmatch(r"stage(\d+)_block(\d+)_(.+)", layer)
    if not block:
        if layer not in _TORCH_STEM:
            raise ValueError(f"{layer!r} is no layer that the constructors of keras_resnet make")
        return _TORCH_STEM[layer]
    stage, number, part = int(block[1]), int(block[2]), block[3]
    # Where a pool stands first in the shortcut, it takes number 0.
    first = 1 if any(name.endswith("_shortcut_pool") for name in among) else 0
    parts = {
        "shortcut_conv": (f"downsample.{first}", f"shortcut.{first}"),
        "shortcut_norm": (f"downsample.{first + 1}", f"shortcut.{first + 1}"),
        "se_reduce": ("se.fc1",),
        "se_expand": ("se.fc2",),
    }
    names = parts.get(part, (part.replace("norm", "bn"),))
    return tuple(f"layer{stage}.{number - 1}.{name}" for name in names)


def full_name(layer: str, variable: str, convention: Convention) -> str:
    """A variable of ours in a layer that has that name in the file."""
    if convention == "torch":
        return f"{layer}.{_TORCH_VARIABLES[variable]}"
    return f"{layer}/{variable}"


def from_file(array: np.ndarray, convention: Convention) -> np.ndarray:
    """An array of the file in Keras's layout."""
    if convention != "torch":
        return array
    # Convolutions (out, in, height, width), dense layers (out, in).
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_torch(array: np.ndarray) -> np.ndarray:
    """An array of ours in PyTorch's layout."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _application_names(layer: str, preactivation: bool) -> tuple[str, ...]:
    if layer in _APPLICATIONS:
        return _APPLICATIONS[layer]
    block = re.fullmatch(r"stage(\d+)_block(\d+)_(shortcut_)?(conv|norm)(\d?)", layer)
    if not block:
        return ()
    stage, number, shortcut, kind, digit = block.groups()
    count = 0 if shortcut else int(digit)
    part = f"{count}_conv"
    if kind == "norm":
        # There, a pre-activation block's first norm has a name, and the second is number 1.
        count -= preactivation
        part = "preact_bn" if preactivation and count == 0 else f"{count}_bn"
    return (f"conv{int(stage) + 1}_block{number}_{part}",)


def _created(layers: list[Any], found: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Layers in the order in which people write them: the shortcut last in its block."""
    names: dict[str, tuple[str, ...]] = {}
    for kind, of_kind in _CREATED.items():
        theirs = {name.split("/")[0] for name in found if re.match(rf"{kind}(_\d+)?/", name)}
        ordered = sorted(theirs, key=lambda name: int(name.removeprefix(kind).strip("_") or 0))
        ours = [layer.name for layer in layers if isinstance(layer, of_kind)]
        ours.sort(key=_writing_order)
        names |= {name: (other,) for name, other in zip(ours, ordered)}
        names |= dict.fromkeys(ours[len(ordered) :], ())
    return names


def _writing_order(layer: str) -> tuple[int, ...]:
    block = re.fullmatch(r"stage(\d+)_block(\d+)_(shortcut_)?(?:conv|norm)(\d?)", layer)
    if not block:
        return (0,) if layer.startswith("stem") else (1_000,)
    stage, number, shortcut, digit = block.groups()
    return int(stage), int(number), 9 if shortcut else int(digit)
