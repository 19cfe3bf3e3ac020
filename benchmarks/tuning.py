"""Time and memory of a trial of our search and of plain KerasTuner's, at the same points.

Both are random searches with the same seed over the same space, images and epochs. Their trials are
interleaved, so that other work on the machine slows both; on a busy machine, CPU time is more
reliable than wall time. The first trial of each starts TensorFlow, in this process or in the one
that ours are forked from, and is reported separately.

Our search has the cost of a process per trial and of a checkpoint per epoch. In return it keeps no
memory: the last column is what this process keeps of each trial, which adds up in a long search.

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
# A tuner, and a function that runs it until its oracle has no more trials.
Search = tuple[Any, Callable[[], None]]


@dataclass(frozen=True)
class Figures:
    """The figures of one of the two searches.

    Attributes:
        search: Name of the search.
        first: Wall seconds of the first trial.
        seconds: Wall seconds of each later trial.
        cpu_seconds: CPU seconds of each later trial, including its process.
        kept_mb: Growth of this process's memory by each later trial, in 10^6 bytes.
    """

    search: str
    first: float
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    kept_mb: tuple[float, ...]


def plain(experiment: Experiment, space: Space, folder: Path) -> Search:
    """Plain KerasTuner: every trial in this process."""
    tuner = kt.RandomSearch(
        ResNetHyperModel(experiment, space), "val_accuracy", seed=SEED, directory=str(folder)
    )
    return tuner, lambda: tuner.search(verbose=0)


def ours(experiment: Experiment, space: Space, folder: Path) -> Search:
    """Each trial in a separate process."""
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


def run_next_trial(search: Search, number: int) -> tuple[float, float, float]:
    """Runs the next trial; returns its seconds, its CPU seconds and the megabytes it leaves."""
    tuner, run = search
    tuner.oracle.max_trials = number
    memory, cpu, began = resident_megabytes(), cpu_seconds(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    seconds = time.perf_counter() - began
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    if statuses != ["COMPLETED"] * number:
        raise RuntimeError(f"a trial failed, so there is nothing to compare: {statuses}")
    return seconds, cpu_seconds() - cpu, resident_megabytes() - memory


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds() -> float:
    """CPU seconds of this process, its children, and the processes that they have waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has exited
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
                found[name].append(run_next_trial(search, number))
                say(f"{name}: trial {number} took {found[name][-1][0]:.1f} s")
    return [Figures(name, rows[0][0], *zip(*rows[1:])) for name, rows in found.items()]


def ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """The median of the ratios of corresponding trials."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="digits-resnet8")
    parser.add_argument("--trials", type=int, default=6, help="of each search; at least 2")
    parser.add_argument("--epochs", type=int, help="per trial; the recipe's by default")
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
        ("search", "first trial", "later trials", "CPU time", "memory kept per trial"),
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
    print(f"ratio, median of {count}: {clock:.2f} in wall time, {cpu:.2f} in CPU time")


if __name__ == "__main__":
    main()
