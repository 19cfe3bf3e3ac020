"""Accuracy of a model on a split, with confidence intervals."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import DEFAULT_THRESHOLD
from keras_resnet.prediction import batch_size, in_top, predictor
from training.data.balance import baseline
from training.estimate import Estimate, estimates
from training.thresholds import cross_fitted

TOP = 5
MATRIX = 100  # classes: above, the confusion matrix is left out, which grows with their square
HARDEST = 16
CURVE = 200  # points of a curve, at most
SEPARATOR = " | "  # between the labels of an image


@dataclass(frozen=True)
class ClassEvaluation:
    """One class, or one label of the task ``multi``.

    Attributes:
        label: Its name.
        precision: Share of the images predicted as this class that belong to it.
        recall: Share of the images of this class that are predicted as it.
        test_images: Images of this class that were evaluated.
        training_images: Images of this class that were trained on; ``None`` if not known.
        f1: Harmonic mean of precision and recall; ``None`` if there is nothing to find or found.
        average_precision: Area under the precision-recall curve, for ``multi``; ``None`` if no
            image has the label.
        threshold: The probability from which on the model gives the label, for ``multi``.
    """

    label: str
    precision: Estimate
    recall: Estimate
    test_images: int
    training_images: int | None = None
    f1: float | None = None
    average_precision: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Prediction:
    """The prediction for one test image.

    Attributes:
        index: Number of the image in the split.
        label: True class; several labels are separated by " | ".
        predicted: Class of the highest probability; likewise the labels at or above their
            thresholds.
        probability: Probability of the predicted class. For ``multi``, that of the true answer to
            the label with the largest error.
        file: Absolute path of the image; ``None`` if it is not a file.
    """

    index: int
    label: str
    predicted: str
    probability: float
    file: str | None = None


@dataclass(frozen=True)
class BinaryEvaluation:
    """What the probabilities of two classes tell at all thresholds.

    Attributes:
        positive: The label whose probability the model outputs.
        threshold: The probability from which on the model gives that label.
        f1: Harmonic mean of its precision and recall there.
        roc_auc: Area under the ROC curve; ``None``, like all below, if a class has no images.
        average_precision: Area under the precision-recall curve.
        roc: Share of false positives and of true positives, at most 200 points.
        precision_recall: Recall and precision, at most 200 points.
    """

    positive: str
    threshold: float
    f1: float | None
    roc_auc: float | None = None
    average_precision: float | None = None
    roc: tuple[tuple[float, float], ...] = ()
    precision_recall: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class MultiEvaluation:
    """Averages over the labels that some image has.

    Attributes:
        mean_average_precision: Mean of the labels' average precision; ``None`` without any.
        mean_f1: Mean of their F1 at their thresholds.
        right_decisions: Share of pairs of image and label that are decided correctly.
    """

    mean_average_precision: float | None
    mean_f1: float | None
    right_decisions: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a model on a split.

    Attributes:
        top1: Share of images whose class has the highest probability. For ``binary``: that are on
            the right side of the threshold. For ``multi``: whose labels are all right, and no
            others given.
        top5: Share of images whose class is among the five of highest probability; ``None`` for
            fewer than six classes.
        classes: Precision and recall of each class.
        confusion: Confusion matrix: ``confusion[i][j]`` images of class i are predicted as j;
            ``None`` above 100 classes and for ``multi``.
        mistakes: Number of images by true and predicted class, as ``(true, predicted, images)``,
            most images first.
        hardest: Mistakes first, then correct predictions; of each, the images whose true class has
            the lowest probability, and for ``multi`` whose labels have the largest error.
        task: ``"single"``, ``"binary"`` or ``"multi"``, as in the contract.
        cross_fitted: Whether each half of the images was decided by thresholds that were chosen on
            the other half, because the model's own were chosen on these images.
        without_duplicates: ``top1`` without the images that have a near duplicate among the
            training images; ``None`` if they were not looked for.
        binary: For the task ``binary``.
        multi: For the task ``multi``.
    """

    top1: Estimate
    top5: Estimate | None
    classes: tuple[ClassEvaluation, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    mistakes: tuple[tuple[int, int, int], ...]
    hardest: tuple[Prediction, ...]
    task: str = "single"
    cross_fitted: bool = False
    without_duplicates: Estimate | None = None
    binary: BinaryEvaluation | None = None
    multi: MultiEvaluation | None = None

    @property
    def baseline(self) -> str | None:
        """The accuracy of always the same answer, if the classes are unequal; not for ``multi``."""
        if self.task == "multi":
            return None
        trained = [row.training_images for row in self.classes]
        return baseline(
            [row.label for row in self.classes],
            None if None in trained else np.array(trained),
            np.array([row.test_images for row in self.classes]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What is known about the evaluated images besides their pixels and classes.

    Attributes:
        files: Path of each image, if the images are files.
        training_counts: Training images of each class, ``(classes,)``.
        duplicates: Whether each image has a near duplicate among the training images,
            ``(images,)``.
    """

    files: Sequence[str] = ()
    training_counts: np.ndarray | None = None
    duplicates: np.ndarray | None = None


def evaluate(
    model: ImageClassifier,
    batches: tf.data.Dataset,
    labels: tuple[str, ...],
    progress: Callable[[int], None] | None = None,
    flip: bool = False,
    *,
    facts: ImageFacts = ImageFacts(),
    cross_fit: bool = False,
) -> Evaluation:
    """Measures a model that takes raw pixels.

    The model runs in a compiled function, on ``batch_size(model)`` images at a time. A few numbers
    are kept for each image; for the task ``multi``, the probabilities of all labels.

    Args:
        model: From ``keras_resnet.deployable``: pixels 0–255 in, probabilities out. Its contract
            has the task and the thresholds.
        batches: Of uint8 ``(batch, height, width, channels)`` and labels as in a ``Split``.
        labels: Names of the classes.
        progress: Called with the number of images evaluated so far.
        flip: Average the probabilities of each image and its mirror image, at twice the cost
            (Krizhevsky et al. 2012, section 4.1, with crops as well).
        facts: What else is known about the images.
        cross_fit: The model's thresholds were chosen on these images: see
            ``Evaluation.cross_fitted``. Without effect on the task ``single``.

    Raises:
        ValueError: There are no images, or a probability is not finite.
    """
    contract = model.contract
    predict = predictor(model, batch_size(model))
    reduce = Outcomes.of if contract.task == "single" else _kept
    parts: list[Any] = []
    done = 0
    for images, truth in batches:
        pixels = np.asarray(images)
        outputs = predict(pixels)
        if flip:
            outputs = (outputs + predict(pixels[:, :, ::-1])) / 2
        parts.append(reduce(outputs, np.asarray(truth)))
        done += len(pixels)
        if progress:
            progress(done)
    if not done:
        raise ValueError("There are no images to evaluate on")
    if contract.task == "single":
        return _of_classes(Outcomes.join(parts), labels, facts, HARDEST)
    outputs, truth = (np.concatenate(column) for column in zip(*parts))
    parts.clear()  # of thousands of labels they are as large as all that follows
    return summarize(
        outputs,
        truth,
        labels,
        task=contract.task,
        thresholds=contract.thresholds,
        facts=facts,
        cross_fit=cross_fit,
    )


def _kept(outputs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return outputs, truth


def summarize(
    outputs: np.ndarray,
    truth: np.ndarray,
    labels: tuple[str, ...],
    hardest: int = HARDEST,
    *,
    task: str = "single",
    thresholds: tuple[float, ...] = (),
    facts: ImageFacts = ImageFacts(),
    cross_fit: bool = False,
) -> Evaluation:
    """The evaluation of given predictions.

    Args:
        outputs: Probabilities, ``(images, outputs)``: an output for each class, or for ``binary``
            one for the second class.
        truth: True classes ``(images,)``; for ``multi`` 0 or 1 for each label,
            ``(images, labels)``.
        labels: Names of the classes.
        hardest: Number of images to list.
        task: As in the contract.
        thresholds: As in the contract.
        facts: What else is known about the images.
        cross_fit: See ``evaluate``.

    Raises:
        ValueError: A probability is not finite.
    """
    if task == "single":
        return _of_classes(Outcomes.of(outputs, truth), labels, facts, hardest)
    _check_finite(np.isfinite(outputs).all(axis=1))
    truth = truth.astype("int64") if task == "binary" else truth.astype(bool)
    positive = truth.reshape(outputs.shape) > 0
    levels = np.array(thresholds or (DEFAULT_THRESHOLD,) * outputs.shape[1])
    decided = cross_fitted(outputs, positive) if cross_fit else outputs >= levels
    if task == "binary":
        outcomes = Outcomes.of_binary(outputs[:, 0], decided[:, 0], truth)
        evaluation = _of_classes(outcomes, labels, facts, hardest)
        scores = _binary(outputs[:, 0], positive[:, 0], decided[:, 0], labels[1], float(levels[0]))
        return dataclasses.replace(evaluation, task=task, cross_fitted=cross_fit, binary=scores)
    evaluation = _of_labels(outputs, positive, decided, levels, labels, facts, hardest)
    return dataclasses.replace(evaluation, cross_fitted=cross_fit)


# --- One class an image -----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcomes:
    """The predictions for images of one class each; all arrays are ``(images,)``.

    Attributes:
        truth: True class.
        predicted: Predicted class.
        probability: Probability of the predicted class.
        true_probability: Probability of the true class.
        in_top5: Whether the true class is among the five most probable ones; never for fewer than
            six classes.
        finite: Whether all probabilities are finite.
    """

    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    true_probability: np.ndarray
    in_top5: np.ndarray
    finite: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, truth: np.ndarray) -> Outcomes:
        """From probabilities ``(images, classes)`` and true classes ``(images,)``."""
        predicted = probabilities.argmax(axis=1)
        images = np.arange(len(truth))
        several = probabilities.shape[1] > TOP
        return cls(
            truth,
            predicted,
            probabilities[images, predicted],
            probabilities[images, truth],
            in_top(probabilities, truth, TOP) if several else np.zeros(len(truth), bool),
            np.isfinite(probabilities).all(axis=1),
        )

    @classmethod
    def of_binary(cls, scores: np.ndarray, positive: np.ndarray, truth: np.ndarray) -> Outcomes:
        """From probabilities of the second class, decisions and true classes, ``(images,)``."""
        return cls(
            truth,
            positive.astype("int64"),
            np.where(positive, scores, 1 - scores),
            np.where(truth == 1, scores, 1 - scores),
            np.zeros(len(truth), bool),
            np.isfinite(scores),
        )

    @classmethod
    def join(cls, parts: Iterable[Outcomes]) -> Outcomes:
        """Concatenates batches."""
        columns = zip(*([getattr(p, f.name) for f in dataclasses.fields(cls)] for p in parts))
        return cls(*map(np.concatenate, columns))


def _of_classes(
    outcomes: Outcomes, labels: tuple[str, ...], facts: ImageFacts, hardest: int
) -> Evaluation:
    _check_finite(outcomes.finite)
    truth, predicted, count = outcomes.truth, outcomes.predicted, len(labels)
    right = predicted == truth
    worst = _worst(right, outcomes.true_probability, hardest)
    found = np.bincount(truth[right], minlength=count)
    of_class, predicted_as = (np.bincount(x, minlength=count) for x in (truth, predicted))
    return Evaluation(
        top1=Estimate.of(int(right.sum()), len(truth)),
        top5=Estimate.of(int(outcomes.in_top5.sum()), len(truth)) if count > TOP else None,
        classes=_classes(labels, found, of_class, predicted_as, facts),
        confusion=_plain(confusion_matrix(truth, predicted, count)) if count <= MATRIX else None,
        mistakes=_mistakes(truth[~right], predicted[~right], count),
        hardest=tuple(
            Prediction(
                int(i),
                labels[truth[i]],
                labels[predicted[i]],
                float(outcomes.probability[i]),
                _file(facts, int(i)),
            )
            for i in worst
        ),
        without_duplicates=_without_duplicates(right, facts),
    )


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Images by true class (row) and predicted class (column), int64 ``(classes, classes)``."""
    pairs = np.bincount(truth * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


def _plain(matrix: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))


def _mistakes(
    truth: np.ndarray, predicted: np.ndarray, classes: int
) -> tuple[tuple[int, int, int], ...]:
    pairs, images = np.unique(truth.astype("int64") * classes + predicted, return_counts=True)
    order = np.argsort(-images, kind="stable")
    rows = zip(pairs[order].tolist(), images[order].tolist())
    return tuple((*divmod(pair, classes), number) for pair, number in rows)


def _classes(
    labels: tuple[str, ...],
    found: np.ndarray,
    of_class: np.ndarray,
    predicted_as: np.ndarray,
    facts: ImageFacts,
) -> tuple[ClassEvaluation, ...]:
    precisions, recalls = estimates(found, predicted_as), estimates(found, of_class)
    trained = facts.training_counts
    known = [None] * len(labels) if trained is None else [int(number) for number in trained]
    total = of_class + predicted_as
    f1 = [2 * hits / both if both else None for hits, both in zip(found.tolist(), total.tolist())]
    rows = zip(labels, precisions, recalls, of_class.tolist(), known, f1)
    return tuple(ClassEvaluation(*row) for row in rows)


# --- Two classes and one output ---------------------------------------------------------------


def _binary(
    scores: np.ndarray, truth: np.ndarray, decided: np.ndarray, positive: str, threshold: float
) -> BinaryEvaluation:
    from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

    f1 = _f1(truth, decided)
    if truth.all() or not truth.any():
        return BinaryEvaluation(positive, threshold, f1)
    false_positives, true_positives, _ = roc_curve(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    return BinaryEvaluation(
        positive=positive,
        threshold=threshold,
        f1=f1,
        roc_auc=float(roc_auc_score(truth, scores)),
        average_precision=_average_precision(truth, scores),
        roc=_points(false_positives, true_positives),
        precision_recall=_points(recall[::-1], precision[::-1]),
    )


def _f1(truth: np.ndarray, decided: np.ndarray) -> float | None:
    total = int(truth.sum()) + int(decided.sum())
    return 2 * int((truth & decided).sum()) / total if total else None


def _points(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], ...]:
    """At most 200 points of a curve, both ends included."""
    numbers = np.linspace(0, len(x) - 1, min(CURVE, len(x))).round().astype(int)
    return tuple(zip(x[numbers].tolist(), y[numbers].tolist()))


# --- Several labels an image ------------------------------------------------------------------


def _of_labels(
    scores: np.ndarray,
    truth: np.ndarray,
    decided: np.ndarray,
    levels: np.ndarray,
    labels: tuple[str, ...],
    facts: ImageFacts,
    hardest: int,
) -> Evaluation:
    right = (decided == truth).all(axis=1)
    counts = ((truth & decided).sum(axis=0), truth.sum(axis=0), decided.sum(axis=0))
    precisions = [_average_precision(truth[:, i], scores[:, i]) for i in range(len(labels))]
    classes = tuple(
        dataclasses.replace(row, average_precision=precision, threshold=float(level))
        for row, precision, level in zip(_classes(labels, *counts, facts), precisions, levels)
    )
    # Of the right answer; image by image, since there may be thousands of labels.
    certainty = np.array([np.where(has, p, 1 - p).min() for has, p in zip(truth, scores)])
    return Evaluation(
        top1=Estimate.of(int(right.sum()), len(right)),
        top5=None,
        classes=classes,
        confusion=None,
        mistakes=(),
        hardest=tuple(
            Prediction(
                int(i),
                label_names(truth[i], labels),
                label_names(decided[i], labels),
                float(certainty[i]),
                _file(facts, int(i)),
            )
            for i in _worst(right, certainty, hardest)
        ),
        task="multi",
        without_duplicates=_without_duplicates(right, facts),
        multi=MultiEvaluation(
            mean_average_precision=_mean(precisions),
            mean_f1=_mean([row.f1 for row in classes if row.test_images]),
            right_decisions=float((decided == truth).mean()),
        ),
    )


def label_names(present: np.ndarray, labels: Sequence[str]) -> str:
    """The names of an image's labels, separated by " | "; "none" without any."""
    return SEPARATOR.join(labels[int(i)] for i in np.flatnonzero(present)) or "none"


def _average_precision(truth: np.ndarray, scores: np.ndarray) -> float | None:
    from sklearn.metrics import average_precision_score

    # Its sum may exceed 1 by rounding.
    return min(1.0, float(average_precision_score(truth, scores))) if truth.any() else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


# --- All tasks --------------------------------------------------------------------------------


def _worst(right: np.ndarray, certainty: np.ndarray, images: int) -> np.ndarray:
    # Mistakes first: at a threshold far from 0.5 the least probable truths may all be right.
    return np.lexsort((certainty, right))[:images]


def _check_finite(finite: np.ndarray) -> None:
    if bad := int((~finite).sum()):
        raise ValueError(
            f"The model outputs NaN or infinity for {bad:,} of {len(finite):,} images. "
            "Its weights are not finite: train it again, with a lower optimizer.learning_rate"
        )


def _file(facts: ImageFacts, index: int) -> str | None:
    return os.path.abspath(facts.files[index]) if len(facts.files) else None


def _without_duplicates(right: np.ndarray, facts: ImageFacts) -> Estimate | None:
    if facts.duplicates is None:
        return None
    kept = right[~np.asarray(facts.duplicates, bool)]
    return Estimate.of(int(kept.sum()), len(kept))
