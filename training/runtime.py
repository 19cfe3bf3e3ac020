"""What this machine has, and what is chosen for it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.config import RuntimeConfig


@dataclass(frozen=True)
class Runtime:
    """The choices made, each with its reason, for people to read.

    Attributes:
        precision: A Keras dtype policy.
        jit_compile: Whether XLA compiles the training step.
        reasons: One line a choice.
    """

    precision: str
    jit_compile: bool
    reasons: tuple[str, ...]


def prepare(config: RuntimeConfig) -> Runtime:
    """Sets seeds and precision for this process, and says what was chosen and why."""
    gpus = tf.config.list_physical_devices("GPU")
    precision, precision_reason = _precision(config, gpus)
    jit, jit_reason = _jit(config, bool(gpus))
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(precision)
    reasons = [f"precision {precision}: {precision_reason}", f"XLA {_on(jit)}: {jit_reason}"]
    if config.deterministic:
        reasons.append("deterministic operations only: as asked")
    return Runtime(precision, jit, tuple(reasons))


def describe() -> dict[str, Any]:
    """Versions, hardware and the state of the source: what a run's figures may depend on."""
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "versions": versions(),
        "threads": threads(),
        "cpu": _cpu_model(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [tf.config.experimental.get_device_details(gpu) for gpu in gpus],
        "platform": platform.platform(),
        "git": _git_state(),
    }


def versions() -> dict[str, str]:
    """Of everything that a training step is computed by."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "keras-resnet": importlib.metadata.version("keras-resnet"),
    }


def threads() -> int:
    """Threads that one operation is spread over, which the order of its sums depends on."""
    return tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_state() -> dict[str, Any] | None:
    """Commit of this source, and whether it was changed since; ``None`` outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments),
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        # An installed copy may lie inside a repository that does not know it.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], signal.Signals | None]]:
    """Turns SIGINT and SIGTERM into an answer to a question: was the run asked to stop?

    A second SIGINT interrupts at once. Outside the main thread, where Python takes no
    signals, the answer is always no.
    """
    asked: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _precision(config: RuntimeConfig, gpus: list) -> tuple[str, str]:
    if config.precision != "auto":
        return config.precision, "as asked"
    if not gpus:
        return "float32", "no GPU; half precision gains little on a CPU and costs accuracy"
    major, _ = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    if major >= 8:
        return "mixed_bfloat16", "the GPU computes in bfloat16"
    return "mixed_float16", "the GPU has no bfloat16"


def _jit(config: RuntimeConfig, gpu: bool) -> tuple[bool, str]:
    if config.jit_compile != "auto":
        return config.jit_compile == "on", "as asked"
    if gpu:
        return True, "fuses elementwise operations on the GPU"
    return False, "measured a quarter slower on a CPU"


def _on(value: bool) -> str:
    return "on" if value else "off"
