"""Devices, threads and precision of this host: what it has, and what is chosen."""

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
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.config import RuntimeConfig
from training.data.pipeline import PREFETCH
from training.multihost import Host, current_host


@dataclass(frozen=True)
class Runtime:
    """The choices made, each with its reason.

    Attributes:
        precision: A Keras dtype policy.
        jit_compile: Whether XLA compiles the training step.
        devices: Names of all devices, on all hosts.
        distribution: Distributes a batch over several devices: a
            ``tf.distribute.MirroredStrategy`` or a ``keras.distribution.DataParallel``; ``None``
            for one device.
        host: This host.
        reasons: One line per choice, for people.
    """

    precision: str
    jit_compile: bool
    devices: tuple[str, ...]
    distribution: Any
    host: Host
    reasons: tuple[str, ...]

    def placed(self) -> contextlib.AbstractContextManager:
        """Scope in which JAX places variables on all devices; empty on TensorFlow."""
        on_jax = keras.backend.backend() == "jax"
        return self.distribution.scope() if self.distribution and on_jax else nullcontext()

    def mirrored(self) -> contextlib.AbstractContextManager:
        """Scope in which TensorFlow mirrors variables to each device; empty on JAX."""
        on_tensorflow = keras.backend.backend() == "tensorflow"
        return self.distribution.scope() if self.distribution and on_tensorflow else nullcontext()


def prepare(config: RuntimeConfig) -> Runtime:
    """Sets threads, seeds and precision for this process.

    Raises:
        ValueError: The backend cannot train, the devices are not available, the batch cannot be
            divided among them, or it is too late to set the number of threads.
    """
    require_backend("Training", "tensorflow", "jax")
    threads_reason = _set_threads(config)
    if keras.backend.backend() == "jax":
        # TensorFlow only reads images here, and would take all GPU memory.
        tf.config.set_visible_devices([], "GPU")
    host = current_host()
    devices, distribution, device_reasons = _devices(config, host)
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
        f"XLA {'on' if jit else 'off'}: {jit_reason}",
        threads_reason,
        _input_reason(config),
    ]
    if config.deterministic:
        reasons.append("deterministic operations only: as configured")
    return Runtime(precision, jit, devices, distribution, host, tuple(reasons))


def require_backend(task: str, *backends: str) -> None:
    """Checks that Keras runs on a backend that can do something.

    Args:
        task: The task, as the subject of the message.
        backends: Names of Keras backends that can do it.

    Raises:
        ValueError: Keras runs on another.
    """
    if keras.backend.backend() not in backends:
        raise ValueError(
            f"{task} needs the Keras backend {' or '.join(backends)}. Received: "
            f"{keras.backend.backend()}. Set KERAS_BACKEND={backends[0]}"
        )


def _devices(config: RuntimeConfig, host: Host) -> tuple[tuple[str, ...], Any, tuple[str, ...]]:
    """Names of the devices, how a batch is distributed over them, and lines about it."""
    available = _available_devices()
    if config.devices > len(available) or (config.devices and host.count > 1):
        raise ValueError(
            f"runtime.devices is {config.devices}, and {len(available)} are available. Give 0 for "
            "all of them, which is required on several machines"
        )
    devices = available[: config.devices or len(available)]
    shares = len(devices)
    if config.batch_size % shares:
        raise ValueError(
            f"A batch of {config.batch_size} cannot be divided among {shares} devices. Give a "
            f"multiple: --batch-size {-(-config.batch_size // shares) * shares}"
        )
    if len(devices) == 1:
        return devices, None, (f"one device: {devices[0]}",)
    return devices, *_distribute(devices, config.batch_size // shares, host)


def _distribute(devices: tuple[str, ...], each: int, host: Host) -> tuple[Any, tuple[str, ...]]:
    if keras.backend.backend() == "jax":
        distribution: Any = keras.distribution.DataParallel(
            devices=list(devices), auto_shard_dataset=False
        )
        statistics = "batch-norm statistics are those of the global batch"
    else:
        distribution = _mirrored(devices)
        statistics = "batch-norm statistics are per device (model.norm=sync_batch: global)"
    where = f" on {host.count} machines" if host.count > 1 else ""
    return distribution, (f"{len(devices)} devices{where}, {each} images each; {statistics}",)


@functools.cache  # two strategies in one process would use the same collective keys
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(devices))


def _available_devices() -> tuple[str, ...]:
    """Names of the accelerators, or else of the CPUs."""
    if keras.backend.backend() == "jax":
        return tuple(keras.distribution.list_devices())
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tuple(device.name.removeprefix("/device:") for device in devices)


def describe() -> dict[str, Any]:
    """Versions, hardware and source revision: what the figures of a run may depend on."""
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "versions": versions(),
        "threads": threads(),
        "cpu": _cpu_model(),
        "memory_bytes": _memory_bytes(),
        "gpus": [
            str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
            for gpu in gpus
        ],
        "platform": platform.platform(),
        "git": _git_state(),
    }


def versions() -> dict[str, str]:
    """Versions of everything that a training step depends on."""
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
    """Threads per operation, which determine the order of its sums."""
    if keras.backend.backend() == "jax":
        return int(os.environ.get(XLA_THREADS, 0)) or available_cores()
    return tf.config.threading.get_intra_op_parallelism_threads() or available_cores()


def available_cores() -> int:
    """Cores that this process may use by its affinity; all of them where there is no affinity."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Environment variable from which XLA takes the size of its thread pool, at its first computation.
XLA_THREADS = "NPROC"


def _set_threads(config: RuntimeConfig) -> str:
    """Sets the number of threads; returns a line about it."""
    cores, why = _cores()
    # TensorFlow and XLA respect the affinity, but not the quota of a container.
    wanted = config.threads or (cores if cores < available_cores() else None)
    if wanted and keras.backend.backend() == "jax":
        os.environ[XLA_THREADS] = str(wanted)
    try:
        if wanted:
            tf.config.threading.set_intra_op_parallelism_threads(wanted)
        if config.inter_op_threads:
            tf.config.threading.set_inter_op_parallelism_threads(config.inter_op_threads)
    except RuntimeError:  # TensorFlow has started its threads already
        if config.threads or config.inter_op_threads:
            raise ValueError(
                "runtime.threads and inter_op_threads can no longer be set: TensorFlow has started "
                "its threads. Use a new process, or leave the keys out"
            ) from None
    inter = f", {config.inter_op_threads} between operations" if config.inter_op_threads else ""
    reason = "as configured" if config.threads else why
    return f"threads {config.threads or cores}{inter}: {reason}"


def _cores() -> tuple[int, str]:
    """Number of cores to use, and why."""
    cores = available_cores()
    quota = _quota()
    if quota and quota < cores:
        return quota, f"CPU quota of the container, of {cores} cores"
    return cores, "all cores available to this process"


def _quota() -> int | None:
    """CPU quota of the control group, rounded up to whole cores; ``None`` without a quota.

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
    decoders = f"{config.decoders} images at once" if config.decoders else "AUTOTUNE"
    batches = config.prefetch or PREFETCH
    return f"input pipeline: parallel decoding {decoders}, prefetch {batches} batches"


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    """Physical memory; ``None`` where the platform does not tell."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _git_state() -> dict[str, Any] | None:
    """Commit of this source and whether files differ from it; ``None`` outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments),
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        # An installed copy may be inside an unrelated repository.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], signal.Signals | None]]:
    """Records SIGINT and SIGTERM; yields a function that returns the first signal, if any.

    A second SIGINT interrupts at once. Outside the main thread, where Python handles no signals,
    the function always returns ``None``.
    """
    received: list[signal.Signals] = []

    def record(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _precision(config: RuntimeConfig, gpu: bool) -> tuple[str, str]:
    if config.precision != "auto":
        return config.precision, "as configured"
    if not gpu:
        return "float32", "no GPU; half precision saves little time on a CPU and costs accuracy"
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
        return False, "MirroredStrategy reduces gradients outside compiled code"
    if config.jit_compile != "auto":
        return config.jit_compile == "on", "as configured"
    if gpu:
        return True, "fuses elementwise operations on the GPU"
    return False, "25 % slower on a CPU"
