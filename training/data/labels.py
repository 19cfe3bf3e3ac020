"""Matching the classes of images to those of a model, by name."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from training.data.split import Source, Split, some


def with_labels_of(source: Source, labels: Sequence[str]) -> tuple[Source, str]:
    """The same images with the class numbers of a model, whatever their order.

    Names are the same if they are equal, or else if they differ only in case and in spaces,
    underscores and hyphens, and no other name does.

    Args:
        source: Images of the model's classes or of some of them.
        labels: The model's, in the order of its outputs.

    Returns:
        The images, and a line on what was matched; empty if the classes are the same.

    Raises:
        ValueError: The images have classes that the model lacks, or that it has twice.
    """
    if source.labels == tuple(labels):
        return source, ""
    numbers, inexact = match_labels(source.labels, labels)
    notes = []
    if len(numbers) < len(labels):
        notes.append(f"the images have {len(numbers)} of the model's {len(labels):,} classes")
    if inexact:
        pairs = [f"{source.labels[i]} is {labels[numbers[i]]}" for i in inexact]
        notes.append(f"classes matched by similar names: {some(pairs)}")
    if numbers == list(range(len(labels))):
        return dataclasses.replace(source, labels=tuple(labels)), "; ".join(notes)
    return _renumbered(source, numbers, tuple(labels)), "; ".join(notes)


def match_labels(own: Sequence[str], labels: Sequence[str]) -> tuple[list[int], list[int]]:
    """The position in ``labels`` of each of our names.

    Returns:
        The positions, and the indices of our names that are only similar.

    Raises:
        ValueError: ``labels`` lacks a name or has it twice.
    """
    exact = {name: i for i, name in enumerate(labels)}
    similar = {_plain(name): i for i, name in enumerate(labels)}
    ours, theirs = Counter(map(_plain, own)), Counter(map(_plain, labels))
    numbers, inexact, unknown = [], [], []
    for index, name in enumerate(own):
        plain = _plain(name)
        if name in exact:
            numbers.append(exact[name])
        elif ours[plain] == theirs[plain] == 1:
            numbers.append(similar[plain])
            inexact.append(index)
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"the model lacks {some(unknown)}; it knows {some(labels)}")
    counts = Counter(labels)
    if twice := [name for name in own if counts[name] > 1]:
        raise ValueError(f"the model has several classes called {some(twice)}")
    return numbers, inexact


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _renumbered(source: Source, numbers: list[int], labels: tuple[str, ...]) -> Source:
    """The source with label ``numbers[i]`` instead of ``i``."""
    return dataclasses.replace(
        source,
        labels=labels,
        train=_renumbered_split(source.train, numbers, len(labels)),
        test=_renumbered_split(source.test, numbers, len(labels)),
    )


def _renumbered_split(split: Split, numbers: list[int], classes: int) -> Split:
    table = np.array(numbers, "int64")
    # The place of each of the model's labels among ours; one past the end where we lack it.
    places = np.full(classes, len(table), "int64")
    places[table] = np.arange(len(table))

    def of(label: tf.Tensor) -> tf.Tensor:
        if label.shape.rank == 0:
            return tf.gather(tf.constant(table), label)
        return tf.gather(tf.concat([label, tf.zeros((1,), label.dtype)], 0), tf.constant(places))

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = split.at(index)
        return image, of(label)

    known = split.labels
    if known is not None and known.ndim == 1:
        known = table[known]
    elif known is not None:
        known = np.pad(known, ((0, 0), (0, 1)))[:, places]
    examples = split.examples.map(lambda image, label: (image, of(label)))
    return dataclasses.replace(split, examples=examples, at=at, labels=known)
