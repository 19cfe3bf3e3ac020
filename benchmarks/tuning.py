"""Seconds a trial of our search against plain KerasTuner's, on the same space and images.

Both run the same points of the space (a random search with the same seed) for the same epochs, in
turn. Ours pays for a process a trial and for checkpoints; it is paid back in memory, which the last
column shows: what this process holds after its trials.

    python benchmarks/tuning.py --trials 4 --epochs 3
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner as kt

from keras_resnet.console import show_table
from training.config import Experiment, load_experiment
from training.tune import ResNetHyperModel, Search, tune
from training.tuning.space import Space, default_space, load_space


def plain(experiment: Experiment, space: Space, trials: int, folder: Path) -> None:
    """KerasTuner alone, every trial in this process."""
    tuner = kt.RandomSearch(
        ResNetHyperModel(experiment, space),
        objective="val_accuracy",
        max_trials=trials,
        seed=1,
        directory=str(folder),
    )
    tuner.search(verbose=0)


def ours(experiment: Experiment, space: Space, trials: int, folder: Path) -> None:
    """Each trial in a process of its own."""
    tune(Search(experiment, space, "random", trials), folder / "ours", say=lambda _: None)


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="digits-resnet8")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.recipe, {"schedule.epochs": arguments.epochs})
    space = load_space(default_space(arguments.recipe), experiment)
    rows, times = [], {}
    # Ours first: what KerasTuner leaves in this process would count as ours.
    for name, search in (("keras-resnet tune", ours), ("plain KerasTuner", plain)):
        before = resident_megabytes()
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            search(experiment, space, arguments.trials, Path(folder))
            times[name] = (time.perf_counter() - began) / arguments.trials
        grown = (resident_megabytes() - before) / arguments.trials
        rows.append((name, f"{times[name]:.2f} s", f"{grown:.1f} MB"))
    show_table(("search", "a trial", "memory kept a trial"), rows)
    first, second = times.values()
    print(f"ratio {first / second:.2f}")


if __name__ == "__main__":
    main()
