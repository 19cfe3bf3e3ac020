"""The folder that downloaded weights are kept in.

It is ``$KERAS_RESNET_CACHE``, else ``$XDG_CACHE_HOME/keras-resnet``, else
``~/.cache/keras-resnet``. Next to each file is a ``.json`` with its address and its SHA-256, a
``.lock``, and while it is incomplete a ``.partial``. None of these is opened if it is a link:
in a folder that others can write to, it could lead to any file of the user.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from keras_resnet.console import say
from keras_resnet.files import atomic_write
from keras_resnet.weights.addresses import hub_file


def cache_folder() -> Path:
    """The folder; it need not exist."""
    if chosen := os.environ.get("KERAS_RESNET_CACHE"):
        return Path(chosen).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "keras-resnet"


def offline() -> bool:
    """Whether ``KERAS_RESNET_OFFLINE`` forbids downloads."""
    return os.environ.get("KERAS_RESNET_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def cached_as(address: str) -> Path:
    """The path of an address's file, relative to the cache folder."""
    if (file := hub_file(address)) is not None:
        parts = ["hf", file.owner, file.name, file.revision, *file.file.split("/")]
    else:
        split = urllib.parse.urlsplit(address)
        parts = [split.netloc, *split.path.split("/")]
        if split.query:
            parts[-1] = f"{hashlib.sha256(address.encode()).hexdigest()[:12]}-{parts[-1]}"
    safe = (re.sub(r"[^\w.+-]", "_", part) for part in parts)
    return Path(*(part for part in safe if part.strip(".")))


def beside(target: Path, suffix: str) -> Path:
    """The path of a companion file: ``".json"``, ``".lock"`` or ``".partial"``."""
    return target.with_name(target.name + suffix)


def open_regular(path: Path, mode: str) -> IO[bytes]:
    """Opens a companion file of a target.

    Raises:
        OSError: It is a symbolic link, or no regular file; or any other reason.
    """

    def opener(name: str, flags: int) -> int:
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        refused = OSError(errno.ELOOP, f"{path.name} is a link or no regular file; remove it")
        try:
            descriptor = os.open(name, flags, 0o666)
        except OSError as error:
            # A link, or a FIFO that nothing reads.
            raise refused if error.errno in (errno.ELOOP, errno.ENXIO) else error from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise refused
        return descriptor

    return open(path, mode, opener=opener)


def length(path: Path) -> int:
    """Bytes of a regular file; 0 if there is none."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def read_record(path: Path) -> dict[str, str]:
    """The texts of a ``.json``, each printable ASCII; empty if it is missing or damaged."""
    try:
        with open_regular(path, "rb") as file:
            data = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    items = data.items() if isinstance(data, dict) else ()
    return {k: v for k, v in items if isinstance(v, str) and v.isascii() and v.isprintable()}


def write_record(path: Path, data: dict[str, Any]) -> None:
    """Writes a ``.json``; what is empty is left out."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({k: v for k, v in data.items() if v}), "utf-8")


def discard(partial: Path) -> None:
    """Removes an incomplete file and its record."""
    partial.unlink(missing_ok=True)
    beside(partial, ".json").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Locks a file against other processes; the lock is released when the process ends."""
    with open_regular(beside(target, ".lock"), "wb") as file:
        waited = False
        while not _try_lock(file):
            if not waited:
                say(f"Another process downloads {target.name}: waiting for it")
            waited = True
            time.sleep(0.1)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
