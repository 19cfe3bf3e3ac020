"""How sure a comparison of two classifiers on the same images is."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

Z95 = NormalDist().inv_cdf(0.975)
BINS = 15


def paired_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference between two accuracies on the same images.

    Only the images that one of the two gets right and the other wrong tell them apart, so
    this is far narrower than what two separate accuracies would give. Wald's interval after
    half an image is added to each cell of the 2 × 2 table, which keeps its promise for few
    images and for none that differ: Agresti and Min, "Simple improved confidence intervals
    for comparing matched proportions", Statistics in Medicine 24 (2005), section 3.

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


def images_to_resolve(gained: int, lost: int, n: int, difference: float) -> int | None:
    """How many images would tell a difference of that size from none.

    That many make the interval of ``paired_interval`` reach no further than ``difference`` to
    either side, if the two models go on to differ on as many of the images as they did, gains
    and losses alike.

    Args:
        gained: Number of images that the second model alone gets right.
        lost: Number of images that the first model alone gets right.
        n: Number of images.
        difference: As a share of 1.

    Returns:
        The number; ``None`` where no number will do, as for a difference of zero.
    """
    if difference <= 0:
        return None
    apart = (gained + lost + 1) / (n + 2)
    return math.ceil(apart * (Z95 / difference) ** 2)


def mcnemar(gained: int, lost: int) -> float:
    """The probability of a difference as large as this between two models that are equal.

    McNemar's test in its exact form: of the images that one model alone gets right, each is
    either's with equal chance. McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages", Psychometrika 12 (1947).

    Args:
        gained: Number of images that the second model alone gets right.
        lost: Number of images that the first model alone gets right.

    Returns:
        The two-sided p-value, 0–1.
    """
    apart = gained + lost
    # In integers as large as need be: nothing is rounded before the division.
    ways = tail = 1
    for k in range(min(gained, lost)):
        ways = ways * (apart - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**apart)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share.

    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22 (1927).

    Returns:
        Both ends, as shares of 1.
    """
    share, weight = successes / n, Z95**2 / n
    centre = (share + weight / 2) / (1 + weight)
    reach = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: by how much confidence and accuracy differ, on average.

    Over 15 bins of equal width, weighted by the images in each: Guo, Pleiss, Sun and
    Weinberger, "On calibration of modern neural networks", ICML 2017, equation 3.

    Args:
        confidence: Probability of the class put first, ``(n,)``.
        right: Whether that class is the true one, ``(n,)``.

    Returns:
        0–1.
    """
    # A bin holds its upper end and not its lower one, as in the paper.
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=confidence.astype("float64") - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))
