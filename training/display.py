"""Progress of a training run on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from keras_resnet.native_stderr import terminal_stderr

# Minimum time between updates of the bar: fetching the metrics waits for the device.
REFRESH_SECONDS = 0.25


class Clock:
    """Time spent on an epoch, and the part of it spent waiting for images.

    Args:
        seconds: Time spent on the epoch before the run was resumed.
        waited: Part of it spent waiting.
    """

    def __init__(self, seconds: float = 0.0, waited: float = 0.0) -> None:
        self.waited = waited
        self._began = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began


class Display:
    """One bar over all steps of the run, and one line per epoch.

    Args:
        console: A console on stderr.
        bar: rich's progress bar; disabled if stderr is not a terminal.
        lines: Whether to print a line after each epoch.
        epochs: Epochs of the run.
        steps: Steps per epoch.
        batch: Images per step.
    """

    def __init__(
        self, console: Console, bar: Bar, lines: bool, epochs: int, steps: int, batch: int
    ) -> None:
        self.console = console
        self.bar = bar
        self.lines = lines
        self.epochs = epochs
        self.steps = steps
        self.batch = batch
        self._task = bar.add_task("starting", total=epochs * steps, speed="", figures="")
        self._shown = 0.0

    def step(
        self, epoch: int, step: int, clock: Clock, figures: Callable[[], Mapping[str, float]]
    ) -> None:
        """Shows that a step is done.

        Args:
            epoch: The current epoch, from 0.
            step: Completed steps of it.
            clock: Of the epoch.
            figures: Fetches the running metrics, which waits for the device.
        """
        now = time.monotonic()
        if self.bar.disable or now - self._shown < REFRESH_SECONDS:
            return
        done = epoch * self.steps + step
        if not self._shown:
            # Steps of an earlier process and the time to compile would distort the speed.
            self.bar.reset(self._task, completed=done)
        self._shown = now
        text = _format(figures())
        self.bar.update(self._task, completed=done, description=f"epoch {epoch + 1}/{self.epochs}")
        rate = self.bar.tasks[0].speed  # average of the last half minute
        speed = f"{rate * self.batch:,.0f} images/s, " if rate else ""
        self.bar.update(self._task, speed=f"{speed}{_share(clock)} waiting for data", figures=text)

    def note(self, text: str) -> None:
        """Prints a line between epochs."""
        if self.lines:
            self.console.print(text)

    def validating(self, epoch: int) -> None:
        self.bar.update(self._task, description=f"epoch {epoch + 1}/{self.epochs}, validating")

    def epoch(self, row: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Prints the line of a completed epoch from its rows of log and timing."""
        if not self.lines:
            return
        figures = {key: value for key, value in row.items() if key != "epoch"}
        self.console.print(
            f"epoch {row['epoch']}/{self.epochs}  {_format(figures)}  {timing['seconds']:.1f} s  "
            f"{timing['images_per_second']:,.0f} images/s  "
            f"{timing['waiting']:.0%} waiting for data"
        )


@contextlib.contextmanager
def display(verbose: int, epochs: int, steps: int, batch: int) -> Iterator[Display]:
    """Shows the progress of a run on stderr.

    Args:
        verbose: 1 for a bar (if stderr is a terminal) and one line per epoch, 2 for the lines
            only, 0 for no output.
        epochs: Epochs of the run.
        steps: Steps per epoch.
        batch: Images per step.
    """
    console = Console(file=terminal_stderr(), highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[figures]}"),
    )
    off = verbose != 1 or not console.is_terminal
    with Bar(*columns, console=console, disable=off, transient=True) as bar:
        yield Display(console, bar, verbose > 0, epochs, steps, batch)


def _share(clock: Clock) -> str:
    return f"{clock.waited / clock.seconds:.0%}"


def _format(figures: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {float(value):.4g}" for name, value in figures.items())
