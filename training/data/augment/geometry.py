"""Where pixels move: shear, translation, rotation, with grey where nothing was.

A magnitude of either sign goes either way. Each pixel is the nearest of the input, as in Cubuk et
al.'s own code and by default in torchvision. Images are uint8 ``(height, width, channels)`` of
known size.
"""

from __future__ import annotations

import math

import tensorflow as tf

# The grey of Cubuk et al.'s code.
FILL = 128


def shear_x(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves each row sideways by ``level`` pixels for each pixel that it lies below the first."""
    return _warp(image, [1.0, level, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves each column by ``level`` pixels for each pixel that it lies right of the first."""
    return _warp(image, [1.0, 0.0, 0.0, level, 1.0, 0.0])


def translate_x(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Moves the image to the right by whole pixels; to the left where negative."""
    return _translate(image, pixels, axis=1)


def translate_y(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Moves the image down by whole pixels; up where negative."""
    return _translate(image, pixels, axis=0)


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns the image about its centre, counter-clockwise; clockwise where negative."""
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = ((length - 1) / 2 for length in image.shape[:2])
    return _warp(image, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])


def _translate(image: tf.Tensor, pixels: tf.Tensor, axis: int) -> tf.Tensor:
    # Whole pixels need no interpolation, which is most of a warp's cost.
    shape = tf.shape(image)
    pixels = tf.clip_by_value(tf.cast(pixels, "int32"), -shape[axis], shape[axis])
    before, after = tf.maximum(pixels, 0), tf.maximum(-pixels, 0)
    along = tf.one_hot(axis, 3, dtype="int32")
    kept = tf.slice(image, along * after, shape - along * (before + after))
    padding = tf.stack([along * before, along * after], axis=1)
    moved = tf.pad(kept, padding, constant_values=FILL)
    return tf.ensure_shape(moved, image.shape)


def _warp(image: tf.Tensor, coefficients: list) -> tf.Tensor:
    """The output's (x, y) is the input's nearest to (a·x + b·y + c, d·x + e·y + f)."""
    a, b, c, d, e, f = coefficients
    height, width = image.shape[:2]
    x = tf.range(width, dtype="float32")[tf.newaxis]
    y = tf.range(height, dtype="float32")[:, tf.newaxis]
    column = tf.clip_by_value(tf.round(a * x + (b * y + c)), -1.0, width)
    row = tf.clip_by_value(tf.round(d * x + (e * y + f)), -1.0, height)
    # Pixels of a frame of grey around the image, fetched whole: four times as fast as the
    # kernel that TensorFlow has for this.
    framed = tf.pad(image, [(1, 1), (1, 1), (0, 0)], constant_values=FILL)
    pixels = tf.reshape(framed, (-1, image.shape[-1]))
    return tf.gather(pixels, tf.cast((row + 1) * (width + 2) + (column + 1), "int32"))
