"""Accuracy of a model on a split, with confidence intervals."""

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
    """A proportion of images with its 95 % confidence interval.

    The interval is Wilson's (1927, JASA 22:209), which stays within 0–1 and is valid for few
    images too.

    Attributes:
        value: The proportion, 0–1; ``None`` without images.
        images: Number of images.
        low: Lower end of the interval.
        high: Upper end of the interval.
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
    """One class.

    Attributes:
        label: Its name.
        precision: Share of the images predicted as this class that belong to it.
        recall: Share of the images of this class that are predicted as it.
    """

    label: str
    precision: Estimate
    recall: Estimate


@dataclass(frozen=True)
class Prediction:
    """The prediction for one test image.

    Attributes:
        index: Number of the image in the split.
        label: True class.
        predicted: Class of the highest probability.
        probability: That probability.
    """

    index: int
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a model on a split.

    Attributes:
        top1: Share of images whose class has the highest probability.
        top5: Share of images whose class is among the five of highest probability.
        classes: Precision and recall of each class.
        confusion: Confusion matrix: ``confusion[i][j]`` images of class i are predicted as j.
        hardest: Images whose true class has the lowest probability, worst first: the most
            confident mistakes, and if there are few, correct but uncertain predictions.
    """

    top1: Estimate
    top5: Estimate
    classes: tuple[ClassEvaluation, ...]
    confusion: tuple[tuple[int, ...], ...]
    hardest: tuple[Prediction, ...]

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
        progress: Called with the number of images evaluated so far.
        flip: Average the probabilities of each image and its mirror image, at twice the cost
            (Krizhevsky et al. 2012, section 4.1, with crops as well).

    Raises:
        ValueError: There are no images.
    """
    predict = _flipped(model) if flip else model
    probabilities: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    done = 0
    for images, classes in batches:
        probabilities.append(keras.ops.convert_to_numpy(predict(np.asarray(images, "float32"))))
        truth.append(np.asarray(classes))
        done += len(classes)
        if progress:
            progress(done)
    if not done:
        raise ValueError("There are no images to evaluate on")
    return summarize(np.concatenate(probabilities), np.concatenate(truth), labels)


def _flipped(model: keras.Model) -> Callable[[np.ndarray], Any]:
    return lambda images: (model(images) + model(images[:, :, ::-1].copy())) / 2


def summarize(
    probabilities: np.ndarray, truth: np.ndarray, labels: tuple[str, ...], hardest: int = 16
) -> Evaluation:
    """The evaluation of given predictions.

    Args:
        probabilities: ``(images, classes)``.
        truth: True classes, ``(images,)``.
        labels: Names of the classes.
        hardest: Number of images to list.

    Raises:
        ValueError: A probability is not finite.
    """
    if bad := int((~np.isfinite(probabilities)).any(axis=1).sum()):
        raise ValueError(
            f"The model outputs NaN or infinity for {bad:,} of {len(truth):,} images. "
            "Its weights are not finite: train it again, with a lower optimizer.learning_rate"
        )
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
) -> tuple[Prediction, ...]:
    true_probabilities = probabilities[np.arange(len(truth)), truth]
    chosen = np.argsort(true_probabilities, kind="stable")[:most]
    predicted = probabilities.argmax(1)
    return tuple(
        Prediction(int(i), labels[truth[i]], labels[predicted[i]], float(probabilities[i].max()))
        for i in chosen
    )
