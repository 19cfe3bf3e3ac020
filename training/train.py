"""``train(experiment)``: from images to a trained model in a run folder.

The state of a run is its variables and a ``Progress``; both are in every checkpoint, and every
file of the run folder follows from them. So a run that was killed at any moment goes on as if
nothing had happened, and ends with the same bits (docs/recipes.md says on what conditions).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
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

from keras_resnet.architectures import find
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.files import atomic_write, remove_leftovers
from keras_resnet.models import create_model
from keras_resnet.preprocessing import load_image
from keras_resnet.weights.load import Source as Weights
from keras_resnet.weights.load import load, locate
from training.checkpoint import (
    Checkpoint,
    Progress,
    assign,
    latest_checkpoint,
    not_finite,
    values_of,
    write_checkpoint,
)
from training.config import Experiment, first_difference, save_experiment
from training.data.pipeline import (
    evaluation_batches,
    memory_note,
    steps_per_epoch,
    training_batches,
)
from training.data.sources import Source, open_source
from training.display import Clock, Display, display
from training.estimate import Estimate, estimate
from training.multihost import Agreement, from_the_first, machines, together
from training.optim import learning_rate_note, make_loss, make_optimizer
from training.phases import (
    Phase,
    at_most,
    first_epochs,
    largest_size,
    phase_at,
    set_trainable,
)
from training.report.tensorboard import Profile, TensorBoardWriter, first_line
from training.run import Run, lock_folder
from training.runtime import (
    Runtime,
    describe,
    prepare,
    stop_requests,
    threads,
    versions,
)
from training.steps import backend_steps

Say = Callable[[str], None]
Figures = dict[str, float]

# Of a dry run; the first one compiles.
TIMED_STEPS = 4


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, by Ctrl-C or by SIGTERM, and saved its state first.

    Attributes:
        run: The run folder.
        signal: What asked it.
    """

    def __init__(self, run: Run, progress: Progress, by: signal.Signals) -> None:
        super().__init__(
            f"stopped after {progress.epoch} whole epochs and {progress.step} steps; "
            "the same command goes on from there"
        )
        self.run = run
        self.signal = by


class Diverged(ArithmeticError):
    """The loss or a weight became infinite or NaN; the last good state was kept."""


@dataclass(frozen=True)
class Task:
    """What a run works with from beginning to end.

    Attributes:
        run: The run folder.
        experiment: What was asked for.
        runtime: What was chosen for this machine.
        source: The images.
        model: What learns; it takes images of any size where that of training changes.
        average: The moving average of ``model``'s weights, if there is one.
        fixed: Takes ``model``'s weights to be deployed, where that has no size of its own and
            there is no average.
        class_weights: What an image of each class counts; all of them 1 if empty.
        figures: The training figures of the epoch under way, by name.
        confusion: At the last validation, so many test images of each class, by row, were taken
            for each class, by column.
        steps: Steps an epoch.
    """

    run: Run
    experiment: Experiment
    runtime: Runtime
    source: Source
    model: ImageClassifier
    average: ImageClassifier | None
    fixed: ImageClassifier | None
    class_weights: tuple[float, ...]
    figures: dict[str, keras.Metric]
    confusion: keras.Variable
    steps: int

    @property
    def contract(self) -> Contract:
        """What the model that the run is for expects and answers."""
        return (self.average or self.fixed or self.model).contract

    def deployed(self) -> ImageClassifier:
        """The model that the run is for, as it is now."""
        if self.fixed:
            self.fixed.set_weights(self.model.get_weights())
        return self.average or self.fixed or self.model

    @property
    def variables(self) -> dict[str, list[Any]]:
        """Everything that training changes, seeds of random layers included."""
        return {
            "model": self.model.variables,
            "average": self.average.variables if self.average else [],
            "optimizer": self.model.optimizer.variables,
            "figures": [v for figure in self.figures.values() for v in figure.variables],
            "confusion": [self.confusion],
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint of this run goes with."""
        return {
            "data": {
                "training images": self.source.train.count,
                "test images": self.source.test.count,
                "classes": list(self.source.labels),
            },
            "machine": {
                **versions(),
                "threads": threads(),
                "devices": len(self.runtime.devices),
                "machines": self.runtime.machines.count,
            },
        }

    @functools.cached_property
    def tensorboard(self) -> TensorBoardWriter:
        return TensorBoardWriter(self.run.folder / "tensorboard")

    def steps_done(self, progress: Progress) -> int:
        return progress.epoch * self.steps + progress.step


def train(
    experiment: Experiment,
    out: str | Path,
    say: Say = print,
    verbose: int = 1,
    until: int | None = None,
    profile: tuple[int, int] | None = None,
) -> Run:
    """Trains a model in a folder, from where the folder stands: from nothing, or from a checkpoint.

    Args:
        experiment: Everything that defines the run.
        out: The run folder: a new one, or one in which the same experiment was stopped, by
            whatever means.
        say: Called with lines for people: what was chosen, and why.
        verbose: 1 for a progress bar and a line an epoch on stderr, 2 for the lines alone, 0
            for silence.
        until: Whole epochs after which the run pauses, with everything saved; the same call with
            more of them, or without, goes on.
        profile: The first and the last of this process's steps, from 1, that TensorBoard gets a
            profile of.

    Returns:
        The run. ``model.keras`` in its folder holds the last epoch's weights, or their moving
        average where the experiment asks for one.

    Raises:
        ValueError: The experiment cannot be run; the folder holds another one, is in use or
            has only damaged checkpoints; or images cannot be read.
        OSError: The folder can no longer be written.
        Diverged: The loss is no longer a number.
        Interrupted: Ctrl-C or SIGTERM; the state was saved.
        Lost: Another of several machines is gone.
    """
    here = machines()
    if not here.leads:
        say, verbose = _to_nobody, 0
    with together(here), _folder(here.leads, Path(out)) as folder:
        run = Run(folder)
        finished = here.leads and _is_finished(run, experiment)
        epochs = run.read("metrics.json")["epochs"] if finished else 0
        epochs, _ = from_the_first(here, (epochs, {}))
        if epochs:
            say(f"{run.folder} is finished: {epochs} epochs")
            return run
        runtime = prepare(experiment.runtime)
        profiled = Profile(run.folder / "tensorboard" / "train", profile if here.leads else None)
        with runtime.placed():
            _train(run, experiment, runtime, say, verbose, until, profiled)
    return Run(Path(out))


@contextlib.contextmanager
def _folder(leads: bool, out: Path) -> Iterator[Path]:
    """The run folder; on other machines than the first, one that is thrown away."""
    if leads:
        with lock_folder(out):
            yield out
    else:
        with tempfile.TemporaryDirectory(prefix="keras-resnet-") as folder:
            yield Path(folder)


def _to_nobody(_: str) -> None:
    pass


def _train(
    run: Run,
    experiment: Experiment,
    runtime: Runtime,
    say: Say,
    verbose: int,
    until: int | None,
    profile: Profile,
) -> None:
    task = _set_up(run, experiment, runtime, say)
    batch, epochs = experiment.runtime.batch_size, experiment.schedule.epochs
    try:
        progress = _resume(task, say) or _begin(task)
        with stop_requests() as asked, display(verbose, epochs, task.steps, batch) as screen:
            agreed = Agreement(runtime.machines, asked)
            until = min(until or epochs, epochs)
            progress = _learn(task, progress, until, agreed, screen, profile)
        finished = progress.epoch == epochs or _is_stuck(task, progress)
        _write_results(task, progress, finished)
    except OSError as error:
        raise OSError(
            f"{run.folder} can no longer be used: {error}. The last good checkpoint is kept. "
            "Mend that, then run the same command again"
        ) from error
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            f"There is too little memory for a batch of {batch}. Lower it: --batch-size N"
        ) from error
    finally:
        profile.end()


def dry_run(experiment: Experiment, out: str | Path, say: Say = print) -> Estimate:
    """Builds all that a run needs, times a few steps on noise, and writes nothing.

    Published weights are not fetched: they change no figure.

    Raises:
        ValueError: The run could not begin, for the reasons that ``train`` gives.
    """
    run = Run(Path(out))
    _is_finished(run, experiment)
    if experiment != (most := at_most(experiment)):
        say(f"all epochs are taken to be of the dearest kind: {phase_at(most, 0)}")
        experiment = most
    model = dataclasses.replace(experiment.model, weights="")
    runtime = prepare(experiment.runtime)
    with runtime.placed():
        task = _set_up(run, dataclasses.replace(experiment, model=model), runtime, say)
        return _timed(task, say)


def _timed(task: Task, say: Say) -> Estimate:
    experiment = task.experiment
    batch, epochs = experiment.runtime.batch_size, experiment.schedule.epochs
    images = tf.random.stateless_uniform((batch, *task.model.input_shape[1:]), (0, 0), 0, 255)
    labels = tf.one_hot(tf.range(batch) % len(task.source.labels), len(task.source.labels))
    spec = (tf.TensorSpec(images.shape), tf.TensorSpec(labels.shape))
    step = backend_steps().train_step(task, spec)
    say("timing steps on noise …")
    seconds = [_seconds(step, images, labels) for _ in range(TIMED_STEPS)]
    return estimate(task.model, task.variables, batch, epochs, task.steps, min(seconds))


def _seconds(step: Callable, images: tf.Tensor, labels: tf.Tensor) -> float:
    began = time.perf_counter()
    float(step(images, labels)["loss"])  # waits for the device
    return time.perf_counter() - began


# --- Before the first step ------------------------------------------------------------------


def _is_finished(run: Run, experiment: Experiment) -> bool:
    """Whether nothing is left to do; refuses a folder that is not this experiment's."""
    there = run.experiment
    if there is None:
        if run.model_file.exists() or run.log_file.exists():
            raise ValueError(f"{run.folder} holds another run. Give another folder: --out FOLDER")
        return False
    if difference := first_difference(there, experiment):
        key, theirs, ours = difference
        raise ValueError(
            f"{run.folder} holds another experiment: its {key} is {theirs!r}, not {ours!r}. "
            "Give another folder: --out FOLDER"
        )
    metrics = run.read("metrics.json")
    return bool(metrics and metrics.get("finished") and run.model_file.exists())


def _set_up(run: Run, experiment: Experiment, runtime: Runtime, say: Say) -> Task:
    for reason in runtime.reasons:
        say(reason)
    say(learning_rate_note(experiment))
    source = open_source(experiment.data, experiment.runtime.seed, say)
    # A run that goes on has its weights in the checkpoint, and needs no file of others.
    weights = None if run.has_checkpoints else find_weights(experiment)
    contract = run.contract if run.has_checkpoints else None
    contract = contract or make_contract(experiment, source, weights)
    steps = steps_per_epoch(source.train, experiment.runtime.batch_size)
    say(
        f"{source.train.count:,} images to train on, {source.test.count:,} to test on, "
        f"{len(source.labels)} classes, {steps} steps an epoch"
    )
    largest = largest_size(experiment)
    say(memory_note(source.train, contract.replace(height=largest, width=largest), experiment))
    if experiment.data.sampling == "balanced":
        say("the class of every training image is read first")
    sized = not experiment.schedule.sizes
    with runtime.mirrored():
        model = make_model(
            experiment, contract if sized else contract.replace(height=None, width=None)
        )
        if weights:
            say(str(load(model, weights, contract)))
        begins = first_epochs(model, experiment)
        model.compile(
            optimizer=make_optimizer(experiment, steps, begins),
            loss=make_loss(experiment.optimizer),
            jit_compile=runtime.jit_compile,
        )
        # Its slots are part of the state, and must be there before a checkpoint is read; those
        # of what is still frozen too, so that all checkpoints of a run are alike.
        model.optimizer.build(model.trainable_variables)
        set_trainable(model, experiment, phase_at(experiment, 0))
    average = make_model(experiment, contract) if experiment.optimizer.ema_momentum else None
    if average:
        average.set_weights(model.get_weights())
    fixed = None if sized or average else make_model(experiment, contract)
    figures = {
        "accuracy": keras.metrics.CategoricalAccuracy(name="accuracy"),
        "loss": keras.metrics.Mean(name="loss"),
    }
    counts = _class_weights(source) if experiment.optimizer.class_weights == "balanced" else ()
    classes = len(source.labels)
    return Task(
        run=run,
        experiment=experiment,
        runtime=runtime,
        source=source,
        model=model,
        average=average,
        fixed=fixed,
        class_weights=counts,
        figures=figures,
        confusion=keras.Variable(
            np.zeros((classes, classes), "int32"), dtype="int32", trainable=False, name="confusion"
        ),
        steps=steps,
    )


def find_weights(experiment: Experiment) -> Weights | None:
    """Reads what ``model.weights`` names, downloaded where needed."""
    config = experiment.model
    if not config.weights:
        return None
    variant = None if config.variant == "auto" else config.variant
    return locate(config.weights, find(config.architecture).with_variant(variant))


def make_contract(experiment: Experiment, source: Source, weights: Weights | None) -> Contract:
    """What the trained model will expect and answer.

    The weights know how pictures are prepared for them; the experiment may say otherwise.
    """
    data, size = experiment.data, experiment.model.size
    usual = Contract(size, size, source.channels)
    known = (weights.preprocessing(usual, len(source.labels)) if weights else None) or usual
    return known.replace(
        mean=data.mean or known.mean,
        std=data.std or known.std,
        normalization="inside",
        order="rgb",
        labels=source.labels,
        resize=known.resize if data.resize == "auto" else data.resize,
        crop_fraction=data.crop_fraction or known.crop_fraction,
        interpolation=known.interpolation if data.interpolation == "auto" else data.interpolation,
    )


def _class_weights(source: Source) -> tuple[float, ...]:
    """The inverse of each class's share, so that the mean over all training images is 1."""
    counts = np.zeros(len(source.labels), "int64")
    for labels in source.train.examples.map(lambda _, label: label).batch(1024):
        counts += np.bincount(labels, minlength=len(counts))
    # A class without images counts for nothing.
    return tuple(float(w) for w in counts.sum() / np.maximum(counts, 1) / np.count_nonzero(counts))


def make_model(experiment: Experiment, contract: Contract) -> ImageClassifier:
    """A fresh network that takes raw pixels, of the contract's size or of any."""
    config = experiment.model
    return create_model(
        config.architecture,
        input_shape=(contract.height, contract.width, contract.channels),
        classes=len(contract.labels),
        variant=None if config.variant == "auto" else config.variant,
        width=config.width,
        shortcut=config.shortcut,
        antialias=config.antialias,
        stochastic_depth=config.stochastic_depth,
        dropout_rate=config.dropout_rate,
        zero_init_residual=config.zero_init_residual,
        norm=_norm(config.norm),
        classifier_activation="sigmoid" if experiment.optimizer.loss == "binary" else "softmax",
        include_preprocessing=True,
        contract=contract,
    )


def _norm(name: str) -> str:
    # A step of JAX is over the global batch in any case, and Keras refuses to be asked for it.
    return "batch" if name == "sync_batch" and keras.backend.backend() == "jax" else name


def _begin(task: Task) -> Progress:
    run = task.run
    if run.model_file.exists() or run.log_file.exists():
        raise ValueError(
            f"{run.folder} holds a run without checkpoints, which cannot go on. Delete it to "
            "begin again, or give another folder: --out FOLDER"
        )
    run.checkpoints.mkdir(exist_ok=True)
    with atomic_write(run.experiment_file) as beside:
        save_experiment(task.experiment, beside)
    run.write("contract.json", task.contract.to_dict())
    run.write(
        "run.json",
        {"seed": task.experiment.runtime.seed, "environment": describe()},
    )
    run.log_event("begun", **task.facts["machine"])
    progress = Progress()
    _save(task, progress)
    return progress


def _resume(task: Task, say: Say) -> Progress | None:
    """Puts everything back to the newest good checkpoint, if there is one."""
    run = task.run

    def warn(message: str) -> None:
        say(message)
        run.log_event("warning", message=message)

    checkpoint = _shared(task, latest_checkpoint(run.checkpoints, warn))
    if checkpoint is None:
        return None
    for name, there in checkpoint.facts["data"].items():
        here = task.facts["data"][name]
        if here != there:
            raise ValueError(
                f"The data of {run.folder} have changed: {name} were {_short(there)} and are "
                f"{_short(here)}. Put them back, or give another folder: --out FOLDER"
            )
    for name, there in checkpoint.facts["machine"].items():
        here = task.facts["machine"].get(name)
        if here != there:
            warn(f"{name} was {there} and is {here}: the results may differ in their last bits")
    run.checkpoints.mkdir(exist_ok=True)
    assign(task.variables, checkpoint.arrays)
    for folder in (run.checkpoints, run.folder):
        remove_leftovers(folder)
    progress = checkpoint.progress
    say(f"going on after {progress.epoch} epochs and {progress.step} steps")
    run.log_event("resumed", epoch=progress.epoch, step=progress.step, **task.facts["machine"])
    _publish(task, progress)
    return progress


def _shared(task: Task, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """The first machine's checkpoint, on all of them."""
    if task.runtime.machines.count == 1:
        return checkpoint
    plain, arrays = None, {}
    if checkpoint:
        plain, arrays = [vars(checkpoint.progress), checkpoint.facts], checkpoint.arrays
    plain, arrays = from_the_first(task.runtime.machines, (plain, arrays))
    return Checkpoint(Progress(**plain[0]), plain[1], arrays) if plain else None


# --- Learning -------------------------------------------------------------------------------


def _learn(
    task: Task,
    progress: Progress,
    epochs: int,
    asked: Agreement,
    screen: Display,
    profile: Profile,
) -> Progress:
    """Epoch after epoch, until so many are done."""
    test_batches = _test_batches(task)
    steps, spec = backend_steps(), test_batches.element_spec
    test_steps = {"val": steps.test_step(task, task.model, spec)}
    if task.average:
        test_steps["val_ema"] = steps.test_step(task, task.average, spec)

    phase = None
    while progress.epoch < epochs and not _is_stuck(task, progress):
        now = phase_at(task.experiment, progress.epoch)
        if now != phase:
            if phase:
                screen.note(f"from epoch {progress.epoch + 1} on: {now}")
            batches, train_step = _enter(task, progress, now)
            phase = now
        clock = Clock(progress.seconds, progress.waited)
        progress = _train_epoch(task, progress, batches, train_step, clock, asked, screen, profile)
        trained = clock.seconds
        figures = {name: float(figure.result()) for name, figure in task.figures.items()}
        screen.validating(progress.epoch)
        for name, test_step in test_steps.items():
            tested, confusion = _validate(task, progress, test_batches, test_step, asked)
            figures |= {f"{name}_{key}": value for key, value in tested.items()}
        task.confusion.assign(confusion)  # the last one is of what is deployed
        progress = _close_epoch(task, progress, figures, trained, clock)
        _save(task, progress)
        _publish(task, progress)
        screen.epoch(progress.rows[-1], progress.timings[-1])
    return progress


def _enter(
    task: Task, progress: Progress, phase: Phase
) -> tuple[Iterator, Callable[..., dict[str, Any]]]:
    """The batches of a phase from where the run stands, and the step that learns from them.

    Both are what they would be in a process that began here.
    """
    here = task.runtime.machines
    batches = training_batches(
        task.source.train,
        task.contract.replace(height=phase.size, width=phase.size),
        task.experiment,
        progress.epoch,
        progress.step,
        (here.rank, here.count),
    )
    set_trainable(task.model, task.experiment, phase)
    return iter(batches), backend_steps().train_step(task, batches.element_spec)


def _is_stuck(task: Task, progress: Progress) -> bool:
    """Whether the last epochs have brought nothing better, and the experiment wants no more."""
    patience = task.experiment.schedule.patience
    done = progress.epoch if progress.step == 0 else 0
    return bool(patience) and done - progress.best_epoch >= patience


def _train_epoch(
    task: Task,
    progress: Progress,
    batches: Iterator,
    train_step: Callable[..., dict[str, Any]],
    clock: Clock,
    asked: Agreement,
    screen: Display,
    profile: Profile,
) -> Progress:
    """The steps that are left of the epoch."""
    config = task.experiment.checkpoint
    saved = time.monotonic()
    loss: Any = None
    while progress.step < task.steps:
        with clock.waiting():
            batch = _next(batches, task, progress)
        if task.steps_done(progress) == 0:
            images, labels = batch
            task.tensorboard.first_batch(images, labels, task.source.labels)
        profile.before_step()
        figures = train_step(*batch)
        profile.after_step(figures["loss"])
        asked.step()
        # The loss of the step before, so that the device never waits for Python to look at it.
        _check_loss(task, progress, loss)
        progress = dataclasses.replace(
            progress, step=progress.step + 1, seconds=clock.seconds, waited=clock.waited
        )
        loss = figures["loss"]
        screen.step(progress.epoch, progress.step, clock, functools.partial(_shown, task, figures))
        by_step = config.every_steps and progress.step % config.every_steps == 0
        by_time = config.every_seconds and time.monotonic() - saved >= config.every_seconds
        if by_step or by_time or asked():
            _check_loss(task, progress, loss)
            _save(task, progress)
            saved = time.monotonic()
        _stop_if(asked, task, progress)
    _check_loss(task, progress, loss)
    return progress


def _shown(task: Task, figures: dict[str, Any]) -> Figures:
    shown = {name: float(value) for name, value in figures.items()}
    return shown | {"learning_rate": _learning_rate(task)}


def _learning_rate(task: Task) -> float:
    return float(keras.ops.convert_to_numpy(task.model.optimizer.learning_rate))


def _validate(
    task: Task,
    progress: Progress,
    batches: tf.data.Dataset,
    test_step: Callable[..., tuple[Any, Any]],
    asked: Agreement,
) -> tuple[Figures, np.ndarray]:
    """Accuracy and loss, and how often each class was taken for each."""
    loss, count = 0.0, task.source.test.count
    confusion = np.zeros(task.confusion.shape, "int64")
    iterator = iter(batches)
    while batch := _next(iterator, task, progress):
        batch_loss, taken = test_step(*batch)
        loss += float(batch_loss)
        confusion += keras.ops.convert_to_numpy(taken).astype("int64")
        if asked():
            _save(task, progress)
        _stop_if(asked, task, progress)
    return {"accuracy": int(np.trace(confusion)) / count, "loss": loss / count}, confusion


def _test_batches(task: Task) -> tf.data.Dataset:
    classes = len(task.contract.labels)
    batches = evaluation_batches(
        task.source.test,
        task.contract,
        task.experiment.runtime.batch_size,
        task.experiment.data.cache_gb,
    )
    return batches.map(lambda x, y: (tf.cast(x, "float32"), tf.one_hot(y, classes)))


def _next(batches: Iterator, task: Task, progress: Progress) -> Any:
    """The next batch, or ``None`` after the last; images that cannot be read end the run."""
    try:
        return next(batches, None)
    except tf.errors.OpError as error:
        _save(task, progress)
        reason = _unreadable(task.source, task.contract)
        reason = reason or f"The images cannot be read: {first_line(error)}. Mend that"
        raise ValueError(f"{reason}, then run the same command again") from error


def _unreadable(source: Source, contract: Contract) -> str | None:
    """Finds the picture that stopped the run, which TensorFlow's error does not name."""
    for path in source.train.files + source.test.files:
        try:
            load_image(path, contract)
        except ValueError as error:
            return f"{error}. Mend or remove it"
    return None


# --- After an epoch, and at any stop --------------------------------------------------------


def _close_epoch(
    task: Task, progress: Progress, figures: Figures, trained: float, clock: Clock
) -> Progress:
    """The epoch's row, and everything set back for the next one."""
    epoch = progress.epoch + 1
    row = {"epoch": epoch, **figures, "learning_rate": _learning_rate(task)}
    timing = {
        "epoch": epoch,
        "seconds": round(clock.seconds, 3),
        "images_per_second": round(
            task.steps * task.experiment.runtime.batch_size / max(trained, 1e-9), 1
        ),
        "waiting": round(clock.waited / max(trained, 1e-9), 4),
    }
    for figure in task.figures.values():
        figure.reset_state()
    rows = (*progress.rows, row)
    timings = (*progress.timings, timing)
    return Progress(epoch, 0, rows, timings, _best_epoch(rows, task))


def _best_epoch(rows: tuple[Figures, ...], task: Task) -> int:
    """The first epoch of the best figure; one that is not a number is never best."""
    monitor = task.experiment.checkpoint.monitor
    sign = -1 if monitor == "val_loss" else 1
    key = monitor.replace("val_", "val_ema_") if task.average else monitor
    scores = [sign * row[key] if math.isfinite(row[key]) else -math.inf for row in rows]
    return 1 + scores.index(max(scores))


def _save(task: Task, progress: Progress) -> None:
    arrays = values_of(task.variables)
    if name := not_finite(arrays):
        raise _diverged(task, progress, f"{name} is no longer finite after")
    write_checkpoint(
        task.run.checkpoints,
        task.steps_done(progress),
        Checkpoint(progress, task.facts, arrays),
    )


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


def _publish(task: Task, progress: Progress) -> None:
    """Writes the files that tell of the epochs done; again where they are there already."""
    run, rows = task.run, progress.rows
    if not rows:
        return
    run.write_rows("log.csv", rows)
    run.write_text("log.jsonl", "".join(json.dumps(_finite(row)) + "\n" for row in rows))
    run.write_rows("timing.csv", progress.timings)
    if progress.step == 0 and progress.best_epoch == progress.epoch:
        save_model(task.deployed(), run.checkpoints / "best.keras")
    _draw(task, rows[-1])


def _draw(task: Task, row: Figures) -> None:
    task.tensorboard.epoch(row, keras.ops.convert_to_numpy(task.confusion))


def _stop_if(asked: Agreement, task: Task, progress: Progress) -> None:
    """Leaves, once the state is saved, if that is what was asked."""
    by = asked()
    if by is None:
        return
    if by == signal.SIGINT:  # a person wants to see what there is; a machine wants to be gone
        _write_results(task, progress, finished=False)
    task.run.log_event("stopped", by=by.name, epoch=progress.epoch, step=progress.step)
    raise Interrupted(task.run, progress, by)


def _write_results(task: Task, progress: Progress, finished: bool) -> None:
    run = task.run
    save_model(task.deployed(), run.model_file)
    seconds = [timing["seconds"] for timing in progress.timings]
    history = [_finite(row) | {"seconds": s} for row, s in zip(progress.rows, seconds)]
    run.write(
        "metrics.json",
        {
            "epochs": progress.epoch,
            "finished": finished,
            "best_epoch": progress.best_epoch,
            "history": history,
        },
    )


def save_model(model: ImageClassifier, path: Path) -> None:
    """Writes beside and renames, so that a reader never meets half a file.

    The optimizer stays out: it is in the checkpoints, and a model that is used needs none.
    """
    bare = ImageClassifier(model.inputs, model.outputs, name=model.name)
    bare.contract, bare.block_config = model.contract, model.block_config
    with atomic_write(path) as beside:
        bare.save(beside)


def _finite(row: Figures) -> Figures:
    """JSON has no NaN."""
    return {key: value for key, value in row.items() if math.isfinite(value)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}…"
