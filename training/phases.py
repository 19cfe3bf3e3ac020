"""What changes from epoch to epoch: the size of the training images and the trainable layers.

Both are functions of the experiment and the epoch alone, so a resumed run computes them again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import keras

from keras_resnet.fine_tuning import freeze
from training.config import PARTS, Experiment, Part


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs with the same image size and trainable layers.

    Attributes:
        size: Height and width of the training images in pixels.
        frozen_through: The last part of the network that is frozen; empty if none is.
    """

    size: int
    frozen_through: Part | Literal[""]

    def __str__(self) -> str:
        trainable = f"layers after {self.frozen_through}" if self.frozen_through else "all layers"
        return f"images of {self.size} pixels, {trainable} trainable"


def phase_at(experiment: Experiment, epoch: int) -> Phase:
    """The phase that an epoch, from 0, belongs to."""
    schedule, model = experiment.schedule, experiment.model
    sizes = [size for begin, size in schedule.sizes if begin <= epoch]
    unfrozen = [part for begin, part in schedule.unfreeze if begin <= epoch]
    return Phase(
        size=sizes[-1] if sizes else model.size,
        frozen_through=_part_before(unfrozen[-1]) if unfrozen else model.freeze,
    )


def _part_before(part: Part) -> Part | Literal[""]:
    number = PARTS.index(part)
    return PARTS[number - 1] if number else ""


def set_trainable(model: keras.Model, experiment: Experiment, phase: Phase) -> None:
    """Freezes the layers that the phase does not train, and unfreezes all others.

    Raises:
        ValueError: The network has no such part.
    """
    if experiment.model.freeze:
        freeze(model, phase.frozen_through or None, experiment.model.frozen_batch_norm)


def first_trained_epochs(model: keras.Model, experiment: Experiment) -> dict[str, int]:
    """The first epoch in which each variable is trained, by its path.

    Variables that stay frozen are left out. Leaves the model as the last phase trains it.
    """
    found: dict[str, int] = {}
    for epoch in (0, *(begin for begin, _ in experiment.schedule.unfreeze)):
        set_trainable(model, experiment, phase_at(experiment, epoch))
        found = {v.path: epoch for v in model.trainable_variables} | found
    return found


def largest_size(experiment: Experiment) -> int:
    """Largest height and width of training images in any epoch, in pixels."""
    return max(phase_at(experiment, epoch).size for epoch in range(experiment.schedule.epochs))


def most_expensive(experiment: Experiment) -> Experiment:
    """The experiment with all epochs at the largest image size and with the most layers trained."""
    last = phase_at(experiment, experiment.schedule.epochs - 1)
    model = dataclasses.replace(
        experiment.model, size=largest_size(experiment), freeze=last.frozen_through
    )
    schedule = dataclasses.replace(experiment.schedule, sizes=(), unfreeze=())
    return dataclasses.replace(experiment, model=model, schedule=schedule)
