"""What ``weights=`` did to every weight of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight, by names such as ``stem_conv/kernel``.

    Attributes:
        source: The file.
        loaded: Weights that have the file's values, adapted ones included.
        adapted: What was changed on the way in, and how.
        reinitialised: Weights of the classifier that stay random, because the file's is for
            another number of classes.
        unused: Weights of the file that this network has no place for: those of the
            classifier, where it has none.
        missing: Weights of the classifier that stay random, because the file has none.
    """

    source: str
    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    reinitialised: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{'weights':14} {self.source}", f"{'loaded':14} {len(self.loaded)}"]
        changes = [f"{_some(names)}: {how}" for how, names in self._by_change().items()]
        for title, names in (
            ("adapted", changes),
            ("reinitialised", self.reinitialised),
            ("unused", self.unused),
            ("missing", self.missing),
        ):
            count = len(self.adapted) if title == "adapted" else len(names)
            lines.append(f"{title:14} {count}")
            lines += [f"{'':14} {name}" for name in names]
        return "\n".join(lines)

    def _by_change(self) -> dict[str, list[str]]:
        changes: dict[str, list[str]] = {}
        for name, how in self.adapted.items():
            changes.setdefault(how, []).append(name)
        return changes


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
