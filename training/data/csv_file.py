"""The source ``csv:<file>``: a list of image files with their labels; see ``docs/data.md``.

The first line names the columns ``path``, ``label`` and, if there are splits, ``split``. Several
labels of an image are separated by ``|``.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.config import DataConfig, Task
from training.data.checked_files import LabelledFiles, open_files
from training.data.split import Source, first_labelled, some
from training.data.split_names import HELD_OUT, TRAIN, split_word
from training.data.validate_images import Say

DELIMITERS = (",", ";", "\t")
SEPARATOR = "|"
COLUMNS = ("path", "label", "split")
NEEDED = COLUMNS[:2]


@dataclass(frozen=True, slots=True)
class Row:
    """An image.

    Attributes:
        line: Its line in the file, from 1.
        path: The image file.
        labels: Its labels, sorted.
        split: A word of ``TRAIN`` or ``HELD_OUT``; empty if there is no such column.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    split: str


def open_csv(path: str, data: DataConfig, seed: int, say: Say, task: Task) -> Source:
    """Opens the images that a file lists.

    Args:
        path: The file, UTF-8 with ``,``, ``;`` or tabs. Image paths are relative to its folder.
        data: Share to hold out, and how to treat unreadable images.
        seed: Selects the images that are held out.
        say: Called with lines on rows and columns that are not used.
        task: ``"multi"`` allows any number of labels an image, others just one.

    Raises:
        ValueError: The file cannot be read, a row cannot be used (the message has its line), or
            images cannot be read and ``bad_images`` is ``"error"``.
    """
    file = Path(path).expanduser()
    rows = _merged(file, list(_read_rows(file, task, say)), task, say)
    train, test = _split(file, rows, task, say)
    labels = tuple(sorted({label for row in train for label in row.labels}))
    _check_labels(file, labels, train, test, task)

    given = LabelledFiles(
        [row.path for row in (*train, *test)],
        _label_array([*train, *test], labels, task),
        np.arange(len(train) + len(test)) >= len(train) if test else None,
    )
    return open_files(given, labels, data, seed, say)


# --- Rows -------------------------------------------------------------------------------------


def _read_rows(file: Path, task: Task, say: Say) -> Iterator[Row]:
    header, lines = _table(file)
    places = {name: header.index(name) for name in COLUMNS if name in header}
    if unused := [name for name in header if name not in COLUMNS]:
        say(f"columns of {file} that are not used: {some(unused)}")
    missing: list[str] = []
    for line, cells in lines:
        where = f"{file}, line {line}"
        if len(cells) != len(header):
            raise ValueError(
                f"{where} has {len(cells)} columns, the header {len(header)}. Put text that "
                "contains the separator in double quotes"
            )
        path = _image_path(file, cells[places["path"]].strip(), where)
        if not os.path.isfile(path):
            missing.append(f"{where}: there is no file {path}")
        split = _split_of(cells[places["split"]], where) if "split" in places else ""
        yield Row(line, path, _labels_of(cells[places["label"]], task, where), split)
    if missing:
        others = f"; {len(missing) - 1:,} other files are missing" if len(missing) > 1 else ""
        raise ValueError(f"{missing[0]}{others}. Paths are relative to {file.parent}")


def _table(file: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The names of the columns in lower case, and the other rows with their lines."""
    text = _text(file)
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in DELIMITERS:
        cells = next(csv.reader([first], delimiter=delimiter), [])
        header = [cell.strip().lower() for cell in cells]
        if all(header.count(name) == 1 for name in NEEDED) and header.count("split") < 2:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows = _numbered(file, reader)
            next(rows)
            return header, rows
    raise ValueError(
        f"{file} must begin with the names of its columns: path,label or path,label,split. "
        f"Received in line 1: {first!r:.200}"
    )


def _numbered(file: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the lines on which they end."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{file}, line {reader.line_num}: {error}") from None  # type: ignore[attr-defined]
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells  # type: ignore[attr-defined]


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"There is no file {file}") from None
    except PermissionError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}, line {line}, is not UTF-8. Save the file as UTF-8") from None


def _image_path(file: Path, cell: str, where: str) -> str:
    if not cell:
        raise ValueError(f"{where} has no path")
    return os.path.normpath(os.path.join(file.parent, cell.replace("\\", "/")))


def _split_of(cell: str, where: str) -> str:
    word = split_word(cell.strip())
    if word is None:
        raise ValueError(
            f"{where}: {cell.strip()!r} is no split. Splits are train, val, test, validation and "
            "the like"
        )
    return word


def _labels_of(cell: str, task: Task, where: str) -> tuple[str, ...]:
    labels = {label.strip() for label in cell.split(SEPARATOR)} - {""}
    if task != "multi" and len(labels) > 1:
        raise ValueError(
            f"{where} has {len(labels)} labels, {cell.strip()!r:.200}, and task={task} takes one. "
            "Set task=multi, or keep one"
        )
    return tuple(sorted(labels))


def _merged(file: Path, rows: list[Row], task: Task, say: Say) -> list[Row]:
    """The rows with one row per image.

    Raises:
        ValueError: Rows of the same image differ in their split, or in their label where an image
            has just one.
    """
    merged: dict[str, Row] = {}
    for row in rows:
        first = merged.setdefault(row.path, row)
        if first is row:
            continue
        if first.split != row.split:
            raise ValueError(
                f"{file}, lines {first.line} and {row.line}: {row.path} is in {first.split} and in "
                f"{row.split}. Keep one of them"
            )
        if first.labels != row.labels and task != "multi":
            raise ValueError(
                f"{file}, lines {first.line} and {row.line}: {row.path} has two labels, "
                f"{_shown(first)} and {_shown(row)}. Keep one, or set task=multi"
            )
        labels = tuple(sorted({*first.labels, *row.labels}))
        merged[row.path] = Row(first.line, first.path, labels, first.split)
    if len(merged) < len(rows):
        say(f"rows of {file} that repeat an image, which is read once: {len(rows) - len(merged):,}")
    if not merged:
        raise ValueError(f"{file} has a header and no rows")
    return list(merged.values())


# --- Splits -----------------------------------------------------------------------------------


def _split(file: Path, rows: list[Row], task: Task, say: Say) -> tuple[list[Row], list[Row]]:
    """Training and test images by the column; no test images if a share is to be held out."""
    train = [row for row in rows if row.split in ("", *TRAIN)]
    if not train:
        raise ValueError(f"{file} has no rows of the split train. {_counts(rows)}")
    for row in train:
        if not row.labels and task != "multi":
            raise ValueError(f"{file}, line {row.line}, has no label")
    words = [word for word in HELD_OUT if any(row.split == word for row in rows)]
    used = first_labelled(words, lambda word: range(_labelled(rows, word)), say)
    for word in words[words.index(used) + 1 :] if used else ():
        say(f"{used} is the test split of {file}, so the rows of {word} are not used")
    return train, [row for row in rows if row.split == used] if used else []


def _labelled(rows: list[Row], word: str) -> int:
    return sum(bool(row.labels) for row in rows if row.split == word)


def _counts(rows: list[Row]) -> str:
    counts = Counter(row.split for row in rows)
    return "Found: " + ", ".join(f"{count:,} of {word}" for word, count in counts.items())


def _check_labels(
    file: Path, labels: tuple[str, ...], train: list[Row], test: list[Row], task: Task
) -> None:
    needed = 1 if task == "multi" else 2
    if len(labels) < needed:
        raise ValueError(
            f"{file} needs at least {needed} different labels of training images. Found: "
            f"{', '.join(labels) or 'none'}, from line {train[0].line} on"
        )
    known = set(labels)
    for row in test:
        if not row.labels and task != "multi":
            raise ValueError(f"{file}, line {row.line}, has no label")
        if unknown := [label for label in row.labels if label not in known]:
            raise ValueError(
                f"{file}, line {row.line}: no training image has the label {unknown[0]!r}. Its "
                f"labels are {some(labels)}"
            )


def _label_array(rows: list[Row], labels: Sequence[str], task: Task) -> np.ndarray:
    """int64 ``(count,)`` class numbers, or for ``multi`` uint8 ``(count, classes)``."""
    numbers = {label: number for number, label in enumerate(labels)}
    if task != "multi":
        return np.array([numbers[row.labels[0]] for row in rows], "int64")
    array = np.zeros((len(rows), len(labels)), "uint8")
    for row, marks in zip(rows, array):
        marks[[numbers[label] for label in row.labels]] = 1
    return array


def _shown(row: Row) -> str:
    return repr(SEPARATOR.join(row.labels))
