"""Real inputs with the answers that a device must give, for a test there."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tflite.classifier import Classifier

# Kernels round differently from one processor to the next: five steps of int8's 1/256.
TOLERANCE = 5 / 256


def write_golden(
    model: str | os.PathLike[str],
    images: Iterable[np.ndarray],
    out: str | os.PathLike[str],
) -> int:
    """Writes a zip archive that a test on any device can read without NumPy.

    In it, for each image, ``<number>.input.bin`` is what goes into the model's input tensor,
    float32 in the device's usual byte order (little), and ``<number>.output.bin`` what must come
    out; ``golden.json`` tells shapes, labels and the tolerance.

    Args:
        model: A .tflite file with a contract.
        images: uint8 ``(height, width, channels)``, fitted to the model.
        out: The archive; written whole or not at all.

    Returns:
        The number of images.

    Raises:
        ValueError: There are no images, one does not fit, or the file is not readable.
    """
    classifier = Classifier(model)
    pictures = list(images)
    if not pictures:
        raise ValueError("There are no images to keep. Pass some that are fitted to the model.")
    answers = classifier.probabilities(np.stack(pictures))
    told = {
        "model": Path(model).name,
        "input": {"dtype": "float32", "shape": [1, *pictures[0].shape]},
        "output": {"dtype": "float32", "shape": [1, answers.shape[1]]},
        "tolerance": TOLERANCE,
        "top1": [int(answer.argmax()) for answer in answers],
        "labels": list(classifier.contract.labels),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        _add(archive, "golden.json", json.dumps(told, indent=1, ensure_ascii=False).encode())
        for number, (picture, answer) in enumerate(zip(pictures, answers)):
            _add(archive, f"{number:04}.input.bin", picture.astype("<f4").tobytes())
            _add(archive, f"{number:04}.output.bin", answer.astype("<f4").tobytes())
    out = Path(out)
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.write_bytes(content.getvalue())
        os.replace(partial, out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return len(pictures)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
