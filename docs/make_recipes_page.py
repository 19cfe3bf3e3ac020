"""Writes the table of keys in docs/recipes.md from the experiment's dataclasses.

    python docs/make_recipes_page.py

A test compares the page with what this writes.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

from training.config import Between, Experiment, Key, keys

PAGE = Path(__file__).parent / "recipes.md"
BEGIN = "<!-- keys: written by docs/make_recipes_page.py -->"
END = "<!-- end of keys -->"


def table() -> Iterator[str]:
    """One table per group of keys."""
    meanings = dict(_meanings())
    alone = [key for key in keys() if "." not in key.name]
    yield from _rows(alone, meanings)
    for group, config in _groups():
        summary = (config.__doc__ or "").splitlines()[0]
        yield f"\n**`{group}`**: {summary[0].lower()}{summary[1:]}"
        yield from _rows([key for key in keys() if key.name.startswith(f"{group}.")], meanings)


def _rows(shown: list[Key], meanings: dict[str, str]) -> Iterator[str]:
    yield "\n| key | values | default | meaning |"
    yield "|---|---|---|---|"
    for key in shown:
        cells = (f"`{key.name}`", _values(key), _default(key), meanings[key.name])
        yield f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _groups() -> Iterator[tuple[str, type]]:
    hints = typing.get_type_hints(Experiment).items()
    return ((name, kind) for name, kind in hints if dataclasses.is_dataclass(kind))


def _meanings() -> Iterator[tuple[str, str]]:
    """Descriptions from the docstrings' ``Attributes:``, by key."""
    for group, config in (("", Experiment), *_groups()):
        attributes = (config.__doc__ or "").partition("Attributes:\n")[2]
        entry = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)
        for match in entry.finditer(attributes):
            text = " ".join(match[2].split()).replace("``", "`")
            yield f"{group}.{match[1]}".lstrip("."), text


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _values(key: Key) -> str:
    if key.choices:
        return ", ".join(f"`{choice}`" for choice in key.choices if choice != "")
    if key.kind is bool:
        return "`true`, `false`"
    if key.bounds:
        return _range(key.bounds)
    return "text" if key.kind is str else "list"


def _range(bounds: Between) -> str:
    return f"{_number(bounds.low)} to {_number(bounds.high)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(key: Key) -> str:
    if key.default in (None, ""):
        return ""
    if isinstance(key.default, bool):
        return f"`{str(key.default).lower()}`"
    if isinstance(key.default, tuple):
        return f"`{list(key.default)}`"
    return f"`{key.default}`"


def page(text: str) -> str:
    """The page with the current table."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} must contain {BEGIN} and {END}")
    return "\n".join([before + BEGIN, *table(), "", END + after])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
