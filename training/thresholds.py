"""Thresholds on probabilities: from which probability on a label is given.

The threshold of a label maximizes its F1, the harmonic mean of precision and recall, on the
validation images. F1 at that threshold is optimistic on those images, so it is reported
cross-fitted: each half of the images is decided by the thresholds chosen on the other half.
"""

from __future__ import annotations

import numpy as np

from keras_resnet.contract import DEFAULT_THRESHOLD

MARGIN = 1e-6  # thresholds lie between 0 and 1, both excluded


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of highest F1; of several, the one closest to 0.5.

    It lies midway between two neighbouring scores, so that small changes of the scores (by
    quantization, for example) do not change decisions.

    Args:
        scores: Probabilities of one label, ``(images,)``.
        truth: Whether the images have it, ``(images,)``.

    Returns:
        Between 0 and 1; 0.5 if all images have the label, or none.
    """
    from sklearn.metrics import precision_recall_curve

    truth = np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return DEFAULT_THRESHOLD
    precision, recall, lowest = precision_recall_curve(truth, np.asarray(scores, "float64"))
    precision, recall = precision[:-1], recall[:-1]  # the last point has no threshold
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    middle = (lowest + np.concatenate([[0.0], lowest[:-1]])) / 2
    best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=0, atol=1e-12))
    chosen = middle[best[np.abs(middle[best] - DEFAULT_THRESHOLD).argmin()]]
    return float(np.clip(chosen, MARGIN, 1 - MARGIN))


def choose_thresholds(scores: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """``best_threshold`` of each label.

    Args:
        scores: ``(images, labels)``.
        truth: Likewise.
    """
    return tuple(best_threshold(score, true) for score, true in zip(scores.T, truth.T))


def cross_fitted(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Decisions by thresholds that were chosen on other images: booleans ``(images, labels)``.

    Each label has its own two halves, always the same ones for the same ``truth``.
    """
    decided = np.zeros(scores.shape, bool)
    for label, (score, true) in enumerate(zip(scores.T, np.asarray(truth, bool).T)):
        first = first_half(true)
        for half in (first, ~first):
            decided[half, label] = score[half] >= best_threshold(score[~half], true[~half])
    return decided


def first_half(truth: np.ndarray) -> np.ndarray:
    """Half of the images with a label and half of those without, drawn at random: booleans.

    Not every second image: where two views of an object, or two cameras, alternate in a folder,
    the halves would be of different kinds.

    Args:
        truth: Whether the images have the label, ``(images,)``.
    """
    order = np.lexsort((np.random.default_rng(0).permutation(len(truth)), truth))
    first = np.zeros(len(truth), bool)
    first[order[::2]] = True
    return first
