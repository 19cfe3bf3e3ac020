"""Copies of every kind are found, across and within splits, and nothing else."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.training.audit.conftest import picture
from training.audit import duplicates
from training.audit.duplicates import find_duplicates, say_copies, seen_in_training
from training.audit.near import SIMILAR, near_pairs
from training.audit.scan import SIDE, scan
from training.config import DataConfig
from training.data.sources import Source, open_source

Alter = Callable[[Image.Image], Image.Image]
ALTERED: dict[str, Alter] = {
    "quality": lambda p: p,
    "resized": lambda p: p.resize((96, 72)),
    "cropped": lambda p: p.crop((8, 6, 160, 120)),
    "cropped on one side": lambda p: p.crop((0, 0, 160, 114)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.9),
    "mirrored": ImageOps.mirror,
}


def opened(folder: Path) -> Source:
    return open_source(DataConfig(f"folder:{folder}"), 0, say=lambda _: None)


def groups(folder: Path) -> list[set[str]]:
    seen = scan(opened(folder))
    names = [os.path.relpath(name, folder) for name in seen.names]
    return [{names[i] for i in group.members} for group in find_duplicates(seen)]


def test_different_pictures_are_no_duplicates(folder: Path) -> None:
    assert groups(folder) == []


@pytest.mark.parametrize("kind", ALTERED)
def test_an_altered_copy_is_a_near_duplicate(folder: Path, kind: str) -> None:
    altered = ALTERED[kind](Image.open(folder / "train/a/03.jpg"))
    altered.save(folder / "val/a/copy.jpg", quality=60)
    assert groups(folder) == [{"train/a/03.jpg", "val/a/copy.jpg"}]
    [group] = find_duplicates(scan(opened(folder)))
    assert group.across and not group.exact and not group.conflict
    assert SIMILAR <= group.similarity < 1


def test_equal_pixels_in_other_bytes_are_exact(folder: Path) -> None:
    Image.open(folder / "train/a/03.jpg").save(folder / "train/b/copy.png")
    [group] = find_duplicates(scan(opened(folder)))
    assert group.exact and group.conflict and not group.across


def test_a_chain_of_copies_is_one_group(folder: Path) -> None:
    shutil.copy(folder / "train/a/03.jpg", folder / "train/a/same.jpg")
    with Image.open(folder / "train/a/03.jpg") as original:
        ImageOps.mirror(original).save(folder / "val/b/mirrored.jpg")
    assert groups(folder) == [{"train/a/03.jpg", "train/a/same.jpg", "val/b/mirrored.jpg"}]


def test_pictures_of_one_colour_are_alike_only_if_equal(folder: Path) -> None:
    for number, color in enumerate(("red", "white", "white", "black")):
        Image.new("RGB", (160, 120), color).save(folder / f"train/a/plain{number}.png")
    assert groups(folder) == [{"train/a/plain1.png", "train/a/plain2.png"}]


def test_pairs_are_the_same_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    luma = [np.asarray(picture(i % 20).convert("L").resize((SIDE, SIDE))) for i in range(50)]
    thumbnails = np.stack(luma)[rng.permutation(50)]
    whole = near_pairs(thumbnails)
    assert len(whole.first) == 10 * 3 + 10 * 1  # 20 pictures: ten three times, ten twice
    monkeypatch.setattr("training.audit.near.ROWS", 7)
    monkeypatch.setattr("training.audit.near.PAIRS", 3)
    parts = near_pairs(thumbnails)
    np.testing.assert_array_equal(whole.first, parts.first)
    np.testing.assert_array_equal(whole.second, parts.second)
    both = near_pairs(thumbnails[:30], thumbnails[30:])
    expected = {(i, j - 30) for i, j in zip(whole.first, whole.second) if i < 30 <= j}
    assert {(i, j) for i, j in zip(both.first, both.second)} == expected


def test_seen_in_training_marks_the_test_pictures_with_copies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path / "cache"))
    shutil.copy(folder / "train/a/03.jpg", folder / "val/a/00.jpg")
    with Image.open(folder / "train/b/05.jpg") as original:
        ImageOps.mirror(original).save(folder / "val/b/02.jpg")
    Image.open(folder / "val/a/01.jpg").save(folder / "val/a/03.jpg")  # both in the test split
    source = opened(folder)
    seen = seen_in_training(source)
    assert seen is not None and np.flatnonzero(seen).tolist() == [0, 6]
    monkeypatch.setattr("training.data.validate_images.CACHE_FROM_SECONDS", -1.0)
    first = seen_in_training(source)
    monkeypatch.setattr(duplicates, "_find_seen", lambda source: pytest.fail("not cached"))
    np.testing.assert_array_equal(seen_in_training(source), first)


def test_seen_in_training_is_unknown_without_files_or_with_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen_in_training(open_source(DataConfig("digits"), 0)) is None
    monkeypatch.setattr(duplicates, "MOST_SEEN", 31)
    assert seen_in_training(opened(folder)) is None


def said(folder: Path) -> list[str]:
    lines: list[str] = []
    say_copies(opened(folder), f"folder:{folder}", lines.append)
    return lines


def test_training_says_in_one_line_what_copies_there_are(folder: Path) -> None:
    assert said(folder) == ["no test file is a copy of a training file"]
    shutil.copy(folder / "train/a/03.jpg", folder / "val/a/00.jpg")
    shutil.copy(folder / "train/a/03.jpg", folder / "train/a/04.jpg")  # within: not counted
    [line] = said(folder)
    assert line.startswith("1 test file is a copy of training files, such as ")
    assert f"{folder}/val/a/00.jpg of {folder}/train/a/03.jpg. " in line
    assert line.endswith(f"See all: keras-resnet audit folder:{folder}")
    shutil.copy(folder / "train/b/01.jpg", folder / "val/b/00.jpg")
    assert said(folder)[0].startswith("2 test files are copies of training files, such as ")


def test_files_of_equal_size_and_end_are_no_copies(folder: Path) -> None:
    for number, path in enumerate((folder / "train/a/x.bmp", folder / "val/a/x.bmp")):
        image = picture(99)
        image.putpixel((0, 119), (number, number, number))  # the first row of a BMP is the last
        image.save(path)
    one, other = (folder / "train/a/x.bmp", folder / "val/a/x.bmp")
    assert one.stat().st_size == other.stat().st_size
    assert one.read_bytes()[-4096:] == other.read_bytes()[-4096:]
    assert said(folder) == ["no test file is a copy of a training file"]


def test_only_files_of_a_size_in_both_splits_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(folder)
    files = [*source.train.files, *source.test.files]
    monkeypatch.setattr(duplicates, "_size", lambda file: files.index(file) + 1)
    monkeypatch.setattr(duplicates, "_tail_hash", lambda file: pytest.fail(f"{file} was read"))
    assert duplicates._same_size(source.train.files, source.test.files) == []
    say_copies(source, "folder:x", lambda _: None)


def test_too_many_candidates_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(folder / "train/a/03.jpg", folder / "val/a/00.jpg")
    monkeypatch.setattr(duplicates, "MOST_HASHED", 1)
    [line] = said(folder)
    assert "were not compared" in line and "keras-resnet audit" in line


def test_sources_without_files_say_nothing() -> None:
    say_copies(open_source(DataConfig("digits"), 0), "digits", pytest.fail)
