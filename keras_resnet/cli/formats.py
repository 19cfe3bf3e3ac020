"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def multiply_adds(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def percent(estimate: Any) -> str:
    if not estimate.images:
        return "–"
    return f"{estimate.value:.1%} ({estimate.low:.1%}–{estimate.high:.1%})"


def percent_or_none(estimate: Mapping[str, Any] | None) -> str:
    if not estimate or estimate["value"] is None:
        return "not evaluated"
    return f"{estimate['value']:.2%} ({estimate['low']:.2%}–{estimate['high']:.2%})"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.{2 if value >= 1 else 3}f} ms"


def decibels(value: float | None) -> str:
    return "no error" if value is None else f"{value:.1f} dB"


def probability(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def points(value: float | None) -> str:
    return "not finite" if value is None else f"{value:+.2f}"


def before_and_after(before: float, after: float | None) -> str:
    return f"{before:.2f} → " + ("not finite" if after is None else f"{after:.2f}")
