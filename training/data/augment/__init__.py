"""Augmentation of training images, a pure function of each image's seed.

Every function takes pixels 0–255 and a stateless seed, int64 ``(2,)``: the same seed gives the same
image on any host and after any restart. Images stay uint8 between operations: a quarter of the
memory traffic of float32, rounded as Pillow rounds.
"""

from __future__ import annotations

import tensorflow as tf

from training.config import AugmentConfig
from training.data.augment.crop import pad_crop
from training.data.augment.erasing import random_erasing
from training.data.augment.jitter import color_jitter
from training.data.augment.mix import mix
from training.data.augment.policies import randaugment, trivialaugment

__all__ = ["augment", "mix"]


def augment(image: tf.Tensor, size: int, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """Augments an image of its final size.

    In this order: pad and crop, flip, colour jitter, RandAugment or TrivialAugment, random
    erasing; each if configured.

    Args:
        image: uint8 ``(size, size, channels)``, 0–255, of 1 or 3 channels.
        size: Height and width in pixels.
        config: The operations.
        seed: int64 ``(2,)``, different for every image and epoch.

    Returns:
        An image of the same shape and type.
    """
    seeds = tf.random.split(seed, 5)
    if config.crop == "pad" and config.padding:
        image = pad_crop(image, size, config.padding, seeds[0])
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
