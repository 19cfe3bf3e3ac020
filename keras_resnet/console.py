"""Terminal output: tables on stdout, progress and messages on stderr."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_resnet.native_stderr import terminal_stderr
from keras_resnet.table import Column, fields, layout, plain

Progress = Callable[[int, int], None]
# What takes less shows no progress.
QUIET_SECONDS = 2.0

# Name of the codec error handler that writes unencodable characters in ASCII.
ASCII_FALLBACK = "keras-resnet-ascii"
_ASCII = {
    "–": "-", "—": "-", "−": "-", "─": "-", "…": "...", "×": "x", "Δ": "d", "→": "->", "·": "*",
    "≤": "<=", "≥": ">=", "±": "+-", "µ": "u", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip


def say(message: str) -> None:
    """Prints a message of one or several lines on stderr; never part of the result.

    Write errors on stderr are ignored.
    """
    with contextlib.suppress(OSError):
        for line in message.split("\n"):
            print(plain(line), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Prints a line of the result on stdout."""
    print(plain(text))


def show_path(path: Path) -> None:
    """Prints the path of a result on stdout: unchanged in a pipe, escaped on a terminal."""
    print(plain(str(path)) if sys.stdout.isatty() else path)


def show_json(data: Any) -> None:
    """Prints the result as one JSON value on stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    if not _encodes(text):
        text = json.dumps(data, indent=2)
    # JSON escapes only the first 32 control characters; other control characters affect terminals
    # too.
    print(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    prose: Collection[str] = (),
) -> None:
    """Prints the result as a table that fits the terminal; in a pipe each row is one line.

    Args:
        columns: Headers.
        rows: A cell for each column. Those of the first column are names, which a narrow terminal
            shortens; the others are numbers, which are never shortened.
        title: A line above the table.
        prose: Headers of columns of words, which wrap.
    """
    rows = [[_shown(cell) for cell in row] for row in rows]
    kinds = ["name", *("prose" if column in prose else "number" for column in columns[1:])]
    made = [
        Column(_shown(column), tuple(row[i] for row in rows), kinds[i])
        for i, column in enumerate(columns)
    ]
    lines = layout(made, terminal_width())
    if not _encodes("…"):
        lines = [line.replace("…", "~").replace("─", "-") for line in lines]
    print("\n".join([*([_shown(title)] if title else []), *lines]))


def show_fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Prints named lines of the result; on a terminal they wrap."""
    shown = [(_shown(name), _shown(text)) for name, text in pairs]
    print("\n".join(fields(shown, terminal_width())))


def terminal_width() -> int | None:
    """Columns of the terminal on stdout; ``None`` if it is a file or a pipe."""
    if not sys.stdout.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def file_size(count: float) -> str:
    """Formats a number of bytes in kB or MB (powers of ten)."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@contextlib.contextmanager
def progress(task: str) -> Iterator[Progress]:
    """A progress bar on stderr; yields a function to call with ``(done, total)``."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(file=terminal_stderr())
    if not console.is_terminal:
        say(f"{task} …")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        number = bar.add_task(plain(task), total=None)
        yield lambda done, total: bar.update(number, completed=done, total=total)


@contextlib.contextmanager
def progress_after(task: str) -> Iterator[Progress]:
    """``progress`` for what may be short: the bar appears after ``QUIET_SECONDS``."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - began > QUIET_SECONDS and done < total:
                bar = stack.enter_context(progress(task))
            if bar is not None:
                bar(done, total)

        yield show


def _shown(text: str) -> str:
    """A cell as stdout will show it, so that its width is known."""
    text = plain(text)
    encoding = _encoding()
    return text if _encodes(text) else text.encode(encoding, ASCII_FALLBACK).decode(encoding)


def _encodes(text: str) -> bool:
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return bytes([ord(character) - 0xDC00]), error.start + 1
    escaped = character.encode("ascii", "backslashreplace").decode()
    return _ASCII.get(character, escaped), error.start + 1


codecs.register_error(ASCII_FALLBACK, _in_ascii)
