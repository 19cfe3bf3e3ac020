"""Sources: the right images, always the same, with the names of their classes."""

import errno
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.config import DataConfig
from training.data import screening, validate_images
from training.data.decode import decode
from training.data.sources import Source, Split, open_source
from training.data.validate_images import check_files, find_problem


def labels_of(split: Split) -> np.ndarray:
    return np.array([label for _, label in split.examples.as_numpy_iterator()])


def test_digits_are_split_by_class_and_seed() -> None:
    source = open_source(DataConfig(source="digits"), seed=0)
    assert (source.train.count, source.test.count, source.channels) == (1437, 360, 1)
    assert source.labels == tuple("0123456789")
    shares = np.bincount(labels_of(source.test)) / np.bincount(labels_of(source.train))
    np.testing.assert_allclose(shares, 0.25, atol=0.01)
    again = open_source(DataConfig(source="digits"), seed=0)
    other = open_source(DataConfig(source="digits"), seed=1)
    assert (labels_of(again.test) == labels_of(source.test)).all()
    assert (labels_of(other.test) != labels_of(source.test)).any()


def test_train_and_test_digits_do_not_overlap() -> None:
    source = open_source(DataConfig(source="digits"), seed=0)
    from sklearn.datasets import load_digits

    def images(split: Split) -> list[bytes]:
        return [image.tobytes() for image, _ in split.examples.as_numpy_iterator()]

    pixels = np.rint(load_digits().images * (255 / 16)).astype("uint8")[..., np.newaxis]
    everything = sorted(image.tobytes() for image in pixels)
    assert sorted(images(source.train) + images(source.test)) == everything


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 50), (value, 0, 0)).save(path)


def test_a_folder_without_splits_is_split_by_class(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for i in range(10):
            picture(tmp_path / label / f"{i}.png", i)
    source = open_source(DataConfig(source=f"folder:{tmp_path}"), seed=3)
    assert source.labels == ("cat", "dog")
    assert np.bincount(labels_of(source.test)).tolist() == [2, 2]
    assert not set(source.train.files) & set(source.test.files)
    assert all(("cat", "dog")[y] in f for f, y in zip(source.test.files, labels_of(source.test)))


def test_classes_keep_their_numbers_where_the_test_split_lacks_one(tmp_path: Path) -> None:
    for label in ("ant", "bee", "cow"):
        picture(tmp_path / "train" / label / "1.png")
    picture(tmp_path / "val" / "ant" / "1.png")
    picture(tmp_path / "val" / "cow" / "1.png")
    source = open_source(DataConfig(source=f"folder:{tmp_path}"), seed=0)
    assert source.labels == ("ant", "bee", "cow")
    assert labels_of(source.test).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("photos", "A source is"),
        ("folder:", "A source is"),
        ("folder:/nowhere/at/all", "Name yours: --data folder:DIR"),
        ("/tmp", "Did you mean folder:/tmp?"),
        ("tfds:no_such_data_set_here", "cannot be opened"),
        ("tfds:cifar10", "There is no folder"),
    ],
)
def test_a_source_that_is_not_there_is_named(spec: str, says: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "missing" if spec == "tfds:cifar10" else tmp_path
    with pytest.raises(ValueError, match=says) as error:
        open_source(DataConfig(source=spec, data_dir=str(data_dir)), seed=0)
    assert "\n" not in str(error.value)


def test_a_folder_without_pictures_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="Found: no picture at all"):
        open_source(DataConfig(source=f"folder:{tmp_path}"), seed=0)


@pytest.fixture(scope="module")
def cifar10(test_data: Path) -> Source:
    data_dir = str(test_data / "tensorflow_datasets")
    return open_source(DataConfig(source="tfds:cifar10", data_dir=data_dir), seed=0)


def test_cifar10_is_whole_and_has_its_known_mean(cifar10: Source) -> None:
    assert (cifar10.train.count, cifar10.test.count, cifar10.channels) == (50_000, 10_000, 3)
    assert cifar10.labels[3] == "cat"
    batch = next(iter(cifar10.train.examples.batch(10_000)))[0].numpy()
    assert batch.shape[1:] == (32, 32, 3) and batch.dtype == np.uint8
    np.testing.assert_allclose(batch.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.01)


def test_flowers_come_with_their_own_split(test_data: Path) -> None:
    source = open_source(DataConfig(source=f"folder:{test_data / 'flowers'}"), seed=0)
    assert source.labels == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert (source.train.count, source.test.count) == (500, 150)


# Grayscale, bad images, TFRecord


def picture_bytes(format: str = "JPEG", size: tuple[int, int] = (40, 50), **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), "uint8"))
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_pictures_are_read_as_grayscale_where_asked(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for i in range(5):
            picture(tmp_path / label / f"{i}.png", i)
    source = open_source(DataConfig(source=f"folder:{tmp_path}", color="grayscale"), seed=0)
    assert source.channels == 1


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"no picture at all",
    "cut.jpg": picture_bytes()[:-200],
    "cut.png": picture_bytes("PNG")[:-200],
    "ppm.jpg": picture_bytes("PPM"),
    "sign.ppm": picture_bytes("PPM"),
    "header.png": picture_bytes("PNG")[:20],
}
SAYS = {
    "empty.jpg": "is empty",
    "text.jpg": "is not a readable picture",
    "cut.jpg": "is cut off or broken inside",
    "cut.png": "is cut off or broken inside",
    "ppm.jpg": "is a PPM; supported are JPEG, PNG, BMP, GIF",
    "sign.ppm": "is a PPM; supported are JPEG, PNG, BMP, GIF",
    "header.png": "is cut off or broken inside (PNG",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_described(name: str) -> None:
    assert SAYS[name] in (find_problem(BAD[name]) or "nothing")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "1", "I;16"])
def test_what_the_graph_decodes_is_a_good_file_and_nothing_else(mode: str, format: str) -> None:
    """Against a graph that decodes: the check must find neither more nor less."""
    image = Image.fromarray(np.arange(2400, dtype="uint16").reshape(40, 60) * 20)
    image = image if mode == "I;16" else Image.open(io.BytesIO(picture_bytes("PNG"))).convert(mode)
    file = io.BytesIO()
    try:
        image.save(file, format)
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {format} of {mode}")
    content = file.getvalue()
    for part in (content, content[:-30], content[: len(content) // 2], content[:9]):
        try:
            decode(tf.constant(part), 3)
            decodes = True
        except (tf.errors.OpError, ValueError):  # of TensorFlow, of Pillow
            decodes = False
        assert (find_problem(part) is None) == decodes


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    # A header that promises gigabytes, over a few bytes of nothing.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert "has more than 100,000,000 pixels" in (find_problem(png) or "")


@pytest.fixture
def folder_with_bad_files(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("val", 3)):
        for label in ("cat", "dog"):
            for i in range(count):
                picture(tmp_path / split / label / f"{i}.png", i)
    (tmp_path / "train" / "cat" / "2b.jpg").write_bytes(BAD["cut.jpg"])
    (tmp_path / "train" / "dog" / "text.jpg").write_bytes(BAD["text.jpg"])
    (tmp_path / "val" / "dog" / "0a.png").write_bytes(b"")
    return tmp_path


def test_bad_images_are_an_error_that_names_them(folder_with_bad_files: Path) -> None:
    with pytest.raises(ValueError, match="3 of 21 images cannot be read") as error:
        open_source(DataConfig(source=f"folder:{folder_with_bad_files}"), seed=0)
    message = str(error.value)
    assert "\n" not in message
    assert f"{folder_with_bad_files}/train/cat/2b.jpg is cut off or broken inside" in message
    assert f"{folder_with_bad_files}/train/dog/text.jpg is not a readable picture" in message
    assert "data.bad_images=skip" in message


def test_skipped_images_are_counted_and_gone_from_both_splits(folder_with_bad_files: Path) -> None:
    said: list[str] = []
    data = DataConfig(source=f"folder:{folder_with_bad_files}", bad_images="skip")
    source = open_source(data, seed=0, say=said.append)
    assert (source.train.count, source.test.count) == (12, 6)
    assert len(said) == 1 and "skipping 3 of 21 images" in said[0] and "text.jpg" in said[0]
    assert labels_of(source.train).tolist() == [0] * 6 + [1] * 6
    assert labels_of(source.test).tolist() == [0] * 3 + [1] * 3
    assert not [f for f in source.train.files + source.test.files if f.endswith("jpg")]
    for split in (source.train, source.test):
        for image, _ in split.examples:
            decode(image, 3)


def test_more_bad_images_than_allowed_are_an_error(folder_with_bad_files: Path) -> None:
    data = DataConfig(source=f"folder:{folder_with_bad_files}", bad_images="skip", max_bad_images=2)
    with pytest.raises(ValueError, match=r"At most 2 may be skipped \(data.max_bad_images\)"):
        open_source(data, seed=0)


FAILURES = {
    "disk": OSError(errno.EIO, os.strerror(errno.EIO)),
    "files": OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    "memory": MemoryError(),
    "decoder": tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_of_the_machine_is_raised_and_not_kept(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(validate_images, "CACHE_FROM_SECONDS", 0.0)
    file = tmp_path / "a.jpg"
    file.write_bytes(picture_bytes())

    def fails(*_: object, **__: object) -> None:
        raise FAILURES[kind]

    def fails_in_the_graph(*_: object) -> None:
        raise tf.errors.UnknownError(None, None, "the machine failed")

    with monkeypatch.context() as patch:
        patch.setattr(screening, "_graph", screening._graph.__wrapped__)  # traced with the patch
        if kind == "decoder":
            patch.setattr(tf.io, "decode_jpeg", fails)
        else:
            patch.setattr(tf.io, "read_file", fails_in_the_graph)
            patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(OSError, match=r"a\.jpg could not be checked: ") as error:
            check_files([str(file)])
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "cache" / "checked").exists()
    checked = check_files([str(file)])
    assert not checked.problems and not checked.others


def _verdict(**changes: Any) -> str:
    return json.dumps({"problem": {}, "other": {}, "remark": {}, "by_pillow": [], **changes})


DAMAGED_VERDICTS = (
    "[]",
    "{",
    "[" * 100_000,
    '{"1": "is empty"}',
    _verdict(problem={"7": "is empty"}),
    _verdict(problem={"1": 2}),
    _verdict(other={"x": "text file"}),
    _verdict(remark=["damaged"]),
    _verdict(by_pillow=[2]),
    _verdict(by_pillow=[True]),
    _verdict(by_pillow=["1"]),
    _verdict(by_pillow=None),
)


def test_verdicts_are_kept_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(validate_images, "CACHE_FROM_SECONDS", 0.0)
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for file in files:
        file.write_bytes(picture_bytes())
    files[1].write_bytes(b"")
    names = [str(file) for file in files]
    assert check_files(names).problems == {1: "is empty"}
    screened: list[str] = []

    def counting(paths: list[str]) -> np.ndarray:
        screened.extend(paths)
        return np.ones(len(paths), bool)

    monkeypatch.setattr(validate_images, "screen", counting)
    assert check_files(names).problems == {1: "is empty"} and not screened
    (verdict,) = (tmp_path / "cache" / "checked").iterdir()
    for damaged in DAMAGED_VERDICTS:
        verdict.write_text(damaged)
        assert check_files(names).problems == {}, damaged  # by the patched function
        assert len(screened) == 2
        screened.clear()
    files[1].write_bytes(picture_bytes())
    assert check_files(names).problems == {} and len(screened) == 2
    assert not list((tmp_path / "cache" / "checked").glob(".*"))  # nothing half-written


# TFRecord


def example(image: bytes, label: int | None, text: str = "", **other: bytes) -> bytes:
    def of(value: bytes | int) -> Any:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {"image/encoded": of(image)}
    if label is not None:
        features["image/class/label"] = of(label)
    if text:
        features["image/class/text"] = of(text.encode())
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path: Path, records: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def shade(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def shades_of(split: Split) -> list[tuple[int, int]]:
    return [(int(decode(image, 3)[0, 0, 0]), int(label)) for image, label in split.examples]


@pytest.mark.parametrize("spec", ["{}/train-*", "{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_tfrecords_are_read_with_their_labels_and_names(
    tmp_path: Path, first: int, spec: str
) -> None:
    names = ("ant", "bee")
    for shard in range(3):
        records = [example(shade(10 * shard + i), first + i % 2, names[i % 2]) for i in range(4)]
        write_records(tmp_path / f"train-0000{shard}-of-00003", records)
    write_records(
        tmp_path / "validation-00000-of-00001", [example(shade(200), first + 1, names[1])]
    )
    source = open_source(DataConfig(source="tfrecord:" + spec.format(tmp_path)), seed=0)
    assert source.labels == names and source.channels == 3
    expected = [(10 * shard + i, i % 2) for shard in range(3) for i in range(4)]
    assert shades_of(source.train) == expected
    assert shades_of(source.test) == [(200, 1)]
    at = [source.train.at(tf.constant(i, "int64")) for i in (11, 0, 5)]
    assert [int(decode(image, 3)[0, 0, 0]) for image, _ in at] == [23, 0, 11]


def test_tfrecords_without_held_out_files_are_split_by_class(tmp_path: Path) -> None:
    write_records(tmp_path / "all.tfrecord", [example(shade(i), i % 3) for i in range(60)])
    source = open_source(DataConfig(source=f"tfrecord:{tmp_path}/all*"), seed=1)
    assert source.labels == ("0", "1", "2")
    train, test = shades_of(source.train), shades_of(source.test)
    assert np.bincount([label for _, label in test]).tolist() == [4, 4, 4]
    assert sorted(value for value, _ in train + test) == list(range(60))
    assert all(value % 3 == label for value, label in train + test)


def test_bad_images_of_tfrecords_are_named_or_left_out(tmp_path: Path) -> None:
    write_records(tmp_path / "train-1", [example(shade(i), i % 2) for i in range(4)])
    write_records(
        tmp_path / "train-2", [example(b"" if i == 1 else shade(4 + i), i % 2) for i in range(4)]
    )
    write_records(tmp_path / "val-1", [example(BAD["cut.png"], 0), example(shade(9), 1)])
    spec = f"tfrecord:{tmp_path}"
    with pytest.raises(ValueError, match=r"train-2, record 1, is empty; .*val-1, record 0, is cut"):
        open_source(DataConfig(source=spec), seed=0)
    said: list[str] = []
    source = open_source(DataConfig(source=spec, bad_images="skip"), 0, say=said.append)
    assert "skipping 2 of 10" in said[0]
    assert [value for value, _ in shades_of(source.train)] == [0, 1, 2, 3, 4, 6, 7]
    assert shades_of(source.test) == [(9, 1)]


def test_broken_tfrecords_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train-1"
    data = DataConfig(source=f"tfrecord:{path}")
    write_records(path, [example(shade(i), i % 2) for i in range(4)])
    whole = path.read_bytes()

    def error() -> str:
        with pytest.raises(ValueError) as caught:
            open_source(data, seed=0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path.write_bytes(whole[:-5])
    assert f"{path} is no TFRecord file, or cut off or damaged in record 3" in error()
    path.write_bytes(b"just some text of no importance")
    assert "is no TFRecord file" in error()
    path.write_bytes(b"")
    assert "There is no record" in error()
    write_records(path, [b"not an example"])
    assert "record 0, is not a tf.train.Example" in error()
    write_records(path, [tf.train.Example().SerializeToString()])
    assert "must have one image/encoded" in error()
    write_records(path, [example(shade(1), 5), example(shade(2), 5)])
    assert "at least two classes" in error()
    path.unlink()
    assert "No file is called" in error()


# Splits without labels


SHADES = {"train": 20, "test": 100, "validation": 200}
UNLABELLED = -1


@pytest.fixture
def prepare_tfds(tmp_path: Path) -> Callable[..., DataConfig]:
    """A function that prepares a real dataset of tensorflow-datasets on disk.

    Its arguments are the labels of each split, by the split's name.
    """
    import tensorflow_datasets as tfds

    def prepare(**labels: list[int]) -> DataConfig:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee"]),
        }
        examples = {
            split: [
                (i, {"image": np.full((8, 8, 3), SHADES[split] + label, "uint8"), "label": label})
                for i, label in enumerate(values)
            ]
            for split, values in labels.items()
        }
        tfds.dataset_builders.AdhocBuilder(
            name="tiny_shades",
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets=examples,
            data_dir=str(tmp_path),
        ).download_and_prepare()
        return DataConfig(source="tfds:tiny_shades", data_dir=str(tmp_path), test_fraction=0.25)

    return prepare


def splits_of(source: Source) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return sorted(shades_of(source.train)), sorted(shades_of(source.test))


TRAIN = [0, 1] * 10


def test_an_unlabelled_test_split_gives_way_to_validation(
    prepare_tfds: Callable[..., DataConfig],
) -> None:
    """As in tfds:imagenet2012, which both ImageNet recipes use."""
    data = prepare_tfds(train=TRAIN, test=[UNLABELLED] * 6, validation=[0, 1])
    said: list[str] = []
    source = open_source(data, seed=0, say=said.append)
    assert said == ["the split test has no labels, so it is not used"]
    assert (source.labels, source.train.count, source.test.count) == (("ant", "bee"), 20, 2)
    assert splits_of(source)[1] == [(200, 0), (201, 1)]
    assert [int(source.test.at(tf.constant(i, "int64"))[1]) for i in range(2)] == (
        labels_of(source.test).tolist()
    )


def test_without_any_labelled_test_split_a_share_of_train_is_held_out(
    prepare_tfds: Callable[..., DataConfig],
) -> None:
    data = prepare_tfds(train=TRAIN, test=[UNLABELLED] * 6, validation=[UNLABELLED] * 6)
    said: list[str] = []
    source = open_source(data, seed=0, say=said.append)
    assert len(said) == 2 and (source.train.count, source.test.count) == (15, 5)
    train, test = splits_of(source)
    assert sorted(train + test) == [(20, 0)] * 10 + [(21, 1)] * 10


def test_a_labelled_test_split_is_preferred(prepare_tfds: Callable[..., DataConfig]) -> None:
    data = prepare_tfds(train=TRAIN, test=[0, 1, 1], validation=[0])
    assert splits_of(open_source(data, seed=0))[1] == [(100, 0), (101, 1), (101, 1)]


def test_a_test_folder_without_classes_is_not_the_test_split(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for i in range(10):
            picture(tmp_path / "train" / label / f"{i}.png", i)
    picture(tmp_path / "test" / "1.png")
    said: list[str] = []
    data = DataConfig(source=f"folder:{tmp_path}")
    source = open_source(data, seed=0, say=said.append)
    assert said == [f"the split {tmp_path / 'test'} has no labels, so it is not used"]
    assert source.labels == ("cat", "dog") and (source.train.count, source.test.count) == (16, 4)
    picture(tmp_path / "validation" / "dog" / "1.png")
    source = open_source(data, seed=0, say=said.append)
    assert (source.train.count, labels_of(source.test).tolist()) == (20, [1])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("car", "train"):
        for i in range(10):
            picture(tmp_path / label / "somewhere" / f"{i}.png", i)
    source = open_source(DataConfig(source=f"folder:{tmp_path}"), seed=0)
    assert source.labels == ("car", "train")


@pytest.mark.parametrize("unlabelled", ["minus one", "missing"])
def test_unlabelled_tfrecords_are_not_the_test_split(tmp_path: Path, unlabelled: str) -> None:
    write_records(tmp_path / "train-1", [example(shade(i), i % 2) for i in range(20)])
    label = -1 if unlabelled == "minus one" else None
    write_records(tmp_path / "val-1", [example(shade(200), label) for _ in range(3)])
    said: list[str] = []
    data = DataConfig(source=f"tfrecord:{tmp_path}")
    source = open_source(data, seed=0, say=said.append)
    assert said == ["the val files, such as val-1, have no labels: not used"]
    assert (source.train.count, source.test.count) == (16, 4)
    write_records(tmp_path / "test-1", [example(shade(100), 1)])
    assert shades_of(open_source(data, seed=0, say=said.append).test) == [(100, 1)]
    write_records(tmp_path / "train-2", [example(shade(1), label)])
    with pytest.raises(ValueError, match=r"train-2, record 0, has no image/class/label.*1 of 21"):
        open_source(data, seed=0, say=said.append)
