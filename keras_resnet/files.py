"""Files and folders that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What a process that was killed leaves behind begins with this.
BESIDE = ".writing."


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, which is renamed to ``path`` once it is whole and on the disk."""
    # The suffix stays last: Keras goes by it.
    beside = path.with_name(f"{BESIDE}{os.getpid()}.{path.name}")
    try:
        yield beside
        _to_disk(beside)
        beside.replace(path)
        _to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write_folder(folder: Path) -> Iterator[Path]:
    """The path of a folder to make and fill; it takes the place of ``folder`` once it is whole."""
    prefix = f"{BESIDE}{folder.name}."
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as beside:
        whole = Path(beside) / "whole"
        yield whole
        if folder.exists():
            folder.rename(Path(beside) / "old")
        whole.rename(folder)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
