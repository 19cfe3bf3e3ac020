"""The table of networks against what is published and what is built."""

import keras
import pytest

from keras_resnet.architectures import ARCHITECTURES, Architecture, find
from keras_resnet.models import create_model

# torchvision's counts; of the CIFAR networks' with shortcut="A", the paper's table 6 gives
# 0.27, 0.85 and 1.7 million.
PUBLISHED = {
    "ResNet18": 11_689_512,
    "ResNet34": 21_797_672,
    "ResNet50": 25_557_032,
    "ResNet101": 44_549_160,
    "ResNet152": 60_192_808,
}
PUBLISHED_OPTION_A = {"ResNet20": 269_722, "ResNet56": 853_018, "ResNet110": 1_727_962}


def trainable(model: keras.Model) -> int:
    return sum(weight.size for weight in map(keras.ops.convert_to_numpy, model.trainable_weights))


BUILT = [row for row in ARCHITECTURES.values() if row.name != "ResNet1202"]


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.name)
def test_table_gives_the_parameters_that_are_built(row: Architecture) -> None:
    model = create_model(row.name)
    assert trainable(model) == row.parameters
    assert row.parameters == PUBLISHED.get(row.name, row.parameters)
    assert model.input_shape == (None, *row.input_shape)
    assert model.output_shape == (None, row.classes)


def test_resnet1202_continues_the_cifar_networks() -> None:
    """Building it takes 15 seconds; every further block of a stage costs the same."""
    rows = [ARCHITECTURES[f"ResNet{depth}"] for depth in (20, 32, 1202)]
    (n1, n2, n3), (p1, p2, p3) = zip(*((row.depths[0], row.parameters) for row in rows))
    assert (n1, n2, n3) == (3, 5, 200)
    assert p3 == p1 + (n3 - n1) * (p2 - p1) // (n2 - n1)


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_OPTION_A.items())
def test_option_a_has_no_parameters_in_shortcuts(name: str, parameters: int) -> None:
    assert trainable(create_model(name, shortcut="A")) == parameters


def test_resnet8_is_mlperf_tinys() -> None:
    assert create_model("ResNet8").count_params() == 78_666


def test_depth_is_the_number_of_weighted_layers() -> None:
    for row in ARCHITECTURES.values():
        in_block = {"basic": 2, "bottleneck": 3}[row.block]
        assert row.name == f"ResNet{in_block * sum(row.depths) + 2}"


def test_find_ignores_case_and_suggests_the_nearest() -> None:
    assert find("resnet50") is ARCHITECTURES["ResNet50"]
    with pytest.raises(ValueError, match=r"'resnet-50'.*Did you mean ResNet50\?.*ResNet1202"):
        find("resnet-50")
