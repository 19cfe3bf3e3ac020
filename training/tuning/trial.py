"""One trial of a search: an experiment trained in a separate process.

Its memory is freed whatever happens in it, and the search continues. The process is forked from a
server that has only imported TensorFlow, so it starts in milliseconds; TensorFlow is initialized in
the child.
"""

from __future__ import annotations

import dataclasses
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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from keras_resnet.files import atomic_write
from keras_resnet.native_stderr import suppressed_native_stderr
from training.config import Experiment, first_difference
from training.paths import with_absolute_paths
from training.run import Run, lock_file
from training.tuning.budget import NO_BUDGET, Budget, Measure

# Windows can only start processes from scratch.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
# scikit-learn splits sources without a test split; its import takes half a second.
PRELOAD = ["training.tuning.trial", "training.train", "sklearn.model_selection"]
POLL_SECONDS = 0.1
# Time for a trial to save its state before it is killed.
TERMINATE_SECONDS = 60.0
# Weight of the loss in the score: less than one image of any test set.
TIE = 1e-6


@dataclass(frozen=True)
class Job:
    """The definition of a trial.

    Attributes:
        experiment: The experiment to train.
        folder: Folder of the trial; ``run`` in it is the run folder.
        until: Epochs after which to stop, at most those of the experiment.
        parent: The run folder of the trial that this one continues, if any.
        budget: Limits on the cost of the network.
        measure: Measures the cost; required with a budget.
        costs: Folder of costs already measured.
        timeout: Maximum seconds; ``None`` for no limit.
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
    """The result of a trial.

    Attributes:
        score: The value to maximize: accuracy, with the loss to break ties; negative if over the
            budget; ``None`` if the trial failed.
        figures: Figures of the last epoch such as ``val_accuracy``, costs, and ``epochs``.
        failure: One line on why it failed; empty if it did not.
        seconds: Duration.
    """

    score: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0


Runner = Callable[[Job, Callable[[], None]], Outcome]


def read_outcome(folder: Path) -> Outcome | None:
    """The result in a trial's folder; ``None`` before its end.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / "outcome.json"
    if not path.is_file():
        return None
    try:
        outcome = Outcome(**json.loads(path.read_text("utf-8")))
        numbers = (outcome.score or 0.0, outcome.seconds, *outcome.figures.values())
        if not (isinstance(outcome.failure, str) and all(map(math.isfinite, numbers))):
            raise ValueError("its values are not finite numbers")
        return outcome
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not the result of a trial: {reason}. Delete it") from None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes a result for ``read_outcome``."""
    with atomic_write(folder / "outcome.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(outcome)), "utf-8")


def run_sandboxed(job: Job, heartbeat: Callable[[], None]) -> Outcome:
    """Runs a trial in a child process, resuming it if its folder holds a checkpoint.

    Args:
        job: The trial.
        heartbeat: Called ten times a second meanwhile.

    Returns:
        The result, failures included.

    Raises:
        KeyboardInterrupt: This process was asked to stop; the trial has saved its state.
    """
    from training.runtime import stop_requests

    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "outcome.json").unlink(missing_ok=True)
    _start_server()
    began = time.monotonic()
    process = CONTEXT.Process(target=_main, args=(job,), daemon=True)
    with stop_requests() as stop_requested:
        process.start()
        while process.is_alive():
            process.join(POLL_SECONDS)
            heartbeat()
            if stop_requested():
                _terminate(process)
                raise KeyboardInterrupt("stopped; the same command resumes the search")
            if job.timeout is not None and time.monotonic() - began > job.timeout:
                _terminate(process)
                return _failed(job, f"took longer than {job.timeout:g} seconds", began)
    outcome = read_outcome(job.folder)
    if outcome is None:
        return _failed(job, _failure_reason(job, process.exitcode), began)
    return _record(job, outcome, began)


def _start_server() -> None:
    """Starts the process that trials are forked from, unless it is running."""
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        CONTEXT.set_forkserver_preload(PRELOAD)
        with suppressed_native_stderr():  # TensorFlow's start-up messages
            forkserver.ensure_running()


def _terminate(process: BaseProcess) -> None:
    """By SIGTERM first, so that the trial saves its state."""
    process.terminate()
    process.join(TERMINATE_SECONDS)
    process.kill()
    process.join()


def _failed(job: Job, failure: str, began: float) -> Outcome:
    return _record(job, Outcome(failure=failure), began)


def _record(job: Job, outcome: Outcome, began: float) -> Outcome:
    outcome = dataclasses.replace(outcome, seconds=round(time.monotonic() - began, 2))
    write_outcome(job.folder, outcome)
    return outcome


def _failure_reason(job: Job, code: int | None) -> str:
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
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the search only, which then stops its trial
    _redirect_output(job.folder / "output.txt")
    threading.Thread(target=_terminate_with_parent, daemon=True).start()
    with (job.folder / ".lock").open("a") as lock:
        # The last trial of a search that was killed and resumed may still be saving.
        lock_file(lock, wait=True)
        write_outcome(job.folder, run_in_process(job))


def _redirect_output(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(
            io.FileIO(number, "w", closefd=False), "utf-8", "backslashreplace", write_through=True
        )
        setattr(sys, name, stream)


def _terminate_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # saves the state


def run_in_process(job: Job) -> Outcome:
    """Runs a trial in this process; every exception becomes a failed outcome."""
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
            # Not trained. The score is below every accuracy and falls with the excess, so that the
            # search learns to stay within the budget.
            return Outcome(score=-excess, figures=cost)
    _prepare(job)
    run = train(job.experiment, job.run, say=print, verbose=2, until=job.until)
    figures = _figures(run, job.until) | cost
    if not math.isfinite(figures["val_loss"]):
        return Outcome(failure="the loss on the test images is not a number", figures=cost)
    contract = run.contract
    assert contract
    # Relative to the minimum loss under the trial's own label smoothing; a sigmoid has 2 outcomes.
    outcomes = len(contract.labels) if contract.task == "single" else 2
    loss = figures["val_loss"] - minimum_loss(job.experiment.optimizer.label_smoothing, outcomes)
    return Outcome(figures["val_accuracy"] - TIE * loss / (1 + loss), figures)


def minimum_loss(label_smoothing: float, classes: int) -> float:
    """The minimum of the cross entropy: the entropy of the smoothed targets."""
    spread = label_smoothing / classes
    if not spread:
        return 0.0
    top = 1 - (classes - 1) * spread
    return -top * math.log(top) - (classes - 1) * spread * math.log(spread)


def _prepare(job: Job) -> None:
    """Prepares the run folder: keeps it if it can be resumed, or copies the parent's."""
    existing = Run(job.run).experiment
    if existing and first_difference(with_absolute_paths(existing), job.experiment):
        shutil.rmtree(job.run)  # of a trial that started before the search was killed unsaved
    if job.run.exists() or job.parent is None or not any(job.parent.glob("checkpoints/step-*")):
        return
    temporary = job.folder / ".parent"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(job.parent, temporary)
    temporary.rename(job.run)


def _figures(run: Run, until: int) -> dict[str, Any]:
    """Figures of the last epoch, for the weights that are deployed."""
    metrics = run.read("metrics.json")
    row = metrics["history"][min(until, metrics["epochs"]) - 1]
    averaged = {k.replace("val_ema_", "val_"): v for k, v in row.items() if "val_ema_" in k}
    row = row | averaged
    names = ("accuracy", "loss", "val_accuracy", "val_loss")
    return {"epochs": row["epoch"]} | {name: row.get(name, math.nan) for name in names}
