"""From files and their classes to a source: checks, splits, and notes on what is not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.config import DataConfig
from training.data.file_notes import FileNote, Status, report
from training.data.split import CHANNELS, Source, Split, file_split, stratified
from training.data.validate_images import Checked, Say, check_files


@dataclass(frozen=True)
class LabelledFiles:
    """Files that are supposed to be pictures, in the order of their numbers.

    Attributes:
        files: Their paths.
        classes: Label of each, as in ``Split``: int64 ``(count,)`` or uint8 ``(count, classes)``.
        is_test: bool ``(count,)``, whether a file belongs to the test split; ``None`` if a share of
            each class is to be held out.
        hidden: Paths of hidden files beside them, which are only counted.
    """

    files: list[str]
    classes: np.ndarray
    is_test: np.ndarray | None
    hidden: Sequence[str] = ()


def open_files(
    given: LabelledFiles, labels: tuple[str, ...], data: DataConfig, seed: int, say: Say
) -> Source:
    """Checks files and makes a source of those that can be read.

    A share is held out of all pictures, the unreadable ones included: that one of them is repaired
    moves no other from one split to the other.

    Args:
        given: The files.
        labels: Names of the classes.
        data: ``color``, ``test_fraction``, ``bad_images`` and ``max_bad_images``.
        seed: Selects the images that are held out.
        say: Called with lines on files that are not plainly read.

    Raises:
        UnreadableImages: Pictures cannot be read and may not be skipped.
        ValueError: The images cannot be split by class.
        OSError: The machine failed.
    """
    checked = check_files(given.files)
    is_picture = _all_but(checked.others, len(given.files))
    is_readable = is_picture & _all_but(checked.problems, len(given.files))
    is_test = given.is_test
    if is_test is None:
        is_test = _held_out(given.classes, is_picture, labels, data.test_fraction, seed)
    notes = _notes(given, labels, checked, is_test)
    report(notes, int(is_picture.sum()), data, say)
    by_pillow = np.zeros(len(given.files), bool)
    by_pillow[checked.by_pillow] = True

    def split(chosen: np.ndarray) -> Split:
        numbers = np.flatnonzero(is_readable & chosen)
        files = [given.files[number] for number in numbers.tolist()]
        return file_split(files, given.classes[numbers], by_pillow[numbers])

    return Source(labels, CHANNELS[data.color], split(~is_test), split(is_test), tuple(notes))


def _all_but(numbers: dict[int, str], count: int) -> np.ndarray:
    chosen = np.ones(count, bool)
    chosen[list(numbers)] = False
    return chosen


def _held_out(
    classes: np.ndarray, is_picture: np.ndarray, labels: tuple[str, ...], fraction: float, seed: int
) -> np.ndarray:
    """Whether each file is held out, bool ``(count,)``."""
    pictures = np.flatnonzero(is_picture)
    _, test = stratified(classes[pictures], fraction, seed, labels)
    held_out = np.zeros(len(classes), bool)
    held_out[pictures[test]] = True
    return held_out


def _notes(
    given: LabelledFiles, labels: tuple[str, ...], checked: Checked, is_test: np.ndarray
) -> list[FileNote]:
    found: list[tuple[int, Status, str]] = [
        *((number, "unreadable", reason) for number, reason in checked.problems.items()),
        *((number, "not a picture", reason) for number, reason in checked.others.items()),
        *((number, "damaged", reason) for number, reason in checked.remarks.items()),
    ]
    return [
        FileNote(
            path=given.files[number],
            split="" if status == "not a picture" else "test" if is_test[number] else "train",
            label=_label(given.classes[number], labels),
            status=status,
            reason=reason,
        )
        for number, status, reason in sorted(found)
    ] + [FileNote(path, "", "", "hidden", "hidden file") for path in given.hidden]


def _label(chosen: np.ndarray, labels: tuple[str, ...]) -> str:
    """Name of a class; of several, joined by ``|``."""
    if chosen.ndim:
        return "|".join(labels[number] for number in np.flatnonzero(chosen))
    return labels[int(chosen)]
