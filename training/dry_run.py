"""``--dry-run``: what a run would take, without writing anything."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.complexity import activation_bytes, multiply_adds
from training.config import Experiment
from training.data.validate_images import Say
from training.phases import most_expensive, phase_at
from training.results import finished_epochs
from training.run import Run
from training.runtime import prepare
from training.steps import backend_steps
from training.task import Task, make_task

# The first step includes tracing and compilation.
TIMED_STEPS = 4
FLOAT = 4


@dataclass(frozen=True)
class RunEstimate:
    """Cost of a run.

    Attributes:
        parameters: Weights of the network, batch-norm statistics included.
        trainable: Trainable weights.
        multiply_adds: Forward pass of one image.
        steps_per_epoch: Batches per epoch.
        steps: Batches in the run.
        state_bytes: Weights, their moving average, optimizer slots and gradients; exact.
        activation_bytes: Outputs of all layers for one batch. An upper bound: a compiler keeps
            fewer of them for the backward pass.
        step_seconds: The fastest of a few steps on noise, on this host.
        hours: ``steps`` times that, without validation and waiting for images.
    """

    parameters: int
    trainable: int
    multiply_adds: int
    steps_per_epoch: int
    steps: int
    state_bytes: int
    activation_bytes: int
    step_seconds: float
    hours: float


def dry_run(experiment: Experiment, out: str | Path, say: Say = print) -> RunEstimate:
    """Builds what a run needs and times a few steps on noise; writes nothing.

    Published weights are not downloaded: they do not change the estimate.

    Raises:
        ValueError: The run could not start, for the reasons that ``train`` gives.
    """
    run = Run(Path(out))
    finished_epochs(run, experiment)
    costliest = most_expensive(experiment)
    if experiment != costliest:
        phase = phase_at(costliest, 0)
        say(f"all epochs are estimated at the cost of the most expensive phase: {phase}")
    model = dataclasses.replace(costliest.model, weights="")
    runtime = prepare(experiment.runtime)
    with runtime.placed():
        task = make_task(run, dataclasses.replace(costliest, model=model), runtime, say)
        say("timing steps on noise …")
        return _estimate(task, _fastest_step(task))


def _fastest_step(task: Task) -> float:
    """Seconds."""
    batch, classes = task.experiment.runtime.batch_size, task.contract.outputs
    images = tf.random.stateless_uniform((batch, *task.model.input_shape[1:]), (0, 0), 0, 255)
    labels = tf.one_hot(tf.range(batch) % classes, classes)
    spec = (tf.TensorSpec(images.shape), tf.TensorSpec(labels.shape))
    step = backend_steps().train_step(task, spec)
    return min(_seconds(step, images, labels) for _ in range(TIMED_STEPS))


def _seconds(step: Callable, images: tf.Tensor, labels: tf.Tensor) -> float:
    began = time.perf_counter()
    float(step(images, labels)["loss"])  # waits for the device
    return time.perf_counter() - began


def _estimate(task: Task, step_seconds: float) -> RunEstimate:
    model, batch = task.model, task.experiment.runtime.batch_size
    trainable = sum(_size(variable.shape) for variable in model.trainable_variables)
    held = sum(_size(v.shape) for group in task.variables.values() for v in group)
    steps = task.experiment.schedule.epochs * task.steps
    return RunEstimate(
        parameters=model.count_params(),
        trainable=trainable,
        multiply_adds=multiply_adds(model),
        steps_per_epoch=task.steps,
        steps=steps,
        state_bytes=FLOAT * (held + trainable),
        activation_bytes=int(batch * sum(map(activation_bytes, model.layers))),
        step_seconds=step_seconds,
        hours=steps * step_seconds / 3600,
    )


def _size(shape: Any) -> int:
    return int(np.prod(shape, dtype="int64"))
