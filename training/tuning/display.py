"""What a person sees of a search while it goes, on stderr."""

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
from training.tuning.oracles import total
from training.tuning.trial import read_outcome
from training.tuning.tuner import Plan

SHOWN = 10
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
Ended = Callable[[Trial], None]


class Board:
    """A table of the last trials, the best so far and the time left, drawn from the oracle.

    Args:
        oracle: KerasTuner's.
        plan: Where the trials' folders are.
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
        # With a share of the width, it is this column that a narrow terminal cuts off.
        table.add_column("values", overflow="ellipsis", no_wrap=True, ratio=1)
        for trial in list(self.oracle.trials.values())[-SHOWN:]:
            table.add_row(*map(plain, self._row(trial)))
        return Group(table, Text(self.summary()))

    def line(self, trial: Trial) -> str:
        """A trial that ended, in a line."""
        trial = self.oracle.trials.get(trial.trial_id, trial)
        if trial.status == TrialStatus.COMPLETED:
            over = self._over_budget(trial)
            what = over or f"{self.oracle.objective.name} {trial.score:.4f}"
        else:
            what = f"failed: {self.oracle.failure(trial)}"
        values = _values(trial)
        return f"trial {trial.trial_id}  {plain(what)}  {plain(values)}\n  {self.summary()}"

    def summary(self) -> str:
        """How far the search is, the best so far, the time left."""
        trials = list(self.oracle.trials.values())
        ended = sum(trial.status in ENDED for trial in trials)
        failed = sum(trial.status == TrialStatus.FAILED for trial in trials)
        scores = [(t.score, t.trial_id) for t in trials if t.status == TrialStatus.COMPLETED]
        words = [f"{ended} of {total(self.oracle)} trials"]
        if failed:
            words.append(f"{failed} failed")
        if scores:
            score, name = max(scores)
            words.append(f"best {score:.4f} (trial {name})")
        words.append(f"{_minutes(time.monotonic() - self.began)} so far")
        if left := self._left(ended):
            words.append(f"about {_minutes(left)} left")
        return ", ".join(words)

    def _left(self, ended: int) -> float:
        """Seconds, by the pace since the search was started or resumed."""
        here = ended - self.already
        pace = (time.monotonic() - self.began) / here if here else 0.0
        return pace * max(0, total(self.oracle) - ended)

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
def board(oracle: Any, plan: Plan, say: Callable[[str], None]) -> Iterator[Ended]:
    """Shows a search on stderr: a live table on a terminal, a line a trial elsewhere.

    Yields a function to call with each trial that ended.
    """
    already = len(oracle.end_order)
    shown = Board(oracle, plan, already)
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
