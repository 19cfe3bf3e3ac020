"""Scale and zero point of int8 tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BINS = 4096
# Larger tensors are sampled at this many values; minimum and maximum are exact.
MAX_COUNTED = 2_000_000
# Fractions of the range that are tried. Below a third of it no real tensor had its optimum.
SHRINKS = np.linspace(1.0, 0.3, 71)


@dataclass(frozen=True)
class QuantParams:
    """``value = scale * (q - zero_point)`` for q from −128 to 127."""

    scale: float
    zero_point: int

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """int8 of the same shape: the nearest representable value, ties to even."""
        q = values * np.float32(1 / self.scale)
        np.rint(q, out=q)
        q += np.float32(self.zero_point)
        return np.clip(q, -128, 127, out=q).astype("int8")

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """float32 of the same shape."""
        values = np.subtract(q, np.float32(self.zero_point), dtype="float32")
        values *= np.float32(self.scale)
        return values


# Raw pixels are integers: with these their quantization is exact.
PIXELS = QuantParams(1.0, -128)
# The output of TFLite's int8 sigmoid and softmax, whatever their input.
PROBABILITIES = QuantParams(1 / 256, -128)


def spanning(low: float, high: float) -> QuantParams:
    """Covers ``low`` to ``high``, and zero exactly, as padding needs."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, 1e-8)))
    return QuantParams(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def by_min_max(values: np.ndarray) -> QuantParams:
    """Covers every value seen."""
    return spanning(float(values.min()), float(values.max()))


def by_percentile(values: np.ndarray, percent: float = 99.99) -> QuantParams:
    """Leaves ``100 - percent`` of the values out at each end."""
    counts, edges = _histogram(values)
    share = 100 * np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(share, 100 - percent)]
    return spanning(float(low), float(edges[np.searchsorted(share, percent) + 1]))


def by_squared_error(values: np.ndarray) -> QuantParams:
    """Weighs the error of clipping large values against that of rounding all others."""
    counts, edges = _histogram(values)
    centres = (edges[:-1] + edges[1:]) / 2

    def error(tried: QuantParams) -> float:
        scale, zero_point = tried.scale, tried.zero_point
        clipped = np.clip(centres, scale * (-128 - zero_point), scale * (127 - zero_point))
        # Within the range, rounding errors are uniform: their variance is a twelfth.
        return float((counts * ((centres - clipped) ** 2 + scale**2 / 12)).sum())

    low, high = edges[0], edges[-1]
    return min((spanning(low * shrink, high * shrink) for shrink in SHRINKS), key=error)


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = float(values.min()), float(values.max())
    counted = values.ravel()
    if values.size > MAX_COUNTED:
        # Not every n-th: that would leave out whole channels.
        counted = counted[np.random.default_rng(0).integers(0, values.size, MAX_COUNTED)]
    return np.histogram(counted, bins=BINS, range=(low, max(high, low + 1e-6)))


RANGES: dict[str, Callable[[np.ndarray], QuantParams]] = {
    "min-max": by_min_max,
    "percentile": by_percentile,
    "squared-error": by_squared_error,
}
