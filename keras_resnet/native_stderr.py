"""Native libraries write to stderr from C++, where no Python setting reaches them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def suppressed_native_stderr() -> Iterator[None]:
    """Holds back what the block prints, from C++ too; shows it if the block fails."""
    if sys.stderr is None:  # started with stderr closed: descriptor 2 may be any file
        yield
        return
    sys.stderr.flush()
    with _buffer() as held, _stderr_into(held.fileno()) as stderr:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception:
            sys.stderr.flush()
            held.seek(0)
            os.write(stderr, held.read())
            raise


def _buffer() -> IO[bytes]:
    """In memory where the system can, so that a full TMPDIR makes no difference."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def _stderr_into(descriptor: int) -> Iterator[int]:
    original = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield original
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
