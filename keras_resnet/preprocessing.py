"""Image files to arrays, arrays to model input, model outputs to class names.

The model's contract alone defines the computation; see ``keras_resnet.contract``.
"""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from keras_resnet import pictures
from keras_resnet.contract import IMAGENET_MEAN, IMAGENET_STD, Contract, crop_box


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

    Args:
        predictions: ``(images, classes)`` probabilities.
        contract: The model's; without labels, classes are named by their index.
        top: Number of classes per image; all if there are fewer.

    Returns:
        For each image a list of ``(label, probability)``.

    Raises:
        ValueError: The shape does not match the contract's labels, or ``top`` is below 1.
    """
    predictions = keras.ops.convert_to_numpy(predictions)
    if predictions.ndim != 2:
        raise ValueError(f"predictions must be (images, classes). Received: {predictions.shape}")
    if top < 1:
        raise ValueError(f"top must be at least 1. Received: top={top!r}")
    if contract.labels and len(contract.labels) != predictions.shape[1]:
        raise ValueError(
            f"The contract names {len(contract.labels)} labels. "
            f"Received: predictions of shape {predictions.shape}"
        )
    labels = contract.labels or [str(i) for i in range(predictions.shape[1])]
    best = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [[(labels[i], float(row[i])) for i in order] for row, order in zip(predictions, best)]


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
        box = keras.ops.image.resize(
            box.astype("float32"),
            (contract.height, contract.width),
            interpolation=contract.interpolation,
            antialias=True,
            data_format="channels_last",
        )
    return np.clip(np.rint(keras.ops.convert_to_numpy(box)), 0, 255).astype("uint8")
