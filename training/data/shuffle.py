"""The order of the training images: a pure function of seed, epoch and position.

There is no state that a crash could lose: to resume in the middle of an epoch, its order is
computed again, and the images already seen are skipped without decoding them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``count`` indices, int64.

    Sorts the raw words of PCG64 (O'Neill 2014, HMC-CS-2014-0905), which are the same in all
    versions of NumPy, unlike ``Generator.permutation`` (NEP 19).
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(words, kind="stable")


def balanced_order(classes: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many indices as there are images, with equally many of each class, int64.

    If the number of images is not divisible by that of classes, some classes, different ones in
    each epoch, occur once more. No image of a class recurs before all others of it were drawn.

    Args:
        classes: Class of each image, ``(count,)``.
        seed: Seed of the run.
        epoch: From 0.
    """
    count = len(classes)
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    rank = epoch_order(len(members), seed, epoch)  # the first classes occur once more
    share, rest = divmod(count, len(members))
    draws = [
        _rounds(own, share + int(rank[c] < rest), [seed, epoch, c]) for c, own in enumerate(members)
    ]
    return np.concatenate(draws)[epoch_order(count, seed, epoch)]


def _rounds(members: np.ndarray, count: int, key: list[int]) -> np.ndarray:
    """``count`` indices: random permutations of the members, one after the other."""
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
    """Infinite int64 scalars ``(epoch, index, draw)``, from a given step on.

    Every epoch has ``count // batch_size`` full batches; the remaining images are different ones
    in each epoch.

    Args:
        count: Number of images.
        batch_size: Images per step.
        seed: Seed of the run.
        epoch: First epoch, from 0.
        step: Steps of it to skip.
        share: Number, from 0, and count of the equal shares of each batch; only this one is read.
        classes: Class of each image; if given, each class is drawn equally often.

    Returns:
        ``draw`` identifies the occurrence of an image in an epoch: its index if it occurs once,
        otherwise its position in the epoch.
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
    """The stateless seed ``(2,)`` of one occurrence of an image, int64."""
    return tf.stack([tf.constant(seed, "int64"), epoch * 2**32 + draw])
