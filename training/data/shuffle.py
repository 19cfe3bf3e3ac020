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


def balanced_order(classes: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many indices as there are images, each class as often as any other, int64.

    Where the number of classes does not divide that of images, some classes, others in each
    epoch, come once more. A class gives all of its images, in an order of its own, before it
    gives any of them again in the epoch.

    Args:
        classes: Class of each image, ``(count,)``; those without images are not drawn.
        seed: The run's.
        epoch: From 0.
    """
    count = len(classes)
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    turn = epoch_order(len(members), seed, epoch)  # who comes once more
    share, rest = divmod(count, len(members))
    draws = [
        _rounds(own, share + int(turn[c] < rest), [seed, epoch, c]) for c, own in enumerate(members)
    ]
    return np.concatenate(draws)[epoch_order(count, seed, epoch)]


def _rounds(members: np.ndarray, count: int, key: list[int]) -> np.ndarray:
    """So many of the members, in one random order after the other."""
    rounds = -(-count // len(members))
    words = np.random.PCG64(np.random.SeedSequence(key)).random_raw(rounds * len(members))
    orders = np.argsort(words.reshape(rounds, len(members)), axis=1, kind="stable")
    return members[orders.ravel()[:count]]


def ordered_indices(
    count: int,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    step: int = 0,
    share: tuple[int, int] = (0, 1),
    classes: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Endless int64 scalars ``(epoch, index, draw)``, from a given step on.

    Every epoch has ``count // batch_size`` whole batches; the few images left over are others
    in each epoch.

    Args:
        count: Number of images.
        batch_size: Images a step.
        seed: The run's.
        epoch: Epoch to begin with, from 0.
        step: Steps of it to pass over.
        share: Number, from 0, and count of the equal shares of each batch of which one is read.
        classes: Class of each image; if given, each class is drawn equally often.

    Returns:
        ``draw`` tells an image's appearances in an epoch apart: its index where it has only
        one, and otherwise its place in the epoch.
    """
    steps, (number_of_share, shares) = count // batch_size, share
    seen, size = steps * batch_size, batch_size // shares

    def order(epoch: np.ndarray) -> np.ndarray:
        if classes is None:
            indices = draws = epoch_order(count, seed, int(epoch))
        else:
            indices, draws = balanced_order(classes, seed, int(epoch)), np.arange(count)
        pairs = np.stack([indices, draws], axis=1)[:seen].reshape(steps, shares, size, 2)
        return np.ascontiguousarray(pairs[:, number_of_share]).reshape(-1, 2)

    def of_epoch(number: tf.Tensor) -> tf.data.Dataset:
        pairs = tf.ensure_shape(tf.numpy_function(order, [number], "int64"), (None, 2))
        begin = tf.where(number == epoch, step * size, 0)
        pairs = tf.data.Dataset.from_tensor_slices(pairs[begin:])
        return pairs.map(lambda pair: (number, pair[0], pair[1]))

    return tf.data.Dataset.range(epoch, np.iinfo("int64").max).flat_map(of_epoch)


def example_seed(seed: int, epoch: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """The stateless seed ``(2,)`` of one appearance of an image, int64."""
    return tf.stack([tf.constant(seed, "int64"), epoch * 2**32 + draw])
