"""The standard streams of the command: always open; unencodable characters are replaced."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO

from keras_resnet.console import ASCII_FALLBACK
from keras_resnet.native_stderr import lossy_text


class OutputError(OSError):
    """The result cannot be written to stdout."""


def open_streams() -> None:
    """Makes stdin, stdout and stderr usable, even if the command was started without them.

    A closed descriptor is opened on the null device: otherwise the next file that is opened, such
    as a model, would get its number, and what C++ prints would be written into it. Characters that
    a stream cannot encode are replaced. Errors of stdout are ``OutputError``; those of stderr are
    ignored.
    """
    for descriptor in range(3):
        _occupy(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    elif sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _wrapped(_Stdout(1, "w", closefd=False), sys.stdout)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = lossy_text(2, sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ASCII_FALLBACK)


def discard_stdout() -> None:
    """Redirects stdout to the null device, so that Python's flush at exit does not fail."""
    with contextlib.suppress(io.UnsupportedOperation):  # a stream in memory
        descriptor = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                error.errno, f"The result cannot be written to stdout: {error.strerror}"
            ) from None


def _wrapped(raw: io.FileIO, like: io.TextIOWrapper) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        like.encoding,
        like.errors,
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )


def _occupy(descriptor: int) -> None:
    """Opens the null device on a closed descriptor; all lower descriptors must be open."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
