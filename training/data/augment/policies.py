"""RandAugment and TrivialAugment: random operations of given or random strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from training.data.augment import geometry, tone

# Strengths are steps 0–30, as in both papers' code and in torchvision.
STEPS = 30


@dataclass(frozen=True)
class Operation:
    """An operation on an image.

    Attributes:
        name: Name in the papers.
        apply: From uint8 ``(height, width, channels)`` and a scalar to the same shape.
        reach: The scalar at full strength; proportional to the strength.
        signed: Whether half of the images get the opposite sign.
    """

    name: str
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    reach: float = 0.0
    signed: bool = False


def randaugment_operations(size: int) -> tuple[Operation, ...]:
    """The fourteen of Cubuk et al. 2019, arXiv:1909.13719, section 3, with torchvision's ranges.

    Shear ±0.3, translation ±150/331 of the size, rotation ±30°, factors of brightness,
    colour, contrast and sharpness 1 ± 0.9, posterize down to 4 bits, solarize from 255 down
    to 0.
    """
    return _operations(0.3, size * 150 / 331, 30.0, 0.9, 4)


def trivialaugment_operations() -> tuple[Operation, ...]:
    """The same in the *wide* ranges of Müller & Hutter 2021, arXiv:2103.10158, table 1.

    Shear ±0.99, translation ±32 pixels whatever the size, rotation ±135°, factors 1 ± 0.99,
    posterize down to 2 bits, solarize from 255 down to 0.
    """
    return _operations(0.99, 32.0, 135.0, 0.99, 6)


def randaugment(image: tf.Tensor, layers: int, magnitude: float, seed: tf.Tensor) -> tf.Tensor:
    """``layers`` operations one after another, all of one strength (Cubuk et al. 2019).

    Args:
        image: uint8 ``(height, width, channels)``.
        layers: The paper's N, at least 1.
        magnitude: The paper's M, 0–30. timm's 0–10 is the same in thirds: its 9 is 27 here.
        seed: int64 ``(2,)``.
    """
    operations = randaugment_operations(image.shape[1])
    draws = tf.random.stateless_uniform((layers, 2), seed)
    for layer in range(layers):
        choice, sign = draws[layer, 0], draws[layer, 1]
        image = _apply_one(image, operations, choice, sign, tf.constant(magnitude / STEPS))
    return image


def trivialaugment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """One operation of random strength (Müller & Hutter 2021, algorithm 1).

    Args:
        image: uint8 ``(height, width, channels)``.
        seed: int64 ``(2,)``.
    """
    operations = trivialaugment_operations()
    choice, sign, strength = tf.unstack(tf.random.stateless_uniform((3,), seed))
    strength = tf.floor(strength * (STEPS + 1)) / STEPS
    return _apply_one(image, operations, choice, sign, strength)


def _operations(
    shear: float, translation: float, degrees: float, factor: float, bits: int
) -> tuple[Operation, ...]:
    return (
        Operation("Identity", lambda image, _: image),
        Operation("ShearX", geometry.shear_x, shear, signed=True),
        Operation("ShearY", geometry.shear_y, shear, signed=True),
        Operation("TranslateX", geometry.translate_x, translation, signed=True),
        Operation("TranslateY", geometry.translate_y, translation, signed=True),
        Operation("Rotate", geometry.rotate, degrees, signed=True),
        Operation("Brightness", _around_one(tone.brightness), factor, signed=True),
        Operation("Color", _around_one(tone.saturation), factor, signed=True),
        Operation("Contrast", _around_one(tone.contrast), factor, signed=True),
        Operation("Sharpness", _around_one(tone.sharpness), factor, signed=True),
        Operation("Posterize", lambda image, cut: tone.posterize(image, 8 - tf.round(cut)), bits),
        Operation("Solarize", lambda image, by: tone.solarize(image, 255 - by), 255.0),
        Operation("AutoContrast", lambda image, _: tone.autocontrast(image)),
        Operation("Equalize", lambda image, _: tone.equalize(image)),
    )


def _around_one(
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return lambda image, change: apply(image, 1 + change)


def _apply_one(
    image: tf.Tensor,
    operations: tuple[Operation, ...],
    choice: tf.Tensor,
    sign: tf.Tensor,
    strength: tf.Tensor,
) -> tf.Tensor:
    """``choice`` and ``sign`` are uniform on 0–1, and ``strength`` goes from 0 to 1."""
    direction = tf.where(sign < 0.5, -1.0, 1.0)

    def branch(operation: Operation) -> Callable[[], tf.Tensor]:
        value = strength * operation.reach * (direction if operation.signed else 1.0)
        return lambda: operation.apply(image, value)

    index = tf.cast(choice * len(operations), "int32")
    changed = tf.switch_case(index, [branch(operation) for operation in operations])
    return tf.ensure_shape(changed, image.shape)
