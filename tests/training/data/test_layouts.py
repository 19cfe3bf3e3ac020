"""Folders as people have them: which images are training, test, and of which class."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import DataConfig
from training.data.listing import list_folder
from training.data.sources import Source, labels_of, open_source
from training.data.split_names import split_word, split_words


def png(shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def fill(root: Path, tree: str) -> Path:
    """Makes folders of pictures: "train/cats 3, train/dogs 2" has 3 and 2; a name is a file."""
    for part in tree.split(","):
        path, _, count = part.strip().rpartition(" ")
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        if count.isdigit():
            for number in range(int(count)):
                (folder / f"{number}.png").write_bytes(png(number))
        else:
            (folder / count).write_text("text, no picture")
    return root


def counts(source: Source) -> tuple[dict[str, int], dict[str, int]]:
    def of(split: np.ndarray) -> dict[str, int]:
        numbers = np.bincount(split, minlength=len(source.labels)).tolist()
        return dict(zip(source.labels, numbers))

    return of(labels_of(source.train)), of(labels_of(source.test))


def open_folder(spec: object, **data: str) -> tuple[Source, list[str]]:
    said: list[str] = []
    config = DataConfig(source=f"folder:{spec}", test_fraction=0.2, **data)  # type: ignore[arg-type]
    return open_source(config, 0, said.append), said


AB = {"a": 8, "b": 4}
HELD_OUT = {"a": 2, "b": 1}
TRAIN, TEST = {"a": 3, "b": 2}, {"a": 1, "b": 2}
ANIMALS = ("ant", "bee", "cat", "dog", "test")
# Tree, training and test images of each class, and a part of each line that is said.
READ: dict[str, tuple[str, dict[str, int], dict[str, int], list[str]]] = {
    "classes": ("a 10, b 5", AB, HELD_OUT, []),
    "train and val": ("train/a 3, train/b 2, val/a 1, val/b 2", TRAIN, TEST, []),
    "train and valid": ("train/a 3, train/b 2, valid/a 1, valid/b 2", TRAIN, TEST, []),
    "training_set and test_set": (
        "training_set/a 3, training_set/b 2, test_set/a 1, test_set/b 2",
        TRAIN,
        TEST,
        [],
    ),
    "Train and Test": ("Train/a 3, Train/b 2, Test/a 1, Test/b 2", TRAIN, TEST, []),
    "TRAIN and VALIDATION": (
        "TRAIN/a 3, TRAIN/b 2, VALIDATION/a 1, VALIDATION/b 2",
        TRAIN,
        TEST,
        [],
    ),
    "training and testing": (
        "training/a 3, training/b 2, testing/a 1, testing/b 2",
        TRAIN,
        TEST,
        [],
    ),
    "train_images and dev-images": (
        "train_images/a 3, train_images/b 2, dev-images/a 1, dev-images/b 2",
        TRAIN,
        TEST,
        [],
    ),
    "Intel: doubled, with pictures to predict": (
        "seg_train/seg_train/a 3, seg_train/seg_train/b 2, seg_test/seg_test/a 1,"
        "seg_test/seg_test/b 2, seg_pred/seg_pred 4",
        TRAIN,
        TEST,
        [
            "seg_pred is no split and has no class folders, so it is not used",
            "read from {}/seg_train/seg_train",
            "read from {}/seg_test/seg_test",
        ],
    ),
    "Roboflow": (
        "train/a 3, train/b 2, valid/a 1, valid/b 2, test/a 1, test/b 1, README.roboflow.txt",
        TRAIN,
        TEST,
        [
            "{}/valid is the test split, so {}/test is not used. To test on it instead: "
            "--train {}/train --test {}/test"
        ],
    ),
    "val, test and validation": (
        "train/a 3, train/b 2, test/a 1, test/b 2, validation/a 1, val/b 5",
        TRAIN,
        {"a": 0, "b": 5},
        ["{}/val is the test split, so {}/test is not", "so {}/validation is not used"],
    ),
    "a zip of Kaggle": (
        "archive/flowers/flowers/a 10, archive/flowers/flowers/b 5, __MACOSX/archive 3",
        AB,
        HELD_OUT,
        ["images are read from {}/archive/flowers/flowers, as {} holds no others"],
    ),
    "a wrapper around splits": (
        "dataset/train/a 3, dataset/train/b 2, dataset/test/a 1, dataset/test/b 2, labels notes.md",
        TRAIN,
        TEST,
        ["read from {}/dataset"],
    ),
    "images": ("images/a 10, images/b 5, annotations a.xml", AB, HELD_OUT, ["{}/images"]),
    "train only": ("train/a 10, train/b 5", AB, HELD_OUT, ["read from {}/train"]),
    "train and an empty test": (
        "train/a 10, train/b 5, test .keep",
        AB,
        HELD_OUT,
        ["images are read from {}/train, as {} holds no others"],
    ),
    "test without classes": (
        "train/a 10, train/b 5, test 6",
        AB,
        HELD_OUT,
        ["the split {}/test has no labels, so it is not used"],
    ),
    "Tiny ImageNet": (
        "train/a/images 10, train/b/images 5, val/images 6, test/images 4",
        AB,
        HELD_OUT,
        ["{}/val has no labels", "{}/test has no labels"],
    ),
    "hidden files": (
        "a 10, b 5, a/.ipynb_checkpoints 10, b/@eaDir 3, .git/objects 2, a Thumbs.db, b ._0.png",
        AB,
        HELD_OUT,
        ["not read: 15 hidden files, such as {}/a/Thumbs.db"],
    ),
    "a class named test": (
        "ant 5, bee 5, cat 5, dog 5, test 5",
        dict.fromkeys(ANIMALS, 4),
        dict.fromkeys(ANIMALS, 1),
        [],
    ),
    "steam trains": (
        "steam_train 10, car 5",
        {"car": 4, "steam_train": 8},
        {"car": 1, "steam_train": 2},
        [],
    ),
    "a class with more in a subfolder": (
        "a 6, a/more 4, b 5",
        AB,
        HELD_OUT,
        ["pictures in deeper folders count for their class in {}: a, such as more in a"],
    ),
    "an empty class folder": (
        "a 10, b 5, c .keep",
        AB,
        HELD_OUT,
        ["folders without pictures in {} are no classes: c"],
    ),
    "pictures beside the classes": (
        "a 10, b 5, ./ 2",
        AB,
        HELD_OUT,
        ["not read, as in none of the folders of {} but beside them: 2 pictures"],
    ),
    "pictures beside the splits": (
        "train/a 3, train/b 2, val/a 1, val/b 2, ./ 1",
        TRAIN,
        TEST,
        ["not read, as in none of the folders of {} but beside them: 1 picture"],
    ),
    "a class that test lacks": ("train/a 3, train/b 2, val/b 2", TRAIN, {"a": 0, "b": 2}, []),
}


@pytest.mark.parametrize("name", READ)
def test_a_layout_is_read(name: str, tmp_path: Path) -> None:
    tree, train, test, lines = READ[name]
    source, said = open_folder(fill(tmp_path, tree))
    assert counts(source) == (train, test)
    assert len(said) == len(lines), said
    for line, part in zip(said, lines):
        assert part.replace("{}", str(tmp_path)) in line
        assert "\n" not in line


REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("a .keep", "Found: no picture at all"),
    "one class": ("cats 3", "for each of at least two classes. Found: cats"),
    "no classes": ("./ 3", "Found: 3 pictures in no folder. Sort them into class folders, or list"),
    "a nest": (
        "insects/ants 3, insects/bees 2, mammals/cats 4, mammals/dogs 2",
        "{}/insects holds folders of pictures (ants, bees) and no pictures itself: a split, a "
        "group of classes or one class? If the classes are in it: --data folder:{}/insects. If "
        "insects, mammals are the classes: --train {}",
    ),
    "a nest beside classes": (
        "insects/ants 3, insects/bees 2, cats 4",
        "{}/insects holds folders of pictures (ants, bees)",
    ),
    "splits of another language": (
        "treino/a 3, treino/b 2, teste/a 1, teste/b 1",
        "{}/teste holds folders of pictures (a, b), and so does treino. If they are the splits: "
        "--train {}/teste --test {}/treino",
    ),
    "a nest in train": (
        "train/insects/ants 3, train/insects/bees 2, train/cats 4, val/cats 3",
        "{}/train/insects holds folders of pictures (ants, bees)",
    ),
    "splits without classes": (
        "train 3, test 2",
        "test, train look like splits, but do not have a folder for each",
    ),
    "YOLO": (
        "train/images 3, valid/images 2, train/labels 0.txt, valid/labels 0.txt",
        "train, valid look like splits, but do not have a folder for each",
    ),
    "splits beside a folder without classes": (
        "train 3, test 2, other 4",
        "look like splits, but do not have a folder for each",
    ),
    "no training split": (
        "test/a 3, test/b 2, valid/a 1, valid/b 2",
        "needs one folder of training images, such as train. Found: test, valid. Name it: --train",
    ),
    "two training splits": (
        "train/a 3, train/b 2, training/a 3, training/b 2, val/a 1",
        "needs one folder of training images",
    ),
    "classes beside a split": (
        "a 3, b 2, test/a 3, test/b 2",
        "needs one folder of training images, such as train. Found: a, b, test",
    ),
    "an unknown split": (
        "train/a 3, train/b 2, val/a 1, fold2/a 1, fold2/b 2",
        "holds train and val; what are fold2? To leave them out: --train {}/train --test {}/val",
    ),
    "unknown test classes": (
        "train/a 3, train/b 2, val/a 1, val/c 1",
        "{}/val has classes that {}/train lacks: c. It has: a, b",
    ),
    "one class in train": ("train/a 3, val/a 2", "look like splits, but do not have a folder"),
    "one class in training": ("train/a 3, val/a 2, val/b 2", "{}/train needs a folder of pictures"),
    "a copy of the whole": (
        "x/train/a 3, x/train/b 2, train/a 3, train/b 2, test/a 2",
        "what are x? To leave them out: --train {}/train --test {}/test",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unclear_layout_is_refused(name: str, tmp_path: Path) -> None:
    tree, says = REFUSED[name]
    with pytest.raises(ValueError) as error:
        open_folder(fill(tmp_path, tree))
    assert says.replace("{}", str(tmp_path)) in str(error.value)
    assert "\n" not in str(error.value)


def test_each_subfolder_is_a_class_where_that_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "x/insects/ants 6, x/insects/bees 4, x/test 5, x/train 5, y/test 2, y/insects 1")
    source, said = open_folder(f"{tmp_path}/x/*")
    expected = {"insects": 8, "test": 4, "train": 4}, {"insects": 2, "test": 1, "train": 1}
    assert counts(source) == expected
    assert len(said) == 1 and "insects, such as ants, bees in insects" in said[0]
    source, said = open_folder(f"{tmp_path}/x", test=f"{tmp_path}/y")
    assert counts(source) == (
        {"insects": 10, "test": 5, "train": 5},
        {"insects": 1, "test": 2, "train": 0},
    )


@pytest.mark.parametrize(
    ("spec", "test", "says"),
    [
        ("x", "nowhere", "There is no folder {}/nowhere"),
        ("nowhere/*", "", "There is no folder {}/nowhere"),
        ("x", "z", "{}/z has classes that {}/x lacks: c. It has: a, b"),
        ("x", "empty", "{}/empty needs a folder of pictures for each class"),
        ("z", "x", "{}/z needs a folder of pictures for each of at least two classes. Found: c"),
        ("whole/*", "", "{}/whole holds the splits train and val, not classes. Give it whole "),
    ],
)
def test_given_folders_that_do_not_fit_are_refused(
    spec: str, test: str, says: str, tmp_path: Path
) -> None:
    fill(tmp_path, "x/a 3, x/b 2, z/c 2, empty .keep, whole/train/a 1, whole/train/b 1")
    fill(tmp_path, "whole/val/a 1, whole/val/b 1")
    with pytest.raises(ValueError) as error:
        open_folder(tmp_path / spec, test=str(tmp_path / test) if test else "")
    assert says.replace("{}", str(tmp_path)) in str(error.value)


def test_links_are_followed_and_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "store/one 10, store/two 5, d notes.txt")
    root = tmp_path / "d"
    (root / "a").symlink_to(tmp_path / "store" / "one")
    (root / "b").mkdir()
    for file in (tmp_path / "store" / "two").iterdir():
        (root / "b" / file.name).symlink_to(file)
    assert counts(open_folder(root)[0]) == (AB, {"a": 2, "b": 1})
    (root / "b" / "up").symlink_to(root)
    with pytest.raises(ValueError, match="b/up is a link to a folder that contains it"):
        open_folder(root)


def test_a_pipe_among_the_pictures_is_not_opened(tmp_path: Path) -> None:
    fill(tmp_path, "a 10, b 5")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert counts(open_folder(tmp_path)[0]) == (AB, {"a": 2, "b": 1})
    listed = list_folder(str(tmp_path))
    assert list(listed.hidden_paths()) == [f"{tmp_path}/a/pipe.png"]


def test_hidden_files_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, "a 1, a/.cache/x 2, a Thumbs.db, b/__MACOSX 1, b .DS_Store, b ._0.png")
    hidden = [os.path.relpath(path, tmp_path) for path in list_folder(str(tmp_path)).hidden_paths()]
    expected = [
        *("a/.cache/x/0.png", "a/.cache/x/1.png", "a/Thumbs.db"),
        *("b/.DS_Store", "b/._0.png", "b/__MACOSX/0.png"),
    ]
    assert sorted(hidden) == sorted(expected)


def test_files_need_no_picture_suffix(tmp_path: Path) -> None:
    fill(tmp_path, "a 10, b 5")
    for folder, suffix in (("a", ""), ("b", ".data")):
        for file in (tmp_path / folder).iterdir():
            file.rename(file.with_suffix(suffix))
    assert counts(open_folder(tmp_path)[0]) == (AB, {"a": 2, "b": 1})


def test_names_need_not_be_utf8_but_those_of_classes(tmp_path: Path) -> None:
    fill(tmp_path, "a 9, b 5")
    (tmp_path / "a" / os.fsdecode(b"caf\xe9.png")).write_bytes(png(200))
    source, _ = open_folder(tmp_path)
    assert counts(source) == (AB, {"a": 2, "b": 1})
    pixels = [
        Image.open(io.BytesIO(image.numpy())).getpixel((0, 0))
        for split in (source.train, source.test)
        for image, _ in split.examples
    ]
    assert pixels.count((200, 0, 0)) == 1
    (tmp_path / "b").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(ValueError, match=r"class folder .*caf\\xe9 is not UTF-8") as error:
        open_folder(tmp_path)
    str(error.value).encode()


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ("train Train TRAIN train_images trainset train-set train2017 TrainData train_1", "train"),
        ("training training_set Training TrainingImages", "training"),
        ("test Test test_set TestImages testset test1", "test"),
        ("valid Valid valid_data", "valid"),
        ("hold_out HoldOut hold-out-set", "holdout"),
        ("latest trainer contest steam_train protests seg_train validity a", None),
    ],
)
def test_splits_are_known_in_usual_spellings(names: str, word: str | None) -> None:
    assert {name: split_word(name) for name in names.split()} == dict.fromkeys(names.split(), word)


def test_another_word_in_both_names_makes_splits() -> None:
    assert split_words(["seg_train", "seg_test", "seg_pred"]) == {
        "seg_train": "train",
        "seg_test": "test",
    }
    assert split_words(["steam train", "car", "drug test", "bullet train"]) == {}


def test_files_that_are_no_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a 10, b 5")
    others = {
        "1.xml": b'<?xml version="1.0"?><annotation/>',
        "1.json": b"{}",
        "page.html": b"<html></html>",
        "notes.pdf": b"%PDF-1.4",
        "features.npy": b"\x93NUMPY\x01\x00",
        "more.zip": b"PK\x03\x04",
        "empty": b"",
    }
    for name, content in others.items():
        (tmp_path / "a" / name).write_bytes(content)
    (tmp_path / "b" / ".DS_Store").write_bytes(b"\0\0\0\1")
    source, said = open_folder(tmp_path)
    assert counts(source) == (AB, HELD_OUT)
    found = {os.path.relpath(note.path, tmp_path): note.status for note in source.notes}
    expected = dict.fromkeys((f"a/{name}" for name in others), "not a picture")
    assert found == {**expected, "b/.DS_Store": "hidden"}
    assert len(said) == 2
    assert "not read, as not a picture: 7 files" in said[0]
    assert "not read: 1 hidden file, such as" in said[1]


@pytest.mark.parametrize("target", ["nowhere.png", "gone.png"], ids=["broken", "to itself"])
def test_a_broken_link_is_an_unreadable_picture(target: str, tmp_path: Path) -> None:
    fill(tmp_path, "a 10, b 5")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "a" / target)
    with pytest.raises(ValueError, match=r"1 of 16 images cannot be read: .*gone\.png"):
        open_folder(tmp_path)


def test_classes_whose_names_only_look_alike_are_told_apart(tmp_path: Path) -> None:
    """A folder from macOS, whose names are decomposed, beside one from elsewhere."""
    for split, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        for label in (name, "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8)).save(tmp_path / split / label / f"{i}.png")
    with pytest.raises(ValueError, match="Unicode form only: rename one of them"):
        open_source(DataConfig(source=f"folder:{tmp_path}"), seed=0)
