"""Variations of training images: each image its own, a pure function of its seed.

Every function takes one image ``(height, width, channels)`` of pixels 0–255 and a stateless
seed ``(2,)``, so that the same seed gives the same image on any machine and after any restart.
"""

from __future__ import annotations

import tensorflow as tf

from training.config import AugmentConfig


def augment(image: tf.Tensor, size: int, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """The variations that come after fitting: pad and crop, flip.

    Args:
        image: Fitted to ``(size, size, channels)``.
        size: Height and width in pixels.
        config: What to do.
        seed: int64 ``(2,)``.

    Returns:
        An image of the same shape and type.
    """
    seeds = tf.random.split(seed, 2)
    if config.crop == "pad" and config.padding:
        image = random_shift(image, size, config.padding, seeds[0])
    if config.flip:
        image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    return image


def random_shift(image: tf.Tensor, size: int, padding: int, seed: tf.Tensor) -> tf.Tensor:
    """Pads by zeros on each side and takes a window of the original size."""
    padded = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    return tf.image.stateless_random_crop(padded, (size, size, image.shape[-1]), seed)


def random_resized_crop(image: tf.Tensor, size: int, min_area: float, seed: tf.Tensor) -> tf.Tensor:
    """A box of random area and aspect ratio, resized to ``size`` × ``size``, as float32."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    box = tf.slice(image, begin, extent)
    box.set_shape((None, None, image.shape[-1]))
    return tf.image.resize(box, (size, size), antialias=True)
