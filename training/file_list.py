"""``images.csv`` in a run folder: the files of the data folder that are not plainly read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from training.data.file_notes import FileNote, UnreadableImages, lines, rows
from training.data.validate_images import Say
from training.run import Run

LIST_FILE = "images.csv"


@contextlib.contextmanager
def listed_in_folder(run: Run) -> Iterator[None]:
    """Writes the list if the block raises ``UnreadableImages``, whose message then names it."""
    try:
        yield
    except UnreadableImages as error:
        run.write_rows(LIST_FILE, rows(error.notes))
        raise ValueError(f"{error}. The list of all: {run.folder / LIST_FILE}") from None


def write_file_list(run: Run, notes: Sequence[FileNote], say: Say) -> None:
    """Writes the list; removes that of an earlier start if all files are plainly read now."""
    if notes:
        say(f"the list of these {len(notes):,} files: {run.write_rows(LIST_FILE, rows(notes))}")
    else:
        (run.folder / LIST_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def listed_on_screen(say: Say) -> Iterator[None]:
    """Says the list if the block raises ``UnreadableImages``."""
    try:
        yield
    except UnreadableImages as error:
        say_file_list(error.notes, say)
        raise


def say_file_list(notes: Sequence[FileNote], say: Say) -> None:
    """Says the whole list, a line for each file."""
    for line in lines(notes):
        say(line)
