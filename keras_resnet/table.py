"""Tables as text: laid out for the width of a terminal, or one line a row for a pipe."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keras_resnet.text import printable

GAP = "  "
# The least columns for a name, for prose and for a word of a header that are wider than that.
LEAST_NAME, LEAST_PROSE, LEAST_HEADER = 24, 20, 16


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        header: Its name.
        cells: A text for each row.
        kind: ``"name"`` is shortened in the middle, ``"prose"`` wraps, ``"number"`` never changes.
    """

    header: str
    cells: tuple[str, ...]
    kind: str = "number"

    @property
    def width(self) -> int:
        """The widest cell or header, in terminal columns."""
        return max(map(cell_width, (self.header, *self.cells)))

    @property
    def least(self) -> int:
        """What the column is readable in: the header wraps, and names are shortened."""
        cells = max(map(cell_width, self.cells), default=0)
        words = max(map(cell_width, self.header.split()), default=0)
        if self.kind == "number":
            return max(cells, min(words, LEAST_HEADER))
        return max(min(cells, _LEAST[self.kind]), min(words, LEAST_HEADER))

    @property
    def left(self) -> bool:
        """Whether it is aligned to the left."""
        return self.kind != "number"


_LEAST = {"name": LEAST_NAME, "prose": LEAST_PROSE}


def layout(columns: Sequence[Column], width: int | None = None) -> list[str]:
    """The lines of a table.

    Args:
        columns: Of equal length; the first one holds the names of the rows.
        width: Columns of the terminal; ``None`` for a pipe, where each row is one line.

    Returns:
        The table in one piece if it fits into ``width``. If not, headers and prose wrap and names
        are shortened in the middle; if that is not enough, several tables below each other repeat
        the first column; if a single column is too wide for that, each row becomes a block of
        lines ``header: cell``. Numbers are never cut.
    """
    if width is None or _total(columns) <= width:
        return _table(columns, [column.width for column in columns])
    groups = list(_groups(columns, width))
    if any(_total_least(group) > width for group in groups):
        return _records(columns, width)
    lines: list[str] = []
    for group in groups:
        lines += ([""] if lines else []) + _table(group, _widths(group, width))
    return lines


def fields(pairs: Sequence[tuple[str, str]], width: int | None = None) -> list[str]:
    """Lines ``name  text``; texts begin in the same column, and wrap if there is a width."""
    margin = max(cell_width(name) for name, _ in pairs)
    lines = []
    for name, text in pairs:
        space = max(width - margin - len(GAP), 1) if width else 0
        for line in _wrapped(text, space) if width else [text]:
            lines.append(f"{_padded(name, margin, left=True)}{GAP}{line}".rstrip())
            name = ""
    return lines


def plain(text: str) -> str:
    """``printable`` text of one line: line breaks and tabs become spaces."""
    return text if text.isascii() and text.isprintable() else printable(text.translate(_SPACES))


_SPACES = dict.fromkeys(map(ord, "\n\r\t\v\f\x85\u2028\u2029"), " ")


def cell_width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def shortened(text: str, width: int) -> str:
    """A text with an ellipsis in its middle, if it is wider than ``width``."""
    if cell_width(text) <= width:
        return text
    head = _cut(text, (width - 1) // 2)
    tail = _cut(text[::-1], width - 1 - cell_width(head))[::-1]
    return f"{head}…{tail}"


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    used = 0
    for i, character in enumerate(text):
        used += _character_width(character)
        if used > width:
            return text[:i]
    return text


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _total_least(columns: Sequence[Column]) -> int:
    return sum(column.least for column in columns) + len(GAP) * (len(columns) - 1)


def _groups(columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Runs of columns that fit into the width, each after the first column."""
    name, *others = columns
    group = [name]
    for column in others:
        if len(group) > 1 and _total_least([*group, column]) > width:
            yield group
            group = [name]
        group.append(column)
    yield group


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Each column's least, and what is left over to those that it shortens or wraps most.

    A name comes first, up to a third of the width: it is shortened, where prose only wraps.
    """
    widths = [max(column.least, 1) for column in columns]
    spare = width - _total_least(columns)
    more = max(0, min(spare, columns[0].width - widths[0], width // 3 - widths[0]))
    widths[0] += more
    for _ in range(spare - more):
        scarce = [column.width / given for column, given in zip(columns, widths)]
        if max(scarce) <= 1:
            break
        widths[scarce.index(max(scarce))] += 1
    return widths


def _table(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    headers = [_header(column.header, w) for column, w in zip(columns, widths)]
    height = max(map(len, headers))
    headers = [[""] * (height - len(header)) + header for header in headers]
    lines = list(_row(columns, widths, headers))
    lines.append("─" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    for cells in zip(*(column.cells for column in columns)):
        fitted = [_fitted(cell, w, c.kind) for cell, w, c in zip(cells, widths, columns)]
        lines += _row(columns, widths, fitted)
    return lines


def _row(
    columns: Sequence[Column], widths: Sequence[int], cells: Sequence[Sequence[str]]
) -> Iterator[str]:
    """The lines of a row whose cells may have several."""
    for i in range(max(map(len, cells))):
        texts = [cell[i] if i < len(cell) else "" for cell in cells]
        padded = (_padded(t, w, column.left) for t, w, column in zip(texts, widths, columns))
        yield GAP.join(padded).rstrip()


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_width(text))
    return text + space if left else space + text


def _fitted(text: str, width: int, kind: str) -> list[str]:
    """A cell's lines."""
    return _wrapped(text, width) if kind == "prose" else [shortened(text, width)]


def _header(text: str, width: int) -> list[str]:
    """A header's lines; a path, which is a single word, is shortened."""
    return _wrapped(" ".join(shortened(word, width) for word in text.split()), width)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words, but for words wider than a line."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_width(joined) <= width:
            lines[-1] = joined
            continue
        lines += [word] if lines[-1] else []
        lines[-1] = word
        while cell_width(lines[-1]) > width:
            head = _broken(lines[-1], width)
            lines[-1:] = [head, lines[-1][len(head) :]]
    return [line for line in lines if line] or [""]


def _broken(word: str, width: int) -> str:
    """The part of a word that fits on a line, up to a slash if it has one."""
    head = _cut(word, width) or word[0]
    return head[: head.rfind("/") + 1] or head


def _records(columns: Sequence[Column], width: int) -> list[str]:
    """A block of lines for each row."""
    lines: list[str] = []
    headers = [shortened(column.header, LEAST_HEADER) for column in columns]
    for cells in zip(*(column.cells for column in columns)):
        lines += [""] if lines else []
        lines += fields(list(zip(headers, cells)), width)
    return lines
