"""What the first answer of a .tflite file costs: loading it, its first run, and memory.

Each is measured in a process of its own, as an app does it once at its start: nothing of an
earlier file is left in caches of the runtime, and all memory that is added is this file's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SECONDS = 300
RUNS = 3  # after which no more memory is taken
STATUS = Path("/proc/self/status")

PROGRAM = """
import sys
from tflite.devices.cold_start import measure
measure(*sys.argv[1:])
"""


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
    """Starts a file, once, in another process. The file has to be sound (``tflite.model.sandbox``).

    Raises:
        ValueError: The process did not come to its end.
    """
    places = [place or os.getcwd() for place in sys.path]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, os.fspath(path), str(threads)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} did not start within {SECONDS} s") from None
    if done.returncode:
        raise ValueError(f"{path} did not start: its process ended with status {done.returncode}")
    return Start(**json.loads(done.stdout.splitlines()[-1]))


def typical(starts: list[Start]) -> Start:
    """The median of each figure."""
    return Start(
        median(s.load_ms for s in starts),
        median(s.first_ms for s in starts),
        round(median(s.memory_bytes for s in starts)),
    )


def measure(path: str, threads: str) -> None:
    """What the process does: prints a line of JSON."""
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
    answered = time.perf_counter()
    for _ in range(RUNS):
        interpreter.invoke()
    found = {
        "load_ms": 1000 * (loaded - began),
        "first_ms": 1000 * (answered - ready),
        "memory_bytes": max(0, _peak_memory() - before),
    }
    print(json.dumps(found), flush=True)
    os._exit(0)  # taking the runtime down is not measured, and might crash


def _peak_memory(afresh: bool = False) -> int:
    """The largest resident set so far, in bytes; ``afresh``: that of now, from which it counts."""
    if STATUS.is_file():  # Linux; what getrusage tells there comes from the parent process, too
        if afresh:
            with contextlib.suppress(OSError):  # a kernel that forbids it: imports count too
                Path("/proc/self/clear_refs").write_text("5")
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
