"""Pictures that TensorFlow does not decode, or not without printing, decoded by Pillow."""

from __future__ import annotations

import io
import os

import tensorflow as tf


def read_by_pillow(path: tf.Tensor) -> tf.Tensor:
    """The picture in a file as the bytes of a BMP, which TensorFlow decodes.

    Args:
        path: string ``()``.

    Returns:
        string ``()``.
    """
    image = tf.numpy_function(_as_bmp, [path], "string")
    return tf.ensure_shape(image, ())


def _as_bmp(path: bytes) -> bytes:
    from PIL import Image

    written = io.BytesIO()
    with Image.open(os.fsdecode(path)) as picture:
        picture.convert("RGB").save(written, "BMP")
    return written.getvalue()
