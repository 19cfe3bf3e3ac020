"""What a file of mixed precision may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_MAX_DROP = 0.1


@dataclass(frozen=True)
class Budget:
    """The limits of a mixed file. Every limit that is given holds.

    ======================  ==========================================================
    given                   chosen
    ======================  ==========================================================
    neither                 the smallest file within a ``max_drop`` of 0.1
    ``max_drop``            the smallest file within it
    ``max_latency``         the most accurate file within it, whatever it drops
    both                    the smallest file within both; ``ValueError`` if there is none
    ======================  ==========================================================

    Attributes:
        max_drop: Percent of images, 0–100, whose predicted class may differ from that of the
            float network, as ``expected_changes`` estimates it from the calibration images.
            Predictions on images that the model was trained on are surer than on others: give
            it others, or a lower limit.
        max_latency: Milliseconds an image on one thread of this machine.

    Raises:
        ValueError: A limit is out of range.
    """

    max_drop: float | None = None
    max_latency: float | None = None

    def __post_init__(self) -> None:
        for field, top in (("max_drop", 100.0), ("max_latency", math.inf)):
            value = getattr(self, field)
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= top or value == math.inf:
                unit = "a percentage from 0 to 100" if top == 100 else "a number of milliseconds"
                raise ValueError(f"{field} must be {unit}. Received: {field}={value!r}")
