"""Variations of training images: each image its own, a pure function of its seed.

Every function takes pixels 0–255 and a stateless seed, int64 ``(2,)``, so that the same seed gives
the same image on any machine and after any restart. Images stay uint8 from step to step: a
quarter of the memory traffic of float32, and rounded as Pillow's own operations round.
"""

from __future__ import annotations

import tensorflow as tf

from training.config import AugmentConfig
from training.data.augment.erasing import random_erasing
from training.data.augment.jitter import color_jitter
from training.data.augment.mix import mix
from training.data.augment.policies import randaugment, trivialaugment

__all__ = ["augment", "mix", "random_shift"]


def augment(image: tf.Tensor, size: int, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """What happens to an image of its final size, in this order.

    Pad and crop, flip, colour jitter, RandAugment or TrivialAugment, random erasing; each where
    the config asks for it.

    Args:
        image: uint8 ``(size, size, channels)``, 0–255, of 1 or 3 channels.
        size: Height and width in pixels.
        config: What to do.
        seed: int64 ``(2,)``, another one for every image and epoch.

    Returns:
        An image of the same shape and type.
    """
    seeds = tf.random.split(seed, 5)
    if config.crop == "pad" and config.padding:
        image = random_shift(image, size, config.padding, seeds[0])
    if config.flip:
        image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    if any(config.color_jitter):
        image = color_jitter(image, config.color_jitter, seeds[2])
    if config.policy == "randaugment":
        layers, magnitude = config.randaugment_layers, config.randaugment_magnitude
        image = randaugment(image, layers, magnitude, seeds[3])
    elif config.policy == "trivialaugment":
        image = trivialaugment(image, seeds[3])
    if config.erasing:
        image = random_erasing(image, config.erasing, seeds[4])
    return image


def random_shift(image: tf.Tensor, size: int, padding: int, seed: tf.Tensor) -> tf.Tensor:
    """Pads by zeros on each side and takes a window of the original size.

    He et al. 2015, arXiv:1512.03385, section 4.2: 4 pixels for images of 32.
    """
    padded = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    return tf.image.stateless_random_crop(padded, (size, size, image.shape[-1]), seed)
