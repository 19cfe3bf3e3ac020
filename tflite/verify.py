"""Is it still the same model? Each .tflite file against Keras, on the same images."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from keras_resnet.classifier import ImageClassifier, load_model
from keras_resnet.deployable import deployable
from tflite.classifier import Classifier

BATCH = 32
THREADS = 2


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
        agreement: Share of images where both put the same class first, in percent.
        max_difference: Largest absolute difference of a probability, 0–1; ``None`` where an
            answer of the file is not finite.
        mean_difference: Average of the same.
        bytes: Size of the file.
        broken: A sentence for each tolerance that is not kept.
    """

    kind: str
    images: int
    keras_top1: float
    file_top1: float
    difference: float
    interval: tuple[float, float]
    agreement: float
    max_difference: float | None
    mean_difference: float | None
    bytes: int
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
        max_difference: Largest absolute difference among the image's probabilities.
        mean_difference: Average of the same.
    """

    label: np.ndarray
    keras: np.ndarray
    file: np.ndarray
    max_difference: np.ndarray
    mean_difference: np.ndarray

    @classmethod
    def of(cls, label: np.ndarray, keras: np.ndarray, file: np.ndarray) -> Answers:
        """From labels ``(n,)`` and two arrays of probabilities ``(n, classes)``."""
        apart = np.abs(keras - file)
        return cls(label, keras.argmax(1), file.argmax(1), apart.max(1), apart.mean(1))

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
    done, total = 0, length_hint(images)
    for batch, labels in _batches(images):
        expected = _keras_probabilities(model, batch, labels)
        for kind, classifier in classifiers.items():
            parts[kind].append(Answers.of(labels, expected, classifier.probabilities(batch)))
        done += len(batch)
        if progress:
            progress(done, total)
    if not done:
        raise ValueError("There are no images to verify on. Pass some that have labels.")

    comparisons = (
        compare(kind, Answers.join(parts[kind]), Path(path).stat().st_size)
        for kind, path in files.items()
    )
    return Report(done, tuple(_judged(c, max_drop, min_agreement) for c in comparisons))


def compare(kind: str, answers: Answers, size: int) -> Comparison:
    """The statistics of one file of ``size`` bytes."""
    keras_right = answers.keras == answers.label
    file_right = answers.file == answers.label
    n = len(answers.label)
    low, high = paired_interval(
        gained=int(np.sum(file_right & ~keras_right)),
        lost=int(np.sum(keras_right & ~file_right)),
        n=n,
    )
    return Comparison(
        kind=kind,
        images=n,
        keras_top1=100 * float(keras_right.mean()),
        file_top1=100 * float(file_right.mean()),
        difference=100 * (int(file_right.sum()) - int(keras_right.sum())) / n,
        interval=(100 * low, 100 * high),
        agreement=100 * float(np.mean(answers.file == answers.keras)),
        max_difference=_finite(answers.max_difference.max()),
        mean_difference=_finite(answers.mean_difference.mean(dtype="float64")),
        bytes=size,
    )


def paired_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference between two accuracies on the same images.

    Only the images that one of the two gets right and the other wrong tell them apart, so
    this is far narrower than what two separate accuracies would give. Wald's interval after
    half an image is added to each cell of the 2 × 2 table, which keeps its promise for few
    images and for none that differ: Agresti and Min, "Simple improved confidence intervals
    for comparing matched proportions", Statistics in Medicine 24 (2005), section 3.

    Args:
        gained: Number of images that the second model alone gets right.
        lost: Number of images that the first model alone gets right.
        n: Number of images.

    Returns:
        Both ends, as shares of 1.
    """
    gain, loss, count = gained + 0.5, lost + 0.5, n + 2
    centre = (gain - loss) / count
    error = math.sqrt(gain + loss - (gain - loss) ** 2 / count) / count
    reach = NormalDist().inv_cdf(0.975) * error
    return max(-1.0, centre - reach), min(1.0, centre + reach)


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
