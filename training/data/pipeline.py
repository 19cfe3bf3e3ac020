"""tf.data: from a source's examples to batches, as the contract and the experiment say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_resnet.contract import Contract
from training.config import AugmentConfig, Experiment
from training.data.augment import augment, mix
from training.data.decode import decode_training_image, fit_image
from training.data.shuffle import example_seed, ordered_indices
from training.data.sources import Split, array_split, classes_of

# Batches made ahead: enough for a hiccup, and few enough to know what memory they take.
PREFETCH = 2
BLOCK = 256


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
        ValueError: There are fewer images than one batch takes.
    """
    if split.count < batch_size:
        raise ValueError(
            f"There are {split.count} training images for a batch of {batch_size}. "
            f"Lower it: --batch-size {split.count}"
        )
    return split.count // batch_size


def training_batches(
    split: Split,
    contract: Contract,
    experiment: Experiment,
    epoch: int = 0,
    step: int = 0,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Endless batches of augmented images and one-hot labels, the same from any step on.

    The order is a function of seed, epoch and position, each image's augmentation one of seed,
    epoch and the image's number, or its position where classes are balanced and it may come
    again: nothing else, and nothing that a crash could lose.

    Args:
        split: The images to learn from.
        contract: Size and channels of the model.
        experiment: Batch size, seed and augmentation.
        epoch: Epoch to begin with, from 0.
        step: Steps of it to pass over; none of their images are read.
        share: Number and count of the shares of each batch, of which one machine reads one.
            Images are mixed with others of their share.

    Returns:
        Batches of images ``(batch, size, size, channels)`` 0–255 and float32 labels
        ``(batch, classes)``. The images are uint8, a quarter of the bytes to copy and to send to
        a device, which turns them into numbers faster; float32 where they are mixed.
    """
    runtime = experiment.runtime
    batch, seed = runtime.batch_size, runtime.seed
    config = experiment.augment
    classes = len(contract.labels)
    if _keeps_fitted(split, contract, experiment):
        split = _in_memory(split, contract)
    drawn = classes_of(split) if experiment.data.sampling == "balanced" else None

    @tf.autograph.experimental.do_not_convert  # its errors stay as they are
    def example(epoch: tf.Tensor, index: tf.Tensor, draw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, label = split.at(index)
        own = example_seed(seed, epoch, draw)
        return _augmented(image, contract, config, own), tf.one_hot(label, classes), own

    @tf.autograph.experimental.do_not_convert
    def mixed(images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor) -> tuple:
        # The batch's seed is its first example's, out of the reach of any example's own.
        return mix(images, labels, config, seeds[0] * tf.constant((-1, 1), "int64") - 1)

    options = tf.data.Options()
    if runtime.decoders:  # TensorFlow's own pool has no more threads than cores
        options.threading.private_threadpool_size = runtime.decoders
    return (
        ordered_indices(split.count, batch, seed, epoch, step, share, drawn)
        .map(example, num_parallel_calls=runtime.decoders or tf.data.AUTOTUNE)
        .batch(batch // share[1], drop_remainder=True)
        .map(mixed, num_parallel_calls=2)
        .prefetch(runtime.prefetch or PREFETCH)
        .with_options(options)
    )


def memory_note(split: Split, contract: Contract, experiment: Experiment) -> str:
    """What is kept in memory of the training images, and why, for people."""
    gigabytes = f"{_fitted_bytes(split, contract) / 2**30:.2f} GiB"
    if _keeps_fitted(split, contract, experiment):
        return f"training images stay in memory: fitted, they take {gigabytes}"
    if experiment.augment.crop == "resized":
        return "training images are read in every epoch: of each, another part is decoded"
    limit = experiment.data.cache_gb
    return f"training images are read in every epoch: {gigabytes} is over data.cache_gb {limit:g}"


def evaluation_batches(
    split: Split, contract: Contract, batch_size: int, cache_gb: float = 0.0
) -> tf.data.Dataset:
    """Every image once, in order: uint8 ``(batch, height, width, channels)`` and int64 labels.

    Args:
        split: The images.
        contract: How they are fitted.
        batch_size: Images a batch; the last may be smaller.
        cache_gb: Fitted images are kept for the next time where they take no more GiB.
    """
    examples = split.examples.map(_fitted(contract), num_parallel_calls=tf.data.AUTOTUNE)
    if _fitted_bytes(split, contract) <= cache_gb * 2**30:
        examples = examples.cache()
    return examples.batch(batch_size).prefetch(PREFETCH)


def images(split: Split, contract: Contract, count: int | None = None) -> Iterator[tuple]:
    """Single fitted images ``(height, width, channels)`` uint8 with their labels.

    Args:
        split: Where from.
        contract: How they are fitted.
        count: How many, spread evenly over the split so that every class is among them; all
            by default.
    """
    examples = split.examples
    if count is not None and count < split.count:
        examples = examples.shard(split.count // count, 0).take(count)
    fitted = examples.map(_fitted(contract), num_parallel_calls=2).prefetch(8)
    for image, label in fitted.as_numpy_iterator():
        yield np.asarray(image), int(label)


def _fitted(contract: Contract):  # type: ignore[no-untyped-def]  # a function for Dataset.map
    return lambda image, label: (fit_image(image, contract), label)


def _augmented(
    image: tf.Tensor, contract: Contract, config: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    size = contract.height or 0
    seeds = tf.random.split(seed, 2)
    if config.crop == "resized":
        image = decode_training_image(image, contract.channels, size, config, seeds[0])
    elif image.dtype == tf.string or image.shape[:2] != (size, size):
        image = fit_image(image, contract)
    return augment(image, size, config, seeds[1])


def _in_memory(split: Split, contract: Contract) -> Split:
    """The same images, decoded and fitted once instead of in every epoch."""
    shape = (contract.height or 0, contract.width or 0, contract.channels)
    images = np.empty((split.count, *shape), "uint8")
    labels = np.empty(split.count, "int64")
    fitted = split.examples.map(_fitted(contract), num_parallel_calls=tf.data.AUTOTUNE)
    for number, batch in enumerate(fitted.batch(BLOCK).prefetch(2).as_numpy_iterator()):
        block = slice(number * BLOCK, number * BLOCK + len(batch[1]))
        images[block], labels[block] = batch
    return array_split(images, labels)


def _keeps_fitted(split: Split, contract: Contract, experiment: Experiment) -> bool:
    """A resized crop needs all of the image; other crops only what fitting leaves."""
    fits = _fitted_bytes(split, contract) <= experiment.data.cache_gb * 2**30
    return fits and experiment.augment.crop != "resized"


def _fitted_bytes(split: Split, contract: Contract) -> int:
    height, width = contract.height or 0, contract.width or 0
    return split.count * height * width * contract.channels
