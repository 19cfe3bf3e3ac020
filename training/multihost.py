"""Several machines that train one model together, by JAX's own runtime.

Each runs the same command. All compute the same steps, each on its part of every batch; the first
alone keeps the run folder, and tells the others where a stopped run goes on from.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
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

# How long machines wait for each other: at the start; for a sign of life, before one is taken
# for dead (JAX's default is 100, and a loaded machine may be late by some); and at the end.
MEETING_SECONDS, SILENCE_SECONDS, PARTING_SECONDS = 300, 30, 30
MET = b"met"


class Lost(OSError):
    """Another machine is gone, and with it a part of every batch."""


@dataclass(frozen=True)
class Machines:
    """Attributes:
    rank: Which of them this one is, from 0.
    count: How many train together.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one keeps the run folder."""
        return self.rank == 0


def join(coordinator: str | None, count: int | None, rank: int | None) -> None:
    """Meets the other machines. To be called before anything is computed.

    Without arguments it does nothing. Otherwise what follows runs in a process of its own that
    this one watches, because JAX aborts a process that learns in the background of another's loss.

    Args:
        coordinator: ``host:port`` of the first machine, which listens there; or ``"auto"`` where
            Slurm, Kubernetes or Open MPI tell JAX all there is to know.
        count: How many machines there are.
        rank: Which one this is, from 0.

    Raises:
        ValueError: The backend is not JAX, something is missing, or they do not meet.
    """
    if coordinator is None and count is None and rank is None:
        return
    _check(coordinator, count, rank)
    watcher = _watched(coordinator)
    _meet(coordinator, count, rank)
    watcher.send(MET)


def part() -> None:
    """Waits for the others to come to this point too; from here on each is alone.

    Raises:
        Lost: One of the others is gone.
    """
    here = machines()
    if here.count == 1:
        return
    import jax
    from jax.experimental import multihost_utils

    if jax.distributed.is_initialized():
        with together(here):
            multihost_utils.sync_global_devices("part")
        jax.distributed.shutdown()


def _check(coordinator: str | None, count: int | None, rank: int | None) -> None:
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several machines train together on JAX only. Give --backend jax to each of them"
        )
    if coordinator == "auto":
        if count is not None or rank is not None:
            raise ValueError(
                "With --coordinator auto the cluster says how many machines there are. Leave out "
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
            "--machines says how many there are and --rank which one this is, from 0. "
            f"Received: --machines {count} --rank {rank}"
        )


def _meet(coordinator: str | None, count: int | None, rank: int | None) -> None:
    import jax

    if not _has_accelerator():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # Keras's own call of it leaves no choice of the times.
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            count,
            rank,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=SILENCE_SECONDS,
            shutdown_timeout_seconds=PARTING_SECONDS,
            cluster_detection_method=None if coordinator == "auto" else "deactivate",
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        if coordinator == "auto" and isinstance(error, ValueError):
            raise ValueError(
                "--coordinator auto finds no Slurm step, no Open MPI and no Kubernetes job here "
                "(Kubernetes needs pip install kubernetes). Give --coordinator HOST:PORT "
                "--machines N --rank N"
            ) from None
        raise ValueError(_apart(coordinator, _one_line(error))) from None


def _apart(coordinator: str | None, reason: str) -> str:
    return (
        f"The machines do not meet at {coordinator}: {reason[:200]}. Start all of them within "
        f"{MEETING_SECONDS} seconds, with the same --coordinator and --machines"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _watched(coordinator: str | None) -> socket.socket:
    """From here on this is a new process that the one so far watches, and ends with.

    Returns:
        What tells the watcher that the machines have met.
    """
    watcher, watched = socket.socketpair()
    native = tempfile.TemporaryFile()  # noqa: SIM115  # both processes hold it to their ends
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other threads are OpenBLAS's, which knows of forks
        child = os.fork()
    if child:
        watched.close()
        os._exit(_watch(child, watcher, native, coordinator))
    watcher.close()
    os.setpgid(0, 0)  # Ctrl-C reaches the watcher alone, which passes it on, once
    # What C++ prints, an abort and its stack above all, is the watcher's to tell.
    sys.stdout, sys.stderr = _moved(sys.stdout, 1, native), _moved(sys.stderr, 2, native)
    threading.Thread(target=_end_with, args=(watched.dup(),), daemon=True).start()
    return watched


def _moved(stream: TextIO, descriptor: int, native: IO[bytes]) -> TextIO:
    """Python's stream to where the descriptor leads, which then leads elsewhere."""
    where = os.dup(descriptor)
    os.dup2(native.fileno(), descriptor)
    return open(where, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


def _end_with(watcher: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        watcher.recv(1)  # it never sends, so that this is its end
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(child: int, watched: socket.socket, native: IO[bytes], coordinator: str | None) -> int:
    """Waits for the child; returns the exit code."""

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
        met = watched.recv(len(MET)) == MET
        say(f"keras-resnet: error: {_lost(reason) if met else _apart(coordinator, reason)}")
        return 2
    say(f"{printed}\nkeras-resnet: error: ended by {signal.Signals(-code).name}")
    return 128 - code


def machines() -> Machines:
    """Those that were joined, or this one alone."""
    if keras.backend.backend() != "jax":
        _refuse_workers()
        return Machines()
    import jax

    return Machines(jax.process_index(), jax.process_count())


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

    # JAX must not look at devices before the machines have met.
    names = ("jax_cuda13_plugin", "jax_cuda12_plugin", "jax_rocm7_plugin", "libtpu")
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return wanted != "cpu" and any(importlib.util.find_spec(name) for name in names)


def from_the_first(machines: Machines, value: Any) -> Any:
    """What the first machine has: plain data, and NumPy arrays by name."""
    if machines.count == 1:
        return value
    from jax.experimental import multihost_utils

    plain, arrays = value if machines.leads else (None, {})
    text = np.frombuffer(json.dumps(plain).encode(), "uint8")
    text = _sent(multihost_utils, text, machines)
    plain = json.loads(text.tobytes())
    shapes = {k: (v.shape, v.dtype.str) for k, v in arrays.items()}
    layout = _sent(multihost_utils, np.frombuffer(json.dumps(shapes).encode(), "uint8"), machines)
    shapes = json.loads(layout.tobytes())
    mine = {k: arrays[k] if machines.leads else np.zeros(s, t) for k, (s, t) in shapes.items()}
    return plain, {k: _whole(multihost_utils, v) for k, v in mine.items()}


def _sent(multihost: Any, data: np.ndarray, machines: Machines) -> np.ndarray:
    length = int(multihost.broadcast_one_to_all(np.int32(len(data))))
    buffer = data if machines.leads else np.zeros(length, "uint8")
    return np.asarray(multihost.broadcast_one_to_all(buffer), "uint8")


def _whole(multihost: Any, array: np.ndarray) -> np.ndarray:
    """Bit by bit: JAX would halve what has 64."""
    flat = np.ascontiguousarray(array).reshape(-1).view("uint8")
    sent = np.asarray(multihost.broadcast_one_to_all(flat), "uint8")
    return sent.view(array.dtype).reshape(array.shape)


class Agreement:
    """Whether the run was asked to stop: on several machines, whether any of them was.

    They all learn of it at the same step, one later than it was told, so that nobody waits for
    the answer.
    """

    def __init__(self, machines: Machines, asked: Callable[[], signal.Signals | None]) -> None:
        self.machines = machines
        self._asked = asked
        self._told: Any = None
        self._answer = 0

    def __call__(self) -> signal.Signals | None:
        if self.machines.count == 1:
            return self._asked()
        return signal.Signals(self._answer) if self._answer else None

    def step(self) -> None:
        """A step is under way on all machines."""
        if self.machines.count == 1:
            return
        self._answer = 0 if self._told is None else int(self._told)
        self._told = _largest_of_all(self._asked() or 0)


def _largest_of_all(number: int) -> Any:
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("all"))
    told = np.full(jax.local_device_count(), number, "int32")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return _largest(everywhere)(jax.make_array_from_process_local_data(spread, told))


@functools.cache
def _largest(everywhere: Any) -> Any:
    import jax

    return jax.jit(lambda numbers: numbers.max(), out_shardings=everywhere)


@contextlib.contextmanager
def together(machines: Machines) -> Iterator[None]:
    """Says clearly that another machine is gone, where JAX says how the network failed.

    Raises:
        Lost: One of the others is gone.
    """
    if machines.count == 1:
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
        raise Lost(_lost(_one_line(error))) from error


def _lost(reason: str) -> str:
    return (
        f"another machine is gone ({reason[:160]}). The last good checkpoint is kept. Start the "
        "same command on all machines again"
    )


def leave(message: str, code: int) -> None:
    """Ends this process, if it is one of several, without waiting for others at its end."""
    if machines().count > 1:
        say(f"keras-resnet: {message}")
        sys.stdout.flush()
        os._exit(code)
