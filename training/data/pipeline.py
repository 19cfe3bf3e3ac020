"""tf.data: from a source's examples to batches, as the contract and the experiment say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_resnet.contract import Contract
from training.config import AugmentConfig, Experiment
from training.data.augment import augment, mix
from training.data.decode import decode_training_image, fit_image
from training.data.sources import Split

# Decoded and fitted images are kept in memory where they take no more than this.
CACHE_BYTES = 2**30


def training_batches(
    split: Split, contract: Contract, experiment: Experiment
) -> tuple[tf.data.Dataset, int]:
    """Endless batches of augmented images and one-hot labels.

    Args:
        split: The images to learn from.
        contract: Size and channels of the model.
        experiment: Batch size, seed and augmentation.

    Returns:
        The data set, of float32 ``(batch, size, size, channels)`` 0–255 and float32
        ``(batch, classes)``, and the number of batches that make an epoch.

    Raises:
        ValueError: There are fewer images than one batch takes.
    """
    batch, seed = experiment.runtime.batch_size, experiment.runtime.seed
    if split.count < batch:
        raise ValueError(
            f"There are {split.count} training images for a batch of {batch}. "
            f"Lower it: --batch-size {split.count}"
        )
    config = experiment.augment
    classes = len(contract.labels)
    varies_first = config.crop == "resized"

    def vary(index: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = example
        image = _augmented(image, contract, config, tf.stack([tf.cast(seed, "int64"), index]))
        return image, tf.one_hot(label, classes)

    def finish(index: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tuple:
        # Bytes until here: batching four times as many would cost as much as the flip.
        images = tf.cast(images, "float32")
        return mix(images, labels, config, tf.stack([-1 - tf.cast(seed, "int64"), index]))

    examples = split.examples
    if not varies_first and _fits_memory(split, contract):
        examples = examples.map(_fitted(contract), num_parallel_calls=tf.data.AUTOTUNE).cache()
    dataset = (
        examples.shuffle(min(split.count, 50_000), seed=seed)
        .repeat()
        .enumerate()
        .map(vary, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch, drop_remainder=True)
        .enumerate()
        .map(lambda index, example: finish(index, *example), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(4)
    )
    return dataset, split.count // batch


def evaluation_batches(split: Split, contract: Contract, batch_size: int) -> tf.data.Dataset:
    """Every image once, in order: uint8 ``(batch, height, width, channels)`` and int64 labels."""
    examples = split.examples.map(_fitted(contract), num_parallel_calls=tf.data.AUTOTUNE)
    if _fits_memory(split, contract):
        examples = examples.cache()
    return examples.batch(batch_size).prefetch(4)


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


def _fits_memory(split: Split, contract: Contract) -> bool:
    height, width = contract.height or 0, contract.width or 0
    return split.count * height * width * contract.channels <= CACHE_BYTES
