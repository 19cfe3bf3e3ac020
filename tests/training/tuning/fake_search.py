"""Searches whose trials take milliseconds, in processes that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.experiment_file import load_experiment
from training.tuning.space import make_space
from training.tuning.trial import Job, Outcome, write_outcome
from training.tuning.tune import Address, Search, tune, work

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["training.tuning.tune", "training.train", "sklearn.gaussian_process"]
)

EXPERIMENT = load_experiment("digits-resnet8", {"schedule.epochs": 9})
SPACE = make_space(
    {
        "optimizer.learning_rate": {"min": 0.01, "max": 1.0, "log": True},
        "optimizer.weight_decay": {"values": [0.001, 0.002, 0.005]},
        "augment.padding": {"min": 0, "max": 3},
    },
    EXPERIMENT,
)


def search(tuner: str, trials: int = 12, **more: Any) -> Search:
    return Search(EXPERIMENT, SPACE, tuner, trials, **more)


def accuracy(job: Job) -> float:
    """The truth that these searches look for: a padding of 2, and a rate near 0.1."""
    e = job.experiment
    return 0.9 - 0.1 * abs(e.augment.padding - 2) - 0.1 * abs(e.optimizer.learning_rate - 0.1)


def quick(job: Job, alive: Callable[[], None] = lambda: None, seconds: float = 0.0) -> Outcome:
    """Ends at once, and notes that it ran."""
    time.sleep(seconds)
    alive()
    score = accuracy(job)
    figures = {"val_accuracy": score, "val_loss": 1 - score, "accuracy": score, "loss": 0.5}
    outcome = Outcome(score, {"epochs": job.until, **figures}, seconds=0.1)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_outcome(job.folder, outcome)
    with (job.folder.parent / "ran.jsonl").open("a") as file:
        file.write(json.dumps([job.folder.name, str(job.experiment), job.until]) + "\n")
    return outcome


def slow(job: Job, alive: Callable[[], None]) -> Outcome:
    for _ in range(10):
        time.sleep(0.02)
        alive()
    return quick(job)


def silent(_: Any) -> None:
    """Says nothing."""


def run_search(wanted: Search, out: Path, chief: Address | None = None) -> None:
    tune(wanted, out, runner=slow, chief=chief, say=silent)


def run_real_search(wanted: Search, out: Path) -> None:
    tune(wanted, out, say=silent)


def run_worker(out: Path, oracle: Address) -> None:
    work(out, oracle, runner=slow, say=silent)


def start(target: Callable[..., None], *args: Any) -> Any:
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    return process
