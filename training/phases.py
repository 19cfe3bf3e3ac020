"""What changes from epoch to epoch: the size of the training images, and what is trained.

Both follow from the experiment and the epoch alone, so that a run that goes on finds them again.
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
    """Some epochs of a run.

    Attributes:
        size: Height and width of the training images, in pixels.
        frozen: The last part that is not trained; none if empty.
    """

    size: int
    frozen: Part | Literal[""]

    def __str__(self) -> str:
        trained = f"all after {self.frozen} is trained" if self.frozen else "all is trained"
        return f"images of {self.size} pixels, {trained}"


def phase_at(experiment: Experiment, epoch: int) -> Phase:
    """What an epoch, from 0, is like."""
    schedule, model = experiment.schedule, experiment.model
    sizes = [size for begin, size in schedule.sizes if begin <= epoch]
    freed = [part for begin, part in schedule.unfreeze if begin <= epoch]
    return Phase(
        size=sizes[-1] if sizes else model.size,
        frozen=_before(freed[-1]) if freed else model.freeze,
    )


def _before(part: Part) -> Part | Literal[""]:
    number = PARTS.index(part)
    return PARTS[number - 1] if number else ""


def set_trainable(model: keras.Model, experiment: Experiment, phase: Phase) -> None:
    """Freezes what the phase does not train, and sets the rest free.

    Raises:
        ValueError: The network has no such part.
    """
    if experiment.model.freeze:
        freeze(model, phase.frozen or None, experiment.model.frozen_batch_norm)


def first_epochs(model: keras.Model, experiment: Experiment) -> dict[str, int]:
    """The epoch from which each variable is trained, by its path, if it ever is.

    The model is left as it is trained in the last phase, which trains all of them.
    """
    found: dict[str, int] = {}
    for epoch in (0, *(begin for begin, _ in experiment.schedule.unfreeze)):
        set_trainable(model, experiment, phase_at(experiment, epoch))
        found = {v.path: epoch for v in model.trainable_variables} | found
    return found


def largest_size(experiment: Experiment) -> int:
    """Of the training images of all epochs, in pixels."""
    return max(phase_at(experiment, epoch).size for epoch in range(experiment.schedule.epochs))


def at_most(experiment: Experiment) -> Experiment:
    """The experiment as if all epochs were of the largest images, and trained all that any does."""
    last = phase_at(experiment, experiment.schedule.epochs - 1)
    model = dataclasses.replace(experiment.model, size=largest_size(experiment), freeze=last.frozen)
    schedule = dataclasses.replace(experiment.schedule, sizes=(), unfreeze=())
    return dataclasses.replace(experiment, model=model, schedule=schedule)
