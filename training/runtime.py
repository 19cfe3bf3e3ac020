"""What this machine has, and what is chosen for it."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import math
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
from training.data.pipeline import PREFETCH
from training.multihost import Machines, machines


@dataclass(frozen=True)
class Runtime:
    """The choices made, each with its reason, for people to read.

    Attributes:
        precision: A Keras dtype policy.
        jit_compile: Whether XLA compiles the training step.
        devices: What computes, on all machines.
        distribution: What spreads a batch over several devices: a
            ``tf.distribute.MirroredStrategy`` or a ``keras.distribution.DataParallel``; ``None``
            for one device.
        machines: Which of the machines this one is.
        reasons: One line a choice.
    """

    precision: str
    jit_compile: bool
    devices: tuple[str, ...]
    distribution: Any
    machines: Machines
    reasons: tuple[str, ...]

    def placed(self) -> contextlib.AbstractContextManager:
        """Where variables belong that one device, or all of them, hold: JAX's way."""
        on_jax = keras.backend.backend() == "jax"
        return self.distribution.scope() if self.distribution and on_jax else _as_ever()

    def mirrored(self) -> contextlib.AbstractContextManager:
        """Where the variables belong that each device has a copy of: TensorFlow's way."""
        on_tensorflow = keras.backend.backend() == "tensorflow"
        return self.distribution.scope() if self.distribution and on_tensorflow else _as_ever()


def prepare(config: RuntimeConfig) -> Runtime:
    """Sets seeds and precision for this process, and says what was chosen and why.

    Raises:
        ValueError: The devices are not there, the batch cannot be spread over them, or threads
            are asked for where they can no longer be chosen.
    """
    on_jax = keras.backend.backend() == "jax"
    threads_reason = _spread_over_threads(config)
    if on_jax:
        tf.config.set_visible_devices([], "GPU")  # it reads images, and would take all memory
    here = machines()
    devices, distribution, device_reasons = _devices(config, here)
    gpu = "gpu" in devices[0].lower()
    precision, precision_reason = _precision(config, gpu)
    jit, jit_reason = _jit(config, gpu, len(devices))
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(precision)
    reasons = [
        *device_reasons,
        f"precision {precision}: {precision_reason}",
        f"XLA {_on(jit)}: {jit_reason}",
        threads_reason,
        _input_reason(config),
    ]
    if config.deterministic:
        reasons.append("deterministic operations only: as asked")
    return Runtime(precision, jit, devices, distribution, here, tuple(reasons))


def _devices(config: RuntimeConfig, here: Machines) -> tuple[tuple[str, ...], Any, tuple[str, ...]]:
    """What computes, what spreads the batch over it, and what is to be said of it."""
    there = _there()
    if config.devices > len(there) or (config.devices and here.count > 1):
        raise ValueError(
            f"runtime.devices is {config.devices}, and {len(there)} can be had. Give 0 for all "
            "there are, which several machines always use"
        )
    devices = there[: config.devices or len(there)]
    shares = len(devices)
    if config.batch_size % shares:
        raise ValueError(
            f"A batch of {config.batch_size} cannot be spread over {shares} devices. Give a "
            f"multiple: --batch-size {-(-config.batch_size // shares) * shares}"
        )
    if len(devices) == 1:
        return devices, None, (f"one device: {devices[0]}",)
    return devices, *_spread(devices, config.batch_size // shares, here)


def _spread(devices: tuple[str, ...], each: int, here: Machines) -> tuple[Any, tuple[str, ...]]:
    if keras.backend.backend() == "jax":
        distribution: Any = keras.distribution.DataParallel(
            devices=list(devices), auto_shard_dataset=False
        )
        statistics = "batch norm takes its statistics over all of them"
    else:
        distribution = _mirrored(devices)
        statistics = "batch norm takes its statistics on each, model.norm=sync_batch over all"
    place = f" on {here.count} machines" if here.count > 1 else ""
    said = f"{len(devices)} devices{place}, {each} images each; {statistics}"
    return distribution, (said,)


@functools.cache  # two strategies in one process would number their exchanges alike
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(devices))


def _there() -> tuple[str, ...]:
    """Names of the devices that can be had: accelerators, or else CPUs."""
    if keras.backend.backend() == "jax":
        return tuple(keras.distribution.list_devices())
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tuple(device.name.removeprefix("/device:") for device in devices)


def _as_ever() -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


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
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "backend": backend,
        **({"jax": importlib.metadata.version("jax")} if backend == "jax" else {}),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "keras-resnet": importlib.metadata.version("keras-resnet"),
    }


def threads() -> int:
    """Threads that one operation is spread over, which the order of its sums depends on."""
    if keras.backend.backend() == "jax":
        return int(os.environ.get(XLA_THREADS, 0)) or len(os.sched_getaffinity(0))
    return tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))


# What XLA asks for the size of its pool, before its first computation.
XLA_THREADS = "NPROC"


def _spread_over_threads(config: RuntimeConfig) -> str:
    """Chooses the threads; returns what is to be said of it."""
    cores, why = _cores()
    # Both libraries see the affinity, but not the quota of a container.
    wanted = config.threads or (cores if cores < len(os.sched_getaffinity(0)) else None)
    if wanted and keras.backend.backend() == "jax":
        os.environ[XLA_THREADS] = str(wanted)
    try:
        if wanted:
            tf.config.threading.set_intra_op_parallelism_threads(wanted)
        if config.inter_op_threads:
            tf.config.threading.set_inter_op_parallelism_threads(config.inter_op_threads)
    except RuntimeError:  # TensorFlow has computed already, and has its threads
        if config.threads or config.inter_op_threads:
            raise ValueError(
                "runtime.threads and inter_op_threads can no longer be chosen: TensorFlow has "
                "computed in this process. Begin a new one, or leave them out"
            ) from None
    inter = f", {config.inter_op_threads} operations at once" if config.inter_op_threads else ""
    return f"threads {config.threads or cores}{inter}: {'as asked' if config.threads else why}"


def _cores() -> tuple[int, str]:
    """Cores that this process may use, and what says so."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota()
    if quota and quota < cores:
        return quota, f"the container may use so much of {cores} cores"
    return cores, "all cores that this process may use"


def _quota() -> int | None:
    """Whole cores that the control group may keep busy; ``None`` where nothing limits it.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files, and version 1.
    """
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):
        quota = (CONTROL_GROUP / "cpu/cpu.cfs_quota_us").read_text()
        period = (CONTROL_GROUP / "cpu/cpu.cfs_period_us").read_text()
        return math.ceil(int(quota) / int(period)) if int(quota) > 0 else None
    return None


CONTROL_GROUP = Path("/sys/fs/cgroup")


def _input_reason(config: RuntimeConfig) -> str:
    decoders = f"{config.decoders} images" if config.decoders else "as many images as helps"
    asked = "as asked" if config.decoders or config.prefetch else "tf.data watches what helps"
    return f"input {decoders} at once, {config.prefetch or PREFETCH} batches ahead: {asked}"


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


def _precision(config: RuntimeConfig, gpu: bool) -> tuple[str, str]:
    if config.precision != "auto":
        return config.precision, "as asked"
    if not gpu:
        return "float32", "no GPU; half precision gains little on a CPU and costs accuracy"
    if _compute_capability() >= 8:
        return "mixed_bfloat16", "the GPU computes in bfloat16"
    return "mixed_float16", "the GPU has no bfloat16"


def _compute_capability() -> float:
    if keras.backend.backend() == "jax":
        import jax

        return float(getattr(jax.local_devices()[0], "compute_capability", 0) or 0)
    gpu, *_ = tf.config.list_physical_devices("GPU")
    major, _ = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return float(major)


def _jit(config: RuntimeConfig, gpu: bool, devices: int) -> tuple[bool, str]:
    if keras.backend.backend() == "jax":
        return True, "JAX compiles every step"
    if devices > 1:
        return False, "MirroredStrategy exchanges gradients outside of it"
    if config.jit_compile != "auto":
        return config.jit_compile == "on", "as asked"
    if gpu:
        return True, "fuses elementwise operations on the GPU"
    return False, "measured a quarter slower on a CPU"


def _on(value: bool) -> str:
    return "on" if value else "off"
