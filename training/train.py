"""``train(experiment)``: from images to a trained model in a run folder."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.models import create_model
from keras_resnet.preprocessing import load_image
from training.checkpoint import KeepLastAndBest, save_atomically
from training.config import Experiment, save_experiment
from training.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from training.data.sources import Source, Split, open_source
from training.optim import make_optimizer
from training.run import Run
from training.runtime import Runtime, prepare


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: the run stopped early and kept what there was.

    Attributes:
        run: The run folder, with the model as it was.
    """

    def __init__(self, run: Run, epochs: int) -> None:
        super().__init__(f"stopped after {epochs} whole epochs; the model is in {run.model_file}")
        self.run = run


def train(
    experiment: Experiment,
    out: str | Path,
    say: Callable[[str], None] = print,
    verbose: int = 1,
) -> Run:
    """Trains a model and writes it, with its log and checkpoints, to a folder.

    Args:
        experiment: Everything that defines the run.
        out: The run folder; must not hold a run yet.
        say: Called with lines for people: what was chosen, and why.
        verbose: Keras's: 1 for its progress bar, 2 for a line an epoch, 0 for silence.

    Returns:
        The run. ``model.keras`` in its folder holds the last epoch's weights.

    Raises:
        ValueError: The experiment cannot be run, or the folder holds a run already.
        Interrupted: Ctrl-C was pressed; the model was saved.
    """
    run = _free(Path(out))
    runtime = prepare(experiment.runtime)
    for reason in runtime.reasons:
        say(reason)

    source = open_source(experiment.data, experiment.runtime.seed)
    contract = make_contract(experiment, source)
    steps = steps_per_epoch(source.train, experiment.runtime.batch_size)
    batches = training_batches(source.train, contract, experiment)
    say(
        f"{source.train.count:,} images to train on, {source.test.count:,} to test on, "
        f"{len(source.labels)} classes, {steps} steps an epoch"
    )

    model = make_model(experiment, contract)
    _begin(run, experiment)
    _compile(model, experiment, runtime, steps)
    log = EpochLog(run.log_file)
    _fit(model, run, experiment, source, batches, steps, log, verbose)

    save_atomically(model, run.model_file)
    run.write("metrics.json", {"epochs": len(log.rows), "history": log.rows})
    if len(log.rows) < experiment.schedule.epochs:
        raise Interrupted(run, len(log.rows))
    return run


def make_contract(experiment: Experiment, source: Source) -> Contract:
    """What the trained model will expect and answer."""
    data = experiment.data
    return Contract(
        height=experiment.model.size,
        width=experiment.model.size,
        channels=source.channels,
        mean=data.mean,
        std=data.std,
        normalization="inside",
        labels=source.labels,
        resize=data.resize,
        crop_fraction=data.crop_fraction,
    )


def make_model(experiment: Experiment, contract: Contract) -> ImageClassifier:
    """A fresh network that takes raw pixels."""
    config = experiment.model
    return create_model(
        config.architecture,
        input_shape=(config.size, config.size, contract.channels),
        classes=len(contract.labels),
        variant=config.variant,
        shortcut=config.shortcut,
        zero_init_residual=config.zero_init_residual,
        include_preprocessing=True,
        contract=contract,
    )


def _free(folder: Path) -> Run:
    # A run that ended before its first epoch did has nothing to lose.
    run = Run(folder)
    if run.log_file.exists() or run.model_file.exists():
        raise ValueError(f"{folder} holds a run already. Give another folder: --out FOLDER")
    return run


def _begin(run: Run, experiment: Experiment) -> None:
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        save_experiment(experiment, run.experiment_file)
    except OSError as error:
        raise ValueError(f"{run.folder} cannot be written: {error.strerror}") from None


def _compile(model: keras.Model, experiment: Experiment, runtime: Runtime, steps: int) -> None:
    smoothing = experiment.optimizer.label_smoothing
    model.compile(
        optimizer=make_optimizer(experiment, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
        metrics=["accuracy"],
        jit_compile=runtime.jit_compile,
    )


def _fit(
    model: keras.Model,
    run: Run,
    experiment: Experiment,
    source: Source,
    batches: tf.data.Dataset,
    steps: int,
    log: EpochLog,
    verbose: int,
) -> None:
    """Trains until the last epoch or Ctrl-C; the log tells how many epochs were done."""
    try:
        model.fit(
            batches,
            epochs=experiment.schedule.epochs,
            steps_per_epoch=steps,
            shuffle=False,
            validation_data=_validation_batches(source.test, model, experiment),
            callbacks=[
                log,
                KeepLastAndBest(run.checkpoints, experiment.checkpoint.monitor),
                keras.callbacks.TensorBoard(run.folder / "tensorboard"),
            ],
            verbose=verbose,
        )
    except KeyboardInterrupt:
        pass
    except tf.errors.InvalidArgumentError as error:
        reason = _unreadable(source, model.contract) or " ".join(error.message.split())[:300]
        raise ValueError(reason) from error


def _validation_batches(
    split: Split, model: ImageClassifier, experiment: Experiment
) -> tf.data.Dataset:
    classes = len(model.contract.labels)
    batches = evaluation_batches(split, model.contract, experiment.runtime.batch_size)
    return batches.map(lambda x, y: (tf.cast(x, "float32"), tf.one_hot(y, classes)))


def _unreadable(source: Source, contract: Contract) -> str | None:
    """Finds the picture that stopped the run, which TensorFlow's error does not name."""
    for path in source.train.files + source.test.files:
        try:
            load_image(path, contract)
        except ValueError as error:
            return f"{error}. Mend or remove it"
    return None


class EpochLog(keras.callbacks.Callback):
    """Writes a row of CSV after each epoch, with the learning rate and the seconds it took.

    Args:
        path: The CSV file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        figures = {key: float(value) for key, value in (logs or {}).items()}
        seconds = round(time.monotonic() - self._began, 2)
        row = {"epoch": epoch + 1, **figures, "learning_rate": rate, "seconds": seconds}
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if len(self.rows) == 1:
                writer.writeheader()
            writer.writerow(row)
