"""The cold start of a .tflite file: loading time, first inference, and memory.

Measured in a process of its own, as an app starts once: the runtime's caches are empty, and all
memory that is added belongs to this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CPU_SECONDS = 300  # processor time: a busy machine only takes longer
RUNS = 3  # after these, memory no longer grows
STATUS = Path("/proc/self/status")

PROGRAM = """
import sys
from tflite.devices.cold_start import measure
measure(*sys.argv[1:])
"""


@dataclass(frozen=True)
class ColdStart:
    """One cold start of one file.

    Attributes:
        load_ms: From the file's path to an interpreter with allocated tensors and weights packed
            for the CPU, in milliseconds. The file is in the system's page cache.
        first_ms: The first inference after that.
        memory_bytes: The largest growth of the process's resident set, from before loading to
            after a few inferences: interpreter, weights and activations.
    """

    load_ms: float
    first_ms: float
    memory_bytes: int


def cold_start(path: str | os.PathLike[str], threads: int) -> ColdStart:
    """Starts a sound file (``tflite.model.sandbox``) once, in another process.

    Raises:
        ValueError: The process failed.
    """
    paths = [path or os.getcwd() for path in sys.path]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, os.fspath(path), str(threads)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise ValueError(f"{path} did not start within {CPU_SECONDS} s of processor time")
    if done.returncode:
        raise ValueError(f"{path} did not start: its process ended with status {done.returncode}")
    return ColdStart(**json.loads(done.stdout.splitlines()[-1]))


def median_start(starts: Sequence[ColdStart]) -> ColdStart:
    """The median of each measure."""
    return ColdStart(
        median(s.load_ms for s in starts),
        median(s.first_ms for s in starts),
        round(median(s.memory_bytes for s in starts)),
    )


def measure(path: str, threads: str) -> None:
    """The other process: measures, and prints a line of JSON."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    _limit_cpu()
    before = _peak_memory(reset=True)
    began = time.perf_counter()
    interpreter = Interpreter(path, num_threads=int(threads))
    interpreter.allocate_tensors()
    loaded = time.perf_counter()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    ready = time.perf_counter()
    interpreter.invoke()
    first = time.perf_counter()
    for _ in range(RUNS):
        interpreter.invoke()
    measured = {
        "load_ms": 1000 * (loaded - began),
        "first_ms": 1000 * (first - ready),
        "memory_bytes": max(0, _peak_memory() - before),
    }
    print(json.dumps(measured), flush=True)
    os._exit(0)  # the runtime's teardown is not measured, and might crash


def _limit_cpu() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = CPU_SECONDS if hard == resource.RLIM_INFINITY else min(CPU_SECONDS, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _peak_memory(reset: bool = False) -> int:
    """The largest resident set so far, in bytes; ``reset`` starts from the present one."""
    if STATUS.is_file():  # Linux, where getrusage includes the peak of the parent process
        if reset:
            with contextlib.suppress(OSError):  # if the kernel forbids it, imports count too
                Path("/proc/self/clear_refs").write_text("5")
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
