"""``keras-resnet audit``: the table, the page, JSON, exit codes and errors."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import run
from tests.training.audit.conftest import picture
from training.run import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of two classes with one copy across the splits, a broken file and a dark one."""
    root = tmp_path / "pictures"
    for split, count in (("train", 6), ("val", 2)):
        for number, label in enumerate(("a", "b")):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                seed = 1000 * number + 100 * len(split) + i
                picture(seed).save(root / split / label / f"{i}.jpg")
    shutil.copy(root / "train/a/1.jpg", root / "val/b/copy.jpg")
    (root / "train/a/broken.jpg").write_bytes((root / "train/a/2.jpg").read_bytes()[:900])
    Image.new("RGB", (160, 120), "black").save(root / "train/b/<dark>.png")
    return root


def test_the_table_has_a_row_for_each_kind(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", folder, "--out", tmp_path / "page.html") == 0
    output = capsys.readouterr()
    counts = dict(re.findall(r"^([a-z-]+) +(\d+|–) ", output.out, re.M))
    assert counts == {
        "unreadable": "1", "leaks": "1", "conflicts": "1", "duplicates": "1",
        "near-duplicates": "0", "labels": "–", "dark": "1", "bright": "0", "plain": "1",
        "blurred": "0", "tiny": "0", "odd-shaped": "0",
    }  # fmt: skip
    assert "13 training images, 5 test images, 2 classes" in output.out
    assert "--model FILE" in output.out
    assert output.err.splitlines()[-1] == f"page: {tmp_path}/page.html"


def test_the_page_is_one_file_with_thumbnails_and_escaped_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", f"folder:{folder}", "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert len(re.findall('src="data:image/jpeg;base64,[^"]{300,}"', page)) == 4
    assert not re.search(r"""(src|href)=["'](?!data:)|<script|@import|url\(""", page)
    assert "b/&lt;dark&gt;.png" in page and "<dark>" not in page
    assert "broken.jpg" in page and "is cut off or broken" in page


def test_json_names_every_picture(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", folder, "--out", tmp_path / "page.html", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == {"train": 13, "test": 5}
    assert found["classes"][0] == {"label": "a", "train": 6, "test": 2}
    [group] = found["groups"]
    assert group["exact"] and group["across"] and group["conflict"]
    assert [(m["name"], m["split"], m["label"]) for m in group["members"]] == [
        (f"{folder}/train/a/1.jpg", "train", "a"),
        (f"{folder}/val/b/copy.jpg", "test", "b"),
    ]
    assert [row["name"] for row in found["dark"]] == [f"{folder}/train/b/<dark>.png"]
    assert [row["file"] for row in found["unreadable"]] == [f"{folder}/train/a/broken.jpg"]
    assert found["counts"]["labels"] is None and "--model" in found["not_done"]["labels"]


@pytest.mark.parametrize(
    ("kinds", "code"), [(("bright", "tiny"), 0), (("tiny", "leaks"), 1), (("unreadable",), 1)]
)
def test_fail_on_exits_with_1_if_such_a_finding_is_there(
    kinds: tuple[str, ...], code: int, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run("audit", folder, "--out", tmp_path / "p.html", "--fail-on", *kinds) == code
    output = capsys.readouterr()
    assert ("keras-resnet: failed: " in output.err) == bool(code) and "leaks" in output.out


def test_a_kind_that_was_not_looked_for_cannot_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("audit", "digits", "--fail-on", "labels") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("keras-resnet: error: ") and "--fail-on labels: not looked for" in last


def test_a_model_of_other_channels_is_refused(
    digits_run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run("audit", folder, "--out", page, "--model", digits_run.folder) == 2
    assert "has 3 channels, the model takes 1" in capsys.readouterr().err
    assert not page.exists()


def test_labels_of_arrays_are_judged_by_a_run(
    digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run("audit", "digits", "--out", page, "--model", digits_run.folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["labels"] is not None and found["counts"]["labels"] < 60
    assert found["groups"] == []  # 8×8 digits are too small for near duplicates


def test_training_says_that_a_test_file_is_a_copy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("data.bad_images=skip", "model.size=32", "runtime.batch_size=4", "schedule.epochs=1")
    data = ("--data", f"folder:{folder}", "--out", tmp_path / "run", "--set", *sets)
    assert run("train", "--recipe", "folder-resnet18", *data, "model.architecture=ResNet8") == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if "copy of" in x]
    assert len(lines) == 1 and lines[0].startswith("1 test file is a copy of training files, such")
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert found["top1"]["images"] == 5 and found["without_duplicates"]["images"] == 4
