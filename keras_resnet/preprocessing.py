"""Image files to arrays, arrays to model input, model outputs to class names.

The model's contract alone defines the computation; see ``keras_resnet.contract``.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from keras_resnet import pictures
from keras_resnet.contract import (
    DEFAULT_THRESHOLD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Contract,
    crop_box,
)

# A probability may leave 0–1 by so much: half precision, or an average of rounded numbers.
ROUNDING = 1e-2


def preprocess_input(x: Any, contract: Contract | None = None) -> Any:
    """Normalizes raw pixels 0–255 for a model with ``normalization="outside"``.

    Args:
        x: ``(..., channels)``, RGB for three channels, 0–255, of any numeric type.
        contract: The model's (``model.contract``); ImageNet's mean and standard deviation
            by default. With ``normalization="inside"``, pixels are only converted to float32.

    Returns:
        float32 of the same shape, with the channels in the model's order.

    Raises:
        ValueError: The number of channels is not the contract's.
    """
    mean: tuple[float, ...]
    std: tuple[float, ...]
    if contract is None:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    elif contract.normalization == "inside":
        return keras.ops.convert_to_numpy(x).astype("float32")
    else:
        mean, std = contract.mean, contract.std
    x = keras.ops.convert_to_numpy(x).astype("float32")
    if x.shape[-1] != len(mean):
        raise ValueError(f"Expected {len(mean)} channels in the last axis. Received: {x.shape}")
    x = (x - np.array(mean, "float32")) / np.array(std, "float32")
    return x[..., ::-1] if contract is not None and contract.order == "bgr" else x


def decode_predictions(
    predictions: Any, contract: Contract, top: int = 5
) -> list[list[tuple[str, float]]]:
    """Labels and probabilities of the most probable classes, in descending order.

    Whether a label is given to an image, by the contract's thresholds, is what ``decide`` tells.

    Args:
        predictions: Probabilities ``(images, contract.outputs)``. For the task ``binary``, the one
            of the second label; both labels are returned, the first one with 1 − p.
        contract: The model's; without labels, classes are named by their index.
        top: Number of classes per image; all if there are fewer.

    Returns:
        For each image a list of ``(label, probability)``.

    Raises:
        ValueError: The shape does not match the contract's labels, the values are no probabilities
            (logits, for example), or ``top`` is below 1.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1. Received: top={top!r}")
    probabilities = class_probabilities(_checked(predictions, contract), contract)
    labels = _names(probabilities, contract)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [[(labels[i], float(row[i])) for i in order] for row, order in zip(probabilities, best)]


def decide(predictions: Any, contract: Contract) -> list[list[str]]:
    """The labels that a model gives to each image, by the contract's task and thresholds.

    Args:
        predictions: Probabilities ``(images, contract.outputs)``.
        contract: The model's; without labels, classes are named by their index.

    Returns:
        For each image its labels, the most probable one first. One label for the tasks ``single``
        (the most probable class) and ``binary`` (the second label from its threshold on); any
        number, or none, for ``multi``.

    Raises:
        ValueError: The shape does not match the contract's labels, or the values are no
            probabilities (logits, for example).
    """
    predictions = _checked(predictions, contract)
    labels, decided = _names(class_probabilities(predictions, contract), contract), []
    for row, given in zip(predictions, decisions(predictions, contract)):
        several = contract.task == "multi"
        numbers = [i for i in np.argsort(-row, kind="stable") if given[i]] if several else [given]
        decided.append([labels[i] for i in numbers])
    return decided


def decisions(predictions: np.ndarray, contract: Contract) -> np.ndarray:
    """What a model decides by the contract's task and thresholds, as numbers.

    Args:
        predictions: Probabilities ``(images, contract.outputs)``.
        contract: Task and thresholds; a threshold is 0.5 where the contract has none.

    Returns:
        The class of each image, int64 ``(images,)``; for the task ``multi`` whether it has each
        label, bool ``(images, classes)``.
    """
    if contract.task == "single":
        return predictions.argmax(axis=1)
    given = predictions >= np.array(contract.thresholds or DEFAULT_THRESHOLD, predictions.dtype)
    return given if contract.task == "multi" else given[:, 0].astype("int64")


def class_probabilities(predictions: np.ndarray, contract: Contract) -> np.ndarray:
    """A probability for each label, ``(images, classes)``: for the task ``binary`` 1 − p and p."""
    if contract.task != "binary":
        return predictions
    return np.concatenate([1 - predictions, predictions], axis=1)


def _checked(predictions: Any, contract: Contract) -> np.ndarray:
    predictions = keras.ops.convert_to_numpy(predictions)
    if predictions.ndim != 2:
        raise ValueError(f"predictions must be (images, classes). Received: {predictions.shape}")
    if contract.outputs and contract.outputs != predictions.shape[1]:
        raise ValueError(
            f"The contract names {len(contract.labels)} labels for {contract.outputs} outputs. "
            f"Received: predictions of shape {predictions.shape}"
        )
    if predictions.size and not np.all(np.abs(predictions - 0.5) <= 0.5 + ROUNDING):
        raise ValueError(
            "predictions must be probabilities, from 0 to 1. Received: "
            f"{predictions.min():g} to {predictions.max():g}. Of logits take keras.ops.softmax or "
            "keras.ops.sigmoid first"
        )
    return predictions


def _names(probabilities: np.ndarray, contract: Contract) -> tuple[str, ...]:
    return contract.labels or tuple(map(str, range(probabilities.shape[1])))


def load_image(source: str | os.PathLike[str] | bytes, contract: Contract) -> np.ndarray:
    """Reads an image and crops and resizes it for a model, as evaluation and SavedModel do.

    Args:
        source: Path or content of a picture: JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF or HEIC (with
            the extra ``heif``); ``keras_resnet/pictures.py`` says what becomes of its pixels.
        contract: The model's; ``orientation`` says whether the picture is turned upright.

    Returns:
        uint8 ``(height, width, channels)``, 0–255.

    Raises:
        ValueError: The file is missing, not an image or too large, or the model's input is
            neither RGB nor grayscale.
    """
    if contract.color == "raw":
        raise ValueError(
            f"The model takes {contract.channels} channels, which no picture file has. "
            "Pass an array (height, width, channels)."
        )
    return fit_image(pictures.decode(source, contract.channels, contract.orientation), contract)


def fit_image(image: np.ndarray, contract: Contract) -> np.ndarray:
    """Crops and resizes one image ``(height, width, channels)`` 0–255 by the contract's rule.

    Returns:
        uint8 ``(contract.height, contract.width, channels)``.
    """
    top, left, height, width = crop_box(image.shape[0], image.shape[1], contract)
    box = image[top : top + height, left : left + width]
    if box.shape[:2] != (contract.height, contract.width):
        # Cast by the backend: a large picture in float32 is then in memory once, and not twice.
        pixels = keras.ops.convert_to_tensor(np.ascontiguousarray(box))
        box = keras.ops.image.resize(
            keras.ops.cast(pixels, "float32"),
            (contract.height, contract.width),
            interpolation=contract.interpolation,
            antialias=True,
            data_format="channels_last",
        )
    return np.clip(np.rint(keras.ops.convert_to_numpy(box)), 0, 255).astype("uint8")
