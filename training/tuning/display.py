"""Progress of a search on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from keras_resnet.native_stderr import terminal_stderr
from keras_resnet.table import plain
from training.tuning.oracles import trial_count
from training.tuning.trial import read_outcome
from training.tuning.tuner import Plan

# Trials in the live table.
SHOWN = 10
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
OnEnd = Callable[[Trial], None]


class SearchTable:
    """A table of the last trials, the best so far and the remaining time, for rich.

    Args:
        oracle: KerasTuner's oracle.
        plan: Folders of the trials.
        already: Trials that had ended when the search was resumed.
    """

    def __init__(self, oracle: Any, plan: Plan, already: int) -> None:
        self.oracle = oracle
        self.plan = plan
        self.already = already
        self.began = time.monotonic()

    def __rich__(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD, expand=True)
        table.add_column("trial", no_wrap=True)
        for name in ("state", "epoch", "score", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        # The only column with a ratio: the one that is shortened on a narrow terminal.
        table.add_column("values", overflow="ellipsis", no_wrap=True, ratio=1)
        for trial in list(self.oracle.trials.values())[-SHOWN:]:
            table.add_row(*map(plain, self._row(trial)))
        return Group(table, Text(self.summary()))

    def line(self, trial: Trial) -> str:
        """One line about a trial that ended."""
        trial = self.oracle.trials.get(trial.trial_id, trial)
        if trial.status == TrialStatus.COMPLETED:
            over = self._over_budget(trial)
            result = over or f"{self.oracle.objective.name} {trial.score:.4f}"
        else:
            result = f"failed: {self.oracle.failure(trial)}"
        values = _values(trial)
        return f"trial {trial.trial_id}  {plain(result)}  {plain(values)}\n  {self.summary()}"

    def summary(self) -> str:
        """Number of trials, best score, elapsed and remaining time."""
        trials = list(self.oracle.trials.values())
        ended = sum(trial.status in ENDED for trial in trials)
        failed = sum(trial.status == TrialStatus.FAILED for trial in trials)
        scores = [(t.score, t.trial_id) for t in trials if t.status == TrialStatus.COMPLETED]
        parts = [f"{ended} of {trial_count(self.oracle)} trials"]
        if failed:
            parts.append(f"{failed} failed")
        if scores:
            score, name = max(scores)
            parts.append(f"best {score:.4f} (trial {name})")
        parts.append(f"{_minutes(time.monotonic() - self.began)} so far")
        if left := self._left(ended):
            parts.append(f"about {_minutes(left)} left")
        return ", ".join(parts)

    def _left(self, ended: int) -> float:
        """Remaining seconds at the pace since the search was started or resumed."""
        here = ended - self.already
        pace = (time.monotonic() - self.began) / here if here else 0.0
        return pace * max(0, trial_count(self.oracle) - ended)

    def _over_budget(self, trial: Trial) -> str:
        over = trial.status == TrialStatus.COMPLETED and trial.score < 0
        return f"{-trial.score:.0%} over budget" if over else ""

    def _row(self, trial: Trial) -> tuple[str, ...]:
        folder = self.plan.trial_folder(trial.trial_id)
        until = trial.hyperparameters.values.get("tuner/epochs", self.plan.base.schedule.epochs)
        outcome = read_outcome(folder) if trial.status in ENDED else None
        return (
            trial.trial_id,
            self._over_budget(trial) or trial.status.lower(),
            f"{_epochs(folder / 'run' / 'log.csv')}/{until}",
            "" if trial.score is None else f"{trial.score:.4f}",
            _minutes(outcome.seconds) if outcome else "",
            self.oracle.failure(trial) if trial.status == TrialStatus.FAILED else _values(trial),
        )


@contextlib.contextmanager
def show_search(oracle: Any, plan: Plan, say: Callable[[str], None]) -> Iterator[OnEnd]:
    """Shows a search on stderr: a live table on a terminal, otherwise one line per trial.

    Yields a function to call with each trial that ended.
    """
    shown = SearchTable(oracle, plan, already=len(oracle.end_order))
    console = Console(file=terminal_stderr(), highlight=False, markup=False)
    if not console.is_terminal:
        yield lambda trial: say(shown.line(trial))
        return
    with Live(shown, console=console, refresh_per_second=2):
        yield lambda _: None


def _epochs(log: Any) -> int:
    with contextlib.suppress(OSError):
        return max(0, len(log.read_text("utf-8").splitlines()) - 1)
    return 0


def _values(trial: Trial) -> str:
    values = trial.hyperparameters.values.items()
    return "  ".join(
        f"{key.rpartition('.')[2]} {value:.4g}"
        if isinstance(value, float)
        else f"{key.rpartition('.')[2]} {value}"
        for key, value in values
        if not key.startswith("tuner/")
    )


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
