"""Training on several hosts with JAX's distributed runtime.

Every host runs the same command and computes the same steps, each on its share of every batch. Only
the first host keeps the run folder; it sends the checkpoint of a resumed run to the others.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, TextIO

import keras
import numpy as np

from keras_resnet.console import say

# Timeouts of jax.distributed: of the connection at the start; of the heartbeat, after which a host
# counts as lost (JAX's default, because a loaded host may be late by much); of the shutdown.
CONNECT_SECONDS, HEARTBEAT_SECONDS, SHUTDOWN_SECONDS = 300, 100, 30
CONNECTED = b"connected"
# What JAX's errors say if another host is gone: codes of its coordination service, and the
# network of its collectives. Their code alone says nothing: Gloo's are INTERNAL or UNKNOWN.
LOST = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|gloo|nccl|coordination service|"
    r"connection (closed|refused|reset)|broken pipe|socket",
    re.IGNORECASE,
)


class HostLost(OSError):
    """Another host stopped or cannot be reached, so that a share of every batch is missing."""


@dataclass(frozen=True)
class Host:
    """This host among those that train together.

    Attributes:
        rank: Number of this host, from 0.
        count: Number of hosts.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this host keeps the run folder."""
        return self.rank == 0


def connect(coordinator: str | None, count: int | None, rank: int | None) -> None:
    """Connects to the other hosts. Must be called before anything is computed.

    A no-op without arguments. Otherwise the caller continues in a forked child process, watched by
    the original process, because JAX aborts a process whose background thread detects a lost host.

    Args:
        coordinator: ``host:port`` at which the first host listens, or ``"auto"`` to let JAX detect
            Slurm, Kubernetes or Open MPI.
        count: Number of hosts.
        rank: Number of this host, from 0.

    Raises:
        ValueError: The backend is not JAX, an argument is missing, this platform cannot fork, or
            the hosts do not connect.
    """
    if coordinator is None and count is None and rank is None:
        return
    _check(coordinator, count, rank)
    watcher = _fork_and_watch(coordinator)
    _initialize(coordinator, count, rank)
    watcher.send(CONNECTED)


def disconnect() -> None:
    """Waits until all hosts have called this, then disconnects. A no-op on a single host.

    Raises:
        HostLost: One of the others is gone.
    """
    host = current_host()
    if host.count == 1:
        return
    import jax
    from jax.experimental import multihost_utils

    if jax.distributed.is_initialized():
        with detect_lost_hosts(host):
            multihost_utils.sync_global_devices("disconnect")
        jax.distributed.shutdown()


def _check(coordinator: str | None, count: int | None, rank: int | None) -> None:
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Training on several machines needs JAX. Give --backend jax to each of them"
        )
    if not hasattr(os, "fork"):
        raise ValueError(f"Training on several machines is not available on {sys.platform}")
    if coordinator == "auto":
        if count is not None or rank is not None:
            raise ValueError(
                "With --coordinator auto the cluster tells how many machines there are. Leave out "
                f"--machines and --rank. Received: --machines {count} --rank {rank}"
            )
        return
    if not coordinator or not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(
            "--coordinator is HOST:PORT of the first machine, or auto under Slurm, Kubernetes or "
            f"Open MPI. Received: {coordinator!r}"
        )
    if count is None or rank is None or not 0 <= rank < count:
        raise ValueError(
            "--machines is the number of machines and --rank the number of this one, from 0. "
            f"Received: --machines {count} --rank {rank}"
        )


def _initialize(coordinator: str | None, count: int | None, rank: int | None) -> None:
    import jax

    if not _has_accelerator():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # keras.distribution.initialize has no arguments for the timeouts.
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            count,
            rank,
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            cluster_detection_method=None if coordinator == "auto" else "deactivate",
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        if coordinator == "auto" and isinstance(error, ValueError):
            raise ValueError(
                "--coordinator auto finds no Slurm step, no Open MPI and no Kubernetes job here "
                "(Kubernetes needs pip install kubernetes). Give --coordinator HOST:PORT "
                "--machines N --rank N"
            ) from None
        raise ValueError(_not_connected(coordinator, _one_line(error))) from None


def _not_connected(coordinator: str | None, reason: str) -> str:
    return (
        f"The machines do not connect at {coordinator}: {reason[:200]}. Start all of them within "
        f"{CONNECT_SECONDS} seconds, with the same --coordinator and --machines"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _fork_and_watch(coordinator: str | None) -> socket.socket:
    """Forks: the caller continues in the child, while the original process waits for it and exits.

    Returns:
        A socket to tell the original process that the hosts are connected.
    """
    watcher, watched = socket.socketpair()
    native = tempfile.TemporaryFile()  # noqa: SIM115  # open in both processes until they exit
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other threads are OpenBLAS's, which handles forks
        child = os.fork()
    if child:
        watched.close()
        os._exit(_wait_for(child, watcher, native, coordinator))
    watcher.close()
    os.setpgid(0, 0)  # Ctrl-C reaches the watcher only, which passes it on, once
    # Output of native code, such as the stack trace of an abort, is for the watcher to report.
    sys.stdout, sys.stderr = _redirect(sys.stdout, 1, native), _redirect(sys.stderr, 2, native)
    threading.Thread(target=_exit_with, args=(watched.dup(),), daemon=True).start()
    return watched


def _redirect(stream: TextIO, descriptor: int, native: IO[bytes]) -> TextIO:
    """Points the descriptor to ``native``; returns a Python stream to its former target."""
    target = os.dup(descriptor)
    os.dup2(native.fileno(), descriptor)
    return open(target, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


def _exit_with(watcher: socket.socket) -> None:
    """Kills this process when the watcher exits."""
    with contextlib.suppress(ConnectionError):
        watcher.recv(1)  # returns at its exit: the watcher never sends
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for(
    child: int, watched: socket.socket, native: IO[bytes], coordinator: str | None
) -> int:
    """Waits for the child and passes signals on to it; returns the exit code to use."""

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    native.seek(0)
    printed = native.read().decode(errors="replace")
    # https://github.com/openxla/xla/blob/main/xla/pjrt/distributed/client.h
    _, fatal, reason = printed.partition("the JAX distributed service detected fatal errors")
    if code == -signal.SIGABRT and fatal:
        reason = " ".join(reason.partition("absl::Status: ")[2].partition("RPC:")[0].split())
        connected = watched.recv(len(CONNECTED)) == CONNECTED
        message = _host_lost(reason) if connected else _not_connected(coordinator, reason)
        say(f"keras-resnet: error: {message}")
        return 2
    say(f"{printed}\nkeras-resnet: error: terminated by {signal.Signals(-code).name}")
    return 128 - code


def current_host() -> Host:
    """This host among those that are connected; a single one by default.

    Raises:
        ValueError: ``TF_CONFIG`` names several workers, or is not valid.
    """
    if keras.backend.backend() != "jax":
        _refuse_workers()
        return Host()
    import jax

    return Host(jax.process_index(), jax.process_count())


def _refuse_workers() -> None:
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        workers = sum(len(tasks) for tasks in cluster.values())
    except (ValueError, AttributeError, TypeError):
        raise ValueError("TF_CONFIG is not the JSON of a cluster. Unset it") from None
    if workers > 1:
        raise ValueError(
            "TF_CONFIG asks for several workers, and TensorFlow's MultiWorkerMirroredStrategy "
            "does not work under Keras 3, which fails on its per-replica values. Train with "
            "--backend jax --coordinator HOST:PORT instead (docs/several-machines.md), or unset "
            "TF_CONFIG"
        )


def _has_accelerator() -> bool:
    import importlib.util

    # JAX must not initialize its devices before the hosts are connected.
    names = ("jax_cuda13_plugin", "jax_cuda12_plugin", "jax_rocm7_plugin", "libtpu")
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return wanted != "cpu" and any(importlib.util.find_spec(name) for name in names)


def broadcast_from_first(host: Host, value: Any) -> Any:
    """The first host's value on every host; a no-op on a single one.

    Args:
        host: This host.
        value: JSON data and NumPy arrays by name; only the first host's is used.
    """
    if host.count == 1:
        return value
    plain, arrays = value if host.is_first else (None, {})
    plain = _broadcast_json(plain, host)
    shapes = _broadcast_json({k: (v.shape, v.dtype.str) for k, v in arrays.items()}, host)
    own = {k: arrays[k] if host.is_first else np.zeros(s, t) for k, (s, t) in shapes.items()}
    return plain, {k: _broadcast_array(v) for k, v in own.items()}


def _broadcast_json(value: Any, host: Host) -> Any:
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(value).encode(), "uint8")
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = text if host.is_first else np.zeros(length, "uint8")
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer), "uint8").tobytes())


def _broadcast_array(array: np.ndarray) -> np.ndarray:
    """As bytes: JAX would convert 64-bit values to 32 bits."""
    from jax.experimental import multihost_utils

    flat = np.ascontiguousarray(array).reshape(-1).view("uint8")
    sent = np.asarray(multihost_utils.broadcast_one_to_all(flat), "uint8")
    return sent.view(array.dtype).reshape(array.shape)


class StopVote:
    """Whether any host was asked to stop; all hosts learn of it at the same step.

    The answer is used one step after it was requested, so that no host waits for it.

    Args:
        host: This host.
        stop_requested: Returns the signal by which this host was asked to stop, if it was.
    """

    def __init__(self, host: Host, stop_requested: Callable[[], signal.Signals | None]) -> None:
        self.host = host
        self._stop_requested = stop_requested
        self._pending: Any = None
        self._result = 0

    def __call__(self) -> signal.Signals | None:
        """The signal that stops the run on all hosts; ``None`` to continue."""
        if self.host.count == 1:
            return self._stop_requested()
        return signal.Signals(self._result) if self._result else None

    def step(self) -> None:
        """Exchanges the votes of all hosts; to be called once after each step is dispatched."""
        if self.host.count == 1:
            return
        self._result = 0 if self._pending is None else int(self._pending)
        self._pending = _max_over_hosts(self._stop_requested() or 0)


def _max_over_hosts(number: int) -> Any:
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("all"))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    local = np.full(jax.local_device_count(), number, "int32")
    return _max(replicated)(jax.make_array_from_process_local_data(sharded, local))


@functools.cache
def _max(replicated: Any) -> Any:
    import jax

    return jax.jit(lambda numbers: numbers.max(), out_shardings=replicated)


@contextlib.contextmanager
def detect_lost_hosts(host: Host) -> Iterator[None]:
    """Turns JAX's network errors into ``HostLost``. A no-op on a single host.

    Raises:
        HostLost: One of the others is gone.
        ValueError: A device has too little memory.
        RuntimeError: JAX failed for another reason; one line.
    """
    if host.count == 1:
        yield
        return
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise ValueError(
                "There is too little memory for a batch of this size. Lower it: --batch-size N"
            ) from error
        reason = _one_line(error)
        if not LOST.search(reason):
            raise RuntimeError(reason) from error
        raise HostLost(_host_lost(reason)) from error


def _host_lost(reason: str) -> str:
    return (
        f"another machine is gone ({reason[:160]}). The last good checkpoint is kept. Start the "
        "same command on all machines again"
    )


def exit_at_once(message: str, code: int) -> None:
    """Prints a message and exits without waiting for other hosts. A no-op on a single host."""
    if current_host().count > 1:
        say(f"keras-resnet: {message}")
        sys.stdout.flush()
        os._exit(code)
