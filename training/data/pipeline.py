"""The input pipeline: from a source's examples to batches, with tf.data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_resnet.contract import Contract
from training.config import AugmentConfig, Experiment
from training.data.augment import augment, mix
from training.data.augment.crop import random_resized_crop
from training.data.decode import fit_image
from training.data.shuffle import example_seed, ordered_indices
from training.data.sources import Split, array_split, labels_of

# Batches prepared ahead: enough for short delays, few enough for a known amount of memory.
PREFETCH = 2
# Images per step of reading a split into memory.
BLOCK = 256


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Full batches per epoch.

    Raises:
        ValueError: There are fewer images than in a batch.
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
    """Infinite batches of augmented images and labels, the same from any step on.

    The order is a pure function of seed, epoch and position. Augmentation is one of seed, epoch and
    the image's number (with balanced classes, its position, since an image can recur). There is no
    other state that a crash could lose.

    Args:
        split: The training images.
        contract: Size and channels of the model.
        experiment: Batch size, seed and augmentation.
        epoch: First epoch, from 0.
        step: Steps of it to skip, without reading their images.
        share: Number and count of the shares of each batch; each host reads one of them. Images
            are mixed with others of their share.

    Returns:
        Batches of images ``(batch, size, size, channels)`` 0–255 and float32 labels
        ``(batch, contract.outputs)``: see ``target``. The images are uint8, which are a quarter of
        the bytes to copy to a device; float32 if they are mixed.
    """
    runtime = experiment.runtime
    batch, seed = runtime.batch_size, runtime.seed
    config = experiment.augment
    if _keeps_fitted(split, contract, experiment):
        split = _in_memory(split, contract)
    drawn = labels_of(split) if experiment.data.sampling == "balanced" else None

    @tf.autograph.experimental.do_not_convert  # keeps the messages of errors
    def example(epoch: tf.Tensor, index: tf.Tensor, draw: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, label = split.at(index)
        own = example_seed(seed, epoch, draw)
        return _augmented(image, contract, config, own), target(label, contract), own

    @tf.autograph.experimental.do_not_convert
    def mixed(images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor) -> tuple:
        # Derived from the first example's seed, and different from the seed of any example.
        return mix(images, labels, config, seeds[0] * tf.constant((-1, 1), "int64") - 1)

    options = tf.data.Options()
    if runtime.decoders:  # the default pool has as many threads as cores
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
    """A line on whether the training images are cached in memory."""
    gigabytes = f"{_fitted_bytes(split, contract) / 2**30:.2f} GiB"
    if _keeps_fitted(split, contract, experiment):
        return f"training images are cached in memory after resizing ({gigabytes})"
    if experiment.augment.crop == "resized":
        return "training images are decoded in every epoch, each time another crop"
    limit = experiment.data.cache_gb
    return f"training images are decoded in every epoch: {gigabytes} exceed data.cache_gb={limit:g}"


def evaluation_batches(
    split: Split, contract: Contract, batch_size: int, cache_gb: float = 0.0
) -> tf.data.Dataset:
    """Every image once, in order: uint8 ``(batch, height, width, channels)`` and their labels.

    Args:
        split: The images.
        contract: How they are cropped and resized.
        batch_size: Images per batch; the last batch may be smaller.
        cache_gb: Resized images are kept for the next iteration if they take at most this many
            GiB.
    """
    examples = split.examples.map(_fitted(contract), num_parallel_calls=tf.data.AUTOTUNE)
    if _fitted_bytes(split, contract) <= cache_gb * 2**30:
        examples = examples.cache()
    return examples.batch(batch_size).prefetch(PREFETCH)


def validation_batches(split: Split, contract: Contract, experiment: Experiment) -> tf.data.Dataset:
    """``evaluation_batches`` for training: float32 pixels 0–255 and labels as in ``target``."""
    batches = evaluation_batches(
        split, contract, experiment.runtime.batch_size, experiment.data.cache_gb
    )
    return batches.map(lambda x, y: (tf.cast(x, "float32"), target(y, contract)))


def target(label: tf.Tensor, contract: Contract) -> tf.Tensor:
    """What the outputs of the network are trained to be: float32 ``(…, contract.outputs)``.

    Args:
        label: Of a ``Split``: int64 ``(…)``, or uint8 ``(…, classes)`` for the task ``multi``.
        contract: Task and labels.

    Returns:
        One-hot for the task ``single``; for ``binary`` 1 for the second label and 0 for the first;
        for ``multi`` 1 for each label that the image has.
    """
    if contract.task == "single":
        return tf.one_hot(label, len(contract.labels))
    label = tf.cast(label, "float32")
    return label if contract.task == "multi" else label[..., tf.newaxis]


def images(split: Split, contract: Contract, count: int | None = None) -> Iterator[tuple]:
    """Single images, uint8 ``(height, width, channels)``, with their labels.

    Args:
        split: The images.
        contract: How they are cropped and resized.
        count: Number of images, at even distances in the split, so that no class is missed; all
            by default.
    """
    examples = split.examples
    if count is not None and count < split.count:
        examples = examples.shard(split.count // count, 0).take(count)
    fitted = examples.map(_fitted(contract), num_parallel_calls=2).prefetch(8)
    for image, label in fitted.as_numpy_iterator():
        yield np.asarray(image), int(label) if np.ndim(label) == 0 else np.asarray(label)


def _fitted(contract: Contract):  # type: ignore[no-untyped-def]  # a function for Dataset.map
    return lambda image, label: (fit_image(image, contract), label)


def _augmented(
    image: tf.Tensor, contract: Contract, config: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    size = contract.height or 0
    seeds = tf.random.split(seed, 2)
    if config.crop == "resized":
        image = random_resized_crop(image, contract.channels, size, config, seeds[0])
    elif image.dtype == tf.string or image.shape[:2] != (size, size):
        image = fit_image(image, contract)
    return augment(image, size, config, seeds[1])


def _in_memory(split: Split, contract: Contract) -> Split:
    """The same images, decoded and resized once instead of in every epoch."""
    shape = (contract.height or 0, contract.width or 0, contract.channels)
    images = np.empty((split.count, *shape), "uint8")
    spec = split.examples.element_spec[1]
    labels = np.empty((split.count, *spec.shape), spec.dtype.as_numpy_dtype)
    fitted = split.examples.map(_fitted(contract), num_parallel_calls=tf.data.AUTOTUNE)
    for number, batch in enumerate(fitted.batch(BLOCK).prefetch(2).as_numpy_iterator()):
        block = slice(number * BLOCK, number * BLOCK + len(batch[1]))
        images[block], labels[block] = batch
    return array_split(images, labels)


def _keeps_fitted(split: Split, contract: Contract, experiment: Experiment) -> bool:
    """Whether resized images are cached; not for a resized crop, which needs the whole image."""
    fits = _fitted_bytes(split, contract) <= experiment.data.cache_gb * 2**30
    return fits and experiment.augment.crop != "resized"


def _fitted_bytes(split: Split, contract: Contract) -> int:
    height, width = contract.height or 0, contract.width or 0
    return split.count * height * width * contract.channels
