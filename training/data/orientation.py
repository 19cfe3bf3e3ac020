"""EXIF orientation in a TensorFlow graph: as ``keras_resnet/pictures.py`` reads and applies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_resnet.pictures import EXIF_HEADER, EXIF_WITHIN, ORIENTATION_TAG

# Orientations whose rows, and whose columns, are reversed, after the exchange of both from 5 on.
REVERSED = ((3, 4, 7, 8), (2, 3, 6, 7))
# What a walk over segments finds.
WALKING, FOUND, NONE = 0, 1, 2


def rarely(branch: Callable[[], Any]) -> Callable[[], Any]:
    """A branch of a condition that few images take, as a function that is not inlined.

    TensorFlow visits every operation of an inlined branch for each image, also if the branch is
    not taken.
    """
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})


def turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored picture ``(height, width, channels)`` upright; ``pictures.turn`` in a graph.

    Args:
        pixels: Of any type.
        orientation: int32 scalar, 1 to 8.
    """

    def turned(number: int) -> tf.Tensor:
        result = tf.transpose(pixels, (1, 0, 2)) if number >= 5 else pixels
        axes = [axis for axis, numbers in enumerate(REVERSED) if number in numbers]
        return tf.reverse(result, axes) if axes else tf.identity(result)

    def turn_back() -> tf.Tensor:
        return tf.switch_case(orientation - 1, [lambda n=n: turned(n) for n in range(1, 9)])

    return tf.cond(tf.equal(orientation, 1), lambda: pixels, rarely(turn_back))


def upright_shape(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Height and width of the upright picture, int32 ``(2,)``, from those of the stored one."""
    return tf.where(orientation >= 5, shape[1::-1], shape[:2])


def stored_box(box: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Where a box of the upright picture lies in the stored one.

    Args:
        box: int32 top, left, height and width in the upright picture.
        shape: Height and width of the stored picture.
        orientation: int32 scalar, 1 to 8.

    Returns:
        int32 top, left, height and width in the stored picture.
    """
    tall, wide = tf.unstack(upright_shape(shape, orientation))
    top, left, height, width = tf.unstack(box)
    top = tf.where(_is_one_of(orientation, 3, 4, 7, 8), tall - top - height, top)
    left = tf.where(_is_one_of(orientation, 2, 3, 6, 7), wide - left - width, left)
    return tf.where(
        orientation >= 5, tf.stack([left, top, width, height]), tf.stack([top, left, height, width])
    )


def jpeg_orientation(image: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, an int32 scalar; 1 if there is none or it is damaged."""
    # A search, which takes some microseconds, spares most files of data sets the walk over their
    # segments, which takes some hundreds.
    found = _contains(tf.strings.substr(image, 0, EXIF_WITHIN), r"Exif\x00\x00")
    return tf.cond(found, rarely(lambda: exif_orientation(_jpeg_exif(image))), _upright)


def png_orientation(image: tf.Tensor) -> tf.Tensor:
    """The same of a PNG, which holds EXIF in a chunk ``eXIf``."""
    found = _contains(image, "eXIf")
    return tf.cond(found, rarely(lambda: exif_orientation(_png_exif(image))), _upright)


def exif_orientation(exif: tf.Tensor) -> tf.Tensor:
    """The orientation in an EXIF block, a string scalar; ``pictures.exif_orientation``."""
    length = tf.cast(tf.strings.length(exif), "int64")
    little = tf.equal(tf.strings.substr(exif, 0, 4), b"II*\0")
    big = tf.equal(tf.strings.substr(exif, 0, 4), b"MM\0*")

    def numbers(block: tf.Tensor) -> tf.Tensor:
        """Unsigned integers in the last axis of bytes."""
        powers = [256**i for i in range(block.shape[-1])]
        weights = tf.where(little, tf.constant(powers, "int64"), tf.constant(powers[::-1], "int64"))
        return tf.reduce_sum(block * weights, -1)

    def read_bytes(at: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.io.decode_raw(tf.strings.substr(exif, at, count), "uint8"), "int64")

    def read() -> tf.Tensor:
        begin = numbers(tf.ensure_shape(read_bytes(4, 4), (4,)))
        return tf.cond(begin + 2 <= length, lambda: in_directory(begin), _upright)

    def in_directory(begin: tf.Tensor) -> tf.Tensor:
        count = numbers(tf.ensure_shape(read_bytes(begin, tf.constant(2, "int64")), (2,)))
        whole = tf.minimum(count, (length - begin - 2) // 12)
        entries = tf.reshape(read_bytes(begin + 2, 12 * whole), (-1, 12))
        tags, kinds = numbers(entries[:, :2]), numbers(entries[:, 2:4])
        counts, values = numbers(entries[:, 4:8]), numbers(entries[:, 8:10])
        is_it = tf.equal(tags, ORIENTATION_TAG) & tf.equal(kinds, 3) & tf.equal(counts, 1)
        value = tf.concat([[1], tf.boolean_mask(values, is_it)], 0)[-1]
        return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), "int32")

    return tf.cond((little | big) & (length >= 8), read, _upright)


def _jpeg_exif(image: tf.Tensor) -> tf.Tensor:
    """The first EXIF block among the application segments and comments at the beginning."""
    size = tf.strings.length(image)

    def more(at: tf.Tensor, _: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        return tf.equal(state, WALKING) & (at + 10 <= size)

    def step(at: tf.Tensor, _: tf.Tensor, __: tf.Tensor) -> tuple[tf.Tensor, ...]:
        text = tf.strings.substr(image, at, 10)
        read = tf.cast(tf.io.decode_raw(text, "uint8"), "int32")
        marker, length = read[1], read[2] * 256 + read[3]
        junk = tf.not_equal(read[0], 0xFF) | tf.equal(marker, 0xFF)
        alone = (marker <= 0x01) | (marker >= 0xD0) & (marker <= 0xD9)
        application = (marker >= 0xE0) & (marker <= 0xEF) | tf.equal(marker, 0xFE)
        name = tf.equal(tf.strings.substr(text, 4, 6), EXIF_HEADER)
        is_exif = tf.equal(marker, 0xE1) & tf.logical_not(junk) & name & (length >= 8)
        state = tf.where(is_exif, FOUND, tf.where(junk | alone | application, WALKING, NONE))
        forward = tf.where(junk, 1, tf.where(alone, 2, tf.where(is_exif, 10, 2 + length)))
        return at + forward, length - 8, state

    at, length, state = tf.while_loop(more, step, (2, 0, WALKING))
    return _part(image, at, length, tf.equal(state, FOUND))


def _png_exif(image: tf.Tensor) -> tf.Tensor:
    """The content of the first chunk ``eXIf``."""
    size = tf.cast(tf.strings.length(image), "int64")
    weights = tf.constant([2**24, 2**16, 2**8, 1], "int64")

    def more(at: tf.Tensor, _: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        return tf.equal(state, WALKING) & (at + 8 <= size)

    def step(at: tf.Tensor, _: tf.Tensor, __: tf.Tensor) -> tuple[tf.Tensor, ...]:
        read = tf.io.decode_raw(tf.strings.substr(image, at, 4), "uint8")
        length = tf.reduce_sum(tf.cast(read, "int64") * weights)
        name = tf.strings.substr(image, at + 4, 4)
        state = tf.where(
            tf.equal(name, b"eXIf"), FOUND, tf.where(tf.equal(name, b"IEND"), NONE, WALKING)
        )
        return (
            at + tf.where(tf.equal(state, FOUND), tf.constant(8, "int64"), 12 + length),
            length,
            state,
        )

    zero = tf.constant(0, "int64")
    at, length, state = tf.while_loop(more, step, (zero + 8, zero, WALKING))
    return _part(image, at, length, tf.equal(state, FOUND))


def _contains(image: tf.Tensor, pattern: str) -> tf.Tensor:
    without = tf.strings.regex_replace(image, pattern, "", replace_global=False)
    return tf.strings.length(without) < tf.strings.length(image)


def _part(image: tf.Tensor, at: tf.Tensor, length: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    return tf.cond(found, lambda: tf.strings.substr(image, at, length), lambda: tf.constant(b""))


def _is_one_of(orientation: tf.Tensor, *numbers: int) -> tf.Tensor:
    return tf.reduce_any(tf.equal(orientation, numbers))


def _upright() -> tf.Tensor:
    return tf.constant(1)
