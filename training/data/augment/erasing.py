"""Random erasing."""

from __future__ import annotations

import math

import tensorflow as tf

AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)
TRIES = 10


def random_erasing(image: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Replaces a box by noise (Zhong et al. 2017, arXiv:1708.04896, algorithm 1).

    Its area is uniform on 2 % to a third of the image, its height over width log-uniform on
    0.3 to 3.33, and each of its values uniform on 0–255, the best choice in the paper. Areas and
    ratios of boxes that do not fit are drawn again, up to ten times; then the image is unchanged,
    as in torchvision.

    Args:
        image: uint8 ``(height, width, channels)``.
        probability: Share of the images that are erased, 0–1.
        seed: int64 ``(2,)``.
    """
    seeds = tf.random.split(seed, 2)
    draws = tf.random.stateless_uniform((TRIES + 1, 2), seeds[0])
    height, width = _box(tf.shape(image), draws[1:])
    erased = draws[0, 0] < probability
    return tf.cond(
        erased & (height > 0), lambda: _erase(image, height, width, seeds[1]), lambda: image
    )


def _box(shape: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of the first drawn box that fits; zero if none does."""
    size = tf.cast(shape[:2], "float32")
    area = (AREA[0] + draws[:, 0] * (AREA[1] - AREA[0])) * size[0] * size[1]
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = tf.exp(low + draws[:, 1] * (high - low))
    boxes = tf.round(tf.sqrt(tf.stack([area * ratio, area / ratio], axis=1)))
    fits = tf.reduce_all((boxes < size) & (boxes >= 1), axis=1)
    first = tf.cast(boxes[tf.argmax(fits)], "int32") * tf.cast(tf.reduce_any(fits), "int32")
    return first[0], first[1]


def _erase(image: tf.Tensor, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    seeds = tf.random.split(seed, 2)
    place = tf.random.stateless_uniform((2,), seeds[0])
    room = tf.cast(tf.shape(image)[:2] - [height, width] + 1, "float32")
    top, left = tf.unstack(tf.cast(place * room, "int32"))
    # Concatenated from slices, which is a copy; a mask would have to be computed.
    band = image[top : top + height]
    noise = _noise((height, width, image.shape[-1]), seeds[1])
    band = tf.concat([band[:, :left], noise, band[:, left + width :]], axis=1)
    erased = tf.concat([image[:top], band, image[top + height :]], axis=0)
    return tf.ensure_shape(erased, image.shape)


def _noise(shape: tuple, seed: tf.Tensor) -> tf.Tensor:
    """Uniform bytes, four from each random number."""
    count = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform([(count + 3) // 4], seed, None, None, "int32")
    return tf.reshape(tf.reshape(tf.bitcast(words, "uint8"), [-1])[:count], shape)
