"""How long a .tflite file takes for one image, on this machine's CPU."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite.interpreter import Interpreter, open_interpreter

WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """One file on one number of threads.

    Attributes:
        kind: Which file.
        threads: Number of CPU threads.
        runs: Number of timed runs.
        median_ms: Half of the runs took no longer, in milliseconds an image.
        p90_ms: Nine tenths of the runs took no longer.
        bytes: Size of the file.
    """

    kind: str
    threads: int
    runs: int
    median_ms: float
    p90_ms: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def benchmark(
    files: Mapping[str, str | os.PathLike[str]],
    image: np.ndarray,
    *,
    threads: Sequence[int] = (1, 2),
    rounds: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> list[Latency]:
    """Times each file on one image.

    The files take turns, A B A B, so that a machine that slows down or speeds up meanwhile
    does so for all of them. Timed is the inference alone: no reading or resizing of images,
    no loading, and not the first runs, which prepare caches and buffers.

    Args:
        files: Path of each kind, as ``convert`` returns them.
        image: uint8 ``(height, width, channels)`` 0–255, fitted to the models.
        threads: Numbers of CPU threads to try, one after the other.
        rounds: How often each file is timed on each number of threads.
        progress: Called with ``(rounds done, rounds in all)``.

    Returns:
        One record for each number of threads and file, in that order.

    Raises:
        ValueError: There are no files, no threads or no rounds, the image does not fit, or a
            file is not readable.
    """
    if not files or not threads or rounds < 1:
        raise ValueError(
            "There is nothing to time: pass at least one file, one number of threads and one "
            f"round. Received: {len(files)} files, threads={tuple(threads)}, rounds={rounds}"
        )
    records = []
    for turn, count in enumerate(threads):
        interpreters = {kind: _ready(path, count, image) for kind, path in files.items()}
        times: dict[str, list[float]] = {kind: [] for kind in files}
        for done in range(1, rounds + 1):
            for kind, interpreter in interpreters.items():
                times[kind].append(_milliseconds(interpreter))
            if progress:
                progress(turn * rounds + done, len(threads) * rounds)
        records += [_latency(kind, files[kind], count, times[kind]) for kind in files]
    return records


def _ready(path: str | os.PathLike[str], threads: int, image: np.ndarray) -> Interpreter:
    interpreter = open_interpreter(path, threads)
    details = interpreter.get_input_details()[0]
    shape = tuple(map(int, details["shape"][1:]))
    if image.dtype != np.uint8 or image.shape != shape:
        raise ValueError(
            f"{path} takes a uint8 image {shape}. Received: {image.dtype} {image.shape}"
        )
    interpreter.set_tensor(details["index"], image[np.newaxis].astype("float32"))
    for _ in range(WARM_UP):
        interpreter.invoke()
    return interpreter


def _milliseconds(interpreter: Interpreter) -> float:
    start = time.perf_counter()
    interpreter.invoke()
    return 1000 * (time.perf_counter() - start)


def _latency(
    kind: str, path: str | os.PathLike[str], threads: int, times: Sequence[float]
) -> Latency:
    median, p90 = np.percentile(times, (50, 90))
    return Latency(kind, threads, len(times), float(median), float(p90), Path(path).stat().st_size)
