"""``tfrecord:PATTERN``: TFRecord files of images, in the usual layout of ImageNet's.

Each record is a ``tf.train.Example`` with these features:

``image/encoded``      the bytes of a picture of a supported format
``image/class/label``  its class, an integer, counted from 0, or from 1 if no 0 occurs
``image/class/text``   name of the class; optional, the number by default

PATTERN is a glob of the training files, or a folder in which their names begin with ``train``.
The test files have the same names with ``validation``, ``val`` or ``test`` instead of ``train``. If
there are none, or they have no labels, a share of the records is held out by the seed.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.config import DataConfig
from training.data.file_notes import FileNote, report
from training.data.records import Part, record_reader
from training.data.validate_images import Say, cached, find_problem, in_threads

IMAGE, LABEL, TEXT = "image/encoded", "image/class/label", "image/class/text"
HELD_OUT = ("validation", "val", "test")
MOST_CLASSES = 1_000_000
UNLABELLED = -1


@dataclass(frozen=True)
class Records:
    """All records of some files, numbered consecutively.

    Attributes:
        parts: The files, and the number of records in each.
        labels: int64 ``(records,)`` as in the files; ``UNLABELLED`` if a record has none.
        names: Class names by label, if the files have them.
        bad: What is wrong with an image, by the record's number.
    """

    parts: tuple[Part, ...]
    labels: np.ndarray
    names: dict[int, str]
    bad: dict[int, str]

    def describe(self, number: int) -> str:
        """Location of a record for messages: ``train-00003-of-01024, record 17``."""
        for part in self.parts:
            if number < part.take:
                return f"{part.path}, record {number},"
            number -= part.take
        raise IndexError(number)

    def at(self, chosen: np.ndarray, classes: np.ndarray) -> Callable:
        """A function for ``Dataset.map`` that returns the example of a chosen record.

        Args:
            chosen: Numbers of the records to choose from.
            classes: Class of each of them.
        """
        numbers, labels = tf.constant(chosen), tf.constant(classes)

        @tf.autograph.experimental.do_not_convert
        def example(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            record = tf.numpy_function(lambda i: self._read(int(i)), [numbers[index]], "string")
            image = tf.io.parse_single_example(
                tf.ensure_shape(record, ()), {IMAGE: tf.io.FixedLenFeature((), "string")}
            )[IMAGE]
            return image, labels[index]

        return example

    @cached_property
    def _read(self) -> Callable[[int], bytes]:
        return record_reader(self.parts)


def read_records(pattern: str, data: DataConfig, say: Say) -> tuple[Records, Records | None]:
    """Reads every record once: its label, and whether its image can be read.

    Args:
        pattern: The part of the source's spec after the colon.
        data: How to treat images that cannot be read.
        say: Called with lines on skipped images and on files without labels.

    Returns:
        The training records, and those of the first test files that have labels, if there are any.

    Raises:
        ValueError: There are no such files, they are cut off, lack a feature, or their images
            cannot be read.
    """
    files = _files(pattern)
    records = _scan(files)
    test = _labelled_test(files, say)
    both = (records, test) if test else (records,)
    notes = [
        FileNote(each.describe(number), split, "", "unreadable", problem)
        for each, split in zip(both, ("train", "test"))
        for number, problem in each.bad.items()
    ]
    report(notes, sum(len(each.labels) for each in both), data, say)
    return records, test


def _labelled_test(files: list[str], say: Say) -> Records | None:
    for word in HELD_OUT:
        if found := _beside(files, word):
            records = _scan(found)
            if (records.labels != UNLABELLED).any():
                return records
            say(f"the {word} files, such as {Path(found[0]).name}, have no labels: not used")
    return None


def class_names(records: Records) -> tuple[tuple[str, ...], int]:
    """Names of the classes, and the label of the first of them: 0 or 1.

    Raises:
        ValueError: Records have no label, or the labels do not count classes.
    """
    if (unlabelled := np.flatnonzero(records.labels == UNLABELLED)).size:
        raise ValueError(
            f"{records.describe(int(unlabelled[0]))} has no {LABEL} (an integer from 0 or 1), like "
            f"{unlabelled.size:,} of {len(records.labels):,} training records"
        )
    low, high = int(records.labels.min()), int(records.labels.max())
    if low < 0 or high > MOST_CLASSES or high == low:
        raise ValueError(
            f"{LABEL} must count at least two classes, from 0 or 1. Found: {low} to {high}"
        )
    first = min(low, 1)
    return tuple(records.names.get(i, str(i)) for i in range(first, high + 1)), first


def _files(pattern: str) -> list[str]:
    path = os.path.expanduser(pattern)
    if os.path.isdir(path):
        path = os.path.join(glob.escape(path), "train*")
    files = sorted(file for file in glob.glob(path) if os.path.isfile(file))
    if not files:
        raise ValueError(
            f"No file is called {path}. Give the pattern of the training files: "
            "tfrecord:'FOLDER/train-*'"
        )
    return files


def _beside(files: list[str], word: str) -> list[str]:
    """Files with the training files' names, with ``word`` instead of ``train``."""
    folders = {(Path(file).parent, Path(file).name.partition("train")) for file in files}
    starts = {(folder, before + word) for folder, (before, found, _) in folders if found}
    return sorted(
        str(path)
        for folder, start in starts
        for path in folder.glob(f"{glob.escape(start)}[-_.]*")
        if path.is_file() and str(path) not in files
    )


def _scan(files: list[str]) -> Records:
    found = cached(
        lambda: [_scan_file(file) for file in files],
        files,
        lambda known: (
            isinstance(known, list) and len(known) == len(files) and all(map(_valid, known))
        ),
    )
    parts: list[Part] = []
    labels: list[int] = []
    names: dict[int, str] = {}
    bad: dict[int, str] = {}
    for file, records in zip(files, found):
        parts.append(Part(file, 0, len(records["labels"])))
        bad |= {len(labels) + int(i): problem for i, problem in records["bad"].items()}
        names |= {int(label): name for label, name in records["names"].items()}
        labels += records["labels"]
    if not labels:
        raise ValueError(f"There is no record in {files[0]}")
    return Records(tuple(parts), np.array(labels, "int64"), names, bad)


def _scan_file(file: str) -> dict[str, Any]:
    """Labels, names and problems of one file, as JSON data for the cache."""
    seen = in_threads(
        partial(_scan_record, file), _numbered(file), None, f"reading {Path(file).name}"
    )
    return {
        "labels": [label for label, _, _ in seen],
        "names": {str(label): name for label, name, _ in seen if name},
        "bad": {str(i): problem for i, (_, _, problem) in enumerate(seen) if problem},
    }


def _valid(scanned: Any) -> bool:
    """Whether data from the cache are of the form that ``_scan_file`` returns."""
    try:
        labels, names, bad = (scanned[key] for key in ("labels", "names", "bad"))
        texts = (*names.items(), *bad.items())
        return all(type(label) is int and abs(label) < 2**63 for label in labels) and all(
            int(number) < 2**63 and isinstance(text, str) for number, text in texts
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _numbered(file: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            yield number, record
            number += 1
    except tf.errors.DataLossError:
        raise ValueError(
            f"{file} is no TFRecord file, or cut off or damaged in record {number}. Write it again"
        ) from None
    except tf.errors.OpError as error:
        raise ValueError(f"{file} cannot be read: {' '.join(error.message.split())}") from None


def _scan_record(file: str, numbered: tuple[int, bytes]) -> tuple[int, str, str | None]:
    from google.protobuf.message import DecodeError

    number, record = numbered
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        raise ValueError(f"{file}, record {number}, is not a tf.train.Example") from None
    images, labels = features[IMAGE].bytes_list.value, features[LABEL].int64_list.value
    if len(images) != 1 or len(labels) > 1:
        raise ValueError(
            f"{file}, record {number}, must have one {IMAGE} (bytes) and one {LABEL} (integer). "
            f"Found: {', '.join(sorted(features))}"
        )
    names = features[TEXT].bytes_list.value
    return (
        int(labels[0]) if labels else UNLABELLED,
        names[0].decode("utf-8", "replace") if names else "",
        find_problem(images[0]),
    )
