"""Proportions of images with their 95 % confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A proportion of images with its 95 % confidence interval.

    The interval is Wilson's (1927, JASA 22:209), which stays within 0–1 and is valid for few
    images too.

    Attributes:
        value: The proportion, 0–1; ``None`` without images.
        images: Number of images.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float | None
    images: int
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, images: int) -> Estimate:
        """From the number of images that have the property, and the number of all."""
        return estimates(np.array([successes]), np.array([images]))[0]

    def __str__(self) -> str:
        if self.value is None:
            return "no images"
        return f"{self.value:.2%} ({self.low:.2%}–{self.high:.2%}, {self.images:,} images)"


def estimates(successes: np.ndarray, images: np.ndarray) -> list[Estimate]:
    """An estimate for each pair of numbers; vectorized for thousands of classes."""
    n = np.maximum(images, 1).astype("float64")
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    reach = Z95 * np.sqrt(share * (1 - share) / n + (Z95 / (2 * n)) ** 2) / (1 + Z95**2 / n)
    # Exactly 0 and 1 where the formula misses them by rounding.
    low = np.where(successes == 0, 0.0, centre - reach)
    high = np.where(successes == images, 1.0, centre + reach)
    return [
        Estimate(v, n, lo, hi) if n else Estimate(None, 0, 0.0, 1.0)
        for v, n, lo, hi in zip(share.tolist(), images.tolist(), low.tolist(), high.tolist())
    ]
