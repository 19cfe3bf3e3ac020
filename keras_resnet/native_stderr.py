"""Redirects descriptor 2: native libraries write to it from C++, bypassing ``sys.stderr``."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, TextIO


@contextlib.contextmanager
def suppressed_native_stderr() -> Iterator[None]:
    """Buffers native stderr; replays it on failure.

    ``sys.stdout`` is dropped meanwhile; a progress bar on ``terminal_stderr`` is still shown. Not
    thread-safe: descriptor 2 belongs to the process.
    """
    if sys.stderr is None:  # started with stderr closed: descriptor 2 may be any file
        yield
        return
    sys.stderr.flush()
    with _buffer() as held, _redirected_descriptor(held.fileno()) as original:
        try:
            with _redirected_streams():
                yield
        except Exception:
            held.seek(0)
            _write_all(original, held.read())
            raise


@contextlib.contextmanager
def captured_native_stderr() -> Iterator[Callable[[], bytes]]:
    """Keeps native stderr off the screen; yields a function that returns what was written so far.

    It is replayed on failure. ``sys.stderr`` is captured too, a progress bar on
    ``terminal_stderr`` is not. Not thread-safe: descriptor 2 belongs to the process.
    """
    if sys.stderr is None:
        yield lambda: b""
        return
    sys.stderr.flush()
    with _buffer() as held, _redirected_descriptor(held.fileno()) as original:

        def written() -> bytes:
            sys.stderr.flush()
            held.seek(0)
            return held.read()

        try:
            yield written
        except Exception:
            _write_all(original, written())
            raise


def _buffer() -> IO[bytes]:
    """A file in memory where the system supports it, so that a full TMPDIR does not matter."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def terminal_stderr() -> TextIO:
    """stderr to draw on; on a terminal with a descriptor of its own.

    ``suppressed_native_stderr`` redirects descriptor 2, on which ``sys.stderr`` writes; what is
    written to this file appears all the same.
    """
    if sys.stderr is None:
        return io.StringIO()
    if not sys.stderr.isatty():
        return sys.stderr
    descriptor = sys.stderr.fileno()
    return _duplicate(descriptor, os.fstat(descriptor).st_rdev)


@functools.cache
def _duplicate(descriptor: int, device: int) -> TextIO:
    """One for each terminal, and never closed: a logger created while a bar is drawn keeps it."""
    return lossy_text(os.dup(descriptor), sys.stderr)


def lossy_text(descriptor: int, like: TextIO) -> TextIO:
    """A text file on a descriptor, encoded like another, whose writes never fail.

    Progress and messages are not results: a full disk or a closed terminal behind stderr must not
    be an error.
    """
    raw = _LossyFile(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), like.encoding, like.errors, line_buffering=True)


class _LossyFile(io.FileIO):
    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        try:
            written: int | None = super().write(data)  # None: it would block
        except OSError:
            return size
        return size if written is None else written


@contextlib.contextmanager
def _redirected_descriptor(target: int) -> Iterator[int]:
    """Descriptor 2 writes to ``target``; yields a duplicate of what it wrote to before."""
    original = os.dup(2)
    os.dup2(target, 2)
    try:
        yield original
    finally:
        os.dup2(original, 2)
        os.close(original)


@contextlib.contextmanager
def _redirected_streams() -> Iterator[None]:
    """Python's stdout is dropped; its stderr follows descriptor 2.

    While a progress bar is drawn, ``sys.stderr`` is rich's, which prints above the bar.
    """
    # Never closed: a logger that the block creates keeps it.
    stderr = lossy_text(2, sys.stderr)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
            yield
    finally:
        stderr.flush()


def _write_all(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
