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
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


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
    if keras.backend.backend() != "jax":
        raise ValueError(
            "Several machines train together on JAX only. Give --backend jax to each of them"
        )
    if coordinator != "auto" and (not coordinator or ":" not in coordinator):
        raise ValueError(
            "--coordinator is HOST:PORT of the first machine, or auto under Slurm, Kubernetes or "
            f"Open MPI. Received: {coordinator!r}"
        )
    if coordinator != "auto" and (count is None or rank is None or not 0 <= rank < count):
        raise ValueError(
            "--machines says how many there are and --rank which one this is, from 0. "
            f"Received: --machines {count} --rank {rank}"
        )
    import jax

    if not _has_accelerator():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        keras.distribution.initialize(None if coordinator == "auto" else coordinator, count, rank)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"The machines do not meet at {coordinator}: {' '.join(str(error).split())[:200]}. "
            "Start all of them within five minutes, with the same --coordinator and --machines"
        ) from None


def machines() -> Machines:
    """Those that were joined, or this one alone."""
    if keras.backend.backend() != "jax":
        _refuse_workers()
        return Machines()
    import jax

    return Machines(jax.process_index(), jax.process_count())


def _refuse_workers() -> None:
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    if sum(len(tasks) for tasks in cluster.values()) > 1:
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
        raise Lost(
            f"machine {machines.rank} of {machines.count} has lost another "
            f"({' '.join(str(error).split())[:160]}). The last good checkpoint is kept. Start the "
            "same command on all machines again"
        ) from error


def leave(machines: Machines, code: int) -> None:
    """Ends this process without waiting for machines that are gone."""
    if machines.count > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
