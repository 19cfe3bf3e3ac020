"""Operations on pixel values: brightness, contrast, histograms.

Each is Pillow's operation of that name (``ImageEnhance``, ``ImageOps``) on uint8
``(height, width, channels)``, to within one grey level. A factor of 1 leaves the image as it is.

Many of these could be a table of 256 values, but TensorFlow looks up a table byte by byte on a CPU,
at five times the cost of the arithmetic; only ``equalize`` needs one. Nothing here broadcasts along
the channels either: loops over an axis of three are as slow.
"""

from __future__ import annotations

import tensorflow as tf

# ITU-R BT.601, as Pillow's "L".
LUMA = (0.299, 0.587, 0.114)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is black. As ``PIL.ImageEnhance.Brightness``."""
    return _pixels(tf.cast(image, "float32") * factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is the mean grey. As ``PIL.ImageEnhance.Contrast``."""
    values = tf.cast(image, "float32")
    means = _over_pixels(tf.reduce_mean, values)
    weights = LUMA if image.shape[-1] == 3 else (1.0,)
    grey = tf.floor(tf.tensordot(means, tf.constant(weights), 1) + 0.5)
    return _pixels(values * factor + grey * (1 - factor))


def saturation(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is grey; grayscale stays as it is. As ``PIL.ImageEnhance.Color``."""
    if image.shape[-1] == 1:
        return image
    grey = tf.tile(tf.constant(LUMA)[:, tf.newaxis], (1, 3))
    matrix = factor * tf.eye(3) + (1 - factor) * grey
    values = tf.cast(tf.reshape(image, (-1, 3)), "float32")
    return tf.reshape(_pixels(values @ matrix), tf.shape(image))


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """0 is smoothed, above 1 is sharpened; the outermost pixels stay as they are.

    As ``PIL.ImageEnhance.Sharpness``.
    """
    values = tf.cast(image, "float32")
    rows = values[:-2] + values[1:-1] + values[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = values[1:-1, 1:-1]
    change = (inner - (sums + 4 * inner) / 13) * (factor - 1)
    return _pixels(values + tf.pad(change, [(1, 1), (1, 1), (0, 0)]))


def hue(image: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turns the hue by a share of the circle, -0.5 to 0.5; grayscale stays as it is."""
    return image if image.shape[-1] == 1 else tf.image.adjust_hue(image, turn)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the upper ``bits`` of each value, 0 to 8. As ``PIL.ImageOps.posterize``."""
    mask = 256 - tf.bitwise.left_shift(1, 8 - tf.cast(bits, "int32"))
    return tf.bitwise.bitwise_and(image, tf.cast(mask, "uint8"))


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts values from ``threshold`` on, 0 to 256. As ``PIL.ImageOps.solarize``."""
    values = tf.cast(image, "float32")
    inverted = tf.clip_by_value(values - tf.math.ceil(threshold) + 1, 0.0, 1.0)
    return tf.cast(values + inverted * (255 - 2 * values), "uint8")


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0–255. As ``PIL.ImageOps.autocontrast``."""
    values = tf.cast(image, "float32")
    low, high = _over_pixels(tf.reduce_min, values), _over_pixels(tf.reduce_max, values)
    flat = high <= low
    scale = tf.where(flat, 1.0, 255 / tf.where(flat, 1.0, high - low))
    offset = tf.where(flat, 0.0, -low * scale)
    rows = _rows(values)
    width = tf.shape(image)[1]
    return tf.reshape(
        _pixels(rows * tf.tile(scale, [width]) + tf.tile(offset, [width])), tf.shape(image)
    )


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes each channel's histogram flat. As ``PIL.ImageOps.equalize``."""
    channels = image.shape[-1]
    offsets = tf.tile(tf.range(channels) * 256, [tf.shape(image)[1]])
    index = _rows(tf.cast(image, "int32")) + offsets
    counts = tf.raw_ops.DenseBincount(
        input=tf.reshape(index, [-1]),
        size=256 * channels,
        weights=tf.constant([], "int32"),
        binary_output=False,
    )
    table = _equalizing(tf.reshape(counts, (channels, 256)))
    return tf.reshape(tf.gather(tf.reshape(table, [-1]), index), tf.shape(image))


def _equalizing(counts: tf.Tensor) -> tf.Tensor:
    """Pillow's table for histograms ``(channels, 256)``, in its integers."""
    levels = tf.range(256)
    brightest = tf.reduce_max(tf.where(counts > 0, levels, 0), axis=1)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, brightest, batch_dims=1)) // 255
    step = step[:, tf.newaxis]
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step == 0, levels, table), "uint8")


def _over_pixels(reduce, values: tf.Tensor) -> tf.Tensor:  # type: ignore[no-untyped-def]
    """One figure per channel; over rows first, where the inner loop is long and fast."""
    return reduce(tf.reshape(reduce(_rows(values), axis=0), (-1, values.shape[-1])), axis=0)


def _rows(values: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(values)
    return tf.reshape(values, (shape[0], shape[1] * shape[2]))


def _pixels(values: tf.Tensor) -> tf.Tensor:
    # Truncated, not rounded, as in Pillow.
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), "uint8")
