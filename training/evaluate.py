"""How good a model is, and how sure that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

BATCH = 128


@dataclass(frozen=True)
class Estimate:
    """A proportion with its number of images and its 95 % interval; ``None`` of no images.

    The interval is Wilson's (1927, JASA 22:209), which stays inside 0–1 and holds for few
    images too.
    """

    value: float | None
    images: int
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, images: int) -> Estimate:
        from scipy.stats import binomtest

        if images == 0:
            return cls(None, 0, 0.0, 1.0)
        interval = binomtest(int(successes), int(images)).proportion_ci(method="wilson")
        return cls(successes / images, int(images), float(interval.low), float(interval.high))

    def __str__(self) -> str:
        if self.value is None:
            return "no images"
        return f"{self.value:.2%} ({self.low:.2%}–{self.high:.2%}, {self.images:,} images)"


@dataclass(frozen=True)
class ClassEvaluation:
    """One class: of those called it, how many were; of those that were, how many were called."""

    label: str
    precision: Estimate
    recall: Estimate


@dataclass(frozen=True)
class Answer:
    """One answer: which test image, what it is, what it was taken for, how surely."""

    index: int
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """A model on a split.

    Attributes:
        top1: Share of images whose likeliest class is right.
        top5: Share of images whose class is among the five likeliest.
        classes: Precision and recall of each class.
        confusion: ``confusion[i][j]`` images of class i were taken for class j.
        hardest: The images whose true class got the least probability, worst first: the
            surest mistakes, and where there are few, answers that were right but unsure.
    """

    top1: Estimate
    top5: Estimate
    classes: tuple[ClassEvaluation, ...]
    confusion: tuple[tuple[int, ...], ...]
    hardest: tuple[Answer, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def evaluate(
    model: keras.Model,
    batches: tf.data.Dataset,
    labels: tuple[str, ...],
    progress: Callable[[int], None] | None = None,
    flip: bool = False,
) -> Evaluation:
    """Measures a model that takes raw pixels.

    Args:
        model: From ``keras_resnet.deployable``: pixels 0–255 in, probabilities out.
        batches: Of uint8 ``(batch, height, width, channels)`` and int labels.
        labels: Names of the classes.
        progress: Called with the number of images done.
        flip: Whether the answer is the mean of those to the image and to its mirror image, at
            twice the cost (Krizhevsky et al. 2012, section 4.1, with crops as well).

    Raises:
        ValueError: There are no images.
    """
    answer = _flipped(model) if flip else model
    probabilities: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    done = 0
    for images, classes in batches:
        probabilities.append(keras.ops.convert_to_numpy(answer(tf.cast(images, "float32"))))
        truth.append(np.asarray(classes))
        done += len(classes)
        if progress:
            progress(done)
    if not done:
        raise ValueError("There are no images to evaluate on")
    return summarize(np.concatenate(probabilities), np.concatenate(truth), labels)


def _flipped(model: keras.Model) -> Callable[[Any], Any]:
    return lambda images: (model(images) + model(tf.reverse(images, [2]))) / 2


def summarize(
    probabilities: np.ndarray, truth: np.ndarray, labels: tuple[str, ...], hardest: int = 16
) -> Evaluation:
    """All figures, from ``(images, classes)`` probabilities and ``(images,)`` true classes."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    predicted = order[:, 0]
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (truth, predicted), 1)
    return Evaluation(
        top1=Estimate.of(int(np.sum(predicted == truth)), len(truth)),
        top5=Estimate.of(int(np.sum(order[:, :5] == truth[:, np.newaxis])), len(truth)),
        classes=tuple(
            ClassEvaluation(
                label=label,
                precision=Estimate.of(confusion[i, i], confusion[:, i].sum()),
                recall=Estimate.of(confusion[i, i], confusion[i].sum()),
            )
            for i, label in enumerate(labels)
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        hardest=_hardest(probabilities, truth, labels, hardest),
    )


def _hardest(
    probabilities: np.ndarray, truth: np.ndarray, labels: tuple[str, ...], most: int
) -> tuple[Answer, ...]:
    of_truth = probabilities[np.arange(len(truth)), truth]
    chosen = np.argsort(of_truth, kind="stable")[:most]
    predicted = probabilities.argmax(1)
    return tuple(
        Answer(int(i), labels[truth[i]], labels[predicted[i]], float(probabilities[i].max()))
        for i in chosen
    )
