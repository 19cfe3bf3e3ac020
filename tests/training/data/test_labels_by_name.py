"""Classes of images and of a model, matched by name."""

import dataclasses

import numpy as np
import pytest

from training.data.labels import match_labels, with_labels_of
from training.data.sources import Source, Split, array_split


def split_of(labels: np.ndarray) -> Split:
    return array_split(np.arange(len(labels) * 4, dtype="uint8").reshape(-1, 2, 2, 1), labels)


def seen(split: Split) -> tuple[list, list, list | None]:
    """The labels by each of the three ways to them."""
    stream = [label.tolist() for _, label in split.examples.as_numpy_iterator()]
    single = [split.at(np.int64(i))[1].numpy().tolist() for i in range(split.count)]
    return stream, single, None if split.labels is None else split.labels.tolist()


def test_labels_have_the_models_numbers_in_every_way_to_them() -> None:
    split = split_of(np.array([0, 1, 2, 1]))
    source = Source(("a", "b", "c"), 1, split, dataclasses.replace(split, labels=None))
    found, note = with_labels_of(source, ("x", "c", "a", "b"))
    assert found.labels == ("x", "c", "a", "b")
    assert note == "the images have 3 of the model's 4 classes"
    assert seen(found.train) == ([2, 3, 1, 3],) * 3
    assert seen(found.test) == ([2, 3, 1, 3], [2, 3, 1, 3], None)
    images = [image for image, _ in found.train.examples.as_numpy_iterator()]
    np.testing.assert_array_equal(images[1].ravel(), [4, 5, 6, 7])


def test_of_several_labels_an_image_each_has_the_models_place() -> None:
    split = split_of(np.array([[1, 0], [1, 1], [0, 0]], "uint8"))
    found, _ = with_labels_of(Source(("a", "b"), 1, split, split), ("b", "x", "a"))
    assert seen(found.train) == ([[0, 0, 1], [1, 0, 1], [0, 0, 0]],) * 3


def test_the_same_labels_are_the_same_source_without_a_word() -> None:
    split = split_of(np.array([0, 1]))
    source = Source(("crane", "crane"), 1, split, split)  # two birds, as in ImageNet
    assert with_labels_of(source, ("crane", "crane")) == (source, "")


def test_similar_names_match_unless_there_are_two_of_them() -> None:
    labels = ("tiger cat", "Tiger-Cat", "great white shark", "tench")
    numbers, inexact = match_labels(("Great_White  shark", "tench"), labels)
    assert (numbers, inexact) == ([2, 3], [0])
    assert match_labels(("tiger cat",), labels) == ([0], [])
    with pytest.raises(ValueError, match="the model lacks tiger_cat; it knows"):
        match_labels(("tiger_cat", "tench"), labels)
    with pytest.raises(ValueError, match="the model lacks TENCH, Tench"):
        match_labels(("TENCH", "Tench"), labels)
    with pytest.raises(ValueError, match="several classes called crane"):
        match_labels(("crane",), ("crane", "crane", "tench"))


def test_two_names_never_share_a_class() -> None:
    with pytest.raises(ValueError, match="the model lacks Tench"):
        match_labels(("tench", "Tench"), ("tench", "goldfish"))
