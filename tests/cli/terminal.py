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
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["training.train", "training.evaluate", "sklearn.model_selection", "tflite.convert"]
)
REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 1800  # seconds after which a process has hung, on the slowest machine too


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


def on_terminal(arguments: Sequence[object], columns: int) -> Ended:
    """Runs the command with stdout on a terminal and stderr in a pipe."""
    terminal = Terminal(columns)
    ended = _run(arguments, terminal.descriptor)
    return Ended(ended.code, terminal.close(), ended.err)


def in_pipe(arguments: Sequence[object], encoding: str = "utf-8") -> Ended:
    """Runs the command with stdout and stderr in pipes."""
    reader = Reader()
    ended = _run(arguments, reader.descriptor, encoding)
    return Ended(ended.code, reader.close().decode(encoding), ended.err)


def into(path: str | None, arguments: Sequence[object]) -> Ended:
    """Runs the command with stdout in a file, such as /dev/full; closed if there is no path."""
    descriptor = os.open(path, os.O_WRONLY) if path else None
    ended = _run(arguments, descriptor)
    if descriptor is not None:
        os.close(descriptor)
    return ended


def without_stderr(arguments: Sequence[object]) -> Ended:
    """Runs the command with stdout in a pipe and stderr closed."""
    reader = Reader()
    process = _started(arguments, (reader.descriptor, None))
    return Ended(_ended(process), reader.close().decode())


def in_shell(line: str, **environment: str) -> Ended:
    """Runs a line of bash in which ``$COMMAND`` is the command, in a Python started for it."""
    program = "import sys; sys.argv[0] = 'keras-resnet'; from keras_resnet.cli import main; main()"
    done = subprocess.run(
        ["bash", "-c", line.replace("$COMMAND", f'"{sys.executable}" -c "$PROGRAM"')],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PROGRAM": program, **environment},
        capture_output=True,
        timeout=TIMEOUT,
    )
    out, err = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
    return Ended(done.returncode, out, err)


class Reader:
    """A pipe, and all that was written to it."""

    def __init__(self) -> None:
        ours, self.descriptor = os.pipe()
        self._file = os.fdopen(ours, "rb")
        self._data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> bytes:
        """To be called when no process writes to it any more; returns all that was written."""
        os.close(self.descriptor)
        self._thread.join(TIMEOUT)
        self._file.close()
        return self._data

    def _read(self) -> None:
        self._data = self._file.read()


def _run(arguments: Sequence[object], stdout: int | None, encoding: str = "utf-8") -> Ended:
    stderr = Reader()
    process = _started(arguments, (stdout, stderr.descriptor), encoding)
    code = _ended(process)
    return Ended(code, "", stderr.close().decode("utf-8", "replace"))


def _started(
    arguments: Sequence[object], descriptors: tuple[int | None, int | None], encoding: str = "utf-8"
) -> ForkServerProcess:
    # Connections carry descriptors to the forked process.
    connections = [d if d is None else Connection(os.dup(d), readable=False) for d in descriptors]
    words = tuple(map(str, arguments))
    process = CONTEXT.Process(target=_main, args=(words, os.getcwd(), connections, encoding))
    process.start()
    for connection in connections:
        if connection is not None:
            connection.close()
    return process


def _ended(process: ForkServerProcess) -> int:
    """Waits for it; returns the exit code."""
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {TIMEOUT} s")
    return process.exitcode


def _main(
    words: tuple[str, ...], folder: str, connections: Sequence[Connection | None], encoding: str
) -> None:
    os.chdir(folder)
    streams: list[Any] = []
    for number, connection in enumerate(connections, start=1):
        if connection is None:  # as Python starts with a closed descriptor
            os.close(number)
            streams.append(None)
            continue
        os.dup2(connection.fileno(), number)
        connection.close()
        raw = io.FileIO(number, "w", closefd=False)
        errors = "strict" if number == 1 else "backslashreplace"
        streams.append(
            io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=raw.isatty())
        )
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
    from keras_resnet import cli

    sys.argv = ["keras-resnet", *words]
    cli.main()
