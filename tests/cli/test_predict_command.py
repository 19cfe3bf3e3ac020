"""``predict``: files, folders and lists; bad pictures; files of results."""

import csv
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet.cli import prediction
from keras_resnet.cli.prediction import BATCH, Named, Prediction, named_files, predictions
from keras_resnet.contract import Contract
from tests.cli.terminal import in_shell, on_terminal
from tests.command_line import run

MODELS = ("model.keras", ".", "saved_model", "tflite/model_float32.tflite")


@pytest.fixture
def folder(digit: Path, tmp_path: Path) -> Path:
    """Two pictures, one of them without an ending, a picture cut off, and other files."""
    root = tmp_path / "p"
    (root / "deep" / ".hidden").mkdir(parents=True)
    shutil.copy(digit, root / "a.png")
    shutil.copy(digit, root / "deep" / "b")
    shutil.copy(digit, root / ".c.png")
    shutil.copy(digit, root / "deep" / ".hidden" / "d.png")
    (root / "cut.png").write_bytes(digit.read_bytes()[:100])
    (root / "notes.txt").write_text("no picture")
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_bad_picture_is_named_and_the_others_are_predicted(
    converted: Path, folder: Path, digit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, text = folder / "missing.png", folder / "notes.txt"
    assert run("predict", converted, missing, folder, text, digit, "--top", 1) == 1
    output = capsys.readouterr()
    names = [line.split(": 0 ")[0] for line in output.out.splitlines()]
    assert names == [str(path) for path in (folder / "a.png", folder / "deep" / "b", digit)]
    errors = output.err.splitlines()
    for path in (missing, folder / "cut.png", text):
        assert sum(str(path) in line for line in errors if "passed over" not in line) == 1
    assert f"passed over a file that is no picture: {text}" in errors
    assert errors[-1] == "keras-resnet: failed: 3 of 6 pictures have no prediction"
    assert "Traceback" not in output.err


def test_json_is_one_list_with_the_errors_in_it(
    converted: Path, folder: Path, digit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", converted, digit, folder / "cut.png", "--top", 2, "--json") == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert list(good) == ["image", "top"] and good["image"] == str(digit)
    assert [set(row) for row in good["top"]] == [{"label", "probability"}] * 2
    assert bad["top"] == [] and "cut.png" in bad["error"]


@pytest.mark.parametrize("model", MODELS)
def test_every_format_writes_the_same_files(
    model: str, converted: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = folder.parent / "out.csv", folder.parent / "out.jsonl"
    for out in (table, lines):
        assert run("predict", converted / model, folder, "--out", out, "--top", 3) == 1
        assert capsys.readouterr().out.splitlines() == [str(out)]
    rows = rows_of(table)
    ranks = [f"{name}_{n}" for n in (1, 2, 3) for name in ("label", "probability")]
    assert list(rows[0]) == ["image", "labels", *ranks, "error"]
    names = [str(folder / name) for name in ("a.png", "cut.png", "deep/b")]
    assert [row["image"] for row in rows] == names
    assert [row["labels"] for row in rows] == ["0", "", "0"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert float(rows[0]["probability_1"]) > float(rows[0]["probability_2"]) > 0
    parsed = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [row["image"] for row in parsed] == names
    for row, line in zip(rows, parsed):
        assert row["error"] == line.get("error", "")
        for n, (label, p) in enumerate((top["label"], top["probability"]) for top in line["top"]):
            assert row[f"label_{n + 1}"] == label
            assert float(row[f"probability_{n + 1}"]) == pytest.approx(p, rel=1e-5)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out.csv", "out.jsonl", "p"]


def test_files_that_claim_to_be_pictures_are_those_of_training(
    converted: Path, digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "Thumbs.db", "__MACOSX/b.png"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digit, tmp_path / "p" / name)
    (tmp_path / "p" / "cut.jpe").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (8, 8)).save(tmp_path / "p" / "sign.ppm")
    assert run("predict", converted, tmp_path / "p") == 1
    output = capsys.readouterr()
    assert output.out.count("\n") == 1 and "a.png: " in output.out
    assert "cut.jpe is cut off" in output.err and "sign.ppm is a PPM" in output.err
    assert "2 of 3 pictures have no prediction" in output.err


def test_lists_are_read_from_files_and_from_find(converted: Path, folder: Path) -> None:
    strange = folder / "line\nbreak \udcff.png"
    shutil.copy(folder / "a.png", strange)
    find = f"find {shlex.quote(str(folder))} -name '*.png' -not -name '.*' -not -path '*/.*'"
    command = f"$COMMAND predict {converted} --list - --top 1"
    ended = in_shell(f"{find} -print0 | sort -z | {command}")
    assert ended.code == 1 and len(ended.out.splitlines()) == 2
    assert "failed: 1 of 3 pictures" in ended.error
    listed = folder / "list.txt"
    listed.write_text(f"{folder}/a.png\r\n\n{folder}/deep\n", "utf-8")
    ended = in_shell(f"$COMMAND predict {converted} --list {listed} --top 1")
    assert ended.code == 0
    names = [line.split(": ")[0] for line in ended.out.splitlines()]
    assert names == [f"{folder}/a.png", f"{folder}/deep/b"]


def test_names_that_are_not_utf_8_keep_their_bytes(
    converted: Path, digit: Path, tmp_path: Path
) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    shutil.copy(digit, name)
    assert run("predict", converted, os.fsdecode(name), "--out", tmp_path / "o.csv") == 0
    assert (tmp_path / "o.csv").read_bytes().splitlines()[1].startswith(name + b",0,")
    assert run("predict", converted, os.fsdecode(name), "--out", tmp_path / "o.jsonl") == 0
    (line,) = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert os.fsencode(json.loads(line)["image"]) == name


@pytest.mark.parametrize("named", ["folder", "list"])
def test_nothing_to_predict_exits_with_1(
    named: str, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    words = {"folder": (tmp_path / "empty",), "list": ("--list", tmp_path / "list.txt")}[named]
    assert run("predict", converted, *words) == 1
    output = capsys.readouterr()
    assert "there are no pictures" in output.err.splitlines()[-1] and not output.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--list", "none.txt"), "The list none.txt cannot be read: No such file"),
        (("a.png", "--out", "o.txt"), "--out must end in .csv or .jsonl"),
        (("a.png", "--out", "none/o.csv"), "There is no folder none for --out"),
        (("a.png", "--out", "o.csv", "--json"), "Give one of them"),
        ((), "There are no images to predict"),
    ],
)
def test_errors_in_the_arguments_exit_with_2(
    words: tuple[str, ...],
    says: str,
    converted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("predict", converted, *words) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def with_weights(path: Path, value: float, to: Path) -> Path:
    model = keras_resnet.load_model(path)
    model.set_weights([np.full_like(weights, value) for weights in model.get_weights()])
    model.save(to)
    return to


def test_outputs_that_are_not_finite_are_an_error_and_json_stays_json(
    converted: Path, digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = with_weights(converted / "model.keras", np.nan, tmp_path / "nan.keras")
    for words in ((), ("--json",), ("--out", tmp_path / "o.jsonl")):
        assert run("predict", broken, digit, *words) == 1
        output = capsys.readouterr()
        assert f"{digit}: the model outputs NaN or infinity for it" in output.err.splitlines()
        assert "nan" not in output.out.replace(str(tmp_path), "").replace("nan.keras", "")
        if words == ("--json",):
            (row,) = json.loads(output.out)
            assert row["top"] == [] and "NaN" in row["error"]
    (line,) = (tmp_path / "o.jsonl").read_text().splitlines()
    assert json.loads(line)["top"] == []


# --- Tasks ------------------------------------------------------------------------------------


def saved_task(task: str, labels: tuple[str, ...], thresholds: tuple[float, ...], to: Path) -> Path:
    """A model whose outputs are 0.8, 0.4 and 0.1 for every picture."""
    outputs = 1 if task == "binary" else len(labels)
    contract = Contract(32, 32, 1, labels=labels, task=task, thresholds=thresholds)  # type: ignore[arg-type]
    model = keras_resnet.ResNet8(
        input_shape=(32, 32, 1),
        classes=outputs,
        classifier_activation="sigmoid",
        include_preprocessing=True,
        contract=contract,
    )
    odds = np.array([0.8, 0.4, 0.1])[:outputs]
    *body, kernel, _ = model.get_weights()
    model.set_weights([*body, np.zeros_like(kernel), np.log(odds / (1 - odds))])
    model.save(to)
    return to


def test_the_labels_of_a_multi_label_model_are_those_above_their_thresholds(
    digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("red", "round", "big")
    model = saved_task("multi", labels, (0.9, 0.3, 0.05), tmp_path / "multi.keras")
    assert run("predict", model, digit, "--top", 2) == 0
    assert capsys.readouterr().out == f"{digit}: round, big (red 80.00 %, round 40.00 %)\n"
    assert run("predict", model, digit, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["labels"] == ["round", "big"] and len(row["top"]) == 3
    assert run("predict", model, digit, "--out", tmp_path / "o.csv") == 0
    assert rows_of(tmp_path / "o.csv")[0]["labels"] == "round|big"
    high = saved_task("multi", labels, (0.9, 0.9, 0.9), tmp_path / "high.keras")
    capsys.readouterr()
    assert run("predict", high, digit, "--top", 1) == 0
    assert capsys.readouterr().out == f"{digit}: no label (red 80.00 %)\n"


@pytest.mark.parametrize(("threshold", "label"), [(0.75, "dog"), (0.85, "cat")])
def test_a_binary_model_decides_by_its_threshold(
    threshold: float,
    label: str,
    digit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = saved_task("binary", ("cat", "dog"), (threshold,), tmp_path / "binary.keras")
    assert run("predict", model, digit) == 0
    assert capsys.readouterr().out == f"{digit}: {label} (dog 80.00 %, cat 20.00 %)\n"


# --- Many pictures ----------------------------------------------------------------------------


def test_order_and_memory_do_not_depend_on_the_number_of_pictures(tmp_path: Path) -> None:
    """Files are asked for a batch or two ahead of the results, however many there are."""
    values = list(range(200))
    for value in values:
        Image.fromarray(np.full((4, 4), value, "uint8")).save(tmp_path / f"{value:03}.png")
    asked = 0

    def files() -> Iterator[Named]:
        nonlocal asked
        for file in named_files([tmp_path]):
            asked += 1
            yield file

    batches: list[int] = []

    def predictor(pixels: np.ndarray) -> list[Prediction]:
        batches.append(len(pixels))
        return [Prediction("", ((str(image[0, 0, 0]), 1.0),)) for image in pixels]

    contract = Contract(4, 4, 1, resize="stretch", crop_fraction=1.0)
    given, most = [], 0
    for result in predictions(files(), contract, predictor):
        given.append(result.top[0][0])
        most = max(most, asked - len(given))
    assert given == [str(value) for value in values]
    assert batches == [BATCH] * 6 + [8] and most < 3 * BATCH


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.01, ""), (0.5, "10 images, 2.0 images/s, 5 s\n")]
)
def test_the_rate_is_shown_of_what_takes_longer_than_two_seconds(
    seconds: float, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    with prediction.image_rate(True, lambda: now) as step:
        for _ in range(10):
            now += seconds
            step()
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", shown)


def test_results_on_a_terminal_are_lines(converted: Path, folder: Path) -> None:
    ended = on_terminal(("predict", str(converted), str(folder / "a.png"), "--top", "1"), 200)
    assert ended.code == 0 and ended.out.rstrip().endswith("%")
    assert f"{folder}/a.png: 0 " in ended.out
