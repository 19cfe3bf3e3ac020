"""One trial: an experiment trained in a process of its own.

Whatever happens to it there, its memory is given back, and the search goes on. The process is
forked from a server that has TensorFlow imported and nothing else, so that it starts in
milliseconds; TensorFlow itself is set up in the child, whose devices are its own.
"""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from keras_resnet.files import atomic_write
from keras_resnet.native_stderr import suppressed_native_stderr
from training.config import Experiment, first_difference
from training.run import Run
from training.tuning.budget import NO_BUDGET, Budget, Measure

CONTEXT = multiprocessing.get_context("forkserver")
# scikit-learn splits what has no split of its own; its import alone takes half a second.
PRELOAD = ["training.tuning.trial", "training.train", "sklearn.model_selection"]
LOOK_SECONDS = 0.1
LEAVE_SECONDS = 60.0
# Less than one image of any test set.
TIE = 1e-6


@dataclass(frozen=True)
class Job:
    """What a trial is to do.

    Attributes:
        experiment: What is trained.
        folder: The trial's; ``run`` in it is the run folder.
        until: Epochs after which it ends, of those that the experiment has.
        parent: The run folder of the trial that it continues, if any.
        budget: What the network may cost.
        measure: What finds the cost; needed for a budget.
        costs: Folder of the costs known.
        timeout: Seconds it may take; ``None`` for any.
    """

    experiment: Experiment
    folder: Path
    until: int
    parent: Path | None = None
    budget: Budget = NO_BUDGET
    measure: Measure | None = None
    costs: Path = Path("costs")
    timeout: float | None = None

    @property
    def run(self) -> Path:
        return self.folder / "run"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        score: What the search maximizes: accuracy, and of equals the loss decides; below zero for
            what is over the budget; ``None`` where it failed.
        figures: val_accuracy and other figures of the last epoch, costs, epochs.
        failure: Why it failed, in a line; empty where it did not.
        seconds: How long it took.
    """

    score: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0


Runner = Callable[[Job, Callable[[], None]], Outcome]


def read_outcome(folder: Path) -> Outcome | None:
    """What the trial of a folder left, if it ended."""
    path = folder / "outcome.json"
    return Outcome(**json.loads(path.read_text("utf-8"))) if path.is_file() else None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Leaves what ``read_outcome`` reads."""
    with atomic_write(folder / "outcome.json") as beside:
        beside.write_text(json.dumps(dataclasses.asdict(outcome)), "utf-8")


def run_sandboxed(job: Job, alive: Callable[[], None]) -> Outcome:
    """Runs a trial in a child process, from where its folder stands.

    Args:
        job: What to do.
        alive: Called ten times a second meanwhile.

    Returns:
        What came of it, failures included.

    Raises:
        KeyboardInterrupt: This process was asked to stop; the trial saved its state.
    """
    from training.runtime import stop_requests

    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "outcome.json").unlink(missing_ok=True)
    _start_server()
    began = time.monotonic()
    process = CONTEXT.Process(target=_main, args=(job,), daemon=True)
    with stop_requests() as asked:
        process.start()
        while process.is_alive():
            process.join(LOOK_SECONDS)
            alive()
            if asked():
                _end(process)
                raise KeyboardInterrupt("stopped; the same command goes on from here")
            if job.timeout is not None and time.monotonic() - began > job.timeout:
                _end(process)
                return _ended(job, f"took longer than {job.timeout:g} seconds", began)
    outcome = read_outcome(job.folder)
    if outcome is None:
        return _ended(job, _last_words(job, process.exitcode), began)
    return _kept(job, outcome, began)


def _start_server() -> None:
    """Starts the process that trials are forked from, unless it runs."""
    CONTEXT.set_forkserver_preload(PRELOAD)
    with suppressed_native_stderr():  # TensorFlow greets
        forkserver.ensure_running()


def _end(process: ForkServerProcess) -> None:
    """First politely: the trial then saves its state."""
    process.terminate()
    process.join(LEAVE_SECONDS)
    process.kill()
    process.join()


def _ended(job: Job, failure: str, began: float) -> Outcome:
    return _kept(job, Outcome(failure=failure), began)


def _kept(job: Job, outcome: Outcome, began: float) -> Outcome:
    outcome = dataclasses.replace(outcome, seconds=round(time.monotonic() - began, 2))
    write_outcome(job.folder, outcome)
    return outcome


def _last_words(job: Job, code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    try:
        lines = (job.folder / "output.txt").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return f"ended with code {code}: {next((line for line in reversed(lines) if line), '')}"


# --- In the child ---------------------------------------------------------------------------


def _main(job: Job) -> None:
    os.setsid()  # Ctrl-C is for the search, which then asks its trial to stop
    _write_into(job.folder / "output.txt")
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with (job.folder / ".lock").open("a") as lock:
        # A search that was killed and begun again may find its last trial still saving.
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_outcome(job.folder, attempt(job))


def _write_into(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True)
        setattr(sys, name, stream)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # which saves the state


def attempt(job: Job) -> Outcome:
    """Runs a trial in this process; every failure that Python hears of is an outcome."""
    from training.train import Diverged

    try:
        return _run(job)
    except (Diverged, ValueError, OSError) as error:
        return Outcome(failure=" ".join(str(error).split()))
    except MemoryError:
        return Outcome(failure="out of memory")
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        return Outcome(failure=f"{type(error).__name__}: {reason}")


def _run(job: Job) -> Outcome:
    from training.train import train
    from training.tuning.budget import cost_of

    cost: dict[str, float] = {}
    if job.budget:
        assert job.measure is not None
        cost = cost_of(job.experiment, job.measure, job.costs)
        if excess := job.budget.excess(cost):
            # Below every accuracy, and the lower the further it is from the budget, so that the
            # search learns where to look. Training it would be a waste.
            return Outcome(score=-excess, figures=cost)
    _prepare(job)
    run = train(job.experiment, job.run, say=print, verbose=2, until=job.until)
    figures = _figures(run, job.until) | cost
    if not math.isfinite(figures["val_loss"]):
        return Outcome(failure="the loss on the test images is not a number", figures=cost)
    contract = run.contract
    assert contract
    # The loss counts from the least that the trial's own label smoothing leaves.
    loss = figures["val_loss"] - least_loss(
        job.experiment.optimizer.label_smoothing, len(contract.labels)
    )
    return Outcome(figures["val_accuracy"] - TIE * loss / (1 + loss), figures)


def least_loss(label_smoothing: float, classes: int) -> float:
    """What the loss cannot fall below: the entropy of targets spread over all classes."""
    spread = label_smoothing / classes
    if not spread:
        return 0.0
    top = 1 - (classes - 1) * spread
    return -top * math.log(top) - (classes - 1) * spread * math.log(spread)


def _prepare(job: Job) -> None:
    """Makes the run folder one that can go on: its own, or a copy of the parent's."""
    there = Run(job.run).experiment
    if there is not None and first_difference(there, job.experiment):
        shutil.rmtree(job.run)  # of a trial that the search was killed over before it knew of it
    if job.run.exists() or job.parent is None or not any(job.parent.glob("checkpoints/step-*")):
        return
    beside = job.folder / ".parent"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(job.parent, beside)
    beside.rename(job.run)


def _figures(run: Run, until: int) -> dict[str, Any]:
    """The last epoch's figures, of the weights that would be deployed."""
    metrics = run.read("metrics.json")
    row = metrics["history"][min(until, metrics["epochs"]) - 1]
    averaged = {k.replace("val_ema_", "val_"): v for k, v in row.items() if "val_ema_" in k}
    row = row | averaged
    names = ("accuracy", "loss", "val_accuracy", "val_loss")
    return {"epochs": row["epoch"]} | {name: row.get(name, math.nan) for name in names}
