"""The contract: what it accepts, what it crops, and that it survives as plain data."""

import json
from typing import Any

import pytest

from keras_resnet.contract import IMAGENET_MEAN, Contract, crop_box
from keras_resnet.models import ResNet8

SQUARE = Contract(224, 224)


@pytest.mark.parametrize(
    ("contract", "size", "box"),
    [
        (SQUARE, (256, 256), (16, 16, 224, 224)),
        (SQUARE, (256, 400), (16, 88, 224, 224)),
        (SQUARE, (400, 256), (88, 16, 224, 224)),
        (SQUARE, (1, 1), (0, 0, 1, 1)),
        (SQUARE, (1, 500), (0, 249, 1, 1)),
        (SQUARE.replace(crop_fraction=1), (375, 500), (0, 62, 375, 375)),
        (SQUARE.replace(crop_fraction=1), (224, 224), (0, 0, 224, 224)),
        (SQUARE.replace(resize="stretch"), (375, 500), (0, 0, 375, 500)),
        (Contract(100, 200, crop_fraction=1), (100, 100), (25, 0, 50, 100)),
        (Contract(200, 100, crop_fraction=1), (100, 100), (0, 25, 100, 50)),
    ],
)
def test_crop_box(contract: Contract, size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert crop_box(*size, contract) == box


def test_crop_box_on_tensors_is_the_same() -> None:
    tf = pytest.importorskip("tensorflow")
    contracts = [SQUARE, Contract(32, 96, crop_fraction=0.6), SQUARE.replace(resize="stretch")]
    for contract in contracts:
        graph = tf.function(lambda h, w, c=contract: crop_box(h, w, c))
        for size in [(1, 1), (1, 7), (33, 500), (500, 33), (375, 500), (4000, 6001)]:
            tensors = graph(*(tf.constant(length) for length in size))
            assert tuple(int(tensor) for tensor in tensors) == crop_box(*size, contract)


def test_crop_box_lies_inside_the_image() -> None:
    for height in range(1, 40):
        for width in range(1, 40):
            top, left, box_height, box_width = crop_box(height, width, Contract(48, 64))
            assert 0 <= top <= top + box_height <= height and box_height >= 1
            assert 0 <= left <= left + box_width <= width and box_width >= 1


def test_crop_box_needs_a_size_to_fit_to() -> None:
    with pytest.raises(ValueError, match=r"any size.*\(224, 224, 3\)"):
        crop_box(10, 10, Contract(None, 224))


def test_plain_data_round_trip() -> None:
    contract = Contract(
        48, None, 1, (7,), (9,), "inside", ("cat", "dog"), "stretch", 0.5, "bicubic"
    )
    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_unknown_keys_are_refused() -> None:
    data = {**SQUARE.to_dict(), "colour": "bgr"}
    with pytest.raises(ValueError, match=r"\['colour'\].*'crop_fraction'"):
        Contract.from_dict(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": (1, 0, 1)}, r"above 0.*std=\(1\.0, 0\.0, 1\.0\)"),
        ({"mean": ()}, r"one finite number a channel.*mean=\(\)"),
        ({"mean": "abc"}, r"one finite number a channel.*mean='abc'"),
        ({"std": 58.0}, r"one finite number a channel.*std=58\.0"),
        ({"crop_fraction": 0}, r"above 0 and at most 1.*0"),
        ({"crop_fraction": 1.1}, r"above 0 and at most 1.*1\.1"),
        ({"resize": "pad"}, r"'crop', 'stretch'.*resize='pad'"),
        ({"interpolation": "nearest"}, r"'bilinear', 'bicubic'.*interpolation='nearest'"),
        ({"normalization": "both"}, r"'inside', 'outside'.*normalization='both'"),
        ({"order": "grb"}, r"'rgb', 'bgr'.*order='grb'"),
        ({"order": "bgr", "channels": 1}, r"three channels.*channels=1"),
        ({"order": "bgr", "normalization": "inside"}, r"normalize outside.*'inside'"),
        ({"height": 0}, r"from 1 to 16384.*height=0"),
        ({"channels": None}, r"from 1 to 1024.*channels=None"),
        ({"labels": "cat"}, r"sequence of names.*labels='cat'"),
    ],
    ids=str,
)
def test_bad_contract_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SQUARE.replace(**changes)


@pytest.mark.parametrize(("channels", "color"), [(1, "grayscale"), (3, "rgb"), (4, "raw")])
def test_color_follows_from_the_channels(channels: int, color: str) -> None:
    assert Contract(32, 32, channels).color == color


def test_one_number_stands_for_all_channels() -> None:
    assert Contract(32, 32, 3, mean=(5,), std=(2,)).mean == (5.0, 5.0, 5.0)
    assert Contract(32, 32, 1).mean == (pytest.approx(sum(IMAGENET_MEAN) / 3),)


def test_labels_must_number_the_classes() -> None:
    contract = Contract(None, None, labels=("cat", "dog"))
    assert ResNet8(classes=2, contract=contract).contract.labels == ("cat", "dog")
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        ResNet8(classes=3, contract=contract)


def test_a_fourth_channel_gets_the_average_and_leaves_the_others_alone() -> None:
    contract = Contract(32, 32, 4, mean=(1, 2, 6), std=(4, 5, 6))
    assert (contract.mean, contract.std) == ((1, 2, 6, 3), (4, 5, 6, 5))
    assert Contract(32, 32, 2, mean=(1, 2, 6)).mean == (3, 3)
