"""Splits: labelled images, and how a part of them is held out for testing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import tensorflow as tf

from training.data.by_pillow import read_by_pillow
from training.data.file_notes import FileNote
from training.data.screening import as_tensor
from training.data.validate_images import Say

CHANNELS = {"rgb": 3, "grayscale": 1}

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """Labelled images.

    A label is an int64 scalar, the number of a class; of several labels an image (the task
    ``multi``) uint8 ``(classes,)``, 1 for each that the image has.

    Attributes:
        count: Number of images.
        examples: A ``tf.data.Dataset`` of ``(image, label)``: the image either uint8
            ``(height, width, channels)`` or the bytes of an image file, the label as above.
            Always in the same order.
        at: Returns one example by its number, an int64 scalar; a function for ``Dataset.map``.
            Training shuffles globally, for which a stream is not enough.
        files: Path of each image, if the images are files.
        labels: Label of each image, as in ``examples``, where they are known without reading the
            images; ``None`` otherwise (tensorflow-datasets).
    """

    count: int
    examples: tf.data.Dataset
    at: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    files: tuple[str, ...] = ()
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Source:
    """Training and test images.

    Attributes:
        labels: Names of the classes, in the order of their numbers.
        channels: 1 for grayscale, 3 for RGB.
        train: For training and for the calibration of quantization.
        test: For validation and evaluation.
        notes: On the files that are not plainly read, if the images are files.
    """

    labels: tuple[str, ...]
    channels: int
    train: Split
    test: Split
    notes: tuple[FileNote, ...] = ()


def labels_of(split: Split) -> np.ndarray:
    """The label of each image by its number: int64 ``(count,)`` or uint8 ``(count, classes)``."""
    if split.labels is not None:
        return split.labels
    return read_labels(split, np.arange(split.count))


def read_labels(split: Split, numbers: np.ndarray) -> np.ndarray:
    """Labels of some images of a split, read with the images, which are not decoded."""
    # AutoGraph would spend seconds on converting tensorflow-datasets.
    label = tf.autograph.experimental.do_not_convert(lambda index: split.at(index)[1])
    examples = tf.data.Dataset.from_tensor_slices(numbers)
    labels = examples.map(label, num_parallel_calls=tf.data.AUTOTUNE)
    return np.concatenate(list(labels.batch(1024).as_numpy_iterator()))


def count_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """Images of each class, int64 ``(classes,)``; of several labels an image, each is counted.

    Args:
        labels: As ``labels_of`` returns them.
        classes: Their number, of the task ``single`` or ``binary``.
    """
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype="int64")
    return np.bincount(labels, minlength=classes)


def array_split(images: np.ndarray, classes: np.ndarray) -> Split:
    """A split of images in memory.

    Args:
        images: uint8 ``(count, height, width, channels)``.
        classes: int64 ``(count,)``, or uint8 ``(count, classes)`` for the task ``multi``.
    """
    table = tf.constant(images), tf.constant(classes)
    return Split(
        len(images),
        tf.data.Dataset.from_tensor_slices(table),
        lambda index: (tf.gather(table[0], index), tf.gather(table[1], index)),
        labels=classes,
    )


def file_split(files: list[str], classes: np.ndarray, by_pillow: np.ndarray | None = None) -> Split:
    """A split of image files.

    Args:
        files: Their paths.
        classes: Label of each, as in ``Split``.
        by_pillow: bool ``(count,)``, whether Pillow decodes a file instead of TensorFlow; none by
            default.
    """
    paths, labels = as_tensor(files), tf.constant(classes)
    if by_pillow is None or not by_pillow.any():

        def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.io.read_file(tf.gather(paths, index)), tf.gather(labels, index)

    else:
        others = tf.constant(by_pillow)

        @tf.autograph.experimental.do_not_convert
        def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            path = tf.gather(paths, index)
            image = tf.cond(
                tf.gather(others, index),
                lambda: read_by_pillow(path),
                lambda: tf.io.read_file(path),
            )
            return image, tf.gather(labels, index)

    examples = tf.data.Dataset.range(len(files)).map(at, num_parallel_calls=tf.data.AUTOTUNE)
    return Split(len(files), examples, at, tuple(files), classes)


def first_labelled(splits: Sequence[T], labels: Callable[[T], Iterable[int]], say: Say) -> T | None:
    """The first split that has labels; ``None`` if there is none.

    Datasets are published with unlabelled test splits, whose labels are -1: ImageNet's, for one.

    Args:
        splits: In order of preference.
        labels: Returns labels of a split; none of them if it has none.
        say: Called with each split that is passed over.
    """
    for split in splits:
        if any(label >= 0 for label in labels(split)):
            return split
        say(f"the split {split} has no labels, so it is not used")
    return None


def stratified(
    classes: np.ndarray, fraction: float, seed: int, labels: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Holds out the same share of each class.

    Args:
        classes: Label of each image, as in ``Split``: int64 ``(count,)``, or of several labels an
            image uint8 ``(count, classes)``.
        fraction: Share of the images to hold out.
        seed: Selects them.
        labels: Names of the classes, for the message of an error.

    Returns:
        Indices of the images for training and of those held out, both sorted.

    Raises:
        ValueError: There are too few images of a class.
    """
    if classes.ndim > 1:
        return _stratified_labels(classes, fraction, seed)
    from sklearn.model_selection import train_test_split

    numbers, counts = np.unique(classes, return_counts=True)
    if alone := [labels[n] if labels else str(n) for n in numbers[counts < 2]]:
        raise ValueError(
            f"A share of each class is held out for testing, and {len(alone):,} of "
            f"{len(numbers):,} classes have one image only: {some(alone)}. Add images or give test "
            "images of your own: --train DIR --test DIR, or a column split in a list"
        )
    try:
        train, test = train_test_split(
            np.arange(len(classes)), test_size=fraction, stratify=classes, random_state=seed
        )
    except ValueError:
        raise ValueError(
            f"A share of {fraction:g} of {len(classes):,} images has no room for each of "
            f"{len(numbers):,} classes, in training and in testing. Change data.test_fraction or "
            "give test images of your own: --train DIR --test DIR, or a column split in a list"
        ) from None
    return np.sort(train), np.sort(test)


def _stratified_labels(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``stratified`` for any number of labels an image, uint8 ``(count, classes)``.

    From the rarest label to the most frequent one, as many of its images as are missing from its
    share are held out, drawn among those that are still free; then of the images without labels.
    At least one image of each label is left for training. This is the order of Sechidis et al.
    2011, "On the stratification of multi-label data", section 3.
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    free = np.ones(len(labels), bool)
    totals = labels.sum(0, dtype="int64")
    unlabelled = (labels.sum(1) == 0)[:, np.newaxis]
    columns = [labels[:, number] for number in np.argsort(totals, kind="stable")]
    for column in (*columns, unlabelled[:, 0]):
        has = column > 0
        share = min(round(fraction * has.sum()), max(has.sum() - 1, 0))
        candidates = np.flatnonzero(has & free)
        missing = max(share - int((has & held_out).sum()), 0)
        held_out[rng.permutation(candidates)[:missing]] = True
        free &= ~has
    for column in columns:
        if column.any() and not column[~held_out].any():
            held_out[np.argmax(column)] = False
    if not held_out.any() or held_out.all():
        raise ValueError(
            f"A share of {fraction:g} of {len(labels)} images leaves none for testing. Name the "
            "test images in a column split"
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names and the number of the others, for messages."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
