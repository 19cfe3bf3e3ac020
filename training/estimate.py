"""What a run will take, before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.complexity import multiply_adds

FLOAT = 4


@dataclass(frozen=True)
class Estimate:
    """A run in figures.

    Attributes:
        parameters: Weights of the network, batch-norm statistics included.
        trainable: Those of them that are trained.
        multiply_adds: Of one image, forward.
        steps_per_epoch: Batches in an epoch.
        steps: Batches in the run.
        state_bytes: Weights, their average, optimizer slots and gradients: exact.
        activation_bytes: Outputs of all layers for one batch. All of them are counted as kept
            for the backward pass; a compiler keeps fewer.
        step_seconds: The fastest of a few steps on noise on this machine.
        hours: ``steps`` times that: without validation and without waiting for images.
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


def estimate(
    model: keras.Model,
    variables: Mapping[str, list[Any]],
    batch: int,
    epochs: int,
    steps_per_epoch: int,
    step_seconds: float,
) -> Estimate:
    """Counts what a compiled model takes.

    Args:
        model: What learns.
        variables: Everything that training changes, by group.
        batch: Images a step.
        epochs: Of the run.
        steps_per_epoch: Of an epoch.
        step_seconds: As measured.
    """
    trained = sum(_size(variable.shape) for variable in model.trainable_variables)
    held = sum(_size(variable.shape) for group in variables.values() for variable in group)
    steps = epochs * steps_per_epoch
    return Estimate(
        parameters=model.count_params(),
        trainable=trained,
        multiply_adds=multiply_adds(model),
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        state_bytes=FLOAT * (held + trained),
        activation_bytes=batch * sum(_activation_bytes(layer) for layer in model.layers),
        step_seconds=step_seconds,
        hours=steps * step_seconds / 3600,
    )


def _activation_bytes(layer: keras.Layer) -> int:
    width = 2 if layer.compute_dtype in ("float16", "bfloat16") else FLOAT
    return width * _size(layer.output.shape[1:])


def _size(shape: Any) -> int:
    return int(np.prod(shape, dtype="int64"))
