"""One pass over all pictures of a source: size, a digest of the pixels, thumbnail, measurements.

Each picture is decoded once, by ``keras_resnet``'s own decoder, and about 1.1 kB of it is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.pictures import decode
from training.data.sources import Source, Split, labels_of
from training.data.validate_images import in_threads

# Pixels of the grayscale thumbnail's sides. Near duplicates are found among them.
SIDE = 32
# Measurements are made on a copy whose shorter side is at most this, so that they do not depend
# on the resolution of the camera.
MEASURED_SIDE = 256


@dataclass(frozen=True)
class Measurements:
    """What one picture's luma tells about its quality.

    Attributes:
        low: 5th percentile, 0–255.
        high: 95th percentile, 0–255.
        entropy: Of the histogram, 0–8 bits.
        sharpness: Contrast between neighbouring pixels over that of pixels four apart, each the
            99th percentile, so that one sharp region is enough, and neither contrast nor
            exposure matters. About 0.1 for a blurred picture, 0.3 for most photographs.
    """

    low: float
    high: float
    entropy: float
    sharpness: float


@dataclass(frozen=True)
class Look:
    """What is kept of one picture.

    Attributes:
        height: In pixels.
        width: In pixels.
        digest: Of the pixels and the size; equal for equal pictures, whatever their format.
        thumbnail: The luma of the whole picture, uint8 ``(SIDE, SIDE)``.
        measured: Brightness, entropy and sharpness.
    """

    height: int
    width: int
    digest: bytes
    thumbnail: np.ndarray
    measured: Measurements


@dataclass(frozen=True)
class Scan:
    """All pictures of a source: those of training first, then those of the test split.

    Attributes:
        names: Path of each file; ``train 17`` for pictures that are no files.
        training: Number of training pictures.
        labels: int64 ``(count,)``, or uint8 ``(count, classes)`` for several labels a picture.
        looks: What is kept of each; ``None`` for those that could not be read.
        problems: Why, by the name of each that could not be read.
    """

    names: tuple[str, ...]
    training: int
    labels: np.ndarray
    looks: tuple[Look | None, ...]
    problems: dict[str, str]

    def in_training(self, index: int) -> bool:
        """Whether a picture is one of the training split."""
        return index < self.training

    def same_label(self, one: int, other: int) -> bool:
        """Whether two pictures have the same label or labels."""
        return bool(np.array_equal(self.labels[one], self.labels[other]))

    def label_names(self, index: int, names: tuple[str, ...]) -> str:
        """The picture's label, or its labels, in words."""
        label = self.labels[index]
        if np.ndim(label):
            return ", ".join(names[i] for i in np.flatnonzero(label)) or "none"
        return names[int(label)]


def scan(source: Source) -> Scan:
    """Looks at every picture of a source; shows progress after two seconds."""
    splits = (source.train, source.test)
    total = sum(split.count for split in splits)
    items = (item for split in splits for item in pictures(split))
    found = in_threads(
        lambda item: _look_or_problem(item, source.channels), items, total, "reading"
    )
    names = tuple(_names(source.train, "train") + _names(source.test, "test"))
    return Scan(
        names,
        source.train.count,
        np.concatenate([labels_of(split) for split in splits]),
        tuple(look if isinstance(look, Look) else None for look in found),
        {name: look for name, look in zip(names, found) if isinstance(look, str)},
    )


def pictures(split: Split) -> Iterator[str | bytes | np.ndarray]:
    """Each picture of a split in order: path of its file, bytes of a file, or pixels."""
    if split.files:
        yield from split.files
        return
    for image, _ in split.examples.as_numpy_iterator():
        yield image


def look_at(picture: str | bytes | np.ndarray, channels: int = 3) -> Look:
    """What is kept of one picture.

    Args:
        picture: Path or content of a file, or uint8 ``(height, width, channels)``.
        channels: 1 or 3; files are read as these.

    Raises:
        ValueError: The file cannot be read.
    """
    pixels = read_pixels(picture, channels)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    luma = _luma(pixels)
    small = _shrunk(luma, min(MEASURED_SIDE / min(luma.shape), 1))
    return Look(luma.shape[0], luma.shape[1], digest.digest(), thumbnail(luma), measure(small))


def read_pixels(picture: str | bytes | np.ndarray, channels: int) -> np.ndarray:
    """uint8 ``(height, width, channels)`` of what ``look_at`` takes, upright and not resized."""
    if isinstance(picture, (str, bytes)):
        picture = decode(picture, channels)
    return np.ascontiguousarray(picture)


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """Luma ``(height, width)`` averaged to uint8 ``(SIDE, SIDE)``, whatever its shape."""
    from PIL import Image

    return np.asarray(Image.fromarray(luma).resize((SIDE, SIDE), Image.Resampling.BOX))


def measure(luma: np.ndarray) -> Measurements:
    """Brightness, entropy and sharpness of uint8 ``(height, width)``."""
    histogram = np.bincount(luma.ravel(), minlength=256) / luma.size
    low, high = np.searchsorted(np.cumsum(histogram), (0.05, 0.95))
    present = histogram[histogram > 0]
    return Measurements(
        float(low), float(high), float(-(present * np.log2(present)).sum()), _sharpness(luma)
    )


def _sharpness(luma: np.ndarray) -> float:
    if min(luma.shape) < 8:  # too few pixels to tell
        return 1.0
    x = luma.astype("int16")
    fine = np.abs(4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:])
    coarse = np.percentile(np.abs(x[:, 4:] - x[:, :-4]), 99)
    coarse += np.percentile(np.abs(x[4:] - x[:-4]), 99)
    return float(np.percentile(fine, 99) / max(coarse, 1.0))


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Grayscale by BT.601 of uint8 ``(height, width, channels)``."""
    from PIL import Image

    if pixels.shape[-1] == 3:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return np.ascontiguousarray(pixels[..., 0])


def _shrunk(luma: np.ndarray, scale: float) -> np.ndarray:
    from PIL import Image

    height, width = (max(round(side * scale), 1) for side in luma.shape)
    return np.asarray(Image.fromarray(luma).resize((width, height), Image.Resampling.BOX))


def _look_or_problem(picture: Any, channels: int) -> Look | str:
    try:
        return look_at(picture, channels)
    except ValueError as error:
        return str(error).removeprefix(f"{picture} ")


def _names(split: Split, name: str) -> list[str]:
    if split.files:
        return [str(Path(file)) for file in split.files]
    return [f"{name} {number}" for number in range(split.count)]
