"""Screening of many image files in a TensorFlow graph, with as little time per file as possible.

The graph tells only which files it can decode; why it cannot decode the others is for a slower
check, one file at a time: see ``training/data/validate_images.py``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.pictures import PNG_SIGNATURE
from training.data.decode import png_pixels, starts

# Pictures with more pixels are left to the slower check, which limits the memory that they take.
PIXELS = 32_000_000
# The same for larger files.
FILE_BYTES = 2**28


def screen(paths: Sequence[str]) -> np.ndarray:
    """Which files TensorFlow decodes as JPEG or PNG.

    Args:
        paths: Of files that are at most ``FILE_BYTES`` large.

    Returns:
        bool ``(len(paths),)``. ``False`` says nothing about a file: it may be of another format,
        damaged, too large, or unreadable.
    """
    decoded = np.zeros(len(paths), bool)
    try:
        numbers = _graph()(as_tensor(paths)).numpy()
    except tf.errors.OpError:  # such as too little memory: each file is then checked by itself
        return decoded
    decoded[numbers[numbers >= 0]] = True
    return decoded


def as_tensor(paths: Sequence[str]) -> tf.Tensor:
    """Paths for TensorFlow's file operations, a string ``(len(paths),)``.

    As bytes, since names of files need not be UTF-8.
    """
    return tf.constant(np.array([os.fsencode(path) for path in paths], dtype=object), "string")


@functools.cache
def _graph() -> Callable[[tf.Tensor], tf.Tensor]:
    """Traced once, so that a block of files costs no more than reading and decoding them."""
    threads = 2 * (os.cpu_count() or 1)  # while some of them wait for the disk

    @tf.function(input_signature=[tf.TensorSpec((None,), "string")], autograph=False)
    def decodable(paths: tf.Tensor) -> tf.Tensor:
        numbers = (
            tf.data.Dataset.from_tensor_slices(paths)
            .enumerate()
            .map(_number_if_decodable, num_parallel_calls=threads, deterministic=False)
            .ignore_errors()
        )
        # One element before the others: none is an error for get_single_element.
        numbers = tf.data.Dataset.from_tensors(tf.constant(-1, "int64")).concatenate(numbers)
        return numbers.batch(tf.size(paths, "int64") + 1).get_single_element()

    return decodable


def _number_if_decodable(number: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
    """The number; an error if the file is not a JPEG or PNG that can be decoded.

    The number is computed from the pixels. If it only had a control dependency on them, TensorFlow
    would not decode at all: its optimizer removes operations whose result is not used.
    """
    image = tf.io.read_file(path)
    height = tf.cond(tf.io.is_jpeg(image), lambda: _jpeg(image), lambda: _png(image))
    return number + tf.cast(tf.minimum(height, 0), "int64")


def _jpeg(image: tf.Tensor) -> tf.Tensor:
    """The height of the decoded picture."""
    shape = tf.cast(tf.io.extract_jpeg_shape(image), "int64")
    # Reads all of the file, but computes only an eighth of each dimension.
    pixels = tf.io.decode_jpeg(_if_small(image, shape[0] * shape[1]), 3, ratio=8)
    return tf.shape(pixels)[0]


def _png(image: tf.Tensor) -> tf.Tensor:
    """The height of the picture. ``decode_png`` would also read a GIF."""
    pixels = tf.where(starts(image, PNG_SIGNATURE), png_pixels(image), PIXELS + 1)
    return tf.shape(tf.io.decode_png(_if_small(image, pixels), 3))[0]


def _if_small(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """The image; an error if it has more than ``PIXELS`` pixels.

    A length out of range, which takes less time than ``tf.debugging.Assert``.
    """
    start = tf.where(pixels > PIXELS, tf.strings.length(image) + 1, 0)
    return tf.strings.substr(image, start, tf.strings.length(image))
