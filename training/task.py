"""What a training run works with: images, models, optimizer, metrics."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.architectures import find
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.models import create_model
from keras_resnet.weights.load import Source as Weights
from keras_resnet.weights.load import load, locate
from training.audit.duplicates import say_copies
from training.checkpoint import Progress
from training.config import Experiment
from training.data.balance import describe_classes
from training.data.pipeline import memory_note, steps_per_epoch
from training.data.sources import Source, open_source
from training.data.split import count_labels, labels_of
from training.data.validate_images import Say
from training.optim import learning_rate_note, make_accuracy, make_loss, make_optimizer
from training.phases import first_trained_epochs, largest_size, phase_at, set_trainable
from training.report.tensorboard import TensorBoardWriter
from training.run import Run
from training.runtime import Runtime, threads, versions
from training.validation import MOST_CLASSES


@dataclass(frozen=True)
class Task:
    """What a run works with from start to finish.

    Attributes:
        run: The run folder.
        experiment: The configuration.
        runtime: Devices, precision and compilation on this host.
        source: Training and test images.
        model: The model that is trained. Its input has no fixed height and width if the training
            size changes (``schedule.sizes``).
        ema_model: Exponential moving average of ``model``'s weights; ``None`` if not configured.
        export_model: A copy of fixed input size that takes ``model``'s weights for export. Only
            present if ``model`` has no fixed size and there is no ``ema_model``.
        class_weights: Loss weight of each class; all are 1 if empty.
        metrics: Running training metrics of the current epoch, by name.
        confusion: Confusion matrix of the last validation, int32: test images by true class (row)
            and predicted class (column). ``None`` above 1,000 classes, because it grows with their
            square and is in every checkpoint; and for the task ``multi``.
        steps: Steps per epoch.
    """

    run: Run
    experiment: Experiment
    runtime: Runtime
    source: Source
    model: ImageClassifier
    ema_model: ImageClassifier | None
    export_model: ImageClassifier | None
    class_weights: tuple[float, ...]
    metrics: dict[str, keras.Metric]
    confusion: keras.Variable | None
    steps: int

    @property
    def contract(self) -> Contract:
        """Input and output specification of the model that is deployed."""
        return (self.ema_model or self.export_model or self.model).contract

    def deployed(self) -> ImageClassifier:
        """The model to deploy, with its current weights."""
        if self.export_model:
            self.export_model.set_weights(self.model.get_weights())
        return self.ema_model or self.export_model or self.model

    @property
    def variables(self) -> dict[str, list[Any]]:
        """All variables that training changes, seeds of random layers included.

        The keys are part of the checkpoint format.
        """
        return {
            "model": self.model.variables,
            "average": self.ema_model.variables if self.ema_model else [],
            "optimizer": self.model.optimizer.variables,
            "figures": [v for metric in self.metrics.values() for v in metric.variables],
            "confusion": [self.confusion] if self.confusion is not None else [],
        }

    @property
    def facts(self) -> dict[str, Any]:
        """The data and the environment that a checkpoint of this run belongs to.

        The keys are part of the checkpoint format.
        """
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
                "machines": self.runtime.host.count,
            },
        }

    @functools.cached_property
    def tensorboard(self) -> TensorBoardWriter:
        return TensorBoardWriter(self.run.folder / "tensorboard")

    def steps_done(self, progress: Progress) -> int:
        """Steps since the run began."""
        return progress.epoch * self.steps + progress.step


def make_task(run: Run, experiment: Experiment, runtime: Runtime, say: Say) -> Task:
    """Opens the images, then builds models, optimizer and metrics.

    Args:
        run: The run folder; nothing is written to it.
        experiment: The configuration.
        runtime: From ``prepare``.
        say: Called with one line for each choice made.

    Raises:
        ValueError: The images, the network or the starting weights cannot be used.
    """
    for note in (*runtime.reasons, learning_rate_note(experiment)):
        say(note)
    source = open_source(experiment.data, experiment.runtime.seed, say, experiment.task)
    say_copies(source, experiment.data.source, say)
    # A resumed run takes its weights from the checkpoint and needs no weights file.
    weights = None if run.has_checkpoints else find_weights(experiment)
    contract = run.contract if run.has_checkpoints else None
    contract = contract or make_contract(experiment, source, weights)
    steps = steps_per_epoch(source.train, experiment.runtime.batch_size)
    _describe_images(source, contract, experiment, steps, say)
    has_one_size = not experiment.schedule.sizes
    with runtime.mirrored():
        model = make_model(
            experiment, contract if has_one_size else contract.replace(height=None, width=None)
        )
        if weights:
            say(str(load(model, weights, contract)))
        _compile(model, experiment, steps, runtime.jit_compile)
    ema_model = make_model(experiment, contract) if experiment.optimizer.ema_momentum else None
    if ema_model:
        ema_model.set_weights(model.get_weights())
    balanced = experiment.optimizer.class_weights == "balanced"
    return Task(
        run=run,
        experiment=experiment,
        runtime=runtime,
        source=source,
        model=model,
        ema_model=ema_model,
        export_model=None if has_one_size or ema_model else make_model(experiment, contract),
        metrics={
            "accuracy": make_accuracy(experiment.task),
            "loss": keras.metrics.Mean(name="loss"),
        },
        class_weights=_class_weights(source) if balanced else (),
        confusion=_confusion_variable(contract),
        steps=steps,
    )


def find_weights(experiment: Experiment) -> Weights | None:
    """Reads the weights that ``model.weights`` names, downloading them if needed.

    ``"imagenet"`` names the best file at ``model.size``.

    Raises:
        ValueError: The weights cannot be read, or are not published for this network.
        DownloadError: They cannot be downloaded.
    """
    config = experiment.model
    if not config.weights:
        return None
    variant = None if config.variant == "auto" else config.variant
    row = find(config.architecture).with_variant(variant)
    return locate(config.weights, row, config.size)


def make_contract(experiment: Experiment, source: Source, weights: Weights | None) -> Contract:
    """Input and output specification of the model to train.

    Preprocessing defaults to that of the weights, else to ImageNet's; ``data`` overrides it.
    """
    data, size = experiment.data, experiment.model.size
    default = Contract(size, size, source.channels)
    known = (weights.preprocessing(default, len(source.labels)) if weights else None) or default
    return known.replace(
        mean=data.mean or known.mean,
        std=data.std or known.std,
        normalization="inside",
        order="rgb",
        labels=source.labels,
        task=experiment.task,
        thresholds=(),
        orientation=data.orientation,
        resize=known.resize if data.resize == "auto" else data.resize,
        crop_fraction=data.crop_fraction or known.crop_fraction,
        interpolation=known.interpolation if data.interpolation == "auto" else data.interpolation,
    )


def make_model(experiment: Experiment, contract: Contract) -> ImageClassifier:
    """A randomly initialized network that takes raw pixels.

    Args:
        experiment: ``task``, ``model`` and ``optimizer.loss``.
        contract: Input size (any if ``None``), channels, task and labels.
    """
    config = experiment.model
    sigmoid = experiment.task != "single" or experiment.optimizer.loss == "binary"
    return create_model(
        config.architecture,
        input_shape=(contract.height, contract.width, contract.channels),
        classes=contract.outputs,
        variant=None if config.variant == "auto" else config.variant,
        width=config.width,
        shortcut=config.shortcut,
        antialias=config.antialias,
        stochastic_depth=config.stochastic_depth,
        dropout_rate=config.dropout_rate,
        zero_init_residual=config.zero_init_residual,
        norm=backend_norm(config.norm),
        classifier_activation="sigmoid" if sigmoid else "softmax",
        include_preprocessing=True,
        contract=contract,
    )


def backend_norm(name: str) -> str:
    """The norm to build: on JAX ``"batch"`` for ``"sync_batch"``.

    A JAX step always normalizes over the global batch, and Keras rejects a request for it.
    """
    return "batch" if name == "sync_batch" and keras.backend.backend() == "jax" else name


def _describe_images(
    source: Source, contract: Contract, experiment: Experiment, steps: int, say: Say
) -> None:
    say(
        f"{source.train.count:,} training images, {source.test.count:,} test images, "
        f"{len(source.labels):,} classes, {steps:,} steps per epoch"
    )
    for line in describe_classes(source, _weights_classes(experiment)):
        say(line)
    largest = largest_size(experiment)
    say(memory_note(source.train, contract.replace(height=largest, width=largest), experiment))
    if experiment.data.sampling == "balanced":
        say("reading the class of every training image first")


def _weights_classes(experiment: Experiment) -> bool:
    return "balanced" in (experiment.data.sampling, experiment.optimizer.class_weights)


def _compile(model: ImageClassifier, experiment: Experiment, steps: int, jit_compile: bool) -> None:
    model.compile(
        optimizer=make_optimizer(experiment, steps, first_trained_epochs(model, experiment)),
        loss=make_loss(experiment.optimizer, experiment.task),
        jit_compile=jit_compile,
    )
    # The optimizer slots are part of the state and must exist before a checkpoint is read. Slots
    # of layers that are still frozen are included, so that all checkpoints of a run are alike.
    model.optimizer.build(model.trainable_variables)
    set_trainable(model, experiment, phase_at(experiment, 0))


def _class_weights(source: Source) -> tuple[float, ...]:
    """Inverse class frequencies, scaled so that their mean over all training images is 1."""
    counts = count_labels(labels_of(source.train), len(source.labels))
    # A class without images has no share.
    return tuple(float(w) for w in counts.sum() / np.maximum(counts, 1) / np.count_nonzero(counts))


def _confusion_variable(contract: Contract) -> keras.Variable | None:
    classes = len(contract.labels)
    if contract.task == "multi" or classes > MOST_CLASSES:
        return None
    zeros = np.zeros((classes, classes), "int32")
    return keras.Variable(zeros, dtype="int32", trainable=False, name="confusion")
