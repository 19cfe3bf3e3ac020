"""What a file of mixed precision may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """What a mixed file may cost; the smallest that keeps within it is taken.

    Attributes:
        max_drop: Percent of images that may get another answer than from the float network,
            as ``expected_changes`` estimates it from the calibration images. Images that the
            model was trained on are answered more surely than others: give it others, or ask
            for less.
        max_latency: Milliseconds an image on one thread of this machine; where it is given,
            the most accurate file within it is taken, whatever it drops.
    """

    max_drop: float = 0.1
    max_latency: float | None = None
