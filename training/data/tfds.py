"""The source ``tfds:<name>``: a dataset of tensorflow-datasets.

Its images are trusted: it has decoded and checked them when it prepared the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.config import DataConfig
from training.data.records import Part, record_reader
from training.data.split import CHANNELS, Source, Split, first_labelled
from training.data.validate_images import Say

# Labels of a split that are read to find out whether it has any.
LABELS_READ = 16


def open_tfds(name: str, data: DataConfig, seed: int, say: Say) -> Source:
    builder = _builder(name, data)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise ValueError(
            f"{name!r} is not an image classification dataset, with an image and a label of a "
            f"class: {' '.join(str(features).split())[:200]}"
        )
    if "train" not in builder.info.splits:
        raise ValueError(f"{name!r} has no split 'train': {', '.join(builder.info.splits)}")
    available = [split for split in ("test", "validation") if split in builder.info.splits]
    held_out = first_labelled(available, lambda split: _labels(builder, split), say)
    percent = round(100 * (1 - data.test_fraction))
    train, test = (
        ("train", held_out) if held_out else (f"train[:{percent}%]", f"train[{percent}%:]")
    )

    def split(which: str) -> Split:
        return Split(
            builder.info.splits[which].num_examples,
            _examples(builder, which, seed).map(lambda x: (x["image"], x["label"])),
            _record_at(builder, which),
        )

    channels = features["image"].shape[-1]
    return Source(tuple(features["label"].names), channels, split(train), split(test))


def _builder(name: str, data: DataConfig) -> Any:
    import tensorflow_datasets as tfds

    if data.data_dir and not Path(data.data_dir).is_dir():  # or it would be downloaded there
        raise ValueError(f"There is no folder {data.data_dir} for tensorflow-datasets")
    try:
        builder = tfds.builder(name, data_dir=data.data_dir or None)
        if not builder.info.splits:
            builder.download_and_prepare()
    except Exception as error:  # tensorflow-datasets raises whatever its readers and servers do
        raise ValueError(
            f"The dataset {name!r} cannot be opened in {data.data_dir or 'its default folder'}: "
            f"{' '.join(str(error).split())[:200]}. Check the name and --data-dir"
        ) from None
    return builder


def _examples(
    builder: Any, split: str, seed: int = 0, features: tuple[str, ...] = ("image", "label")
) -> tf.data.Dataset:
    import tensorflow_datasets as tfds

    read = tfds.ReadConfig(try_autocache=False, shuffle_seed=seed)
    undecoded = _undecoded(builder) if "image" in features else None
    decode = tfds.decode.PartialDecoding(dict.fromkeys(features, True), undecoded)
    return builder.as_dataset(split, read_config=read, decoders=decode)


def _undecoded(builder: Any) -> dict[str, Any] | None:
    """Decoders that leave an image as the bytes of its file, if sizes differ: photographs.

    Orientation, limits and crops of a part are then those of every other file. Images of one size
    were written from arrays, without an orientation; tensorflow-datasets decodes them in less time.
    """
    import tensorflow_datasets as tfds

    image = builder.info.features["image"]
    is_file = image.np_dtype == np.uint8 and image.shape[-1] in CHANNELS.values()
    return {"image": tfds.decode.SkipDecoding()} if is_file and None in image.shape else None


def _labels(builder: Any, split: str) -> Iterator[int]:
    """The first labels of a split; its images are not decoded."""
    examples = _examples(builder, split, features=("label",)).take(LABELS_READ)
    return (int(example["label"]) for example in examples.as_numpy_iterator())


def _record_at(builder: Any, which: str) -> Callable:
    """A function that reads an example of a prepared dataset by its number."""
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.info.name} is prepared as {builder.info.file_format.value}, not as "
            "tfrecord. Prepare it again: tfds build --file_format=tfrecord"
        )
    parts = [Part(p.filename, p.skip, p.take) for p in builder.info.splits[which].file_instructions]

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Traced once, when training begins: only then all records need to be located.
        read = record_reader(parts)
        record = tf.numpy_function(lambda i: read(int(i)), [index], "string")
        record.set_shape(())
        features = builder.info.features
        example = features.deserialize_example(record, decoders=_undecoded(builder))
        return example["image"], example["label"]

    return at
