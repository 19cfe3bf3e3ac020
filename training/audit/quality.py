"""Pictures of poor quality, by thresholds on what a scan measured.

The thresholds were chosen on 500 photographs of ImageNet, and their darkened, bleached and blurred
copies; ``benchmarks/audit.py`` judges them on others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.audit.kinds import LEAST_SIDE, ODD_SHAPED, QUALITY, TINY
from training.audit.scan import Look, Scan

DARK = 60  # at most 5 % of the pixels have a higher luma (0–255)
BRIGHT = 190  # at most 5 % have a lower one
PLAIN = 2.5  # bits of entropy of the histogram
BLURRED = 0.15  # sharpness; see ``Measurements``


def poor_pictures(scan: Scan) -> dict[str, tuple[int, ...]]:
    """Numbers of the pictures of each kind of ``QUALITY``, the worst first."""
    usual = median_side(scan.looks)
    smallest = min(LEAST_SIDE, usual)  # a dataset of small pictures has no tiny ones

    def plain(look: Look) -> bool:
        return look.measured.entropy < PLAIN

    rules: dict[str, tuple[Callable[[Look], bool], Callable[[Look], float]]] = {
        "dark": (lambda x: x.measured.high < DARK, lambda x: x.measured.high),
        "bright": (lambda x: x.measured.low > BRIGHT, lambda x: -x.measured.low),
        "plain": (plain, lambda x: x.measured.entropy),
        # Without structure there is nothing that could be sharp.
        "blurred": (
            lambda x: x.measured.sharpness < BLURRED and not plain(x),
            lambda x: x.measured.sharpness,
        ),
        "tiny": (
            lambda x: min(x.height, x.width) < max(usual / TINY, smallest),
            lambda x: min(x.height, x.width),
        ),
        "odd-shaped": (lambda x: _ratio(x) > ODD_SHAPED, lambda x: -_ratio(x)),
    }
    return {kind: _chosen(scan.looks, *rules[kind]) for kind in QUALITY}


def median_side(looks: Sequence[Look | None]) -> float:
    """The median of the shorter sides in pixels; 0 without pictures."""
    sides = [min(look.height, look.width) for look in looks if look]
    return float(np.median(sides)) if sides else 0.0


def _ratio(look: Look) -> float:
    return max(look.height, look.width) / min(look.height, look.width)


def _chosen(
    looks: Sequence[Look | None], holds: Callable[[Look], bool], badness: Callable[[Look], float]
) -> tuple[int, ...]:
    found = [(badness(look), i) for i, look in enumerate(looks) if look and holds(look)]
    return tuple(i for _, i in sorted(found))
