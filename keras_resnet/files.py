"""Atomic writes: a file or folder is complete or not there, whenever the process is killed.

It is written into a folder ``.writing.*`` next to its target and renamed when it is complete. The
process holds a lock on that folder, which the operating system releases when the process dies:
an unlocked one is a leftover, which the next write to the same parent removes. Where folders
cannot be locked (Windows, some network file systems) leftovers stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The file in which TensorFlow writes the graph of a SavedModel: by it such a folder is known.
SAVED_MODEL_FILE = "saved_model.pb"
WRITING = ".writing."
OLD = f"{WRITING}old"  # where a replaced folder is put; no target has this name


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, of the same name; the file replaces ``path`` once it is on the disk.

    Raises:
        OSError: The folder of ``path`` is missing or cannot be written to.
    """
    with _writing_folder(path.parent) as temporary:
        new = temporary / path.name
        yield new
        _to_disk(new)
        new.replace(path)
        _to_disk(path.parent)


@contextlib.contextmanager
def atomic_write_folder(folder: Path) -> Iterator[Path]:
    """The path of a folder to make and fill, of the same name; it then replaces ``folder``.

    On Linux and macOS the two are exchanged in one step. Where the file system cannot, there is
    a moment without either; a process killed in it leaves the old folder to the next write
    to the same parent, which restores it.

    Raises:
        OSError: The parent folder is missing or cannot be written to.
    """
    with _writing_folder(folder.parent) as temporary:
        new = temporary / folder.name
        yield new
        for path in (*new.rglob("*"), new):
            if not path.is_symlink():
                _to_disk(path)
        if not os.path.lexists(folder):
            new.rename(folder)
        elif not _exchange(new, folder):
            _replace_folder(new, folder, temporary / OLD)
        _to_disk(folder.parent)


def check_replaceable(folder: Path, marker: str, content: str) -> None:
    """Refuses to replace a folder of the user's own.

    Args:
        folder: Where a folder will be written.
        marker: A file that every folder of this sort contains.
        content: What such a folder is, for the message: ``"a SavedModel"``.

    Raises:
        ValueError: Something else is there: a file, or a folder without ``marker`` that is not
            empty.
    """
    if not os.path.lexists(folder):
        return
    if folder.is_dir() and ((folder / marker).is_file() or not any(folder.iterdir())):
        return
    raise ValueError(f"{folder} is not {content}, and is not replaced. Give a new folder")


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary folders of processes that were killed while writing into a folder."""
    leftovers = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        leftovers = [Path(entry) for entry in entries if entry.name.startswith(WRITING)]
    for leftover in leftovers:
        with contextlib.suppress(OSError), _locked(leftover) as locked:
            if locked:
                _put_back(leftover / OLD, folder)
                _remove(leftover)


@contextlib.contextmanager
def _writing_folder(parent: Path) -> Iterator[Path]:
    """A locked temporary folder, removed afterwards."""
    remove_leftovers(parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=WRITING, dir=parent))
    except OSError as error:  # name the folder that the caller knows
        error.filename = str(parent)
        raise
    # Another process may see it before it is locked, and remove it as a leftover.
    while True:
        with _locked(folder, wait=True):
            if folder.exists():
                try:
                    yield folder
                finally:
                    _remove(folder)
                return
        folder.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Locks a folder; yields whether it was free and can be locked at all."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, FileNotFoundError):
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except OSError:  # another process holds it, or the file system has no locks
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two paths in one step; ``False`` where the system cannot."""
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "darwin":  # RENAME_SWAP
            return library.renamex_np(os.fsencode(one), os.fsencode(other), 2) == 0
        here = -100  # AT_FDCWD: paths are relative to the current folder
        # RENAME_EXCHANGE
        return library.renameat2(here, os.fsencode(one), here, os.fsencode(other), 2) == 0
    except (AttributeError, OSError, TypeError):
        return False


def _replace_folder(new: Path, folder: Path, old: Path) -> None:
    """Non-atomic fallback: the target is briefly missing."""
    old.mkdir()
    folder.rename(old / folder.name)
    try:
        new.rename(folder)
    except OSError:
        (old / folder.name).rename(folder)
        raise


def _put_back(old: Path, parent: Path) -> None:
    """Renames a folder back whose process was killed before the new one took its place."""
    for folder in old.iterdir() if old.is_dir() else ():
        if not os.path.lexists(parent / folder.name):
            folder.rename(parent / folder.name)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
