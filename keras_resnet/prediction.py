"""A model's outputs for any number of images, in bounded memory, on any Keras backend."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from keras_resnet.complexity import activation_bytes

MOST_IMAGES = 128
# Of the largest activation of a batch. A compiled function frees an activation after its last use,
# so that about four of this size exist at once.
LARGEST_ACTIVATION = 128 * 2**20

Predictor = Callable[[np.ndarray], np.ndarray]


def batch_size(model: keras.Model, most: int = MOST_IMAGES) -> int:
    """Images that the model computes at once: ``most``, or fewer if its activations are large.

    Args:
        model: A functional model.
        most: Upper limit.

    Returns:
        At least 1; 1 too for a model without a fixed input size.
    """
    largest = max(activation_bytes(layer) for layer in model.layers)
    return int(max(1, min(most, LARGEST_ACTIVATION // largest)))


def predictor(model: keras.Model, size: int | None = None) -> Predictor:
    """A compiled function from pixels to outputs, in inference mode.

    An eager call keeps every activation until it returns; a compiled one does not.

    Args:
        model: A functional model.
        size: Images computed at once; ``batch_size(model)`` by default.

    Returns:
        A function from ``(images, height, width, channels)`` of any number of images and any
        numeric type to outputs ``(images, …)``. It computes ``size`` images at a time. If there
        are fewer images than in an earlier batch, they are padded to its size, so that nothing is
        compiled again.
    """
    size = size or batch_size(model)
    compiled = 0  # images for which the function is compiled

    def batch(pixels: np.ndarray) -> np.ndarray:
        nonlocal compiled
        count = len(pixels)
        compiled = max(compiled, count)
        padded = np.zeros((compiled, *pixels.shape[1:]), "float32")
        padded[:count] = pixels
        return np.asarray(model.predict_on_batch(padded))[:count]

    def predict(pixels: np.ndarray) -> np.ndarray:
        starts = range(0, max(1, len(pixels)), size)
        return np.concatenate([batch(pixels[start : start + size]) for start in starts])

    return predict


def in_top(outputs: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Whether a class is among the ``count`` most probable ones of each image.

    Of equal outputs the first class counts as the more probable one; NaN is the least probable.

    Args:
        outputs: ``(images, classes)``.
        classes: The class to look for, ``(images,)``.
        count: Such as 5.

    Returns:
        Booleans, ``(images,)``.
    """
    # By rank, not by sorting, which takes far longer for 10,000 classes.
    outputs = np.where(np.isnan(outputs), -np.inf, outputs)
    own = np.take_along_axis(outputs, classes[:, np.newaxis], axis=1)
    before = np.arange(outputs.shape[1]) < classes[:, np.newaxis]
    return ((outputs > own) | ((outputs == own) & before)).sum(axis=1) < count
