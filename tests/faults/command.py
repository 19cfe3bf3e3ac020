"""``keras-resnet`` in processes that can be killed, with TensorFlow imported once for all of them.

A fork server imports everything and starts no thread; each process is forked from it, so that
a start costs a second of tracing instead of four of importing.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["training.train", "training.evaluate", "sklearn.model_selection"])

# Two epochs of 22 steps with everything in the state, saved in the middle of epochs too.
RECIPE = (
    *("train", "--recipe", "digits-resnet8", "--epochs", "2", "--set", "checkpoint.every_steps=5"),
    *("optimizer.ema_momentum=0.9", "schedule.warmup_epochs=1", "optimizer.learning_rate=0.05"),
)


@dataclass(frozen=True)
class Moment:
    """The ``nth`` call of a function, at which a process kills itself.

    Attributes:
        where: ``module:name`` or ``module:Class.name``.
        nth: From 1.
        after: Whether the function returns first.
        calls: Python function calls between this moment and the kill.
        half: Whether half of the bytes that it takes are written first.
        fill: A file to fill the disk with at that moment, instead of the kill.
        gate: A file that is created at that moment, instead of the kill; the process waits until
            it is removed.
    """

    where: str
    nth: int = 1
    after: bool = False
    calls: int = 0
    half: bool = False
    fill: str = ""
    gate: str = ""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(path: str) -> None:
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def wait_at_gate(path: str) -> None:
    Path(path).touch()
    while Path(path).exists():
        time.sleep(0.002)


def die_after(calls: int) -> None:
    """Kills this process after so many calls of Python functions."""
    left = iter(range(calls))

    def count(_: Any, event: str, __: Any) -> None:
        if event == "call" and next(left, None) is None:
            die()

    sys.setprofile(count)


def strike_at(moment: Moment) -> None:
    """Makes this process kill itself, fill its disk or wait at the moment."""
    module, _, path = moment.where.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), iter(range(1, 10**9))

    def deadly(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == moment.nth
        if now and moment.half:
            path, data = args
            original(path, data[: len(data) // 2])
        if now and not moment.after:
            strike()
        result = original(*args, **kwargs)
        if now and moment.after:
            strike()
        return result

    def strike() -> None:
        if moment.fill:
            fill_disk(moment.fill)
        elif moment.gate:
            wait_at_gate(moment.gate)
        elif moment.calls:
            die_after(moment.calls)
        else:
            die()

    setattr(owner, name, deadly)


def _main(arguments: tuple[str, ...], output: str, moments: tuple[Moment, ...]) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", write_through=True)
    for moment in moments:
        strike_at(moment)
    from keras_resnet import cli

    sys.argv = ["keras-resnet", *arguments]
    cli.main()


@dataclass(frozen=True)
class Command:
    """A command that runs."""

    process: ForkServerProcess
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text("utf-8", errors="replace")

    def wait_for(self, path: Path) -> None:
        """Waits until the file exists."""
        while not path.exists():
            assert self.process.is_alive(), self.text
            time.sleep(0.005)

    def end(self) -> int:
        """Waits; returns the exit code, negative for a signal."""
        self.process.join()
        code = self.process.exitcode
        assert code is not None
        return code


def start(
    out: Path, *more: str, arguments: tuple[str, ...] = RECIPE, moments: tuple[Moment, ...] = ()
) -> Command:
    """``keras-resnet train`` into a folder."""
    # Not on the small disk of a test, which is full at times.
    folder = out.parent.parent if out.parent.is_mount() else out.parent
    output = folder / f"{out.name}.output"
    output.touch()
    words = (*arguments, *more, "--out", str(out))
    process = CONTEXT.Process(target=_main, args=(words, str(output), moments))
    process.start()
    return Command(process, output)


def run(
    out: Path, *more: str, arguments: tuple[str, ...] = RECIPE, moments: tuple[Moment, ...] = ()
) -> tuple[int, str]:
    """Runs it to its end; returns exit code and output."""
    command = start(out, *more, arguments=arguments, moments=moments)
    return command.end(), command.text
