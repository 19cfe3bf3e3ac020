"""Colour jitter."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from training.data.augment import tone


def color_jitter(image: tf.Tensor, reach: tuple[float, ...], seed: tf.Tensor) -> tf.Tensor:
    """Random brightness, contrast, saturation and hue, in random order.

    Howard 2013, arXiv:1312.5402, section 2; torchvision's ``ColorJitter``.

    Args:
        image: uint8 ``(height, width, channels)``.
        reach: ``(brightness, contrast, saturation, hue)``. The first three are 0–1: factors are
            uniform on 1 ± reach. The hue's is 0–0.5: it turns by ± that share of the circle.
        seed: int64 ``(2,)``.
    """
    *factors, turn = reach
    draws = tf.random.stateless_uniform((2, 4), seed)
    order = tf.argsort(draws[0])
    change = tf.constant([*factors, turn]) * (2 * draws[1] - 1)
    steps: list[Callable[[tf.Tensor], tf.Tensor]] = [
        lambda image: tone.brightness(image, 1 + change[0]),
        lambda image: tone.contrast(image, 1 + change[1]),
        lambda image: tone.saturation(image, 1 + change[2]),
        lambda image: tone.hue(image, change[3]),
    ]
    # Operations without reach are skipped.
    steps = [step if amount else _unchanged for step, amount in zip(steps, reach)]
    for place in range(4):
        now = image
        branches = [lambda step=step, now=now: step(now) for step in steps]
        image = tf.ensure_shape(tf.switch_case(order[place], branches), now.shape)
    return image


def _unchanged(image: tf.Tensor) -> tf.Tensor:
    return image
