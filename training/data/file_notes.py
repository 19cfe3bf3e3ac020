"""Files of a data folder that are not plainly read: counted by reason, and all listed in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from keras_resnet.text import printable
from training.config import DataConfig
from training.data.validate_images import Say

Status = Literal["unreadable", "not a picture", "hidden", "damaged"]

# Files that a message names for each reason.
NAMED = 3


@dataclass(frozen=True)
class FileNote:
    """A file that is not read, or that is damaged and read all the same.

    Attributes:
        path: The file; its bytes that are not UTF-8 are surrogates.
        split: ``"train"`` or ``"test"``; empty if it belongs to neither.
        label: Its class; empty if it has none.
        status: ``"damaged"`` files are read, others are not.
        reason: What is wrong with it, or what it is: ``"is empty"``, ``"text file"``.
    """

    path: str
    split: str
    label: str
    status: Status
    reason: str


class UnreadableImages(ValueError):
    """There are pictures that cannot be read, and they may not be skipped.

    Attributes:
        notes: On all files that are not plainly read.
    """

    def __init__(self, message: str, notes: Sequence[FileNote]) -> None:
        super().__init__(message)
        self.notes = tuple(notes)


def report(notes: Sequence[FileNote], total: int, data: DataConfig, say: Say) -> None:
    """Says how many files are not plainly read, and why; applies ``data.bad_images``.

    Args:
        notes: On the files.
        total: Number of pictures, the unreadable ones included.
        data: ``bad_images`` and ``max_bad_images``.
        say: Called with a line for each status.

    Raises:
        UnreadableImages: ``bad_images`` is ``"error"``, or there are more than ``max_bad_images``.
    """
    if others := _of(notes, "not a picture"):
        count = _counted(len(others), "file")
        say(f"not read, as not a picture: {count}: {_by_reason(others)}")
    if hidden := _of(notes, "hidden"):
        count = _counted(len(hidden), "hidden file")
        say(f"not read: {count}, such as {_paths(hidden[:1])[0]}")
    if damaged := _of(notes, "damaged"):
        names = [f"{path} ({note.reason})" for path, note in zip(_paths(damaged), damaged)]
        verb = "has" if len(damaged) == 1 else "have"
        say(
            f"{_counted(len(damaged), 'image')} {verb} damaged data and "
            f"{'is' if len(damaged) == 1 else 'are'} read all the same: {_named(names)}"
        )
    _report_unreadable(notes, total, data, say)


def rows(notes: Iterable[FileNote]) -> list[dict[str, str]]:
    """The notes as rows of a CSV file, with printable paths."""
    return [
        {
            "path": printable(row["path"]),
            "split": row["split"],
            "class": printable(row["label"]),
            "status": row["status"],
            "reason": printable(row["reason"]),
        }
        for row in map(asdict, notes)
    ]


def lines(notes: Iterable[FileNote]) -> list[str]:
    """The notes as lines of text."""
    return [f"{printable(note.path)}: {note.status}, {printable(note.reason)}" for note in notes]


def _report_unreadable(notes: Sequence[FileNote], total: int, data: DataConfig, say: Say) -> None:
    bad = _of(notes, "unreadable")
    if not bad:
        return
    named = "; ".join(f"{path} {note.reason}" for path, note in zip(_paths(bad[:NAMED]), bad))
    more = f"; and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
    counted = f"{len(bad):,} of {total:,} images cannot be read: {named}{more}"
    if data.bad_images == "error":
        raise UnreadableImages(
            f"{counted}. Repair or remove them, or skip them: data.bad_images=skip", notes
        )
    if len(bad) > data.max_bad_images:
        raise UnreadableImages(
            f"{counted}. At most {data.max_bad_images:,} may be skipped (data.max_bad_images)",
            notes,
        )
    if len(bad) == total:
        raise UnreadableImages(f"{counted}. There are no others", notes)
    say(f"skipping {counted}")


def _of(notes: Iterable[FileNote], status: Status) -> list[FileNote]:
    return [note for note in notes if note.status == status]


def _paths(notes: Iterable[FileNote]) -> list[str]:
    return [printable(note.path) for note in notes]


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _by_reason(notes: Sequence[FileNote]) -> str:
    """``3 text files (a/notes.txt, b/notes.txt, c/notes.txt), 1 .npy file (a/x.npy)``."""
    counts = Counter(note.reason for note in notes)
    groups = []
    for reason, count in counts.most_common(NAMED):
        names = _paths(note for note in notes if note.reason == reason)
        groups.append(f"{_counted(count, reason)} ({_named(names)})")
    rest = sum(count for _, count in counts.most_common()[NAMED:])
    return ", ".join(groups) + (
        f", {rest:,} of {len(counts) - NAMED:,} other kinds" if rest else ""
    )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
