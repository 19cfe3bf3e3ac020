"""The command in processes of their own, on a terminal of any width, in pipes and worse.

``keras_resnet.cli.main`` is called in processes forked from a server that has imported TensorFlow,
so that a start takes a fraction of a second; ``python -m keras_resnet.cli`` would take four.
"""

from __future__ import annotations

import fcntl
import io
import multiprocessing
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["training.train", "training.evaluate", "sklearn.model_selection", "tflite.convert"]
)
REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 240  # seconds after which a process is taken to hang


@dataclass(frozen=True)
class Ended:
    """What a process left: exit code (negative: killed by that signal), stdout and stderr."""

    code: int
    out: str
    err: str = ""

    @property
    def error(self) -> str:
        """The last line of stderr."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


class Terminal:
    """A pseudo-terminal, and all that was written to it."""

    def __init__(self, columns: int) -> None:
        self.text = ""
        self._ours, self.descriptor = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str) -> bool:
        """Waits until a text was written; ``False`` if it takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: text in self.text, TIMEOUT)

    def close(self) -> str:
        """To be called when no process writes to it any more; returns all that was written."""
        os.close(self.descriptor)
        self._reader.join(TIMEOUT)
        os.close(self._ours)
        return self.text

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux: the last writer has closed it
                return
            if not data:
                return
            with self._changed:
                self.text += data.decode("utf-8", "replace").replace("\r\n", "\n")
                self._changed.notify_all()


def on_terminal(arguments: Sequence[object], columns: int, **environment: str) -> Ended:
    """Runs the command with stdout on a terminal and stderr in a pipe."""
    terminal = Terminal(columns)
    code, err = _run(arguments, terminal.descriptor, environment)
    return Ended(code, terminal.close(), err)


def in_pipe(arguments: Sequence[object], encoding: str = "utf-8", **environment: str) -> Ended:
    """Runs the command with stdout and stderr in pipes."""
    ours, theirs = os.pipe()
    out: list[bytes] = []
    with os.fdopen(ours, "rb") as file:
        reader = threading.Thread(target=lambda: out.append(file.read()))
        reader.start()
        code, err = _run(arguments, theirs, environment, encoding)
        os.close(theirs)
        reader.join(TIMEOUT)
    return Ended(code, out[0].decode(encoding), err)


def into(path: str, arguments: Sequence[object], encoding: str = "utf-8") -> Ended:
    """Runs the command with stdout in a file, such as /dev/full."""
    descriptor = os.open(path, os.O_WRONLY)
    code, err = _run(arguments, descriptor, {}, encoding)
    os.close(descriptor)
    return Ended(code, "", err)


def in_shell(line: str, **environment: str) -> Ended:
    """Runs a line of shell in which ``$COMMAND`` is the command, started from nothing."""
    program = "import sys; sys.argv[0] = 'keras-resnet'; from keras_resnet.cli import main; main()"
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PROGRAM": program,
        **environment,
    }
    line = line.replace("$COMMAND", f'"{sys.executable}" -c "$PROGRAM"')
    done = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, timeout=TIMEOUT
    )
    out, err = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
    return Ended(done.returncode, out, err)


def _run(
    arguments: Sequence[object],
    stdout: int,
    environment: dict[str, str],
    encoding: str = "utf-8",
) -> tuple[int, str]:
    ours, theirs = os.pipe()
    err: list[bytes] = []
    with os.fdopen(ours, "rb") as file:
        reader = threading.Thread(target=lambda: err.append(file.read()))
        reader.start()
        process = _started(arguments, (stdout, theirs), environment, encoding)
        os.close(theirs)
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        reader.join(TIMEOUT)
    assert process.exitcode is not None
    return process.exitcode, err[0].decode("utf-8", "replace")


def _started(
    arguments: Sequence[object],
    descriptors: tuple[int, int],
    environment: dict[str, str],
    encoding: str,
) -> Any:
    from multiprocessing.reduction import DupFd

    words = tuple(map(str, arguments))
    folder = os.getcwd()
    CONTEXT.Process  # noqa: B018
    process = CONTEXT.Process(
        target=_main, args=(words, folder, _Descriptors(descriptors, DupFd), environment, encoding)
    )
    process.start()
    return process


class _Descriptors:
    """Descriptors that travel to the forked process as they are pickled."""

    def __init__(self, numbers: tuple[int, int], dup: Any) -> None:
        self.numbers, self._dup = numbers, dup

    def __reduce__(self) -> Any:
        return _detached, tuple(map(self._dup, self.numbers))


def _detached(*copies: Any) -> tuple[int, ...]:
    return tuple(copy.detach() for copy in copies)


def _main(
    words: tuple[str, ...],
    folder: str,
    descriptors: tuple[int, int],
    environment: dict[str, str],
    encoding: str,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = sys.__stdout__ = _stream(1, encoding, "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, encoding, "backslashreplace")  # type: ignore[misc]
    from keras_resnet import cli

    sys.argv = ["keras-resnet", *words]
    cli.main()


def _stream(descriptor: int, encoding: str, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=raw.isatty())
