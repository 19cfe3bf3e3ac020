"""Weights with the names of torchvision, timm and the CIFAR checkpoints, against PyTorch itself.

Both ways for every family: PyTorch's random weights give the same outputs here, and what is saved
here gives the same outputs there. Every kind of block, stem and option is compared in networks of
few blocks and half the width; full ones, which only repeat the blocks, once a family.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_resnet
from keras_resnet.models import Constructor
from tests.keras_resnet.torch_peers import peer, random_images, randomize, save, torch

# Odd sizes show where padding, and pooling at the edge, differ.
SIZE = (97, 101)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ResNet18", {}),
    ("ResNet18", {"variant": "s"}),
    ("ResNet18", {"variant": "d"}),
    ("ResNet18", {"output_stride": 8}),
    ("ResNet18", {"antialias": True}),
    ("ResNet34", {"shortcut": "none"}),
    ("ResNet50", {}),
    ("ResNet50", {"variant": "v1"}),
    ("ResNet50", {"variant": "v1", "output_stride": 8}),
    ("ResNet50", {"variant": "c"}),
    ("ResNet50", {"variant": "d"}),
    ("ResNet50", {"variant": "d", "output_stride": 16}),
    ("ResNet50", {"output_stride": 16, "antialias": True}),
    ("ResNet50", {"norm": "group"}),
    ("SEResNet18", {}),
    ("SEResNet50", {"variant": "d"}),
    ("ResNeXt50_32x4d", {}),
    ("WideResNet50_2", {}),
    ("ResNetRS50", {}),
    ("ResNetRS50", {"antialias": True}),
    ("ResNet20", {"shortcut": "A"}),
    ("ResNet20", {"shortcut": "B"}),
    ("ResNet20", {"variant": "v2"}),
    ("ResNet20", {"variant": "v2", "shortcut": "none"}),
    ("ResNet20", {"output_stride": 2}),
    ("WideResNet16_8", {}),
    ("WideResNet40_2", {"antialias": True}),
]
FULL_DEPTH: list[tuple[str, dict[str, Any]]] = [
    ("ResNet50", {}),
    ("SEResNet50", {"variant": "d"}),
    ("ResNeXt50_32x4d", {}),
    ("ResNetRS50", {}),
    ("ResNet20", {"variant": "v2"}),
    ("WideResNet40_2", {}),
]


def peer_of(name: str, options: dict[str, Any]) -> Any:
    variant, changes = options.get("variant", "v1.5"), dict(options)
    changes.pop("variant", None)
    if variant == "v2":  # which fixes the names itself
        changes.pop("cifar_names", None)
    return peer(name, variant=variant, **changes)


def outputs_of(module: Any, images: Any) -> np.ndarray:
    with torch.no_grad():
        return module(images).numpy()


def assert_alike(ours: Any, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_outputs_are_pytorchs_both_ways(
    tmp_path: Path, name: str, options: dict[str, Any], reduced: Callable[[str], Constructor]
) -> None:
    build = reduced(name)
    layout = {"depths": build.architecture.depths, "widths": build.architecture.widths}
    assert_same_outputs_both_ways(tmp_path, build, options, layout)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), FULL_DEPTH, ids=str)
def test_outputs_are_pytorchs_at_full_depth(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    assert_same_outputs_both_ways(tmp_path, getattr(keras_resnet, name), options, {})


def assert_same_outputs_both_ways(
    tmp_path: Path, build: Constructor, options: dict[str, Any], layout: dict[str, Any]
) -> None:
    name = build.architecture.name
    theirs = randomize(peer_of(name, options | layout), seed=1, size=32)
    images = random_images(2, *SIZE, torch.Generator().manual_seed(2))
    expected = outputs_of(theirs, images)
    save(theirs, tmp_path / "theirs.safetensors")

    ours = build(
        weights=tmp_path / "theirs.safetensors",
        input_shape=(*SIZE, 3),
        classifier_activation=None,
        **options,
    )
    report = ours.load_report
    assert len(report.loaded) == len(ours.weights)
    assert not (report.adapted or report.reinitialised or report.unused or report.missing)
    assert_alike(ours(images.permute(0, 2, 3, 1).numpy()), expected)

    keras_resnet.save_weights(ours, tmp_path / "ours.safetensors")
    from safetensors.torch import load_file

    again = peer_of(name, options | layout | {"cifar_names": False})
    keys = again.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=False)
    assert not keys.unexpected_keys
    assert all("num_batches_tracked" in key for key in keys.missing_keys)
    assert_alike(outputs_of(again.eval(), images), expected)


@pytest.mark.parametrize("suffix", [".pth", ".th"])
def test_a_state_dict_of_torch_save(tmp_path: Path, suffix: str) -> None:
    theirs = randomize(peer("ResNet20", shortcut="A"), seed=1)
    path = tmp_path / f"w{suffix}"
    save(theirs, path, "pth")
    ours = keras_resnet.ResNet20(weights=path, shortcut="A", classifier_activation=None)
    images = random_images(2, 32, 32, torch.Generator().manual_seed(2))
    assert_alike(ours(images.permute(0, 2, 3, 1).numpy()), outputs_of(theirs, images))
