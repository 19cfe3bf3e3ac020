"""Golden inputs: images with the outputs of each file here, to compare other machines with."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_resnet.contract import Contract
from keras_resnet.files import atomic_write
from keras_resnet.preprocessing import decisions, fit_image
from tflite.classifier import Classifier
from tflite.model.interpreter import require_universal
from tflite.model.io_spec import UNIVERSAL

COUNT = 8
# Of a probability quantized to 8 bits.
QUANTIZATION_STEP = 1 / 256
# Kernels of different processors round differently.
TOLERANCE = 5 * QUANTIZATION_STEP


@dataclass(frozen=True)
class Golden:
    """Images and the outputs of each file here.

    Attributes:
        images: uint8 ``(count, height, width, channels)``, raw pixels 0–255.
        answers: For each kind float32 ``(count, outputs)``.
        of: What the images are, such as ``"test images"``.
        contract: Task and thresholds of the files.
    """

    images: np.ndarray
    answers: dict[str, np.ndarray]
    of: str = "images"
    contract: Contract = Contract(None, None)


def golden(
    files: Mapping[str, str | os.PathLike[str]],
    images: Sequence[np.ndarray],
    progress: Callable[[int, int], None] | None = None,
    of: str = "images",
) -> Golden:
    """Runs each file on each image.

    Args:
        files: Path of each kind, as ``tflite.convert`` returns them.
        images: uint8 ``(height, width, channels)``, fitted to the model.
        progress: Called with ``(files done, files in all)``.
        of: What the images are, such as ``"test images"``.

    Raises:
        ValueError: There are no images, an image does not fit, or a file cannot be read or has
            other inputs and outputs than the universal ones.
    """
    if not len(images):
        raise ValueError("There are no images for the golden inputs. Pass a few of the test images")
    stacked = np.stack(images)
    answers, contract = {}, Contract(None, None)
    for done, (kind, path) in enumerate(files.items(), 1):
        classifier = Classifier(path)
        require_universal(path, classifier.io_spec)
        contract = classifier.contract
        answers[kind] = classifier.probabilities(stacked)
        if progress:
            progress(done, len(files))
    return Golden(stacked, answers, of, contract)


def textures(contract: Contract, count: int = COUNT) -> list[np.ndarray]:
    """Images for a run without test images; the same contract gives the same ones.

    Noise of several grain sizes, since a network cannot tell one fine noise from another.
    """
    random = np.random.default_rng(0)
    stretch = contract.replace(resize="stretch")
    grains = [2 + 3 * (i % 4) for i in range(count)]
    coarse = (random.integers(0, 256, (g, g, contract.channels), "uint8") for g in grains)
    return [fit_image(image, stretch) for image in coarse]


def write_golden(
    model: str | os.PathLike[str],
    images: Iterable[np.ndarray],
    out: str | os.PathLike[str],
) -> int:
    """Writes a zip archive that a test on any device can read without NumPy.

    For each image it holds ``<number>.input.bin``, the content of the model's input tensor, in
    its type, little-endian, and ``<number>.output.bin``, the expected output; ``golden.json`` has
    shapes, labels, the tolerance and as ``top1`` the class of each image by its number, or for the
    task ``multi`` as ``labels_given`` the numbers of its labels.

    Args:
        model: A .tflite file with a contract.
        images: uint8 ``(height, width, channels)``, fitted to the model.
        out: The archive; written atomically.

    Returns:
        The number of images.

    Raises:
        ValueError: There are no images, one does not fit, or the file cannot be read or has
            other outputs than the probabilities of one image.
    """
    classifier = Classifier(model)
    io_spec = classifier.io_spec
    if dataclasses.replace(io_spec, io="float32") != UNIVERSAL:
        raise ValueError(
            f"A golden output is all probabilities of one image, and {model} is from {io_spec}: "
            "convert without --batch, --logits and --top-k"
        )
    pictures = list(images)
    if not pictures:
        raise ValueError("There are no images to write. Pass some that are fitted to the model.")
    answers = classifier.probabilities(np.stack(pictures))
    decided = decisions(answers, classifier.contract)
    several = classifier.contract.task == "multi"
    numbers = [np.flatnonzero(row).tolist() if several else int(row) for row in decided]
    description = {
        "model": Path(model).name,
        "input": {"dtype": io_spec.io, "shape": [1, *pictures[0].shape]},
        "output": {"dtype": "float32", "shape": [1, answers.shape[1]]},
        "tolerance": TOLERANCE,
        "labels_given" if several else "top1": numbers,
        "labels": list(classifier.contract.labels),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        _add(archive, "golden.json", json.dumps(description, indent=1, ensure_ascii=False).encode())
        for number, (picture, answer) in enumerate(zip(pictures, answers)):
            pixels = io_spec.as_input(picture)
            little = pixels.astype(pixels.dtype.newbyteorder("<"))
            _add(archive, f"{number:04}.input.bin", little.tobytes())
            _add(archive, f"{number:04}.output.bin", answer.astype("<f4").tobytes())
    with atomic_write(Path(out)) as temporary:
        temporary.write_bytes(content.getvalue())
    return len(pictures)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
