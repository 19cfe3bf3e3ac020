"""Each .tflite file against Keras on the same images: accuracy, agreement and what changed."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.prediction import Predictor, in_top, predictor
from keras_resnet.saving import load_model
from tflite.classifier import Classifier
from tflite.evidence.statistics import (
    calibration_error,
    images_to_resolve,
    mcnemar,
    paired_interval,
    wilson_interval,
)

BATCH = 32
TOP = 5
THREADS = 2
CHANGED = 20
WORST_CLASSES = 5
PICTURE = 96  # pixels of the longer side


@dataclass(frozen=True)
class ClassChange:
    """One class that the file gets right less often than Keras.

    Attributes:
        label: Its name, or its number where names are not known.
        images: How many images are of it.
        keras_recall: Share of them that Keras gets right, in percent.
        file_recall: The same of the file.
    """

    label: str
    images: int
    keras_recall: float
    file_recall: float


@dataclass(frozen=True)
class ChangedImage:
    """One image that the file classifies with other probabilities.

    Attributes:
        index: Its position among the images.
        label: Name of its true class.
        keras: Name of the class that Keras predicts.
        file: Name of the class that the file predicts.
        keras_confidence: Probability of the class that Keras predicts, 0–1.
        file_confidence: The same of the file; ``None`` where it is not finite.
        difference: Largest absolute difference of a probability, 0–1; ``None`` likewise.
        picture: What the model sees, as the data URL of a PNG (``data:image/png;base64,…``)
            of at most 96 pixels a side; ``None`` if the image is neither RGB nor grayscale.
    """

    index: int
    label: str
    keras: str
    file: str
    keras_confidence: float
    file_confidence: float | None
    difference: float | None
    picture: str | None


@dataclass(frozen=True)
class Comparison:
    """One file against Keras.

    Attributes:
        kind: Which file.
        images: Number of images that both classified.
        keras_top1: Top-1 accuracy of Keras, in percent.
        file_top1: The same of the file.
        difference: ``file_top1 - keras_top1``, in points; below zero the file is worse.
        interval: The 95 % interval of the difference, in points; see ``paired_interval``.
        mcnemar: Probability of such a difference between equal models, 0–1; see ``mcnemar``.
        keras_top5: Top-5 accuracy of Keras, in percent; ``None`` for fewer than six classes.
        file_top5: The same of the file.
        agreement: Share of images where both predict the same class, in percent.
        agreement_interval: The 95 % interval of that, in percent; see ``wilson_interval``.
        keras_calibration_error: See ``calibration_error``, in points.
        file_calibration_error: The same of the file; ``None`` if a probability of the file is
            not finite.
        confidence_drift: Mean confidence of the file minus that of Keras, in points; ``None``
            likewise.
        max_difference: Largest absolute difference of a probability, 0–1; ``None`` if a
            probability of the file is not finite.
        mean_difference: Average of the same.
        bytes: Size of the file.
        worst_classes: The classes that lose most recall, the worst first; at most five.
        changed: The images that changed most, the most changed first; at most twenty.
        images_to_resolve: How many images resolve a drop of ``max_drop``; ``None`` without
            ``max_drop``, or if no number does.
        broken: A sentence for each tolerance that is exceeded.
    """

    kind: str
    images: int
    keras_top1: float
    file_top1: float
    difference: float
    interval: tuple[float, float]
    mcnemar: float
    keras_top5: float | None
    file_top5: float | None
    agreement: float
    agreement_interval: tuple[float, float]
    keras_calibration_error: float
    file_calibration_error: float | None
    confidence_drift: float | None
    max_difference: float | None
    mean_difference: float | None
    bytes: int
    worst_classes: tuple[ClassChange, ...] = ()
    changed: tuple[ChangedImage, ...] = ()
    images_to_resolve: int | None = None
    broken: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no tolerance is exceeded."""
        return not self.broken


@dataclass(frozen=True)
class Report:
    """All files against Keras.

    Attributes:
        images: Number of images that each file classified.
        kinds: One comparison for each file, in the given order.
    """

    images: int
    kinds: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether no file exceeds a tolerance."""
        return all(comparison.passed for comparison in self.kinds)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        kinds = [dataclasses.asdict(kind) | {"passed": kind.passed} for kind in self.kinds]
        return {"images": self.images, "passed": self.passed, "kinds": kinds}


@dataclass(frozen=True)
class Predictions:
    """The predictions for each of ``n`` images; all arrays are ``(n,)``.

    Attributes:
        label: The true class.
        keras: The class that Keras predicts.
        file: The class that the file predicts.
        keras_top5: Whether the true class is among the five most probable ones of Keras.
        file_top5: The same of the file.
        keras_confidence: Probability of the class that Keras predicts.
        file_confidence: The same of the file.
        max_difference: Largest absolute difference among the image's probabilities.
        mean_difference: Average of the same.
    """

    label: np.ndarray
    keras: np.ndarray
    file: np.ndarray
    keras_top5: np.ndarray
    file_top5: np.ndarray
    keras_confidence: np.ndarray
    file_confidence: np.ndarray
    max_difference: np.ndarray
    mean_difference: np.ndarray

    @classmethod
    def of(cls, label: np.ndarray, keras: np.ndarray, file: np.ndarray) -> Predictions:
        """From labels ``(n,)`` and two arrays of probabilities ``(n, classes)``."""
        difference = np.abs(keras - file)
        return cls(
            label,
            keras.argmax(1),
            file.argmax(1),
            in_top(keras, label, TOP),
            in_top(file, label, TOP),
            keras.max(1),
            file.max(1),
            difference.max(1),
            difference.mean(1),
        )

    @classmethod
    def join(cls, parts: Iterable[Predictions]) -> Predictions:
        """Concatenates batches."""
        columns = zip(*([getattr(p, f.name) for f in dataclasses.fields(cls)] for p in parts))
        return cls(*map(np.concatenate, columns))


def verify(
    model: ImageClassifier | str | os.PathLike[str],
    files: Mapping[str, str | os.PathLike[str]],
    images: Iterable[tuple[np.ndarray, int]],
    *,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Runs Keras and each file on the same images, and compares their predictions.

    Keras runs in batches, in a compiled function; a file one image after the other on two
    threads. Memory does not grow with the number of images, but for a few numbers an image.

    Args:
        model: The model that the files were made from, or its ``.keras`` file.
        files: Path of each kind, as ``convert`` returns them.
        images: Pairs of a uint8 image ``(height, width, channels)`` 0–255, fitted to the
            model, and its class as a number.
        max_drop: How many points of top-1 a file may lose, at most: the limit of the measured
            difference. The interval tells whether there were enough images.
        min_agreement: Percent of the images on which the file and Keras must agree, at least.
        progress: Called with ``(images done, images in all)`` after each batch; the latter
            is 0 if ``images`` has no length.

    Raises:
        ValueError: There are no files or no images, an image or a label does not fit the
            model, a tolerance is out of range, or a file cannot be read.
    """
    _check(files, max_drop, min_agreement)
    model = deployable(model if isinstance(model, ImageClassifier) else load_model(model))
    predict = predictor(model)
    classifiers = {kind: Classifier(path, THREADS) for kind, path in files.items()}
    parts: dict[str, list[Predictions]] = {kind: [] for kind in files}
    pictures: dict[str, list[Picture]] = {kind: [] for kind in files}
    done, total = 0, length_hint(images)
    for batch, labels in _batches(images):
        expected = _keras_probabilities(model.contract, predict, batch, labels)
        for kind, classifier in classifiers.items():
            predictions = Predictions.of(labels, expected, classifier.probabilities(batch))
            parts[kind].append(predictions)
            pictures[kind] = _most_changed(pictures[kind], predictions, batch, done)
        done += len(batch)
        if progress:
            progress(done, total)
    if not done:
        raise ValueError("There are no images to verify on. Pass some that have labels.")

    names = model.contract.labels
    comparisons = []
    for kind, path in files.items():
        predictions = Predictions.join(parts[kind])
        comparison = compare(kind, predictions, Path(path).stat().st_size, names, max_drop)
        changed = tuple(_changed_image(p, predictions, names) for p in pictures[kind])
        comparison = dataclasses.replace(comparison, changed=changed)
        if expected.shape[1] <= TOP:
            comparison = dataclasses.replace(comparison, keras_top5=None, file_top5=None)
        comparisons.append(_with_verdict(comparison, max_drop, min_agreement))
    return Report(done, tuple(comparisons))


def compare(
    kind: str,
    predictions: Predictions,
    size: int,
    labels: Sequence[str] = (),
    max_drop: float | None = None,
) -> Comparison:
    """The statistics of one file of ``size`` bytes; ``max_drop`` is in points."""
    keras_right = predictions.keras == predictions.label
    file_right = predictions.file == predictions.label
    n = len(predictions.label)
    gained = int(np.sum(file_right & ~keras_right))
    lost = int(np.sum(keras_right & ~file_right))
    agreed = int(np.sum(predictions.file == predictions.keras))
    finite = bool(np.isfinite(predictions.file_confidence).all())
    drift = predictions.file_confidence.mean(dtype="float64") - predictions.keras_confidence.mean(
        dtype="float64"
    )
    return Comparison(
        kind=kind,
        images=n,
        keras_top1=100 * float(keras_right.mean()),
        file_top1=100 * float(file_right.mean()),
        difference=100 * (int(file_right.sum()) - int(keras_right.sum())) / n,
        interval=_percent(paired_interval(gained, lost, n)),
        mcnemar=mcnemar(gained, lost),
        keras_top5=100 * float(predictions.keras_top5.mean()),
        file_top5=100 * float(predictions.file_top5.mean()),
        agreement=100 * agreed / n,
        agreement_interval=_percent(wilson_interval(agreed, n)),
        keras_calibration_error=100 * calibration_error(predictions.keras_confidence, keras_right),
        file_calibration_error=100 * calibration_error(predictions.file_confidence, file_right)
        if finite
        else None,
        confidence_drift=100 * float(drift) if finite else None,
        max_difference=_finite(predictions.max_difference.max()),
        mean_difference=_finite(predictions.mean_difference.mean(dtype="float64")),
        bytes=size,
        worst_classes=_worst_classes(predictions.label, keras_right, file_right, labels),
        images_to_resolve=None
        if max_drop is None
        else images_to_resolve(gained, lost, n, max_drop / 100),
    )


@dataclass(frozen=True)
class Picture:
    """A changed image, until the whole split is compared: index, difference, pixels."""

    index: int
    difference: float
    pixels: np.ndarray


def _most_changed(
    known: list[Picture], predictions: Predictions, batch: np.ndarray, done: int
) -> list[Picture]:
    # NaN counts as the largest change.
    differences = np.nan_to_num(predictions.max_difference, nan=np.inf)
    new = [Picture(done + i, float(d), batch[i]) for i, d in enumerate(differences) if d > 0]
    kept = sorted(known + new, key=lambda p: -p.difference)[:CHANGED]
    # A view would keep its whole batch in memory for as long as the picture is kept.
    return [dataclasses.replace(p, pixels=_own(p.pixels)) for p in kept]


def _own(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.base is None else pixels.copy()


def _changed_image(
    picture: Picture, predictions: Predictions, labels: Sequence[str]
) -> ChangedImage:
    i = picture.index
    return ChangedImage(
        index=i,
        label=_name(predictions.label[i], labels),
        keras=_name(predictions.keras[i], labels),
        file=_name(predictions.file[i], labels),
        keras_confidence=float(predictions.keras_confidence[i]),
        file_confidence=_finite(predictions.file_confidence[i]),
        difference=_finite(picture.difference),
        picture=_png_data_url(picture.pixels),
    )


def _worst_classes(
    label: np.ndarray, keras_right: np.ndarray, file_right: np.ndarray, labels: Sequence[str]
) -> tuple[ClassChange, ...]:
    counts = np.bincount(label)
    keras = np.bincount(label, weights=keras_right)
    file = np.bincount(label, weights=file_right)
    change = np.divide(file - keras, counts, out=np.zeros(len(counts)), where=counts > 0)
    worst = [c for c in np.argsort(change, kind="stable")[:WORST_CLASSES] if change[c] < 0]
    return tuple(
        ClassChange(
            _name(c, labels),
            int(counts[c]),
            100 * float(keras[c] / counts[c]),
            100 * float(file[c] / counts[c]),
        )
        for c in worst
    )


def _name(number: int, labels: Sequence[str]) -> str:
    return labels[number] if labels else str(number)


def _png_data_url(pixels: np.ndarray) -> str | None:
    from PIL import Image

    if pixels.shape[2] not in (1, 3):
        return None
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((PICTURE, PICTURE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _percent(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    return 100 * low, 100 * high


def _with_verdict(
    comparison: Comparison, max_drop: float | None, min_agreement: float | None
) -> Comparison:
    low, high = comparison.interval
    broken = []
    if comparison.max_difference is None:
        broken.append("some of its probabilities are not finite numbers")
    if max_drop is not None and -comparison.difference > max_drop:
        broken.append(
            f"top-1 changed by {comparison.difference:+.2f} points "
            f"(95 % interval {low:+.2f} to {high:+.2f}), and may drop by {max_drop:g}"
        )
    if min_agreement is not None and comparison.agreement < min_agreement:
        broken.append(
            f"it agrees with Keras on {comparison.agreement:.2f} % of the images, "
            f"and must on {min_agreement:g}"
        )
    return dataclasses.replace(comparison, broken=tuple(broken))


def _check(files: Mapping[str, Any], max_drop: float | None, min_agreement: float | None) -> None:
    if not files:
        raise ValueError("There are no files to verify. Pass {kind: path}, as convert returns.")
    for name, value in (("max_drop", max_drop), ("min_agreement", min_agreement)):
        if value is not None and not 0 <= value <= 100:
            raise ValueError(f"{name} must be within 0 and 100. Received: {name}={value}")


def _batches(
    images: Iterable[tuple[np.ndarray, int]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pairs = iter(images)
    while batch := list(islice(pairs, BATCH)):
        yield np.stack([image for image, _ in batch]), np.array([int(label) for _, label in batch])


def _keras_probabilities(
    contract: Contract, predict: Predictor, batch: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    shape = (contract.height, contract.width, contract.channels)
    if batch.dtype != np.uint8 or batch.shape[1:] != shape:
        raise ValueError(
            f"Images must be uint8 {shape}, fitted to the model. "
            f"Received: {batch.dtype} {batch.shape[1:]}"
        )
    probabilities = predict(batch)
    classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Labels must be numbers of the model's {classes} classes, 0–{classes - 1}. "
            f"Received: {labels.min()} to {labels.max()}"
        )
    return probabilities


def _finite(value: float) -> float | None:
    # JSON has no NaN.
    return float(value) if math.isfinite(value) else None
