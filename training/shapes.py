"""Shapes of JSON: functions that check a value, made from one another.

A check takes a value and where in the file it is, and raises ValueError with one sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from keras_resnet.text import shorten

Check = Callable[[Any, str], None]

PNG_URL = r"data:image/png;base64,[A-Za-z0-9+/]*={0,2}"
LARGE = 1e15  # above any size, count or time here, and exact as a float


def number(low: float = -LARGE, high: float = LARGE) -> Check:
    """A number within both limits."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(where, "a number", value)
        if not low <= value <= high:  # nor NaN
            raise _wrong(where, f"a number from {low:g} to {high:g}", value)

    return check


def count(least: int = 0, most: float = LARGE) -> Check:
    """A whole number within both limits."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _wrong(where, f"a whole number from {least} to {most:g}", value)

    return check


def text(value: Any, where: str) -> None:
    """Any text."""
    if not isinstance(value, str):
        raise _wrong(where, "text", value)


def image_url(value: Any, where: str) -> None:
    """A PNG inside a data URL: a page that shows it fetches nothing."""
    if not isinstance(value, str) or not re.fullmatch(PNG_URL, value):
        raise _wrong(where, "a data URL of a PNG", value)


def truth(value: Any, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)


def maybe(check: Check) -> Check:
    """Null, or what passes the check."""
    return lambda value, where: None if value is None else check(value, where)


def array(item: Check, least: int = 0, most: float = math.inf) -> Check:
    """A list of that many items."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            size = f"of {least}" if least == most else f"of {least} or more" if least else ""
            raise _wrong(where, f"a list {size}".rstrip(), value)
        for i, one in enumerate(value):
            item(one, f"{where}[{i}]")

    return check


def mapping(item: Check) -> Check:
    """An object with keys of any name."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        for key, one in value.items():
            item(one, f"{where}.{shorten(key, 40)}".lstrip("."))

    return check


def record(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object with these keys; others are allowed, and not read."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        for key, one in (required | (optional or {})).items():
            if key in value:
                one(value[key], f"{where}.{key}".lstrip("."))
            elif key in required:
                raise ValueError(f"{where or 'it'} has no {key!r}")

    return check


def _wrong(where: str, wanted: str, value: Any) -> ValueError:
    if isinstance(value, dict):
        shown = "an object"
    elif isinstance(value, list):
        shown = f"a list of {len(value)}"
    else:
        shown = shorten(repr(value), 40)
    return ValueError(f"{where or 'it'} must be {wanted}, and is {shown}")
