"""Validation between epochs: what the test step's outputs tell about the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_resnet.contract import DEFAULT_THRESHOLD
from training.thresholds import choose_thresholds

# Above, a run keeps no confusion matrix, which every checkpoint holds and TensorBoard shows.
MOST_CLASSES = 1000


@dataclass(frozen=True, eq=False)
class Validation:
    """The test images and what the model says to them.

    Attributes:
        task: As in the contract.
        loss: Mean loss.
        truth: True class, int64 ``(images,)``; for ``multi`` whether the images have each label,
            ``(images, labels)``.
        outputs: Predicted class, ``(images,)``; for ``binary`` and ``multi`` the probabilities,
            ``(images, outputs)``.
    """

    task: str
    loss: float
    truth: np.ndarray
    outputs: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right answers: of images, or for ``multi`` of labels of images."""
        return float(np.mean(self.predicted == self.truth))

    @property
    def predicted(self) -> np.ndarray:
        """Predictions in the form of ``truth``, at a threshold of 0.5."""
        if self.task == "single":
            return self.outputs
        decided = self.outputs >= DEFAULT_THRESHOLD
        return decided[:, 0].astype("int64") if self.task == "binary" else decided

    def thresholds(self) -> tuple[float, ...]:
        """Thresholds of the highest F1; none for ``single``. See ``training/thresholds.py``."""
        if self.task == "single":
            return ()
        return choose_thresholds(self.outputs, self.truth.reshape(self.outputs.shape) > 0)


def validate(
    task: str,
    batches: Iterable[tuple[Any, Any]],
    test_step: Callable[..., tuple[Any, Any]],
    after_batch: Callable[[], None],
) -> Validation:
    """Runs the test step on every batch.

    Args:
        task: As in the contract.
        batches: Images, and targets ``(batch, outputs)``.
        test_step: From ``training/steps``.
        after_batch: Called after each batch.
    """
    loss = 0.0
    truths, outputs = [], []
    for images, targets in batches:
        batch_loss, batch_outputs = test_step(images, targets)
        loss += float(batch_loss)
        outputs.append(keras.ops.convert_to_numpy(batch_outputs))
        truths.append(_truth(task, keras.ops.convert_to_numpy(targets)))
        after_batch()
    truth = np.concatenate(truths)
    return Validation(task, loss / len(truth), truth, np.concatenate(outputs))


def _truth(task: str, targets: np.ndarray) -> np.ndarray:
    if task == "single":
        return targets.argmax(axis=1)
    return targets[:, 0].astype("int64") if task == "binary" else targets > 0.5
