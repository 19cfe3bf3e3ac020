"""Confidence intervals and tests for two classifiers on the same images."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest

Z95 = NormalDist().inv_cdf(0.975)
BINS = 15


def paired_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference between two accuracies on the same images.

    Only images that exactly one of the two gets right count as evidence, so this is far
    narrower than two separate intervals would suggest. Wald's interval after half an image is
    added to each cell of the 2 × 2 table, which keeps its coverage for few images and for none
    that differ: Agresti and Min, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24 (2005), section 3.

    Args:
        gained: Number of images that the second model alone gets right.
        lost: Number of images that the first model alone gets right.
        n: Number of images.

    Returns:
        Both ends, as shares of 1.
    """
    gain, loss, count = gained + 0.5, lost + 0.5, n + 2
    centre = (gain - loss) / count
    error = math.sqrt(gain + loss - (gain - loss) ** 2 / count) / count
    reach = Z95 * error
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def paired_interval_of_shares(differences: np.ndarray, step: float) -> tuple[float, float]:
    """``paired_interval`` where one image contributes many decisions, such as labels.

    The decisions on one image depend on each other, so the images are the sample: the 95 % interval
    of the mean of their differences, by the normal distribution. One image that gains a decision
    and one that loses one are added, so that the width is never zero.

    Args:
        differences: For each image the share of right decisions of the second model minus that of
            the first, ``(images,)``.
        step: The share of one decision.

    Returns:
        Both ends, as shares of 1.
    """
    extended = np.concatenate([differences, [step, -step]]).astype("float64")
    reach = Z95 * float(extended.std()) / math.sqrt(len(extended))
    return max(-1.0, float(extended.mean()) - reach), min(1.0, float(extended.mean()) + reach)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """The area under the steps of the precision-recall curve of one label.

    Images of equal score enter the curve together, as in scikit-learn's function of that name.

    Args:
        scores: Probabilities, ``(images,)``.
        truth: Whether the images have the label, ``(images,)``.

    Returns:
        0–1; ``None`` if no image has the label.
    """
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order] > 0
    if not truth.any():
        return None
    last_of_equals = np.append(np.diff(scores) != 0, True)
    found = np.cumsum(truth)[last_of_equals]
    precision = found / (np.flatnonzero(last_of_equals) + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / truth.sum())


def images_to_resolve(gained: int, lost: int, n: int, difference: float) -> int | None:
    """How many images resolve a difference of that size.

    With that many, the interval of ``paired_interval`` reaches at most ``difference`` to either
    side, if the two models differ on the same share of the images as here, with as many gains
    as losses.

    Args:
        gained: Number of images that the second model alone gets right.
        lost: Number of images that the first model alone gets right.
        n: Number of images.
        difference: As a share of 1.

    Returns:
        The number; ``None`` for a difference of zero, which no number resolves.
    """
    if difference <= 0:
        return None
    differing = (gained + lost + 1) / (n + 2)
    return math.ceil(differing * (Z95 / difference) ** 2)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test: the probability of such a difference between two equal models.

    Under the null hypothesis, an image that exactly one model gets right is either model's with
    equal probability. McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12 (1947).

    Args:
        gained: Number of images that the second model alone gets right.
        lost: Number of images that the first model alone gets right.

    Returns:
        The two-sided p-value, 0–1.
    """
    differing = gained + lost
    return float(binomtest(gained, differing).pvalue) if differing else 1.0


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion, at least one image.

    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22 (1927).

    Returns:
        Both ends, as shares of 1.
    """
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: the average difference between confidence and accuracy.

    Over 15 bins of equal width, weighted by the images in each: Guo, Pleiss, Sun and
    Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3.

    Args:
        confidence: Probability of the predicted class, ``(n,)``.
        right: Whether that class is the true one, ``(n,)``.

    Returns:
        0–1.
    """
    # A bin holds its upper end and not its lower one, as in the paper.
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=confidence.astype("float64") - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))
