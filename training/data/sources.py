"""Sources of labelled images, each named by a spec string.

``digits``         the 1,797 handwritten digits of scikit-learn (8×8, grayscale)
``tfds:<name>``    a dataset of tensorflow-datasets
``folder:<path>``  a folder of image files; see ``training/data/folders.py``
``csv:<file>``     a list of image files with labels; see ``training/data/csv_file.py``
``tfrecord:<pattern>``  TFRecord files; see ``training/data/tfrecord.py``

A split without labels is never the test split: the next one that has labels is, otherwise a share
of the training images. ``docs/data.md`` shows layouts and formats.

Unreadable images are found before training starts; see ``training/data/validate_images.py``. Those
of tensorflow-datasets are trusted: it has decoded and checked them when it prepared the dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from training.config import DataConfig, Task
from training.data.csv_file import open_csv
from training.data.folders import open_folder
from training.data.split import CHANNELS, Source, Split, array_split, labels_of, some, stratified
from training.data.tfds import open_tfds
from training.data.tfrecord import Records, class_names, read_records
from training.data.validate_images import Say

__all__ = ["Source", "Split", "array_split", "first_unreadable", "labels_of", "open_source"]


def open_source(
    data: DataConfig, seed: int, say: Say = console.say, task: Task = "single"
) -> Source:
    """Opens the source that ``data.source`` names.

    Args:
        data: Spec string, folder, held-out share, and how to treat unreadable images.
        seed: Selects the held-out images if the source has no labelled test split.
        say: Called with lines on skipped images and on splits that are not used.
        task: What a label is: see ``Experiment.task``.

    Raises:
        ValueError: The spec is unknown, the source is missing or has no usable images, or some
            images cannot be read and ``bad_images`` is ``"error"``.
    """
    kind, _, rest = data.source.partition(":")
    openers = SOURCES | {"csv": partial(open_csv, task=task)}
    if kind not in openers or (kind != "digits" and not rest):
        nearest = f". Did you mean folder:{data.source}?" if Path(data.source).is_dir() else ""
        raise ValueError(
            "A source is 'digits', 'tfds:<name>', 'folder:<path>', 'csv:<file>' or "
            f"'tfrecord:<pattern>'. Received: {data.source!r}{nearest}"
        )
    if data.test and kind != "folder":
        raise ValueError(
            f"data.test names the test images of a folder. Received: data.test={data.test} with "
            f"data.source={data.source}"
        )
    if task == "multi" and kind != "csv":
        raise ValueError(
            f"{data.source} gives each image one label. For task=multi give csv:FILE, with lines "
            "of path,label[,split] and labels separated by |"
        )
    source = openers[kind](rest, data, seed, say)
    if task == "binary" and len(source.labels) != 2:
        raise ValueError(
            f"task=binary is for two classes. {data.source} has {len(source.labels)}: "
            f"{some(source.labels)}. Set task=single"
        )
    return source


def _digits(_: str, data: DataConfig, seed: int, say: Say) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype("uint8")[..., np.newaxis]
    train, test = stratified(digits.target, data.test_fraction, seed)

    def split(chosen: np.ndarray) -> Split:
        return array_split(pixels[chosen], digits.target[chosen].astype("int64"))

    return Source(tuple("0123456789"), 1, split(train), split(test))


def _tfrecord(pattern: str, data: DataConfig, seed: int, say: Say) -> Source:
    records, held_out = read_records(pattern, data, say)
    labels, first = class_names(records)
    if held_out is None:
        held_out = records
        train, test = stratified(records.labels, data.test_fraction, seed)
    else:
        train, test = np.arange(len(records.labels)), np.arange(len(held_out.labels))
    if unknown := sorted(set(held_out.labels.tolist()) - set(records.labels.tolist())):
        raise ValueError(f"The held-out records have labels that training lacks: {unknown[:10]}")

    def split(records: Records, chosen: np.ndarray) -> Split:
        good = np.array([number for number in chosen if number not in records.bad], "int64")
        at = records.at(good, records.labels[good] - first)
        examples = tf.data.Dataset.range(len(good)).map(at, num_parallel_calls=tf.data.AUTOTUNE)
        return Split(len(good), examples, at, labels=records.labels[good] - first)

    return Source(labels, CHANNELS[data.color], split(records, train), split(held_out, test))


# Those for which the task does not matter.
SOURCES: dict[str, Callable[[str, DataConfig, int, Say], Source]] = {
    "digits": _digits,
    "tfds": open_tfds,
    "folder": open_folder,
    "tfrecord": _tfrecord,
}


def first_unreadable(source: Source, contract: Contract) -> str | None:
    """What is wrong with the first image file that cannot be read; ``None`` if all can be."""
    for path in source.train.files + source.test.files:
        try:
            load_image(path, contract)
        except ValueError as error:
            return f"{error}. Repair or remove it"
    return None
