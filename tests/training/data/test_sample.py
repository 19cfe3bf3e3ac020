"""A sample is even over the classes, whatever their order, sizes and number."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from training.data.sample import (
    even_positions,
    evenly_over_classes,
    evenly_over_labels,
    sample,
)
from training.data.sources import Split, array_split


def split_of(classes: np.ndarray) -> Split:
    return array_split(np.zeros((len(classes), 2, 2, 1), "uint8"), classes)


def sizes_in_sample(sizes: list[int], count: int) -> list[int]:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    chosen = evenly_over_classes(classes, count)
    assert len(set(chosen.tolist())) == count and (np.diff(chosen) > 0).all()
    return np.bincount(classes[chosen], minlength=len(sizes)).tolist()


@pytest.mark.parametrize("count", range(1, 181))
def test_sorted_classes_of_one_size_give_the_floor_or_the_ceiling_of_their_share(
    count: int,
) -> None:
    given = sizes_in_sample([36] * 5, count)
    assert sum(given) == count and max(given) - min(given) <= 1


def test_the_default_of_100_for_five_classes_of_36_is_20_of_each() -> None:
    assert sizes_in_sample([36] * 5, 100) == [20] * 5


@pytest.mark.parametrize(
    ("sizes", "count", "given"),
    [
        ([2, 100, 100], 100, [2, 49, 49]),
        ([2, 3, 1000], 100, [2, 3, 95]),
        ([1, 1, 1], 3, [1, 1, 1]),
        ([100, 6], 20, [14, 6]),
        ([5, 5, 5], 4, [1, 2, 1]),
    ],
)
def test_a_small_class_gives_all_it_has(sizes: list[int], count: int, given: list[int]) -> None:
    assert sizes_in_sample(sizes, count) == given


def test_more_classes_than_images_are_spread_over_the_classes() -> None:
    given = np.flatnonzero(sizes_in_sample([3] * 1000, 10))
    assert given.tolist() == list(range(50, 1000, 100))


def test_the_sample_does_not_depend_on_the_order_of_the_classes() -> None:
    sizes = [7, 60, 31, 2]
    classes = np.repeat(np.arange(4), sizes)
    shuffled = np.random.default_rng(0).permutation(classes)
    of_sorted, of_shuffled = (
        np.bincount(these[evenly_over_classes(these, 40)]) for these in (classes, shuffled)
    )
    assert of_sorted.tolist() == of_shuffled.tolist() == [7, 15, 16, 2]


def test_images_of_a_class_are_at_even_distances() -> None:
    assert even_positions(36, 4).tolist() == [4, 13, 22, 31]
    assert even_positions(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert even_positions(5, 0).tolist() == []
    for length in range(1, 40):
        for count in range(1, length + 1):
            assert len(set(even_positions(length, count).tolist())) == count


def test_every_label_occurs_in_a_sample_of_images_with_several() -> None:
    labels = np.zeros((200, 6), "uint8")
    labels[:, 0] = 1
    labels[::2, 1] = 1
    labels[[3, 7], 2] = 1
    labels[199, 3] = 1
    labels[7, 4] = 1  # label 5 occurs nowhere
    chosen = evenly_over_labels(labels, 20)
    assert len(set(chosen.tolist())) == 20 and (np.diff(chosen) > 0).all()
    assert labels[chosen].any(axis=0).tolist() == [True] * 5 + [False]
    assert {7, 199} <= set(chosen.tolist())
    assert set(evenly_over_labels(labels, 2).tolist()) == {7, 199}  # the rarest labels first
    assert np.histogram(chosen, 4, (0, 200))[0].min() >= 4  # and from the whole split


def test_all_images_are_the_sample_where_there_are_no_more() -> None:
    for count in (6, 7, 1000):
        assert sample(split_of(np.array([0, 0, 1, 1, 1, 2])), count).tolist() == list(range(6))


def test_labels_that_only_the_images_hold_are_read_from_a_bounded_number_of_them() -> None:
    """As of tensorflow-datasets: 100,000 images, and a sample reads 2,000 of them."""
    classes = np.tile(np.arange(10), 10_000)
    table = tf.constant(classes)
    read: list[int] = []

    def label(index: np.ndarray) -> np.ndarray:
        read.append(int(index))
        return classes[index]

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.numpy_function(label, [index], "int64")
        return tf.gather(table, index), tf.ensure_shape(found, ())

    split = dataclasses.replace(split_of(classes), at=at, labels=None)
    chosen = sample(split, 100)
    assert np.bincount(classes[chosen]).tolist() == [10] * 10 and len(read) == 2_000
