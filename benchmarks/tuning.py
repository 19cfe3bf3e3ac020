"""Seconds and memory of a trial of our search beside plain KerasTuner's, on the same points.

Both are random searches with the same seed over the same space, images and epochs. They take
turns, a trial each, so that what else this machine does slows both; on a busy one the CPU time says
more than the clock. The first trial of each starts TensorFlow, in this process or in the one that
ours are forked from; it is told apart.

Ours pays for a process a trial and for checkpoints after every epoch. It is paid back in memory:
the last column is what this process keeps of a trial, which an overnight search multiplies.

    python benchmarks/tuning.py --trials 6 --epochs 10
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner as kt

from keras_resnet.console import say, show_json, show_table
from training.config import Experiment
from training.experiment_file import load_experiment
from training.tuning.oracles import make_oracle
from training.tuning.space import Space, default_space
from training.tuning.trial import run_sandboxed
from training.tuning.tune import ResNetHyperModel
from training.tuning.tuner import ExperimentTuner, Plan

SEED = 1
# A tuner, and what makes it go on until its oracle has no more.
Search = tuple[Any, Callable[[], None]]


@dataclass(frozen=True)
class Figures:
    """Of one of the two searches.

    Attributes:
        search: Whose.
        first: Seconds of the first trial.
        seconds: Of each later one.
        cpu_seconds: Of each later one, whatever the clock says, its process included.
        kept_mb: What this process holds more after each later one, in 10^6 bytes.
    """

    search: str
    first: float
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    kept_mb: tuple[float, ...]


def plain(experiment: Experiment, space: Space, folder: Path) -> Search:
    """KerasTuner alone: every trial in this process."""
    tuner = kt.RandomSearch(
        ResNetHyperModel(experiment, space), "val_accuracy", seed=SEED, directory=str(folder)
    )
    return tuner, lambda: tuner.search(verbose=0)


def ours(experiment: Experiment, space: Space, folder: Path) -> Search:
    """Each trial in a process of its own."""
    oracle = make_oracle(
        "random",
        space,
        objective="val_accuracy",
        trials=1,
        epochs=experiment.schedule.epochs,
        failures=1,
        seed=SEED,
    )
    oracle.verbose = 0
    tuner = ExperimentTuner(oracle, Plan(experiment, space, folder / "ours"), run_sandboxed, 60.0)
    return tuner, tuner.search


def one_more(search: Search, number: int) -> tuple[float, float, float]:
    """Runs the next trial; returns its seconds, CPU seconds, and megabytes that it leaves."""
    tuner, go_on = search
    tuner.oracle.max_trials = number
    held, worked, began = resident_megabytes(), cpu_seconds(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        go_on()
    seconds = time.perf_counter() - began
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    if statuses != ["COMPLETED"] * number:
        raise RuntimeError(f"a trial failed, so that there is nothing to compare: {statuses}")
    return seconds, cpu_seconds() - worked, resident_megabytes() - held


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds() -> float:
    """Of this process and of its children, with those that they have waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if os.getpid() in (int(stat.parent.name), int(fields[1])):
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(experiment: Experiment, space: Space, trials: int) -> list[Figures]:
    kinds: dict[str, Callable[..., Search]] = {"keras-resnet tune": ours, "plain KerasTuner": plain}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        searches = {name: make(experiment, space, Path(folder)) for name, make in kinds.items()}
        for number in range(1, trials + 1):
            for name, search in searches.items():
                found[name].append(one_more(search, number))
                say(f"{name}: trial {number} took {found[name][-1][0]:.1f} s")
    return [Figures(name, rows[0][0], *zip(*rows[1:])) for name, rows in found.items()]


def ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """The median of the ratios, trial by trial."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="digits-resnet8")
    parser.add_argument("--trials", type=int, default=6, help="of each; two or more")
    parser.add_argument("--epochs", type=int, help="of a trial; the recipe's by default")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.trials < 2:
        parser.error(f"--trials must be at least 2. Received: {arguments.trials}")
    changes = {"schedule.epochs": arguments.epochs} if arguments.epochs else {}
    experiment = load_experiment(arguments.recipe, changes)
    rows = measure(experiment, default_space(arguments.recipe, experiment), arguments.trials)
    clock = ratio(rows[0].seconds, rows[1].seconds)
    cpu = ratio(rows[0].cpu_seconds, rows[1].cpu_seconds)
    if arguments.json:
        searches = [asdict(row) for row in rows]
        show_json({"searches": searches, "clock_ratio": clock, "cpu_ratio": cpu})
        return
    show_table(
        ("search", "first trial", "a later one", "its CPU time", "kept in memory a trial"),
        [
            (
                row.search,
                f"{row.first:.1f} s",
                f"{statistics.median(row.seconds):.1f} s",
                f"{statistics.median(row.cpu_seconds):.1f} s",
                f"{statistics.fmean(row.kept_mb):+.1f} MB",
            )
            for row in rows
        ],
    )
    count = len(rows[0].seconds)
    print(f"ratio, the median of {count}: {clock:.2f} by the clock, {cpu:.2f} in CPU time")


if __name__ == "__main__":
    main()
