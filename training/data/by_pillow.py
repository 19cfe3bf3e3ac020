"""Pictures that TensorFlow does not decode, or not without printing, decoded by Pillow."""

from __future__ import annotations

import os

import tensorflow as tf

from keras_resnet import pictures


def read_by_pillow(path: tf.Tensor) -> tf.Tensor:
    """The picture in a file as the bytes of a BMP, which also says how it is to be turned.

    Args:
        path: string ``()``.

    Returns:
        string ``()``.
    """
    image = tf.numpy_function(_as_bmp, [path], "string")
    return tf.ensure_shape(image, ())


def _as_bmp(path: bytes) -> bytes:
    return pictures.as_bmp(os.fsdecode(path))
