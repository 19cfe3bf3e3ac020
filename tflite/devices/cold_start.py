"""What the first inference of a .tflite file costs: loading it, its first run, and memory.

Each is measured in a subprocess of its own, as an app does it once at its start: nothing of an
earlier file is left in caches of the runtime, and all memory that is added is this file's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from keras_resnet.subprocess_call import Result, call_in_subprocess

CPU_SECONDS = 300
RUNS = 3  # after which memory use no longer grows
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Start:
    """One start of one file.

    Attributes:
        load_ms: From the file's path to an interpreter with its memory allocated and its weights
            packed for the CPU, in milliseconds. The file is in the system's cache already.
        first_ms: The first inference after that.
        memory_bytes: By how much the process's memory (resident set) rose at most, from before
            loading to after a few inferences: the interpreter, the weights, the activations.
    """

    load_ms: float
    first_ms: float
    memory_bytes: int


def start(path: str | os.PathLike[str], threads: int) -> Start:
    """Starts a file, once, in a subprocess. The file has to be sound (``tflite.model.sandbox``).

    Raises:
        ValueError: The runtime refused the file or crashed on it.
        SubprocessError: The subprocess failed for a reason that says nothing about the file.
    """
    try:
        found, _ = call_in_subprocess(
            measure, [os.fspath(path), str(threads)], CPU_SECONDS, "the runtime"
        )
    except ValueError as error:
        raise ValueError(f"{path} did not start: {error}") from None
    return Start(**found)


def typical(starts: list[Start]) -> Start:
    """The median of each figure."""
    return Start(
        median(s.load_ms for s in starts),
        median(s.first_ms for s in starts),
        round(median(s.memory_bytes for s in starts)),
    )


def measure(path: str, threads: str) -> Result:
    """What the subprocess does."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    before = _peak_memory(afresh=True)
    began = time.perf_counter()
    interpreter = Interpreter(path, num_threads=int(threads))
    interpreter.allocate_tensors()
    loaded = time.perf_counter()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    ready = time.perf_counter()
    interpreter.invoke()
    finished = time.perf_counter()
    for _ in range(RUNS):
        interpreter.invoke()
    found = {
        "load_ms": 1000 * (loaded - began),
        "first_ms": 1000 * (finished - ready),
        "memory_bytes": max(0, _peak_memory() - before),
    }
    return found, {}


def _peak_memory(afresh: bool = False) -> int:
    """The largest resident set so far, in bytes; ``afresh``: that of now, from which it counts."""
    if STATUS.is_file():  # Linux; getrusage includes the parent process there
        if afresh:
            with contextlib.suppress(OSError):  # a kernel that forbids it: imports count too
                Path("/proc/self/clear_refs").write_text("5")
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
