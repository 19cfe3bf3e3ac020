"""MixUp and CutMix: images and labels of a batch mixed with each other."""

from __future__ import annotations

import tensorflow as tf

from training.config import AugmentConfig


def mix(
    images: tf.Tensor, labels: tf.Tensor, config: AugmentConfig, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """MixUp or CutMix; if both are configured, one of them at random.

    Args:
        images: ``(batch, height, width, channels)``, of any numeric type.
        labels: float32 ``(batch, outputs)``, 0–1.
        config: ``mixup`` and ``cutmix``, each the α of its Beta distribution, 0 for none.
        seed: int64 ``(2,)``, different for every batch.

    Returns:
        float32 of the same shapes, with labels mixed as the images are, so that rows that sum to 1
        still do; the inputs unchanged if neither is configured.
    """
    if not (config.mixup or config.cutmix):
        return images, labels
    images = tf.cast(images, "float32")
    seeds = tf.random.split(seed, 2)
    if config.mixup and config.cutmix:
        return tf.cond(
            tf.random.stateless_uniform((), seeds[0]) < 0.5,
            lambda: mixup(images, labels, config.mixup, seeds[1]),
            lambda: cutmix(images, labels, config.cutmix, seeds[1]),
        )
    if config.mixup:
        return mixup(images, labels, config.mixup, seeds[1])
    return cutmix(images, labels, config.cutmix, seeds[1])


def mixup(
    images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """λ of each image and 1 − λ of another (Zhang et al. 2017, arXiv:1710.09412, section 2).

    λ is Beta(α, α), one per batch, as in the authors' code. The other image is the previous one of
    the batch, which is a random one because batches are shuffled.
    """
    share = beta(alpha, seed)
    return _blend(images, share), _blend(labels, share)


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A box from another image (Yun et al. 2019, arXiv:1905.04899, section 3.1, algorithm A1).

    The box covers 1 − λ of the image, with λ of Beta(α, α). Its centre is uniform over the image,
    parts outside are cut off, and labels are mixed by the area that is actually replaced. One box
    per batch, from the previous image of the batch.
    """
    seeds = tf.random.split(seed, 2)
    size = tf.cast(tf.shape(images)[1:3], "float32")
    half = size * tf.sqrt(1 - beta(alpha, seeds[0])) / 2
    centre = tf.random.stateless_uniform((2,), seeds[1]) * size
    begin = tf.cast(tf.maximum(tf.round(centre - half), 0), "int32")
    end = tf.cast(tf.minimum(tf.round(centre + half), size), "int32")
    rows = _between(tf.shape(images)[1], begin[0], end[0])
    columns = _between(tf.shape(images)[2], begin[1], end[1])
    box = rows[:, tf.newaxis] & columns[tf.newaxis]
    share = 1 - tf.reduce_mean(tf.cast(box, "float32"))
    mixed = tf.where(box[..., tf.newaxis], tf.roll(images, 1, axis=0), images)
    return mixed, _blend(labels, share)


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """A float32 scalar of the symmetric Beta(α, α), from two gammas."""
    # float64: for a small α both gammas may be too small for float32, and 0 / 0 not a number.
    a, b = tf.unstack(
        tf.random.stateless_gamma((2,), seed, tf.constant(alpha, "float64"), dtype="float64")
    )
    return tf.cast(a / (a + b), "float32")


def _blend(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return share * values + (1 - share) * tf.roll(values, 1, axis=0)


def _between(length: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    place = tf.range(length)
    return (place >= begin) & (place < end)
