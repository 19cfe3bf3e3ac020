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

TIMEOUT = 240
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["training.train", "training.evaluate", "sklearn.model_selection"])

# A run of 132 steps with everything in its state, saved in the middle of epochs too.
RECIPE = (
    *("train", "--recipe", "digits-resnet8", "--epochs", "6", "--set", "checkpoint.every_steps=5"),
    *("optimizer.ema_momentum=0.9", "schedule.warmup_epochs=1", "optimizer.learning_rate=0.05"),
)


@dataclass(frozen=True)
class Moment:
    """A place in the code: the ``nth`` time that a function is entered, or left.

    Attributes:
        where: ``module:name`` or ``module:Class.name``.
        nth: From 1.
        after: Whether the function is done.
        half: Whether half of the bytes that it takes are written first.
        fill: A file to fill the disk with at that moment, instead of dying.
    """

    where: str
    nth: int = 1
    after: bool = False
    half: bool = False
    fill: str = ""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(path: str) -> None:
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def strike_at(moment: Moment) -> None:
    """From now on the moment will be this process's last, or its disk's."""
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
        else:
            die()

    setattr(owner, name, deadly)


def _main(arguments: tuple[str, ...], output: str, moment: Moment | None) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", write_through=True)
    if moment:
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
        """Until the file is there."""
        self.wait_until(path.exists)

    def wait_until(self, condition: Any) -> None:
        began = time.monotonic()
        while not condition():
            assert self.process.is_alive(), self.text
            assert time.monotonic() - began < TIMEOUT, self.text
            time.sleep(0.005)

    def end(self) -> int:
        """Waits; returns the exit code, negative for a signal."""
        self.process.join(TIMEOUT)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {TIMEOUT} s: {self.text}")
        code = self.process.exitcode
        assert code is not None
        return code


def start(
    out: Path, *more: str, arguments: tuple[str, ...] = RECIPE, moment: Moment | None = None
) -> Command:
    """``keras-resnet train`` into a folder."""
    output = out.with_name(f"{out.name}.output")
    output.touch()
    words = (*arguments, *more, "--out", str(out))
    process = CONTEXT.Process(target=_main, args=(words, str(output), moment))
    process.start()
    return Command(process, output)


def run(
    out: Path, *more: str, arguments: tuple[str, ...] = RECIPE, moment: Moment | None = None
) -> tuple[int, str]:
    """Runs it to its end; returns exit code and output."""
    command = start(out, *more, arguments=arguments, moment=moment)
    return command.end(), command.text
