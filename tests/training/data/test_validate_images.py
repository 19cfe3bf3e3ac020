"""Checks of real files on disk, and what a real run of the command says of them."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import DataConfig
from training.data import validate_images
from training.data.sources import open_source
from training.data.validate_images import check_files

ROOT = Path(__file__).parents[3]
EXTRANEOUS = b"a" * 40  # more than libjpeg reads ahead
NOT_UTF_8 = os.fsdecode(b"caf\xe9.jpg")


def picture(number: int, format: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def damaged(number: int) -> bytes:
    """A JPEG that libjpeg reads, with a line on stderr."""
    whole = picture(number)
    return whole[:-2] + EXTRANEOUS + whole[-2:]


def write(folder: Path, files: dict[str, bytes]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in files]


KINDS = {
    "a.jpg": picture(0),
    "b.png": picture(1, "PNG"),
    "c.gif": picture(2, "GIF"),
    "png.jpg": picture(3, "PNG"),
    "no ending": picture(4),
    NOT_UTF_8: picture(5),
    "damaged.jpg": damaged(6),
    "cut.jpg": picture(7)[:-200],
    "cut.png": picture(8, "PNG")[:-40],
    "empty.jpg": b"",
    "text.png": b"a picture was here",
    "notes.txt": b"text",
    "list.xml": b"<?xml version='1.0'?><a/>",
    "empty": b"",
    "array.npy": b"\x93NUMPY\x01\x00\xff",
}


def test_every_file_is_read_or_has_a_reason(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    names = list(KINDS)
    checked = check_files(write(tmp_path, KINDS))
    problems = {names[i]: text for i, text in checked.problems.items()}
    assert problems.keys() == {"cut.jpg", "cut.png", "empty.jpg", "text.png"}
    assert problems["empty.jpg"] == "is empty"
    assert problems["text.png"] == "is not a readable picture"
    assert "is cut off or broken inside" in problems["cut.jpg"]
    assert {names[i]: text for i, text in checked.others.items()} == {
        "notes.txt": "text file",
        "list.xml": "text file",
        "empty": "empty file",
        "array.npy": ".npy file",
    }
    (remark,) = checked.remarks.items()
    assert names[remark[0]] == "damaged.jpg" and "extraneous bytes before marker" in remark[1]
    assert [names[i] for i in checked.by_pillow] == ["damaged.jpg"]
    assert "JPEG" not in capfd.readouterr().err


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_damage_is_attributed_to_its_file_whatever_the_block(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate_images, "BLOCK", block)
    bad = {3, 20, 21, 39}
    files = {f"{i:02d}.jpg": damaged(i) if i in bad else picture(i) for i in range(40)}
    checked = check_files(write(tmp_path, files))
    assert set(checked.remarks) == bad and set(checked.by_pillow.tolist()) == bad
    assert not checked.problems and not checked.others


def test_what_others_print_meanwhile_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    line = "2026-11-25 21:00:00.000001: W tensorflow/core/framework/allocator.cc:84] memory is low"
    screen = validate_images.screen

    def printing(paths: list[str]) -> np.ndarray:
        os.write(2, f"{line}\n".encode())
        return screen(paths)

    monkeypatch.setattr(validate_images, "screen", printing)
    checked = check_files(write(tmp_path, {"a.jpg": picture(0)}))
    assert not checked.remarks and line in capfd.readouterr().err


def test_a_warning_of_png_in_a_log_is_about_a_picture() -> None:
    prefix = "2026-11-25 21:00:00.000001: W tensorflow/core/lib/png/png_io.cc:88] "
    assert validate_images._of_picture(prefix + "PNG warning: iCCP") == "PNG warning: iCCP"
    line = "W0000 00:00:1795642576.424269    1433 png_io.cc:88] PNG warning: iCCP"
    assert validate_images._of_picture(line) == "PNG warning: iCCP"


# --- The command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 pictures, of which 5 are damaged, 5 unreadable and 3 no pictures."""
    root = tmp_path_factory.mktemp("files") / "data"
    for label in ("cat", "dog"):
        write(root / label, {f"{i:02d}.jpg": picture(i) for i in range(20)})
    write(root / "cat", {f"damaged{i}.jpg": damaged(i) for i in range(5)})
    write(root / "cat", {NOT_UTF_8: picture(30), os.fsdecode(b"bad\xff.jpg"): b""})
    write(root / "dog", {f"cut{i}.jpg": picture(i)[:-200] for i in range(4)})
    write(root / "dog", {"notes.txt": b"text", "a.npy": b"\x93NUMPY\0", "README": b"text"})
    return root


def train(data: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "keras_resnet.cli", "train", "--recipe", "digits-resnet8",
            "--data", f"folder:{data}", "--epochs", "2", "--batch-size", "8", "--out", str(out),
            "--set", "data.cache_gb=0", *options,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_RESNET_CACHE": str(out.parent / "c")},
        cwd=out.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )  # fmt: skip


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_unreadable_images_stop_the_run_and_all_are_listed(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path / "run")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert "5 of 51 images cannot be read" in error and "and 2 more" in error
    assert str(tmp_path / "run" / "images.csv") in error
    rows = listed(tmp_path / "run")
    status = [row["status"] for row in rows]
    assert (status.count("unreadable"), status.count("damaged")) == (5, 5)
    assert status.count("not a picture") == 3
    assert [row["path"] for row in rows if row["reason"] == "is empty"] == [
        f"{data}/cat/bad\\udcff.jpg"
    ]


def test_a_run_over_damaged_images_prints_nothing_of_libjpeg(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path / "run", "--set", "data.bad_images=skip")
    assert done.returncode == 0, done.stderr
    remarks = [line for line in done.stderr.splitlines() if "extraneous" in line]
    # One line from training and one from the evaluation after it; each names the files.
    assert len(remarks) == 2 and all("5 images have damaged data" in line for line in remarks)
    assert "damaged0.jpg (Corrupt JPEG data" in remarks[0] and "and 2 more" in remarks[0]
    assert "2 text files" in done.stderr and "1 .npy file" in done.stderr
    assert "the list of these 13 files" in done.stderr
    assert "skipping 5 of 51 images" in done.stderr
    assert len(listed(tmp_path / "run")) == 13


def test_a_dry_run_prints_the_whole_list_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path / "run", "--dry-run")
    assert done.returncode == 2
    assert all(f"cut{i}.jpg: unreadable" in done.stderr for i in range(4))
    assert not (tmp_path / "run").exists()


def test_the_list_of_an_earlier_start_is_removed(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write(tmp_path / "data" / label, {f"{i}.jpg": picture(i) for i in range(10)})
    bad = tmp_path / "data" / "cat" / "bad.jpg"
    bad.write_bytes(b"")
    assert train(tmp_path / "data", tmp_path / "run").returncode == 2
    assert len(listed(tmp_path / "run")) == 1
    bad.unlink()
    assert train(tmp_path / "data", tmp_path / "run").returncode == 0
    assert not (tmp_path / "run" / "images.csv").exists()


def test_names_that_are_not_utf_8_are_read(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        names = {os.fsdecode(b"\xff%d.jpg" % i): picture(i) for i in range(5)}
        write(tmp_path / label, names)
    source = open_source(DataConfig(source=f"folder:{tmp_path}"), seed=0)
    assert source.train.count + source.test.count == 10
    assert all(bytes(image.numpy()).startswith(b"\xff\xd8") for image, _ in source.train.examples)


def test_a_class_folder_whose_name_is_not_utf_8_is_named(tmp_path: Path) -> None:
    for label in ("cat", os.fsdecode(b"caf\xe9")):
        write(tmp_path / label, {f"{i}.jpg": picture(i) for i in range(5)})
    with pytest.raises(ValueError, match=r"caf\\xe9 is not UTF-8. Rename the folder"):
        open_source(DataConfig(source=f"folder:{tmp_path}"), seed=0)
