"""Figures as people read them."""

from __future__ import annotations

from typing import Any


def work(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def percent(estimate: Any) -> str:
    if not estimate.images:
        return "–"
    return f"{estimate.value:.1%} ({estimate.low:.1%}–{estimate.high:.1%})"
