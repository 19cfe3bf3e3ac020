"""A few images of a split, drawn evenly over its classes; the same split gives the same ones."""

from __future__ import annotations

import numpy as np

from training.data.shuffle import epoch_order
from training.data.split import Split, labels_of, read_labels

# Labels that are read of a split whose labels have to be read with its images: for each image to
# draw, and at least.
READ_FOR_EACH = 10
READ_AT_LEAST = 2_000


def sample(split: Split, count: int) -> np.ndarray:
    """Numbers of ``count`` images of a split, int64, ascending; all numbers if it has fewer.

    Calibration sees every class, however the split is sorted. Where labels can only be read with
    the images (tensorflow-datasets), they are drawn from ten times as many random images, at least
    2,000.
    """
    if count >= split.count:
        return np.arange(split.count)
    read = max(READ_AT_LEAST, READ_FOR_EACH * count)
    if split.labels is not None or split.count <= read:
        return _evenly(labels_of(split), count)
    # Not at even distances, which would see one class only where the classes alternate.
    some = np.sort(epoch_order(split.count, seed=0, epoch=0)[:read])
    return some[_evenly(read_labels(split, some), count)]


def evenly_over_classes(classes: np.ndarray, count: int) -> np.ndarray:
    """Positions of ``count`` images, ascending, the same number of each class as far as it lasts.

    A class with fewer images than its share gives all of them, and the others give more. What
    cannot be divided goes to classes at even distances, as do all if there are more classes than
    ``count``. Within a class the images are at even distances.

    Args:
        classes: Class of each image, integers ``(images,)``.
        count: At most the number of images.
    """
    _, number, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(sizes)[:-1])
    quotas = _quotas(sizes, count)
    chosen = [own[even_positions(len(own), n)] for own, n in zip(members, quotas) if n]
    return np.sort(np.concatenate(chosen))


def evenly_over_labels(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of ``count`` images at even distances, ascending, with every label if they suffice.

    Args:
        labels: uint8 ``(images, classes)``, 1 for each label that an image has.
        count: At most the number of images.
    """
    chosen = _one_of_each_label(labels, count)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    more = rest[even_positions(len(rest), count - len(chosen))]
    return np.sort(np.concatenate([chosen, more]))


def even_positions(length: int, count: int) -> np.ndarray:
    """``count`` of the numbers below ``length`` at even distances, each the centre of its part."""
    return (2 * np.arange(count) + 1) * length // (2 * max(count, 1))


def _evenly(labels: np.ndarray, count: int) -> np.ndarray:
    if labels.ndim == 1:
        return evenly_over_classes(labels, count)
    return evenly_over_labels(labels, count)


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many images each class gives."""
    quotas = np.zeros_like(sizes)
    while rest := count - quotas.sum():
        more = np.flatnonzero(quotas < sizes)
        if each := rest // len(more):
            quotas[more] += np.minimum(each, sizes[more] - quotas[more])
        else:
            quotas[more[even_positions(len(more), rest)]] += 1
    return quotas


def _one_of_each_label(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of at most ``count`` images that have every label, the rarest labels first."""
    chosen: list[int] = []
    sizes = labels.sum(axis=0, dtype="int64")
    covered = sizes == 0
    for label in np.argsort(sizes, kind="stable"):
        if covered[label] or len(chosen) == count:
            continue
        own = np.flatnonzero(labels[:, label])
        chosen.append(int(own[len(own) // 2]))
        covered |= labels[chosen[-1]] > 0
    return np.array(chosen, "int64")
