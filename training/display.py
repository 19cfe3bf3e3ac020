"""What a person sees of a run while it goes, on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from keras_resnet.native_stderr import terminal_stderr

# Figures are fetched from the device for people only so often: each time waits for the step.
REFRESH_SECONDS = 0.25


class Clock:
    """The time that an epoch takes, and the part of it in which the model waits for images.

    Args:
        seconds: What it took before the process was stopped and started again.
        waited: Seconds of that spent waiting.
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
    """One bar over all steps of the run, and a line an epoch.

    Args:
        console: On stderr.
        bar: rich's; disabled where it would not be seen.
        lines: Whether a line is printed after each epoch.
        epochs: Of the run.
        steps: Of an epoch.
        batch: Images a step.
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
        self._task = bar.add_task("getting ready", total=epochs * steps, speed="", figures="")
        self._shown = 0.0

    def step(
        self, epoch: int, step: int, clock: Clock, figures: Callable[[], Mapping[str, float]]
    ) -> None:
        """A step is done: ``step`` of ``epoch``, which counts from 0; ``figures`` may wait."""
        now = time.monotonic()
        if self.bar.disable or now - self._shown < REFRESH_SECONDS:
            return
        done = epoch * self.steps + step
        if not self._shown:
            # What was done before, and the time that compiling took, would distort the speed.
            self.bar.reset(self._task, completed=done)
        self._shown = now
        words = _words(figures())
        self.bar.update(self._task, completed=done, description=f"epoch {epoch + 1}/{self.epochs}")
        rate = self.bar.tasks[0].speed  # of the last half minute
        speed = f"{rate * self.batch:,.0f} images/s, " if rate else ""
        self.bar.update(self._task, speed=f"{speed}{_share(clock)} waiting for data", figures=words)

    def note(self, text: str) -> None:
        """A line about what changes."""
        if self.lines:
            self.console.print(text)

    def validating(self, epoch: int) -> None:
        self.bar.update(self._task, description=f"epoch {epoch + 1}/{self.epochs}, validating")

    def epoch(self, row: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """An epoch is over."""
        if not self.lines:
            return
        figures = {key: value for key, value in row.items() if key != "epoch"}
        self.console.print(
            f"epoch {row['epoch']}/{self.epochs}  {_words(figures)}  {timing['seconds']:.1f} s  "
            f"{timing['images_per_second']:,.0f} images/s  "
            f"{timing['waiting']:.0%} waiting for data"
        )


@contextlib.contextmanager
def display(verbose: int, epochs: int, steps: int, batch: int) -> Iterator[Display]:
    """Shows a run on stderr.

    Args:
        verbose: 1 for a bar (where stderr is a terminal) and a line an epoch, 2 for the lines,
            0 for nothing.
        epochs: Of the run.
        steps: Of an epoch.
        batch: Images a step.
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


def _words(figures: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {float(value):.4g}" for name, value in figures.items())
