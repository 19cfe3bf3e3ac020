"""tf.data: from a source's examples to batches, as the contract and the experiment say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_resnet.contract import Contract, crop_box
from training.config import AugmentConfig, Experiment
from training.data.augment import augment, random_resized_crop
from training.data.order import example_seed, ordered_indices
from training.data.sources import Split, array_split

# Decoded and fitted images are kept in memory where they take no more than this.
CACHE_BYTES = 2**30
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
    epoch and the image's number: nothing else, and nothing that a crash could lose.

    Args:
        split: The images to learn from.
        contract: Size and channels of the model.
        experiment: Batch size, seed and augmentation.
        epoch: Epoch to begin with, from 0.
        step: Steps of it to pass over; none of their images are read.
        share: Number and count of the shares of each batch, of which one machine reads one.

    Returns:
        Batches of float32 ``(batch, size, size, channels)`` 0–255 and float32
        ``(batch, classes)``.
    """
    batch, seed = experiment.runtime.batch_size, experiment.runtime.seed
    config = experiment.augment
    classes = len(contract.labels)
    if config.crop != "resized" and _fits_memory(split, contract):
        split = _in_memory(split, contract)

    @tf.autograph.experimental.do_not_convert  # its errors stay as they are
    def example(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = split.at(index)
        image = _augmented(image, contract, config, example_seed(seed, epoch, index))
        return tf.cast(image, "float32"), tf.one_hot(label, classes)

    return (
        ordered_indices(split.count, batch, seed, epoch, step, share)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch // share[1], drop_remainder=True)
        .prefetch(4)
    )


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


def fit_image(image: tf.Tensor, contract: Contract) -> tf.Tensor:
    """Crops and resizes as the contract says; the graph's twin of ``keras_resnet.load_image``.

    Args:
        image: uint8 ``(height, width, channels)``, or the bytes of a JPEG, PNG, BMP or GIF.
        contract: The model's.

    Returns:
        uint8 ``(contract.height, contract.width, channels)``.
    """
    image = _decoded(image, contract.channels)
    top, left, height, width = crop_box(tf.shape(image)[0], tf.shape(image)[1], contract)
    box = image[top : top + height, left : left + width]
    size = (contract.height, contract.width)
    box = tf.image.resize(box, size, method=contract.interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(box), 0, 255), "uint8")


def _fitted(contract: Contract):  # type: ignore[no-untyped-def]  # a function for Dataset.map
    return lambda image, label: (fit_image(image, contract), label)


def _augmented(
    image: tf.Tensor, contract: Contract, config: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    size = contract.height or 0
    if config.crop == "resized":
        image = _decoded(image, contract.channels)
        image = random_resized_crop(image, size, config.min_area, seed)
    elif image.dtype == tf.string or image.shape[:2] != (size, size):
        image = fit_image(image, contract)
    return augment(image, size, config, seed)


def _decoded(image: tf.Tensor, channels: int) -> tf.Tensor:
    if image.dtype != tf.string:
        return image
    # The accurate transform is the one that Pillow uses, and phones.
    pixels = tf.cond(
        tf.io.is_jpeg(image),
        lambda: tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(image, 3, expand_animations=False),
    )
    pixels.set_shape((None, None, 3))
    return pixels if channels == 3 else _luma(pixels)


def _luma(rgb: tf.Tensor) -> tf.Tensor:
    """Grayscale by ITU-R BT.601 in the same integers as Pillow, so that no pixel differs."""
    weighted = tf.cast(rgb, "int32") * tf.constant((19595, 38470, 7471))
    luma = tf.reduce_sum(weighted, axis=-1, keepdims=True) + 2**15
    return tf.cast(tf.bitwise.right_shift(luma, 16), "uint8")


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


def _fits_memory(split: Split, contract: Contract) -> bool:
    height, width = contract.height or 0, contract.width or 0
    return split.count * height * width * contract.channels <= CACHE_BYTES
