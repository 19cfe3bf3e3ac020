"""The classes of a source with their counts, and what its user should know before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.data.split import Source, Split, count_labels, labels_of, some
from training.estimate import Estimate

SHOWN = 20  # classes in the table
COUNTED = 10_000  # images at most, if their labels have to be read with them
IMBALANCED = 5  # times as many images in the largest class as in the smallest
FEW = 10  # training images of a class
WIDE = 10  # points: the interval of the accuracy, above which a test split is called too small
ACCURACY = 0.9  # for which that interval is given
# Shares of the largest class from which on an accuracy needs it beside it: of the images, and as a
# multiple of an equal share.
TENTH, MORE_THAN_EQUAL = 0.1, 1.25

Counts = np.ndarray  # images of each class, int64 ``(classes,)``


def class_counts(split: Split, classes: int) -> Counts | None:
    """Images of each class; ``None`` if more than 10,000 images had to be read for them.

    Of several labels an image, each is counted.
    """
    if split.labels is None and split.count > COUNTED:
        return None
    return count_labels(labels_of(split), classes)


def describe_classes(source: Source, weighted: bool = False) -> list[str]:
    """Lines on the classes of a source: a table of their counts, then warnings.

    Args:
        source: The images. Where their labels are not known without reading many images
            (tensorflow-datasets), only the size of the test split is judged.
        weighted: Whether the training gives small classes more weight.
    """
    train = class_counts(source.train, len(source.labels))
    # Not read in vain, where only those of the training images would take long.
    test = None if train is None else class_counts(source.test, len(source.labels))
    lines = []
    if train is not None and test is not None:
        several = source.train.labels is not None and source.train.labels.ndim == 2
        lines += table(source.labels, train, test)
        lines += missing(source.labels, train, test)
        lines += too_few(source.labels, train)
        lines += imbalance(source.labels, train, test, weighted, several)
    return lines + small_test_split(source.test.count)


def table(labels: Sequence[str], train: Counts, test: Counts) -> list[str]:
    """A line for each class; of more than twenty, the ten largest and the ten smallest."""
    order = np.arange(len(labels))
    if len(labels) > SHOWN:
        by_size = np.argsort(-train, kind="stable")
        order = np.concatenate([by_size[: SHOWN // 2], by_size[-SHOWN // 2 :]])
    rows = [(labels[int(i)], f"{train[i]:,}", f"{test[i]:,}") for i in order]
    if between := len(labels) - len(rows):
        inner = by_size[SHOWN // 2 : -SHOWN // 2]
        rows.insert(
            SHOWN // 2,
            (f"… {between:,} more", f"{train[inner].sum():,}", f"{test[inner].sum():,}"),
        )
    rows = [("class", "training", "test"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"  {name:<{widths[0]}}  {of_train:>{widths[1]}}  {of_test:>{widths[2]}}"
        for name, of_train, of_test in rows
    ]


def missing(labels: Sequence[str], train: Counts, test: Counts) -> list[str]:
    """Warnings of classes that only one split has."""
    lines = []
    for name, here, there in (("training", train, test), ("test", test, train)):
        lacking = [label for label, a, b in zip(labels, here, there) if not a and b]
        if lacking:
            lines.append(f"warning: there are no {name} images of {some(lacking)}")
    if nowhere := [label for label, a, b in zip(labels, train, test) if not a and not b]:
        lines.append(f"warning: there are no images of {some(nowhere)}")
    return lines


def too_few(labels: Sequence[str], train: Counts) -> list[str]:
    """A warning of classes with fewer than ten training images."""
    small = [f"{label} ({n})" for label, n in zip(labels, train) if 0 < n < FEW]
    if not small:
        return []
    classes = "1 class has" if len(small) == 1 else f"{len(small):,} classes have"
    return [f"warning: {classes} fewer than {FEW} training images: {some(small)}"]


def imbalance(
    labels: Sequence[str], train: Counts, test: Counts, weighted: bool, several: bool = False
) -> list[str]:
    """A warning if a class has at least five times as many training images as another.

    Args:
        labels: Names of the classes.
        train: Training images of each.
        test: Test images of each.
        weighted: Whether the training gives small classes more weight, so that nothing is
            proposed.
        several: Whether an image can have several labels.
    """
    present = np.flatnonzero(train)
    if len(present) < 2:
        return []
    largest, smallest = present[train[present].argmax()], present[train[present].argmin()]
    if train[largest] < IMBALANCED * train[smallest]:
        return []
    line = (
        f"warning: {labels[largest]} has {train[largest]:,} training images and {labels[smallest]} "
        f"{train[smallest]:,}"
    )
    if several:
        return [line]
    if test.sum():
        line += f"; {always_largest(labels, train, test)}"
    if not weighted:
        line += (
            ". Small classes get more weight by --set data.sampling=balanced or --set "
            "optimizer.class_weights=balanced"
        )
    return [line]


def always_largest(labels: Sequence[str], train: Counts, test: Counts) -> str:
    """The accuracy to beat: ``"always answering cat: 94.3 % of the test images"``.

    Args:
        labels: Names of the classes.
        train: Training images of each class, the largest of which is the answer.
        test: Test images of each class, at least one in all.
    """
    largest = int(np.argmax(train))
    return (
        f"always answering {labels[largest]}: {test[largest] / test.sum():.1%} of the test images"
    )


def baseline(labels: Sequence[str], train: Counts | None, test: Counts) -> str | None:
    """``always_largest`` where it says more than the number of classes does, else ``None``.

    Args:
        labels: Names of the classes.
        train: Training images of each class; if not known, the largest class is that of the test
            images.
        test: Test images of each class.
    """
    known = test if train is None or not train.any() else train
    classes = int(np.count_nonzero(test))
    if not classes:
        return None
    if test[int(np.argmax(known))] / test.sum() < max(TENTH, MORE_THAN_EQUAL / classes):
        return None
    return always_largest(labels, known, test)


def small_test_split(images: int) -> list[str]:
    """A warning if an accuracy of 90 % would have a 95 % interval of more than ten points."""
    if not images:
        return ["warning: there are no test images"]
    right = round(ACCURACY * images)
    estimate = Estimate.of(right, images)
    low, high = 100 * estimate.low, 100 * estimate.high
    if high - low <= WIDE:
        return []
    return [
        f"warning: {images} test image{'s are' if images > 1 else ' is'} too few to tell: "
        f"{right / images:.0%} right would be {low:.0f}–{high:.0f} % (95 % interval)"
    ]
