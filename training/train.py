"""``train(experiment, out)``: from images to a trained model in a run folder.

The story of a run: set up (``task.py``), restore the newest checkpoint, then epoch after epoch
train, validate, save and publish; at the end write the results (``results.py``), the model first.

The state of a run is its variables and a ``Progress``, both in every checkpoint. All files of the
run folder follow from them: a killed run resumes to the same bits (conditions: docs/recipes.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.files import remove_leftovers
from training.checkpoint import (
    Checkpoint,
    Progress,
    assign,
    check_facts,
    latest_checkpoint,
    not_finite,
    values_of,
    write_checkpoint,
)
from training.config import Experiment
from training.data.pipeline import training_batches, validation_batches
from training.data.sources import first_unreadable
from training.data.validate_images import Say
from training.display import Clock, Display, display
from training.evaluate import confusion_matrix
from training.file_list import listed_in_folder, write_file_list
from training.multihost import Host, StopVote, broadcast_from_first, current_host, detect_lost_hosts
from training.paths import with_absolute_paths
from training.phases import Phase, phase_at, set_trainable
from training.report.tensorboard import Profile, first_line
from training.results import (
    Figures,
    best_epoch,
    finished_epochs,
    write_description,
    write_epochs,
    write_model,
    write_results,
)
from training.run import Run, lock_folder
from training.runtime import prepare, stop_requests
from training.steps import backend_steps
from training.task import Task, make_task
from training.validation import Validation, validate


class Interrupted(KeyboardInterrupt):
    """The run was stopped by SIGINT or SIGTERM; its state was saved first.

    Attributes:
        run: The run folder.
        signal: The signal.
    """

    def __init__(self, run: Run, progress: Progress, by: signal.Signals) -> None:
        super().__init__(
            f"stopped after {progress.epoch} completed epochs and {progress.step} steps; "
            "the same command resumes the run"
        )
        self.run = run
        self.signal = by


class Diverged(ArithmeticError):
    """The loss or a weight became infinite or NaN; the last good state was kept."""


@dataclass(frozen=True)
class Session:
    """What this process adds to the task: how it is watched and stopped.

    Attributes:
        task: What the run works with.
        stop: The signal by which the run was asked to stop, on any host; ``None`` if it was not.
        screen: Progress on stderr.
        profile: TensorBoard's profile of some steps.
    """

    task: Task
    stop: StopVote
    screen: Display
    profile: Profile


def train(
    experiment: Experiment,
    out: str | Path,
    say: Say = print,
    verbose: int = 1,
    until: int | None = None,
    profile: tuple[int, int] | None = None,
) -> Run:
    """Trains a model in a folder, from scratch or from the newest checkpoint in it.

    Args:
        experiment: The configuration.
        out: The run folder: a new one, or one in which the same experiment was stopped.
        say: Called with lines for people: what was chosen, and why.
        verbose: 1 for a progress bar and one line per epoch on stderr, 2 for the lines only, 0
            for no output.
        until: Pause after this many epochs, with everything saved. Calling again with a larger
            number, or without, resumes.
        profile: First and last step to profile for TensorBoard, counted from 1 since the start of
            this process.

    Returns:
        The run. ``model.keras`` in its folder holds the weights of the last epoch, or their moving
        average if ``optimizer.ema_momentum`` is set.

    Raises:
        ValueError: The experiment cannot be run; the folder holds another one, is in use or
            has only damaged checkpoints; or images cannot be read.
        OSError: The folder can no longer be written.
        Diverged: The loss or a weight is no longer finite.
        Interrupted: SIGINT or SIGTERM; the state was saved.
        HostLost: Another host of a multi-host run is gone.
    """
    experiment = with_absolute_paths(experiment)
    host = current_host()
    if not host.is_first:
        say, verbose = (lambda _: None), 0
    with detect_lost_hosts(host), _run_folder(host, Path(out)) as folder:
        run = Run(folder)
        epochs = finished_epochs(run, experiment) if host.is_first else 0
        epochs, _ = broadcast_from_first(host, (epochs, {}))
        if epochs:
            say(f"{run.folder} is finished: {epochs} epochs")
            return run
        runtime = prepare(experiment.runtime)
        profiler = Profile(run.folder / "tensorboard" / "train", profile if host.is_first else None)
        with runtime.placed():
            with listed_in_folder(run):
                task = make_task(run, experiment, runtime, say)
            write_file_list(run, task.source.notes, say)
            with _explained_errors(task):
                _run(task, say, verbose, until, profiler)
    return Run(Path(out))


@contextlib.contextmanager
def _run_folder(host: Host, out: Path) -> Iterator[Path]:
    """The run folder, locked; a temporary one on all hosts but the first."""
    if host.is_first:
        with lock_folder(out):
            yield out
    else:
        with tempfile.TemporaryDirectory(prefix="keras-resnet-") as folder:
            yield Path(folder)


@contextlib.contextmanager
def _explained_errors(task: Task) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{task.run.folder} can no longer be used: {error}. The last good checkpoint is kept. "
            "Correct this, then run the same command again"
        ) from error
    except tf.errors.ResourceExhaustedError as error:
        batch = task.experiment.runtime.batch_size
        raise ValueError(
            f"There is too little memory for a batch of {batch}. Lower it: --batch-size N"
        ) from error


def _run(task: Task, say: Say, verbose: int, until: int | None, profile: Profile) -> None:
    experiment = task.experiment
    epochs, batch = experiment.schedule.epochs, experiment.runtime.batch_size
    try:
        progress = _restore(task, say) or _begin(task)
        with (
            stop_requests() as stop_requested,
            display(verbose, epochs, task.steps, batch) as screen,
        ):
            session = Session(task, StopVote(task.runtime.host, stop_requested), screen, profile)
            progress = _run_epochs(session, progress, min(until or epochs, epochs))
            finished = progress.epoch == epochs or _out_of_patience(task, progress)
            write_model(task)
            if finished and task.contract.task != "single":
                write_model(task, _thresholds(session, progress))
        write_results(task, progress, finished)
    finally:
        profile.end()


# --- Begin or restore -----------------------------------------------------------------------


def _begin(task: Task) -> Progress:
    run = task.run
    if run.model_file.exists() or run.log_file.exists():
        raise ValueError(
            f"{run.folder} holds a run without checkpoints, which cannot be resumed. Delete it to "
            "start over, or give another folder: --out FOLDER"
        )
    run.checkpoints.mkdir(exist_ok=True)
    write_description(task)
    progress = Progress()
    _save(task, progress)
    return progress


def _restore(task: Task, say: Say) -> Progress | None:
    """Restores the newest good checkpoint; ``None`` if there is none at all."""
    run = task.run

    def warn(message: str) -> None:
        say(message)
        run.log_event("warning", message=message)

    checkpoint = _on_all_hosts(task.runtime.host, latest_checkpoint(run.checkpoints, warn))
    if checkpoint is None:
        return None
    check_facts(checkpoint.facts, task.facts, run.folder, warn)
    run.checkpoints.mkdir(exist_ok=True)
    assign(task.variables, checkpoint.arrays)
    for folder in (run.checkpoints, run.folder):
        remove_leftovers(folder)
    progress = checkpoint.progress
    say(f"resuming after {progress.epoch} epochs and {progress.step} steps")
    run.log_event("resumed", epoch=progress.epoch, step=progress.step, **task.facts["machine"])
    write_epochs(task, progress)
    return progress


def _on_all_hosts(host: Host, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """The first host's checkpoint, on every host."""
    if host.count == 1:
        return checkpoint
    plain, arrays = None, {}
    if checkpoint:
        plain, arrays = [vars(checkpoint.progress), checkpoint.facts], checkpoint.arrays
    plain, arrays = broadcast_from_first(host, (plain, arrays))
    return Checkpoint(Progress(**plain[0]), plain[1], arrays) if plain else None


# --- Epochs ---------------------------------------------------------------------------------


def _run_epochs(session: Session, progress: Progress, epochs: int) -> Progress:
    """Trains, validates and saves epoch by epoch until ``epochs`` are completed."""
    task = session.task
    test_batches, test_steps = _validation(task)
    phase = None
    while progress.epoch < epochs and not _out_of_patience(task, progress):
        current = phase_at(task.experiment, progress.epoch)
        if current != phase:
            if phase:
                session.screen.note(f"from epoch {progress.epoch + 1}: {current}")
            batches, train_step = _enter_phase(task, progress, current)
            phase = current
        clock = Clock(progress.seconds, progress.waited)
        progress = _train_epoch(session, progress, batches, train_step, clock)
        train_seconds = clock.seconds
        if progress.epoch + 1 == task.experiment.schedule.epochs:
            _finite_values(task, progress)
            write_model(task)  # before anything else that could fail, validation included
        figures = {name: float(metric.result()) for name, metric in task.metrics.items()}
        session.screen.validating(progress.epoch)
        for name, test_step in test_steps.items():
            found = _validate(session, progress, test_batches, test_step)
            figures |= {f"{name}_accuracy": found.accuracy, f"{name}_loss": found.loss}
        if task.confusion is not None:  # the last one is that of the deployed weights
            classes = len(task.source.labels)
            task.confusion.assign(confusion_matrix(found.truth, found.predicted, classes))
        del found  # of thousands of labels its outputs are large
        progress = _close_epoch(task, progress, figures, train_seconds, clock)
        _save(task, progress)
        write_epochs(task, progress)
        session.screen.epoch(progress.rows[-1], progress.timings[-1])
    return progress


def _validation(task: Task) -> tuple[tf.data.Dataset, dict[str, Callable]]:
    """Test batches, and a test step for each set of weights by the prefix of its figures."""
    batches = validation_batches(task.source.test, task.contract, task.experiment)
    steps, spec = backend_steps(), batches.element_spec
    test_steps = {"val": steps.test_step(task, task.model, spec)}
    if task.ema_model:
        test_steps["val_ema"] = steps.test_step(task, task.ema_model, spec)
    return batches, test_steps


def _thresholds(session: Session, progress: Progress) -> tuple[float, ...]:
    """The thresholds of the deployed weights, chosen on the test images."""
    batches, test_steps = _validation(session.task)
    *_, deployed = test_steps.values()
    return _validate(session, progress, batches, deployed).thresholds()


def _enter_phase(
    task: Task, progress: Progress, phase: Phase
) -> tuple[Iterator, Callable[..., dict[str, Any]]]:
    """Training batches of a phase from the current step on, and the step that takes them.

    Both are the same as in a process that starts at this step.
    """
    host = task.runtime.host
    batches = training_batches(
        task.source.train,
        task.contract.replace(height=phase.size, width=phase.size),
        task.experiment,
        progress.epoch,
        progress.step,
        (host.rank, host.count),
    )
    set_trainable(task.model, task.experiment, phase)
    return iter(batches), backend_steps().train_step(task, batches.element_spec)


def _out_of_patience(task: Task, progress: Progress) -> bool:
    """Whether ``schedule.patience`` epochs have passed without a better one."""
    patience = task.experiment.schedule.patience
    completed = progress.epoch if progress.step == 0 else 0
    return bool(patience) and completed - progress.best_epoch >= patience


def _train_epoch(
    session: Session,
    progress: Progress,
    batches: Iterator,
    train_step: Callable[..., dict[str, Any]],
    clock: Clock,
) -> Progress:
    """The remaining steps of the epoch."""
    task, config = session.task, session.task.experiment.checkpoint
    saved = time.monotonic()
    loss: Any = None
    while progress.step < task.steps:
        with clock.waiting():
            batch = _next(batches, task, progress)
        if task.steps_done(progress) == 0:
            images, labels = batch
            task.tensorboard.first_batch(images, labels, task.source.labels)
        session.profile.before_step()
        figures = train_step(*batch)
        session.profile.after_step(figures["loss"])
        session.stop.step()
        # The loss of the step before, so that the device never waits for Python to look at it.
        _check_loss(task, progress, loss)
        progress = dataclasses.replace(
            progress, step=progress.step + 1, seconds=clock.seconds, waited=clock.waited
        )
        loss = figures["loss"]
        shown = functools.partial(_shown, task, figures)
        session.screen.step(progress.epoch, progress.step, clock, shown)
        by_step = config.every_steps and progress.step % config.every_steps == 0
        by_time = config.every_seconds and time.monotonic() - saved >= config.every_seconds
        if by_step or by_time or session.stop():
            _check_loss(task, progress, loss)
            _save(task, progress)
            saved = time.monotonic()
        _stop_if_asked(session, progress)
    _check_loss(task, progress, loss)
    return progress


def _shown(task: Task, figures: dict[str, Any]) -> Figures:
    shown = {name: float(value) for name, value in figures.items()}
    return shown | {"learning_rate": _learning_rate(task)}


def _learning_rate(task: Task) -> float:
    return float(keras.ops.convert_to_numpy(task.model.optimizer.learning_rate))


def _validate(
    session: Session,
    progress: Progress,
    batches: tf.data.Dataset,
    test_step: Callable[..., tuple[Any, Any]],
) -> Validation:
    task = session.task
    iterator = iter(batches)

    def after_batch() -> None:
        if session.stop():
            _save(task, progress)
        _stop_if_asked(session, progress)

    remaining = iter(lambda: _next(iterator, task, progress), None)
    return validate(task.contract.task, remaining, test_step, after_batch)


def _close_epoch(
    task: Task, progress: Progress, figures: Figures, train_seconds: float, clock: Clock
) -> Progress:
    """Adds the epoch's rows to the progress and resets the metrics."""
    epoch = progress.epoch + 1
    row = {"epoch": epoch, **figures, "learning_rate": _learning_rate(task)}
    images, seconds = task.steps * task.experiment.runtime.batch_size, max(train_seconds, 1e-9)
    timing = {
        "epoch": epoch,
        "seconds": round(clock.seconds, 3),
        "images_per_second": round(images / seconds, 1),
        "waiting": round(clock.waited / seconds, 4),
    }
    for metric in task.metrics.values():
        metric.reset_state()
    rows = (*progress.rows, row)
    return Progress(epoch, 0, rows, (*progress.timings, timing), best_epoch(rows, task))


# --- Save, stop, fail -----------------------------------------------------------------------


def _save(task: Task, progress: Progress) -> None:
    checkpoint = Checkpoint(progress, task.facts, _finite_values(task, progress))
    write_checkpoint(task.run.checkpoints, task.steps_done(progress), checkpoint)


def _finite_values(task: Task, progress: Progress) -> dict[str, np.ndarray]:
    """A copy of all variables; raises ``Diverged`` if one is no longer finite."""
    arrays = values_of(task.variables)
    if name := not_finite(arrays):
        raise _diverged(task, progress, f"{name} is no longer finite after")
    return arrays


def _stop_if_asked(session: Session, progress: Progress) -> None:
    """Raises ``Interrupted`` if the run was asked to stop; its state is saved by then."""
    by, task = session.stop(), session.task
    if by is None:
        return
    if by == signal.SIGINT:  # a person wants to see a model; a preempted process has no time
        write_model(task)
        write_results(task, progress, finished=False)
    task.run.log_event("stopped", by=by.name, epoch=progress.epoch, step=progress.step)
    raise Interrupted(task.run, progress, by)


def _check_loss(task: Task, progress: Progress, loss: Any) -> None:
    if loss is not None and not math.isfinite(loss):
        raise _diverged(task, progress, f"the loss became {float(loss)} in")


def _diverged(task: Task, progress: Progress, what: str) -> Diverged:
    kept = [path.stem for path in task.run.checkpoints.glob("step-*")]
    message = (
        f"{what} step {progress.step} of epoch {progress.epoch + 1} (step "
        f"{task.steps_done(progress)} of the run). The last good state is kept: {max(kept)}. "
        f"Lower optimizer.learning_rate, now {task.experiment.optimizer.learning_rate:g}, in "
        "another folder"
    )
    task.run.log_event("diverged", message=message)
    return Diverged(message)


def _next(batches: Iterator, task: Task, progress: Progress) -> Any:
    """The next batch, or ``None`` after the last; saves the state if images cannot be read."""
    try:
        return next(batches, None)
    except tf.errors.OpError as error:
        _save(task, progress)
        reason = first_unreadable(task.source, task.contract)
        reason = reason or f"The images cannot be read: {first_line(error)}. Repair them"
        raise ValueError(f"{reason}, then run the same command again") from error
