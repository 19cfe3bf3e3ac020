"""Order and random access: pure functions, the same on every machine."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from training.data.records import Part, record_reader
from training.data.shuffle import balanced_order, epoch_order, example_seed, ordered_indices


def test_the_order_is_a_permutation_and_stays_what_it_is() -> None:
    order = epoch_order(1000, seed=3, epoch=7)
    assert sorted(order) == list(range(1000))
    # Written down, because an order that changes with a version breaks every run under way.
    assert epoch_order(10, seed=0, epoch=0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert (epoch_order(1000, 3, 8) != order).any() and (epoch_order(1000, 4, 7) != order).any()


def test_places_are_shuffled_evenly() -> None:
    where = np.array([np.argsort(epoch_order(10, 0, epoch)) for epoch in range(2000)])
    counts = np.array([np.bincount(column, minlength=10) for column in where.T])
    assert counts.min() > 130 and counts.max() < 270  # five standard deviations about 200


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("classes", [None, np.array([0] * 8 + [1] * 3)])
def test_the_order_goes_on_from_any_step(step: int, classes: np.ndarray | None) -> None:
    def pairs(epoch: int, step: int, count: int) -> list:
        dataset = ordered_indices(11, 3, 1, epoch, step, classes=classes).take(count)
        return [(int(e), int(i), int(d)) for e, i, d in dataset.as_numpy_iterator()]

    whole = pairs(0, 0, 27)  # three epochs of three steps of three
    assert [e for e, *_ in whole] == [0] * 9 + [1] * 9 + [2] * 9
    assert len({d for *_, d in whole[:9]}) == 9
    assert classes is not None or all(i == d for _, i, d in whole)
    assert pairs(1, step, 27 - 9 - 3 * step) == whole[9 + 3 * step :]


def test_balanced_classes_are_drawn_equally_often_and_their_images_evenly() -> None:
    sizes = (700, 40, 259)
    classes = np.random.default_rng(0).permutation(np.repeat([0, 3, 7], sizes))
    images = np.zeros(len(classes), int)
    more = np.zeros(8, int)
    for epoch in range(60):
        order = balanced_order(classes, 5, epoch)
        assert len(order) == 999
        assert (np.bincount(classes[order])[[0, 3, 7]] == 333).all()
        drawn = np.bincount(order, minlength=len(classes))
        # None again before all of the class were there; and a class of 700 is never seen whole.
        for c, most in ((0, {0, 1}), (3, {8, 9}), (7, {1, 2})):
            assert set(drawn[classes == c]) == most
        images += drawn
        halves = np.bincount(classes[order[:500]], minlength=8)
        assert halves[[0, 3, 7]].min() > 120  # 167 expected: shuffled, not one after the other
        odd = np.bincount(classes[balanced_order(classes[:-1], 5, epoch)], minlength=8)
        more += odd == odd.max()
    for c, size in zip((0, 3, 7), sizes):
        expected = 60 * 333 / size
        assert abs(images[classes == c] - expected).max() < 5 * np.sqrt(expected)
    assert more[[0, 3, 7]].min() > 20  # of 998 images one class lacks one, each in its turn


def test_the_balanced_order_stays_what_it_is() -> None:
    order = balanced_order(np.array([0, 0, 0, 0, 0, 1, 1, 2]), seed=0, epoch=0)
    assert order.tolist() == [5, 6, 2, 7, 3, 7, 6, 7]
    assert (order != balanced_order(np.array([0, 0, 0, 0, 0, 1, 1, 2]), 0, 1)).any()


def test_every_image_has_a_seed_of_its_own_in_every_epoch() -> None:
    seeds = {
        tuple(example_seed(s, tf.constant(e, "int64"), tf.constant(i, "int64")).numpy())
        for s in (0, 1)
        for e in (0, 1, 2)
        for i in (0, 1, 2, 10**7)
    }
    assert len(seeds) == 24


def write_records(path: Path, values: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for value in values:
            writer.write(value)
    return str(path)


def test_records_are_read_at_any_place(tmp_path: Path) -> None:
    values = [bytes([i]) * i for i in range(20)]
    first = write_records(tmp_path / "0", values[:12])
    second = write_records(tmp_path / "1", values[12:])
    read = record_reader([Part(first, 2, 5), Part(second, 0, 8)])
    expected = values[2:7] + values[12:]
    for number in (12, 0, 4, 5, 3, 12):
        assert read(number) == expected[number]


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write_records(tmp_path / "0", [b"x" * 100] * 3)
    Path(path).write_bytes(Path(path).read_bytes()[:-20])
    with pytest.raises(ValueError, match="0 is cut off in record 2"):
        record_reader([Part(path, 0, 3)])
    with pytest.raises(ValueError, match="cut off in record 2"):
        record_reader([Part(path, 0, 9)])
