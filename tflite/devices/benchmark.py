"""Latency and memory of a .tflite file on this machine's CPU.

LiteRT's Python API does not time single operations; the official benchmark binary does
(``tflite.devices.adb``).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tflite.devices.cold_start import ColdStart, cold_start, median_start
from tflite.model.interpreter import Interpreter, open_interpreter

WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """One file with one number of threads.

    Times are in milliseconds; ``None`` if not measured.

    Attributes:
        kind: Which file.
        threads: Number of CPU threads.
        runs: Number of timed runs.
        median_ms: The median of the runs.
        p90_ms: Their 90th percentile.
        p95_ms: Their 95th percentile.
        p99_ms: Their 99th percentile; with fewer than 100 runs, close to the slowest.
        bytes: Size of the file.
        load_ms: See ``tflite.devices.cold_start.ColdStart``; the median of all starts.
        first_ms: The first inference, likewise.
        memory_bytes: Likewise.
        device: Where it was measured.
        runtime: What ran the file.
        load_average: The system's load average when timing began. If it is not small against
            the number of CPUs, the times mean little.
    """

    kind: str
    threads: int
    runs: int
    median_ms: float
    p90_ms: float | None
    p95_ms: float
    p99_ms: float | None
    bytes: int
    load_ms: float | None = None
    first_ms: float | None = None
    memory_bytes: int | None = None
    device: str = ""
    runtime: str = ""
    load_average: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def benchmark(
    files: Mapping[str, str | os.PathLike[str]],
    image: np.ndarray,
    *,
    threads: Sequence[int] = (1, 2),
    rounds: int = 50,
    starts: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Latency]:
    """Times each file on one image.

    The runs of the files are interleaved, A B A B, so that a change of the machine's speed
    affects all of them. Only the inference is timed: no reading or resizing of images, no
    loading and no warm-up runs. ``starts`` measures cold starts, each in a process of its own,
    interleaved as well.

    Args:
        files: Path of each kind, as ``convert`` returns them.
        image: uint8 ``(height, width, channels)`` 0–255, fitted to the models.
        threads: Numbers of CPU threads, one after the other.
        rounds: Timed runs of each file for each number of threads.
        starts: Cold starts of each file for each number of threads; each takes half a second
            or longer.
        progress: Called with ``(rounds and starts done, those in all)``.

    Returns:
        One record for each number of threads and file, in that order.

    Raises:
        ValueError: There are no files, no threads or no rounds, the image does not fit, or a
            file cannot be read.
    """
    if not files or not threads or rounds < 1 or starts < 0:
        raise ValueError(
            "There is nothing to time: pass at least one file, one number of threads and one "
            f"round. Received: {len(files)} files, threads={tuple(threads)}, rounds={rounds}, "
            f"starts={starts}"
        )
    load_average = _load_average()
    total, done, records = len(threads) * (rounds + starts), 0, []

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    for count in threads:
        interpreters = {kind: _ready(path, count, image) for kind, path in files.items()}
        times: dict[str, list[float]] = {kind: [] for kind in files}
        for _ in range(rounds):
            for kind, interpreter in interpreters.items():
                times[kind].append(_milliseconds(interpreter))
            step()
        interpreters.clear()
        cold: dict[str, list[ColdStart]] = {kind: [] for kind in files}
        for _ in range(starts):
            for kind, path in files.items():
                cold[kind].append(cold_start(path, count))
            step()
        records += [
            _latency(kind, path, count, times[kind], cold[kind], load_average)
            for kind, path in files.items()
        ]
    return records


def _ready(path: str | os.PathLike[str], threads: int, image: np.ndarray) -> Interpreter:
    interpreter = open_interpreter(path, threads)
    details = interpreter.get_input_details()[0]
    shape = tuple(map(int, details["shape"][1:]))
    if image.dtype != np.uint8 or image.shape != shape:
        raise ValueError(
            f"{path} takes a uint8 image {shape}. Received: {image.dtype} {image.shape}"
        )
    images = np.broadcast_to(image, details["shape"])  # the time does not depend on the pixels
    interpreter.set_tensor(details["index"], images.astype(details["dtype"]))
    for _ in range(WARM_UP):
        interpreter.invoke()
    return interpreter


def _milliseconds(interpreter: Interpreter) -> float:
    start = time.perf_counter()
    interpreter.invoke()
    return 1000 * (time.perf_counter() - start)


def _latency(
    kind: str,
    path: str | os.PathLike[str],
    threads: int,
    times: Sequence[float],
    starts: list[ColdStart],
    load_average: float | None,
) -> Latency:
    median, p90, p95, p99 = map(float, np.percentile(times, (50, 90, 95, 99)))
    return Latency(
        kind,
        threads,
        len(times),
        median,
        p90,
        p95,
        p99,
        Path(path).stat().st_size,
        **(dataclasses.asdict(median_start(starts)) if starts else {}),
        device=this_machine(),
        runtime=f"LiteRT {version('ai-edge-litert')}, XNNPACK",
        load_average=load_average,
    )


@functools.cache
def this_machine() -> str:
    """Processor, number of CPUs and system, as one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = named[0].split(":", 1)[1].strip() if named else name
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cpus} CPUs, {platform.system()}"


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
