"""Calls a function in a subprocess, because a C++ library may crash or hang on a damaged file.

The subprocess is limited in processor time, not by the clock: on a busy machine it only takes
longer. Where the operating system has no such limit (Windows), only Ctrl+C stops an endless loop.
The result comes through a pipe, so that no temporary file can fill the disk.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, NoReturn

import numpy as np

# What a function returns: anything JSON can hold, and arrays by name.
Result = tuple[Any, Mapping[str, np.ndarray]]

PROGRAM = "import sys; from keras_resnet.subprocess_call import main; main(*sys.argv[1:])"
CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# Of the machine, whatever the file holds. A damaged file may well give others, such as EINVAL.
MACHINE = (
    *NO_ROOM,
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT),
)
# Between the signal that the limit sends and SIGKILL, should a library ignore the former.
GRACE_SECONDS = 1
STDERR_BYTES = 4096  # kept of the end of what the subprocess writes there


class SubprocessError(OSError):
    """The subprocess failed for a reason unrelated to the file it was to read."""


def call_in_subprocess(
    function: Callable[..., Result], arguments: list[str], cpu_seconds: float, library: str
) -> Result:
    """Calls ``function(*arguments)`` in a subprocess, without Keras unless the function imports it.

    Args:
        function: Of a module that can be imported. It raises ``ValueError`` if it refuses the
            file. What it, or C++ below it, prints is dropped.
        arguments: What it is called with.
        cpu_seconds: Processor time that it may use, imports and all threads included.
        library: The library that may fail, for the messages.

    Returns:
        What the function returned; the arrays are new.

    Raises:
        ValueError: The function refused the file (its message), or the library crashed on it
            or used more processor time.
        ModuleNotFoundError: The function found that a package is not installed.
        ImportError: A package is installed, but could not be imported here.
        SubprocessError: The subprocess could not start, was killed, found too little memory,
            or failed otherwise.
    """
    folders = [folder or os.getcwd() for folder in sys.path]
    limit = math.ceil(cpu_seconds)
    command = [sys.executable, "-P", "-c", PROGRAM, function.__module__, function.__name__]
    try:
        process = subprocess.Popen(
            [*command, str(limit), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        )
    except OSError as error:
        raise SubprocessError(f"no subprocess could be started: {error.strerror}") from error
    with process, _End(process.stderr) as stderr:
        try:
            reply = _receive(process.stdout)
            process.wait()
        except BaseException:
            process.kill()
            raise
    if reply is None:
        raise _failure(process.returncode, stderr.last_line(), limit, library)
    head, arrays = reply
    if "value" not in head:
        raise _refusal(head, library)
    return head["value"], arrays


class _End(threading.Thread):
    """Reads a pipe until it is closed, and keeps its last bytes."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self.pipe, self.end = pipe, b""

    def __enter__(self) -> _End:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def run(self) -> None:
        while self.pipe and (chunk := self.pipe.read1(1 << 16)):  # type: ignore[attr-defined]
            self.end = (self.end + chunk)[-STDERR_BYTES:]

    def last_line(self) -> str:
        lines = [line for line in self.end.decode(errors="replace").splitlines() if line.strip()]
        return "".join(c if c.isprintable() else " " for c in lines[-1].strip()) if lines else ""


def _receive(pipe: IO[bytes] | None) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The reply, or ``None`` where the subprocess ended before it was complete."""
    line = pipe.readline() if pipe else b""
    if not pipe or not line.endswith(b"\n"):
        return None
    head = json.loads(line)
    arrays = {}
    for name, dtype, shape in head.get("arrays", ()):
        arrays[name] = array = np.empty(shape, dtype)
        if array.nbytes and pipe.readinto(array.reshape(-1).view("uint8")) < array.nbytes:  # type: ignore[attr-defined]
            return None
    return head, arrays


def _refusal(head: dict[str, Any], library: str) -> Exception:
    if "missing" in head:
        return ModuleNotFoundError(head["missing"])
    if "not_imported" in head:
        return ImportError(head["not_imported"])
    if "machine" in head:
        return SubprocessError(head["machine"])
    if "no_memory" in head:
        return SubprocessError(f"there is not enough memory for {library}")
    return ValueError(head["refused"])


def _failure(status: int, stderr: str, limit: int, library: str) -> Exception:
    """Why a subprocess ended without a reply, from its exit status and its last line."""
    name = _signal_name(status)
    detail = f": {stderr}" if stderr else ""
    if name == "SIGXCPU":
        return ValueError(f"{library} used more than {limit} s of processor time on it")
    if name == "SIGABRT" and "bad_alloc" in stderr:
        return SubprocessError(f"there is not enough memory for {library}")
    if name in CRASHES:
        return ValueError(f"{library} crashed on it ({name}{detail})")
    if name == "SIGKILL":
        return SubprocessError(
            f"the subprocess of {library} was killed (SIGKILL), as happens when memory runs out"
        )
    if name:
        return SubprocessError(f"the subprocess of {library} was ended by {name}")
    return SubprocessError(f"the subprocess of {library} failed with exit code {status}{detail}")


def _signal_name(status: int) -> str:
    """The signal that ended a process; empty if none did."""
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name if status < 0 else ""
    return f"signal {-status}"


# --- In the subprocess ------------------------------------------------------------------------


def main(module: str, name: str, cpu_seconds: str, *arguments: str) -> NoReturn:
    """Entry point of the subprocess: calls the function and writes the reply to stdout.

    The reply is a line of JSON followed by the bytes of the arrays.
    """
    _limit_cpu(int(cpu_seconds))
    # stdout carries the reply: redirect library output to stderr.
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    arrays: Mapping[str, np.ndarray] = {}
    try:
        value, arrays = getattr(importlib.import_module(module), name)(*arguments)
        kinds = [(key, array.dtype.str, array.shape) for key, array in arrays.items()]
        head = {"value": value, "arrays": kinds}
    except ModuleNotFoundError as error:
        head = {"missing": str(error)}
    except ImportError as error:
        head = {"not_imported": str(error)}
    except MemoryError as error:
        head = {"no_memory": str(error)}
    except ValueError as error:
        head = {"refused": str(error)}
    except OSError as error:
        number = machine_errno(error)
        if number is None:
            raise
        head = {"machine": no_room() if number in NO_ROOM else os.strerror(number)}
    reply.write(json.dumps(head).encode() + b"\n")
    for array in arrays.values():
        reply.write(np.ascontiguousarray(array).reshape(-1).view("uint8").data)
    reply.flush()
    os._exit(0)  # skip teardown, which may crash


def machine_errno(error: BaseException) -> int | None:
    """The error number that says that the machine failed, whatever the file holds; else ``None``.

    HDF5, PyTorch and TensorFlow give it only in words.
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno if error.errno in MACHINE else None
    text = str(error)
    return next((number for number in MACHINE if os.strerror(number) in text), None)


def is_of_machine(error: BaseException) -> bool:
    """Whether an exception says nothing about the file, but that the machine could not read it."""
    return isinstance(error, (SubprocessError, MemoryError)) or machine_errno(error) is not None


def no_room() -> str:
    """The message for a full disk under TMPDIR."""
    return f"there is no room left in TMPDIR ({tempfile.gettempdir()})"


def _limit_cpu(seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limits = [seconds, seconds + GRACE_SECONDS]
    if hard != resource.RLIM_INFINITY:
        limits = [min(limit, hard) for limit in limits]
    resource.setrlimit(resource.RLIMIT_CPU, (limits[0], limits[1]))
    # A crash or the limit would leave a core dump the size of the model.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
