"""Inputs with the answers that Python gives to them, to hold other machines against."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_resnet.contract import Contract
from keras_resnet.preprocessing import fit_image
from tflite.classifier import Classifier

COUNT = 8
# Of a probability quantized to 8 bits.
QUANTIZATION_STEP = 1 / 256


@dataclass(frozen=True)
class Golden:
    """Images and what each file answers to them here.

    Attributes:
        images: uint8 ``(count, height, width, channels)``, raw pixels 0–255.
        answers: For each kind float32 ``(count, classes)``.
    """

    images: np.ndarray
    answers: dict[str, np.ndarray]


def golden(
    files: Mapping[str, str | os.PathLike[str]],
    images: Sequence[np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> Golden:
    """Asks each file about each image.

    Args:
        files: Path of each kind, as ``tflite.convert`` returns them.
        images: uint8 ``(height, width, channels)``, fitted to the model.
        progress: Called with ``(files done, files in all)``.

    Raises:
        ValueError: There are no images, an image does not fit, or a file is not readable.
    """
    if not len(images):
        raise ValueError("There are no images for the golden inputs. Pass a few of the test images")
    stacked = np.stack(images)
    answers = {}
    for done, (kind, path) in enumerate(files.items(), 1):
        answers[kind] = Classifier(path).probabilities(stacked)
        if progress:
            progress(done, len(files))
    return Golden(stacked, answers)


def textures(contract: Contract, count: int = COUNT) -> list[np.ndarray]:
    """Images to ask about where there are no real ones: the same for each contract every time.

    Noise of ever coarser grain, since fine noise alone looks the same to a network each time.
    """
    random = np.random.default_rng(0)
    whole = contract.replace(resize="stretch")
    grains = [2 + 3 * (i % 4) for i in range(count)]
    coarse = (random.integers(0, 256, (g, g, contract.channels), "uint8") for g in grains)
    return [fit_image(image, whole) for image in coarse]
