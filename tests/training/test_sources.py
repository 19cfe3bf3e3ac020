"""Where images come from: the right ones, always the same, with their names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import DataConfig
from training.data.sources import Source, Split, open_source


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
        ("folder:/nowhere/at/all", "There is no folder"),
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
    with pytest.raises(ValueError, match="a subfolder of pictures"):
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
