"""Is it still the same model? Each .tflite file against Keras, on the same images."""

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
from keras_resnet.deployment import deployable
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
    """One image that the file sees differently.

    Attributes:
        index: Its place among the images.
        label: Name of its true class.
        keras: Name of the class that Keras puts first.
        file: Name of the class that the file puts first.
        keras_confidence: Probability that Keras gives to its first class, 0–1.
        file_confidence: The same of the file; ``None`` where it is not finite.
        difference: Largest absolute difference of a probability, 0–1; ``None`` likewise.
        picture: What the model sees, as the address of a PNG (``data:image/png;base64,…``)
            of at most 96 pixels a side; ``None`` where the image is neither RGB nor grayscale.
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
        images: How many images both were asked about.
        keras_top1: Share of images that Keras gets right, in percent.
        file_top1: The same of the file.
        difference: ``file_top1 - keras_top1``, in points; below zero the file is worse.
        interval: The 95 % interval of the difference, in points; see ``paired_interval``.
        mcnemar: Probability of such a difference between equal models, 0–1; see ``mcnemar``.
        keras_top5: Share of images whose class is among the five that Keras puts first, in
            percent.
        file_top5: The same of the file.
        agreement: Share of images where both put the same class first, in percent.
        agreement_interval: The 95 % interval of that, in percent; see ``wilson_interval``.
        keras_calibration_error: See ``calibration_error``, in points.
        file_calibration_error: The same of the file; ``None`` where an answer of the file is
            not finite.
        confidence_drift: By how much the file is surer of its first class than Keras of its
            own, on average, in points; ``None`` likewise.
        max_difference: Largest absolute difference of a probability, 0–1; ``None`` where an
            answer of the file is not finite.
        mean_difference: Average of the same.
        bytes: Size of the file.
        worst_classes: The classes that lose most, the worst first; at most five.
        changed: The images that changed most, the most changed first; at most twenty.
        images_to_resolve: How many images would tell a drop of ``max_drop`` from none; ``None``
            where nothing was asked, or no number will do.
        broken: A sentence for each tolerance that is not kept.
    """

    kind: str
    images: int
    keras_top1: float
    file_top1: float
    difference: float
    interval: tuple[float, float]
    mcnemar: float
    keras_top5: float
    file_top5: float
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
        """Whether all tolerances are kept."""
        return not self.broken


@dataclass(frozen=True)
class Report:
    """All files against Keras.

    Attributes:
        images: How many images each was asked about.
        kinds: One comparison a file, in the order given.
    """

    images: int
    kinds: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether all files keep all tolerances."""
        return all(comparison.passed for comparison in self.kinds)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        kinds = [dataclasses.asdict(kind) | {"passed": kind.passed} for kind in self.kinds]
        return {"images": self.images, "passed": self.passed, "kinds": kinds}


@dataclass(frozen=True)
class Answers:
    """What was answered to each of ``n`` images; all arrays are ``(n,)``.

    Attributes:
        label: The true class.
        keras: The class that Keras puts first.
        file: The class that the file puts first.
        keras_top5: Whether the true class is among the five that Keras puts first.
        file_top5: The same of the file.
        keras_confidence: Probability that Keras gives to its first class.
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
    def of(cls, label: np.ndarray, keras: np.ndarray, file: np.ndarray) -> Answers:
        """From labels ``(n,)`` and two arrays of probabilities ``(n, classes)``."""
        apart = np.abs(keras - file)
        return cls(
            label,
            keras.argmax(1),
            file.argmax(1),
            _in_top5(keras, label),
            _in_top5(file, label),
            keras.max(1),
            file.max(1),
            apart.max(1),
            apart.mean(1),
        )

    @classmethod
    def join(cls, parts: Iterable[Answers]) -> Answers:
        """Many batches as one."""
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
    """Asks Keras and each file about the same images, and compares the answers.

    Keras answers in batches, a file one image after the other on two threads.

    Args:
        model: The model that the files were made from, or its ``.keras`` file.
        files: Path of each kind, as ``convert`` returns them.
        images: Pairs of a uint8 image ``(height, width, channels)`` 0–255, fitted to the
            model, and its class as a number.
        max_drop: How many points of top-1 a file may lose. The measured difference is held
            against it; whether there were images enough to tell is what the interval says.
        min_agreement: On how many percent of the images the file and Keras must agree.
        progress: Called with ``(images done, images in all)`` after each batch; the latter
            is 0 where ``images`` does not tell its length.

    Raises:
        ValueError: There are no files or no images, an image or a label does not fit the
            model, a tolerance is out of range, or a file is not readable.
    """
    _check(files, max_drop, min_agreement)
    model = deployable(model if isinstance(model, ImageClassifier) else load_model(model))
    classifiers = {kind: Classifier(path, THREADS) for kind, path in files.items()}
    parts: dict[str, list[Answers]] = {kind: [] for kind in files}
    pictures: dict[str, list[Picture]] = {kind: [] for kind in files}
    done, total = 0, length_hint(images)
    for batch, labels in _batches(images):
        expected = _keras_probabilities(model, batch, labels)
        for kind, classifier in classifiers.items():
            answers = Answers.of(labels, expected, classifier.probabilities(batch))
            parts[kind].append(answers)
            pictures[kind] = _most_changed(pictures[kind], answers, batch, done)
        done += len(batch)
        if progress:
            progress(done, total)
    if not done:
        raise ValueError("There are no images to verify on. Pass some that have labels.")

    names = model.contract.labels
    comparisons = []
    for kind, path in files.items():
        answers = Answers.join(parts[kind])
        comparison = compare(kind, answers, Path(path).stat().st_size, names, max_drop)
        changed = tuple(_changed_image(p, answers, names) for p in pictures[kind])
        comparison = dataclasses.replace(comparison, changed=changed)
        comparisons.append(_judged(comparison, max_drop, min_agreement))
    return Report(done, tuple(comparisons))


def compare(
    kind: str,
    answers: Answers,
    size: int,
    labels: Sequence[str] = (),
    max_drop: float | None = None,
) -> Comparison:
    """The statistics of one file of ``size`` bytes; ``max_drop`` is in points."""
    keras_right = answers.keras == answers.label
    file_right = answers.file == answers.label
    n = len(answers.label)
    gained = int(np.sum(file_right & ~keras_right))
    lost = int(np.sum(keras_right & ~file_right))
    agreed = int(np.sum(answers.file == answers.keras))
    finite = bool(np.isfinite(answers.file_confidence).all())
    drift = answers.file_confidence.mean(dtype="float64") - answers.keras_confidence.mean(
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
        keras_top5=100 * float(answers.keras_top5.mean()),
        file_top5=100 * float(answers.file_top5.mean()),
        agreement=100 * agreed / n,
        agreement_interval=_percent(wilson_interval(agreed, n)),
        keras_calibration_error=100 * calibration_error(answers.keras_confidence, keras_right),
        file_calibration_error=100 * calibration_error(answers.file_confidence, file_right)
        if finite
        else None,
        confidence_drift=100 * float(drift) if finite else None,
        max_difference=_finite(answers.max_difference.max()),
        mean_difference=_finite(answers.mean_difference.mean(dtype="float64")),
        bytes=size,
        worst_classes=_worst_classes(answers.label, keras_right, file_right, labels),
        images_to_resolve=None
        if max_drop is None
        else images_to_resolve(gained, lost, n, max_drop / 100),
    )


@dataclass(frozen=True)
class Picture:
    """An image that changed, until all are known: its place, by how much, its pixels."""

    index: int
    difference: float
    pixels: np.ndarray


def _most_changed(
    known: list[Picture], answers: Answers, batch: np.ndarray, done: int
) -> list[Picture]:
    # What is not a number has changed more than anything.
    differences = np.nan_to_num(answers.max_difference, nan=np.inf)
    new = [Picture(done + i, float(d), batch[i]) for i, d in enumerate(differences) if d > 0]
    return sorted(known + new, key=lambda p: -p.difference)[:CHANGED]


def _changed_image(picture: Picture, answers: Answers, labels: Sequence[str]) -> ChangedImage:
    i = picture.index
    return ChangedImage(
        index=i,
        label=_name(answers.label[i], labels),
        keras=_name(answers.keras[i], labels),
        file=_name(answers.file[i], labels),
        keras_confidence=float(answers.keras_confidence[i]),
        file_confidence=_finite(answers.file_confidence[i]),
        difference=_finite(picture.difference),
        picture=_png_address(picture.pixels),
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


def _in_top5(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    return (best == label[:, np.newaxis]).any(1)


def _name(number: int, labels: Sequence[str]) -> str:
    return labels[number] if labels else str(number)


def _png_address(pixels: np.ndarray) -> str | None:
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


def _judged(
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
    model: ImageClassifier, batch: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    contract = model.contract
    shape = (contract.height, contract.width, contract.channels)
    if batch.dtype != np.uint8 or batch.shape[1:] != shape:
        raise ValueError(
            f"Images must be uint8 {shape}, fitted to the model. "
            f"Received: {batch.dtype} {batch.shape[1:]}"
        )
    probabilities = model.predict_on_batch(batch.astype("float32"))
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
