"""The table of networks against what is built, and against what others published of them."""

import functools
import math
import re
from typing import Any

import keras
import pytest

from keras_resnet.architectures import ARCHITECTURES, VARIANTS, Architecture, find
from keras_resnet.complexity import multiply_adds
from keras_resnet.models import create_model
from tests.keras_resnet.published import (
    KERAS_APPLICATIONS,
    MULTIPLY_ADDS,
    PARAMETERS,
    Figure,
    KerasApplication,
)

# Building these takes half a minute; every further block of a stage costs the same.
LONG = ("ResNet1202", "ResNet1202V2")


@functools.cache
def counts(name: str, size: int, options: tuple[tuple[str, Any], ...] = ()) -> tuple[int, ...]:
    """Trainable parameters, all parameters and multiply-adds of a network."""
    # In this scope variables are not given values, which takes most of the time.
    with keras.StatelessScope(initialize_variables=False):
        model = create_model(name, input_shape=(size, size, 3), **dict(options))
    trainable, everything = (
        sum(math.prod(weight.shape) for weight in weights)
        for weights in (model.trainable_weights, model.weights)
    )
    return trainable, everything, multiply_adds(model)


def deep_is_slow(name: str, value: Any) -> Any:
    """A case of `make test-all` where the network has over 50 blocks."""
    deep = sum(ARCHITECTURES[name].depths) > 50
    return pytest.param(value, marks=pytest.mark.slow) if deep else value


@pytest.mark.parametrize(
    "row",
    [deep_is_slow(row.name, row) for row in ARCHITECTURES.values() if row.name not in LONG],
    ids=lambda row: row.name,
)
def test_table_gives_what_is_built(row: Architecture) -> None:
    trainable, _, count = counts(row.name, row.input_shape[0])
    assert (row.parameters, row.multiply_adds) == (trainable, count)


@pytest.mark.parametrize("suffix", ["", "V2"])
def test_resnet1202_continues_the_cifar_networks(suffix: str) -> None:
    rows = [ARCHITECTURES[f"ResNet{depth}{suffix}"] for depth in (20, 32, 1202)]
    n1, n2, n3 = (row.depths[0] for row in rows)
    assert (n1, n2, n3) == (3, 5, 200)
    for attribute in ("parameters", "multiply_adds"):
        first, second, third = (getattr(row, attribute) for row in rows)
        assert third == first + (n3 - n1) * (second - first) // (n2 - n1)


def of_our_graphs(figures: tuple[Figure, ...]) -> list[Figure]:
    # timm's pre-activation networks are others: they shrink in the first block of a stage and
    # have no biases. Ours are those of keras.applications, which are tested by themselves.
    return [f for f in figures if f.options.get("variant") != "v2" and f.name not in LONG]


@pytest.mark.parametrize(
    "figure", [deep_is_slow(f.name, f) for f in of_our_graphs(PARAMETERS)], ids=str
)
def test_parameters_are_the_published_ones(figure: Figure) -> None:
    options = dict(figure.options)
    if "He et al." in figure.source:  # their CIFAR networks have no weights in the shortcuts
        options["shortcut"] = "A"
    size = ARCHITECTURES[figure.name].input_shape[0]  # of no matter here
    trainable, _, _ = counts(figure.name, size, tuple(options.items()))
    assert abs(trainable - figure.value) <= figure.within, figure.source


@pytest.mark.parametrize("figure", of_our_graphs(MULTIPLY_ADDS), ids=str)
def test_multiply_adds_are_the_published_ones(figure: Figure) -> None:
    _, _, count = counts(figure.name, figure.size, tuple(figure.options.items()))
    assert abs(count - figure.value) <= figure.within, figure.source


@pytest.mark.parametrize("published", KERAS_APPLICATIONS, ids=lambda row: row.name)
def test_parameters_are_those_of_keras_applications(published: KerasApplication) -> None:
    v2 = published.name.endswith("V2")
    options = () if v2 else (("variant", "v1"),)
    trainable, everything, _ = counts(published.name, 224, options)
    # A bias before a batch norm does nothing, and ours have none.
    dropped = 0 if v2 else published.conv_biases
    assert trainable == published.trainable - dropped, published.source
    assert everything == published.total - dropped, published.source


def test_resnet8_is_mlperf_tinys() -> None:
    assert counts("ResNet8", 32)[1] == 78_666


def test_depth_is_the_number_of_weighted_layers() -> None:
    rounded = ("ResNetRS270", "ResNetRS350", "ResNetRS420")  # names of the deepest are round
    for row in ARCHITECTURES.values():
        if row.name in rounded:
            continue
        depth = int(re.search(r"Ne(?:t|Xt)(?:RS)?(\d+)", row.name)[1])
        in_block = {"basic": 2, "bottleneck": 3}[row.block]
        # A wide network counts one of the projections, as its authors do.
        extra = 4 if row.name.startswith("WideResNet") and row.family == "cifar" else 2
        assert depth == in_block * sum(row.depths) + extra, row.name


def test_a_v2_network_is_the_same_by_either_name() -> None:
    assert ARCHITECTURES["ResNet50"].with_variant("v2") is ARCHITECTURES["ResNet50V2"]
    assert ARCHITECTURES["ResNet50V2"].with_variant("d").name == "ResNet50"
    assert ARCHITECTURES["ResNet50V2"].with_variant(None) is ARCHITECTURES["ResNet50V2"]


def test_variants_of_the_stem_are_for_imagenet_networks() -> None:
    with pytest.raises(ValueError, match=r"ResNet20 has a 3×3 stem.*variant='d'"):
        ARCHITECTURES["ResNet20"].with_variant("d")
    for variant in VARIANTS:
        assert ARCHITECTURES["ResNet34"].with_variant(variant).variant == variant


def test_find_ignores_case_and_suggests_the_nearest() -> None:
    assert find("resnet50") is ARCHITECTURES["ResNet50"]
    with pytest.raises(ValueError, match=r"'resnet-50'.*Did you mean ResNet50\?.*ResNet1202"):
        find("resnet-50")
