"""Several machines train what one trains, and none waits for another that is gone.

The machines are processes on the loopback; JAX's gloo carries what they tell each other.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.checkpoint import latest_checkpoint
from training.multihost import Host, HostLost, detect_lost_hosts
from training.run import Run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no JAX")

SCRIPT = Path(__file__).with_name("multihost_script.py")
TIMEOUT = 600
# Two epochs of 5 steps, saved in the middle of epochs too. Group norm, so that no statistics are
# of a share of the batch under any other backend either.
RECIPE = (
    *("train", "--recipe", "digits-resnet8", "--backend", "jax", "--epochs", "2", "--set"),
    *("runtime.batch_size=240", "schedule.warmup_epochs=0", "optimizer.learning_rate=0.05"),
    *("optimizer.ema_momentum=0.9", "model.norm=group", "checkpoint.every_steps=2"),
)
# Every step is clipped: the gradient's norm is about 1.
PARTS = ("optimizer.clip_norm=0.05", "optimizer.gradient_accumulation_steps=3")
# Sums over a batch are taken in another order on two devices: a few units in the last place of
# float32 a step, of losses near 2.
CLOSE = 1e-5


@dataclass(frozen=True)
class Server:
    """Starts commands (multihost_script.py)."""

    process: subprocess.Popen

    def ask(self, **order: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@dataclass(frozen=True)
class Machine:
    """A command that runs.

    Attributes:
        server: What started it.
        number: Of its process, and of its group of them.
        output: What it printed.
    """

    server: Server
    number: int
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text("utf-8", errors="replace")

    def end(self) -> int:
        code = self.server.ask(end=self.number, timeout=TIMEOUT)
        if code is None:
            os.kill(self.number, signal.SIGKILL)
            self.server.ask(end=self.number, timeout=TIMEOUT)
            pytest.fail(f"still running after {TIMEOUT} s: {self.text}")
        return code

    def worker(self) -> int:
        """The process that trains; the one that was started watches it."""
        children = Path(f"/proc/{self.number}/task/{self.number}/children")
        return int(children.read_text().split()[0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join((str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", ""))),
    }
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Server(process)
        assert process.stdin
        process.stdin.close()


def start(server: Server, out: Path, *more: str, rank: int | None = None, **env: str) -> Machine:
    output = out.with_name(f"{out.name}.{rank or 0}.output")
    env = {"READ": f"{out}.{rank or 0}.npy"} | env
    argv = [*RECIPE, *more, "--out", str(out)]
    return Machine(server, server.ask(argv=argv, output=str(output), env=env), output)


def start_two(
    server: Server, out: Path, *more: str, envs: tuple[dict[str, str], ...] = ({}, {})
) -> list[Machine]:
    by_hand = ("--coordinator", f"127.0.0.1:{free_port()}", "--machines", "2", "--rank")
    return [
        start(server, out, *more, *by_hand, str(rank), rank=rank, **env)
        for rank, env in enumerate(envs)
    ]


def start_in_slurm(server: Server, out: Path) -> list[Machine]:
    step = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_LOCALID": "0",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    return [
        start(server, out, "--coordinator", "auto", rank=rank, **step, SLURM_PROCID=str(rank))
        for rank in range(2)
    ]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ends(machines: list[Machine], code: int = 0) -> None:
    for machine in machines:
        assert machine.end() == code, machine.text


def losses(out: Path) -> list[list[float]]:
    rows = [json.loads(line) for line in Run(out).log_file.with_suffix(".jsonl").open()]
    return [[row["loss"], row["val_loss"], row["val_ema_loss"]] for row in rows]


def state(out: Path) -> dict[str, bytes]:
    checkpoint = latest_checkpoint(Run(out).checkpoints, pytest.fail)
    assert checkpoint is not None
    arrays = {name: array.tobytes() for name, array in checkpoint.arrays.items()}
    return arrays | {"log": Run(out).log_file.read_bytes()}


@pytest.fixture(scope="module")
def two(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two machines that nothing disturbed."""
    out = tmp_path_factory.mktemp("two") / "run"
    ends(start_two(server, out))
    return out


def test_two_machines_learn_what_one_learns(server: Server, two: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    ends([start(server, one)])
    assert len(losses(one)) == 2
    np.testing.assert_allclose(losses(one), losses(two), atol=CLOSE)
    assert np.ptp(losses(one), axis=0).min() > 1000 * CLOSE  # it learns

    whole = np.load(f"{one}.0.npy")
    shares = [np.load(f"{two}.{rank}.npy") for rank in range(2)]
    assert [share.shape for share in (whole, *shares)] == [(10, 240), (10, 120), (10, 120)]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


def test_clipping_and_accumulation_are_of_the_whole_batch(
    server: Server, two: Path, tmp_path: Path
) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    ends([start(server, one, *PARTS)])
    ends(start_two(server, both, *PARTS))
    np.testing.assert_allclose(losses(one), losses(both), atol=CLOSE)
    assert np.abs(np.subtract(losses(both), losses(two))).min() > 1000 * CLOSE


def test_one_is_killed_and_both_go_on_exactly(server: Server, two: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = start_two(server, out, envs=({}, {"KILL": "8"}))
    assert second.end() == 128 + signal.SIGKILL, second.text
    assert first.end() == 2
    said = first.text.splitlines()
    assert "another machine is gone" in said[-1]
    assert "Start the same command" in said[-1]
    assert "Traceback" not in first.text
    ends(start_two(server, out))
    assert state(out) == state(two)


def test_the_first_is_killed_and_slurm_starts_both_again(
    server: Server, two: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first, second = start_in_slurm(server, out)
    checkpoints = Run(out).checkpoints
    while not (checkpoints / "step-000000002.safetensors").exists():
        assert not second.text.count("error"), second.text
        time.sleep(0.02)
    os.kill(first.number, signal.SIGKILL)  # what watches it; the other must not outlive it
    assert first.end() == -signal.SIGKILL
    assert second.end() == 2
    assert "another machine is gone" in second.text.splitlines()[-1]
    first, second = start_in_slurm(server, out)
    ends([first, second])
    assert state(out) == state(two)
    assert "resuming after" in first.text
    assert "top-1" in first.text  # the first alone evaluates
    assert not second.text  # JAX is imported already, so that it is not said to start
    assert "[Gloo]" not in first.text  # stdout is for the result


def test_a_machine_that_hangs_is_taken_for_gone(server: Server, tmp_path: Path) -> None:
    waiting = {"SECONDS": "60,10,10"}
    machines = start_two(server, tmp_path / "run", "--epochs", "500", envs=(waiting, waiting))
    first, second = machines
    while not Run(tmp_path / "run").log_file.exists():
        time.sleep(0.1)
    worker = second.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert first.end() == 2, first.text
    finally:
        os.kill(worker, signal.SIGKILL)
    assert second.end() == 128 + signal.SIGKILL
    assert "another machine is gone" in first.text.splitlines()[-1]
    assert "stack trace" not in first.text


def test_one_is_asked_to_stop_and_all_save_the_same_step(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = start_two(server, out, "--epochs", "500")
    while not Run(out).log_file.exists():
        time.sleep(0.1)
    os.kill(second.number, signal.SIGTERM)
    ends([first, second])
    said = first.text.splitlines()[-1]
    assert said.startswith("keras-resnet: stopped after ")
    assert said == second.text.splitlines()[-1]
    checkpoint = latest_checkpoint(Run(out).checkpoints, pytest.fail)
    assert checkpoint is not None
    progress = checkpoint.progress
    assert f"{progress.epoch} completed epochs and {progress.step} steps" in said


def test_machines_that_do_not_meet_say_so(server: Server, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    machine = start(
        server,
        tmp_path / "run",
        *("--coordinator", address, "--machines", "2", "--rank", "1"),
        SECONDS="3,10,10",
    )
    assert machine.end() == 2
    assert f"do not connect at {address}" in machine.text.splitlines()[-1]
    assert "stack trace" not in machine.text


def test_one_that_cannot_begin_ends_the_other(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "a file"
    out.write_text("")
    first, second = start_two(server, out)
    assert first.end() == 2
    assert "a file cannot be written" in first.text.splitlines()[-1]
    assert second.end() == 2
    assert "another machine is gone" in second.text.splitlines()[-1]


def test_auto_needs_a_cluster(server: Server, tmp_path: Path) -> None:
    machine = start(server, tmp_path / "run", "--coordinator", "auto")
    assert machine.end() == 2
    assert "auto finds no Slurm step" in machine.text.splitlines()[-1]
    machine = start(server, tmp_path / "run", "--coordinator", "auto", "--rank", "0")
    assert machine.end() == 2
    assert "Leave out --machines and --rank" in machine.text.splitlines()[-1]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats)", HostLost),
        ("DEADLINE_EXCEEDED: Barrier timed out", HostLost),
        ("INTERNAL: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:1", HostLost),
        ("INVALID_ARGUMENT: Executable expected\n parameter 0 of size 4", RuntimeError),
        ("RESOURCE_EXHAUSTED: Out of memory", ValueError),
    ],
)
def test_only_errors_of_the_network_say_that_a_machine_is_gone(
    reason: str, kind: type[Exception]
) -> None:
    import jax

    with pytest.raises(kind) as error, detect_lost_hosts(Host(0, 2)):
        raise jax.errors.JaxRuntimeError(reason)
    assert type(error.value) is kind
    assert len(str(error.value).splitlines()) == 1
