"""Splits: labelled images, and how a part of them is held out for testing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import tensorflow as tf

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
    """

    labels: tuple[str, ...]
    channels: int
    train: Split
    test: Split


def labels_of(split: Split) -> np.ndarray:
    """The label of each image by its number: int64 ``(count,)`` or uint8 ``(count, classes)``."""
    if split.labels is not None:
        return split.labels
    numbers = tf.data.Dataset.range(split.count)
    labels = numbers.map(lambda index: split.at(index)[1], num_parallel_calls=tf.data.AUTOTUNE)
    return np.concatenate(list(labels.batch(1024).as_numpy_iterator()))


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


def file_split(files: list[str], classes: np.ndarray) -> Split:
    paths, labels = tf.constant(files), tf.constant(classes.astype("int64"))

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(tf.gather(paths, index)), tf.gather(labels, index)

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


def stratified(classes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(classes)), test_size=fraction, stratify=classes, random_state=seed
        )
    except ValueError as error:
        raise ValueError(f"The images cannot be split by class: {error}") from None
    return np.sort(train), np.sort(test)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names and the number of the others, for messages."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
