"""The order in which training images are seen: a pure function of seed, epoch and position.

Nothing here has a state that a crash could lose: to go on from the middle of an epoch, the order
of that epoch is computed again and what was seen is passed over, without decoding any of it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``count`` indices, int64.

    It sorts the raw words of PCG64 (O'Neill 2014, HMC-CS-2014-0905), which NumPy keeps the same
    in all its versions, unlike ``Generator.permutation`` (NEP 19).
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(words, kind="stable")


def ordered_indices(
    count: int,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    step: int = 0,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Endless pairs of int64 scalars ``(epoch, index)``, from a given step on.

    Every epoch has ``count // batch_size`` whole batches; the few images left over are others
    in each epoch.

    Args:
        count: Number of images.
        batch_size: Images a step.
        seed: The run's.
        epoch: Epoch to begin with, from 0.
        step: Steps of it to pass over.
        share: Number, from 0, and count of the equal shares of each batch of which one is read.
    """
    steps, (number_of_share, shares) = count // batch_size, share
    seen, size = steps * batch_size, batch_size // shares

    def order(epoch: np.ndarray) -> np.ndarray:
        batches = epoch_order(count, seed, int(epoch))[:seen].reshape(steps, shares, size)
        return np.ascontiguousarray(batches[:, number_of_share]).ravel()

    def of_epoch(number: tf.Tensor) -> tf.data.Dataset:
        indices = tf.numpy_function(order, [number], "int64")
        indices = tf.ensure_shape(indices, (None,))
        begin = tf.where(number == epoch, step * size, 0)
        return tf.data.Dataset.from_tensor_slices(indices[begin:]).map(lambda i: (number, i))

    return tf.data.Dataset.range(epoch, np.iinfo("int64").max).flat_map(of_epoch)


def example_seed(seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """The stateless seed ``(2,)`` of one image in one epoch, int64."""
    return tf.stack([tf.constant(seed, "int64"), epoch * 2**32 + index])
