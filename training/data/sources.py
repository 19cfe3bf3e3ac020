"""Sources of labelled images, each named by a spec string.

``digits``         the 1,797 handwritten digits of scikit-learn (8×8, grayscale)
``tfds:<name>``    a dataset of tensorflow-datasets
``folder:<path>``  a folder of image files, with subfolders ``train`` and ``val``, ``test`` or
                   ``validation``, or with one subfolder per class, which is split by the seed
``tfrecord:<pattern>``  TFRecord files; see ``training/data/tfrecord.py``

A split without labels is never the test split: the next one that has labels is, otherwise a share
of the training images.

Unreadable images are found before training starts; see ``training/data/validate_images.py``. Those
of tensorflow-datasets are trusted: it has decoded and checked them when it prepared the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from training.config import DataConfig
from training.data.records import Part, record_reader
from training.data.tfrecord import Records, class_names, read_records
from training.data.validate_images import Say, find_problems, report

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
HELD_OUT_FOLDERS = ("val", "test", "validation")
# Labels of a tensorflow-datasets split that are read to find out whether it has any.
LABELS_READ = 16
CHANNELS = {"rgb": 3, "grayscale": 1}

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """Labelled images.

    A label is an int64 scalar, the number of a class; of several labels an image (the task
    ``multi``) uint8 ``(classes,)``, 1 for each that the image has.

    Attributes:
        count: Number of images.
        examples: A ``tf.data.Dataset`` of ``(image, label)``: the image either uint8
            ``(height, width, channels)`` or the bytes of an image file, the label as above.
            Always in the same order.
        at: Returns one example by its number, an int64 scalar; a function for ``Dataset.map``.
            Training shuffles globally, for which a stream is not enough.
        files: Path of each image, if the images are files.
        labels: Label of each image, as in ``examples``, where they are known without reading the
            images; ``None`` otherwise (tensorflow-datasets).
    """

    count: int
    examples: tf.data.Dataset
    at: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    files: tuple[str, ...] = ()
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Source:
    """Training and test images.

    Attributes:
        labels: Names of the classes, in the order of their numbers.
        channels: 1 for grayscale, 3 for RGB.
        train: For training and for the calibration of quantization.
        test: For validation and evaluation.
    """

    labels: tuple[str, ...]
    channels: int
    train: Split
    test: Split


def open_source(data: DataConfig, seed: int, say: Say = console.say) -> Source:
    """Opens the source that ``data.source`` names.

    Args:
        data: Spec string, folder, held-out share, and how to treat unreadable images.
        seed: Selects the held-out images if the source has no labelled test split.
        say: Called with lines on skipped images and on splits without labels.

    Raises:
        ValueError: The spec is unknown, the source is missing or has no usable images, or some
            images cannot be read and ``bad_images`` is ``"error"``.
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
    builder = _tfds_builder(name, data)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise ValueError(
            f"{name!r} is not an image classification dataset, with an image and a label of a "
            f"class: {' '.join(str(features).split())[:200]}"
        )
    if "train" not in builder.info.splits:
        raise ValueError(f"{name!r} has no split 'train': {', '.join(builder.info.splits)}")
    available = [split for split in ("test", "validation") if split in builder.info.splits]
    held_out = _first_labelled(available, lambda split: _tfds_labels(builder, split), say)
    percent = round(100 * (1 - data.test_fraction))
    train, test = (
        ("train", held_out) if held_out else (f"train[:{percent}%]", f"train[{percent}%:]")
    )

    def split(which: str) -> Split:
        return Split(
            builder.info.splits[which].num_examples,
            _tfds_examples(builder, which, seed).map(lambda x: (x["image"], x["label"])),
            _record_at(builder, which),
        )

    channels = features["image"].shape[-1]
    return Source(tuple(features["label"].names), channels, split(train), split(test))


def _tfds_builder(name: str, data: DataConfig) -> Any:
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


def _tfds_examples(
    builder: Any, split: str, seed: int = 0, features: tuple[str, ...] = ("image", "label")
) -> tf.data.Dataset:
    import tensorflow_datasets as tfds

    read = tfds.ReadConfig(try_autocache=False, shuffle_seed=seed)
    decode = tfds.decode.PartialDecoding(dict.fromkeys(features, True))
    return builder.as_dataset(split, read_config=read, decoders=decode)


def _tfds_labels(builder: Any, split: str) -> Iterator[int]:
    """The first labels of a split; its images are not decoded."""
    examples = _tfds_examples(builder, split, features=("label",)).take(LABELS_READ)
    return (int(example["label"]) for example in examples.as_numpy_iterator())


def _first_labelled(
    splits: Sequence[T], labels: Callable[[T], Iterable[int]], say: Say
) -> T | None:
    """The first split that has labels; ``None`` if there is none.

    Datasets are published with unlabelled test splits, whose labels are -1: ImageNet's, for one.

    Args:
        splits: In order of preference.
        labels: Returns labels of a split; none of them if it has none.
        say: Called with each split that is passed over.
    """
    for split in splits:
        if any(label >= 0 for label in labels(split)):
            return split
        say(f"the split {split} has no labels, so it is not used")
    return None


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
        example = builder.info.features.deserialize_example(record)
        return example["image"], example["label"]

    return at


def _folder(path: str, data: DataConfig, seed: int, say: Say) -> Source:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}")
    if not _has_splits(root):
        labels, train, test = _split_by_class(root, data, seed)
    elif held_out := _first_labelled(
        [root / name for name in HELD_OUT_FOLDERS if (root / name).is_dir()],
        lambda folder: range(len(_class_folders(folder))),
        say,
    ):
        labels, train = _scan(root / "train")
        test_labels, test = _scan(held_out, classes=1)
        if unknown := sorted(set(test_labels) - set(labels)):
            raise ValueError(f"{held_out} has classes that {root / 'train'} lacks: {unknown}")
        test = [(file, labels.index(test_labels[label])) for file, label in test]
    else:
        labels, train, test = _split_by_class(root / "train", data, seed)

    everything = [file for file, _ in train + test]
    bad = {everything[i]: problem for i, problem in find_problems(everything).items()}
    report(bad, len(everything), data, say)

    def split(files: list[tuple[str, int]]) -> Split:
        good = [(file, label) for file, label in files if file not in bad]
        return _file_split([file for file, _ in good], np.array([label for _, label in good]))

    return Source(labels, CHANNELS[data.color], split(train), split(test))


def _has_splits(root: Path) -> bool:
    """Whether the subfolders are splits, not classes, one of which may be called "train"."""
    names = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    if "train" not in names:
        return False
    if names & set(HELD_OUT_FOLDERS):
        return True
    return names == {"train"} and bool(_class_folders(root / "train"))


def _split_by_class(
    folder: Path, data: DataConfig, seed: int
) -> tuple[tuple[str, ...], list[tuple[str, int]], list[tuple[str, int]]]:
    labels, files = _scan(folder)
    chosen = _stratified(np.array([label for _, label in files]), data.test_fraction, seed)
    train, test = ([files[i] for i in indices] for indices in chosen)
    return labels, train, test


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
        return Split(len(good), examples, at, labels=records.labels[good] - first)

    return Source(labels, CHANNELS[data.color], split(records, train), split(held_out, test))


SOURCES: dict[str, Callable[[str, DataConfig, int, Say], Source]] = {
    "digits": _digits,
    "tfds": _tfds,
    "folder": _folder,
    "tfrecord": _tfrecord,
}


def _class_folders(root: Path) -> list[tuple[str, list[str]]]:
    """Subfolders that contain images: name and image files of each."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    found = [
        (folder.name, sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES))
        for folder in folders
    ]
    return [(name, files) for name, files in found if files]


def _scan(root: Path, classes: int = 2) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Names of the classes, and each image file with the number of its class."""
    found = _class_folders(root)
    if len(found) < classes:
        raise ValueError(
            f"{root} needs a subfolder of pictures ({', '.join(SUFFIXES)}) for each of at least "
            f"two classes. Found: {', '.join(name for name, _ in found) or 'none'}"
        )
    labels = tuple(name for name, _ in found)
    return labels, [(file, number) for number, (_, files) in enumerate(found) for file in files]


def first_unreadable(source: Source, contract: Contract) -> str | None:
    """What is wrong with the first image file that cannot be read; ``None`` if all can be."""
    for path in source.train.files + source.test.files:
        try:
            load_image(path, contract)
        except ValueError as error:
            return f"{error}. Repair or remove it"
    return None


def labels_of(split: Split) -> np.ndarray:
    """The label of each image by its number: int64 ``(count,)`` or uint8 ``(count, classes)``."""
    if split.labels is not None:
        return split.labels
    numbers = tf.data.Dataset.range(split.count)
    labels = numbers.map(lambda index: split.at(index)[1], num_parallel_calls=tf.data.AUTOTUNE)
    return np.concatenate(list(labels.batch(1024).as_numpy_iterator()))


def array_split(images: np.ndarray, classes: np.ndarray) -> Split:
    """A split of images in memory.

    Args:
        images: uint8 ``(count, height, width, channels)``.
        classes: int64 ``(count,)``.
    """
    table = tf.constant(images), tf.constant(classes)
    return Split(
        len(images),
        tf.data.Dataset.from_tensor_slices(table),
        lambda index: (tf.gather(table[0], index), tf.gather(table[1], index)),
        labels=classes,
    )


def _file_split(files: list[str], classes: np.ndarray) -> Split:
    paths, labels = tf.constant(files), tf.constant(classes.astype("int64"))

    def at(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(tf.gather(paths, index)), tf.gather(labels, index)

    examples = tf.data.Dataset.range(len(files)).map(at, num_parallel_calls=tf.data.AUTOTUNE)
    return Split(len(files), examples, at, tuple(files), classes)


def _stratified(classes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(classes)), test_size=fraction, stratify=classes, random_state=seed
        )
    except ValueError as error:
        raise ValueError(f"The images cannot be split by class: {error}") from None
    return np.sort(train), np.sort(test)
