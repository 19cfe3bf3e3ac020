"""Where images come from: one spec string names a source.

``digits``         the 1,797 handwritten digits inside scikit-learn (8×8, grayscale)
``tfds:<name>``    a data set of tensorflow-datasets
``folder:<path>``  a folder of pictures, with ``train`` and ``val`` (or ``test``) inside, or
                   with one subfolder a class, which is then split by the seed
``tfrecord:<pattern>``  TFRecord files; see ``training/data/tfrecord.py``

Unreadable images are found before training starts; see ``training/data/validate_images.py``.
tensorflow-datasets decodes its own, which it made and checked itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import console
from training.config import DataConfig
from training.data.records import Part, record_reader
from training.data.tfrecord import Records, class_names, read_records
from training.data.validate_images import Say, complaints, report

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
CHANNELS = {"rgb": 3, "grayscale": 1}


@dataclass(frozen=True)
class Split:
    """A number of labelled images.

    Attributes:
        count: How many.
        examples: A ``tf.data.Dataset`` of ``(image, label)``: the image either uint8
            ``(height, width, channels)`` or the bytes of a picture file, the label int64.
            Always in the same order.
        at: One example by its number, an int64 scalar: a function for ``Dataset.map``. Training
            sees the examples in an order of its own, which a stream cannot give.
        files: Path of each image, where it is one.
    """

    count: int
    examples: tf.data.Dataset
    at: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Images to learn from and images to test on.

    Attributes:
        labels: Names of the classes, in the order of their numbers.
        channels: 1 for grayscale, 3 for RGB.
        train: What the model learns from, and what quantization is calibrated with.
        test: What it is measured on.
    """

    labels: tuple[str, ...]
    channels: int
    train: Split
    test: Split


def open_source(data: DataConfig, seed: int, say: Say = console.say) -> Source:
    """Opens the source that ``data.source`` names.

    Args:
        data: Spec string, folder, held-out share, and what to do about unreadable images.
        seed: Decides which images are held out where the source has no split of its own.
        say: Told how many images are left out, and why.

    Raises:
        ValueError: The spec is unknown, there is nothing usable where it points, or there are
            images that cannot be read and not to be skipped; the first of them are named.
    """
    kind, _, rest = data.source.partition(":")
    if kind not in SOURCES or (kind != "digits" and not rest):
        raise ValueError(
            "A source is 'digits', 'tfds:<name>', 'folder:<path>' or 'tfrecord:<pattern>'. "
            f"Received: {data.source!r}"
        )
    return SOURCES[kind](rest, data, seed, say)


def _digits(_: str, data: DataConfig, seed: int, say: Say) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype("uint8")[..., np.newaxis]
    train, test = _stratified(digits.target, data.test_fraction, seed)

    def split(chosen: np.ndarray) -> Split:
        return array_split(pixels[chosen], digits.target[chosen].astype("int64"))

    return Source(tuple("0123456789"), 1, split(train), split(test))


def _tfds(name: str, data: DataConfig, seed: int, say: Say) -> Source:
    import tensorflow_datasets as tfds

    if data.data_dir and not Path(data.data_dir).is_dir():  # or it would be downloaded there
        raise ValueError(f"There is no folder {data.data_dir} for tensorflow-datasets")
    try:
        builder = tfds.builder(name, data_dir=data.data_dir or None)
        if not builder.info.splits:
            builder.download_and_prepare()
    except Exception as error:  # tensorflow-datasets raises whatever its readers and servers do
        raise ValueError(
            f"The data set {name!r} cannot be opened in {data.data_dir or 'its default folder'}: "
            f"{' '.join(str(error).split())[:200]}. Check the name and --data-dir"
        ) from None
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(f"{name!r} is not an image classification data set: {sorted(features)}")

    held_out = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    percent = round(100 * (1 - data.test_fraction))
    train, test = (
        ("train", held_out) if held_out else (f"train[:{percent}%]", f"train[{percent}%:]")
    )

    def split(which: str) -> Split:
        read = tfds.ReadConfig(try_autocache=False, shuffle_seed=seed)
        examples = builder.as_dataset(which, as_supervised=True, read_config=read)
        return Split(builder.info.splits[which].num_examples, examples, _record_at(builder, which))

    channels = features["image"].shape[-1]
    return Source(tuple(features["label"].names), channels, split(train), split(test))


def _record_at(builder: Any, which: str) -> Callable:
    """An example of a prepared data set by its number, read from its TFRecord file."""
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.info.name} is prepared as {builder.info.file_format.value}, and is read as "
            "tfrecord. Prepare it so: tfds build --file_format=tfrecord"
        )
    parts = [Part(p.filename, p.skip, p.take) for p in builder.info.splits[which].file_instructions]

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Traced once, when training begins: only then is it worth finding every record.
        read = record_reader(parts)
        record = tf.numpy_function(lambda i: read(int(i)), [index], "string")
        record.set_shape(())
        example = builder.info.features.deserialize_example(record)
        return example["image"], example["label"]

    return at


def _folder(path: str, data: DataConfig, seed: int, say: Say) -> Source:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}")
    held_out = next((root / n for n in ("val", "test", "validation") if (root / n).is_dir()), None)
    if (root / "train").is_dir() and held_out:
        labels, train = _scan(root / "train")
        test_labels, test = _scan(held_out)
        if unknown := sorted(set(test_labels) - set(labels)):
            raise ValueError(f"{held_out} has classes that {root / 'train'} lacks: {unknown}")
        test = [(file, labels.index(test_labels[label])) for file, label in test]
    else:
        labels, files = _scan(root)
        chosen = _stratified(np.array([label for _, label in files]), data.test_fraction, seed)
        train, test = ([files[i] for i in indices] for indices in chosen)

    everything = [file for file, _ in train + test]
    bad = {everything[i]: problem for i, problem in complaints(everything).items()}
    report(bad, len(everything), data, say)

    def split(files: list[tuple[str, int]]) -> Split:
        good = [(file, label) for file, label in files if file not in bad]
        return _file_split([file for file, _ in good], np.array([label for _, label in good]))

    return Source(labels, CHANNELS[data.color], split(train), split(test))


def _tfrecord(pattern: str, data: DataConfig, seed: int, say: Say) -> Source:
    records, held_out = read_records(pattern, data, say)
    labels, first = class_names(records)
    if held_out is None:
        held_out = records
        train, test = _stratified(records.labels, data.test_fraction, seed)
    else:
        train, test = np.arange(len(records.labels)), np.arange(len(held_out.labels))
    if unknown := sorted(set(held_out.labels.tolist()) - set(records.labels.tolist())):
        raise ValueError(f"The held-out records have labels that training lacks: {unknown[:10]}")

    def split(records: Records, chosen: np.ndarray) -> Split:
        good = np.array([number for number in chosen if number not in records.bad], "int64")
        at = records.at(good, records.labels[good] - first)
        examples = tf.data.Dataset.range(len(good)).map(at, num_parallel_calls=tf.data.AUTOTUNE)
        return Split(len(good), examples, at)

    return Source(labels, CHANNELS[data.color], split(records, train), split(held_out, test))


SOURCES: dict[str, Callable[[str, DataConfig, int, Say], Source]] = {
    "digits": _digits,
    "tfds": _tfds,
    "folder": _folder,
    "tfrecord": _tfrecord,
}


def _scan(root: Path) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Names of the classes, and each picture with the number of its class."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    files: list[tuple[str, int]] = []
    labels: list[str] = []
    for folder in folders:
        found = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
        if found:
            files += [(file, len(labels)) for file in found]
            labels.append(folder.name)
    if len(labels) < 2:
        raise ValueError(
            f"{root} needs a subfolder of pictures ({', '.join(PICTURES)}) for each of at least "
            f"two classes. Found: {', '.join(labels) or 'none'}"
        )
    return tuple(labels), files


def classes_of(split: Split) -> np.ndarray:
    """The class of each image by its number, int64 ``(count,)``."""
    numbers = tf.data.Dataset.range(split.count)
    labels = numbers.map(lambda index: split.at(index)[1], num_parallel_calls=tf.data.AUTOTUNE)
    return np.concatenate(list(labels.batch(1024).as_numpy_iterator()))


def array_split(images: np.ndarray, classes: np.ndarray) -> Split:
    """Images that are in memory.

    Args:
        images: uint8 ``(count, height, width, channels)``.
        classes: int64 ``(count,)``.
    """
    table = tf.constant(images), tf.constant(classes)
    return Split(
        len(images),
        tf.data.Dataset.from_tensor_slices(table),
        lambda index: (tf.gather(table[0], index), tf.gather(table[1], index)),
    )


def _file_split(files: list[str], classes: np.ndarray) -> Split:
    paths, labels = tf.constant(files), tf.constant(classes.astype("int64"))

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(tf.gather(paths, index)), tf.gather(labels, index)

    examples = tf.data.Dataset.range(len(files)).map(at, num_parallel_calls=tf.data.AUTOTUNE)
    return Split(len(files), examples, at, tuple(files))


def _stratified(classes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(classes)), test_size=fraction, stratify=classes, random_state=seed
        )
    except ValueError as error:
        raise ValueError(f"The images cannot be split by class: {error}") from None
    return np.sort(train), np.sort(test)
