"""A folder of one's own pictures: classes, warnings, paths, labels and calibration."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from tests.command_line import run
from tests.made_once import made_once
from training.config import DataConfig
from training.data.pipeline import images
from training.data.sources import open_source
from training.run import Run

COLORS = {"ash": (70, 20, 20), "bay": (20, 70, 20), "cob": (20, 20, 70), "dun": (70, 70, 20)}
CLASSES = (*COLORS, "elk")  # the last one is black and white, the others are dim
TRAINING = (
    *("train", "--recipe", "digits-resnet8", "--epochs", 8, "--batch-size", 32, "--set"),
    *("schedule.warmup_epochs=0", "data.mean=[60, 60, 60]", "data.std=[80, 80, 80]"),
)


def make_pictures(root: Path, classes: Sequence[str], counts: Sequence[int]) -> None:
    random = np.random.default_rng(0)
    for name, count in zip(classes, counts):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = 255.0 * random.integers(0, 2, (32, 32, 1)) * np.ones(3)
            if name in COLORS:
                pixels = COLORS[name] + random.normal(0, 8, (32, 32, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(root / name / f"{i}.png")


def trained(folder: Path) -> None:
    """A run on a folder that the command names by a relative path."""
    make_pictures(folder / "photos", CLASSES, [45] * 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(*TRAINING, "--data", "folder:photos/", "--out", "run") == 0


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the run began, with ``photos`` and ``run`` in it."""
    return made_once(tmp_path_factory, "own-pictures", trained)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- Before the first step -------------------------------------------------------------------


def test_classes_and_warnings_are_on_stderr_before_anything_is_trained(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(Path("d/train"), ("ash", "elk"), (100, 6))
    make_pictures(Path("d/val"), ("ash", "elk"), (21, 1))
    assert run(*TRAINING, "--data", "folder:d", "--dry-run") == 0
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[lines.index("  class  training  test") + 1 :][:2] == [
        "  ash         100    21",
        "  elk           6     1",
    ]
    warnings = "\n".join(line for line in lines if line.startswith("warning: "))
    assert "always answering ash: 95.5% of the test images" in warnings
    assert "22 test images are too few to tell: 91% right would be 72–97 %" in warnings
    assert "1 class has fewer than 10 training images: elk (6)" in warnings
    assert "warning" not in output.out


# --- Paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate",),
        ("convert", "--kinds", "int8", "--out", "tflite"),
        ("verify", "--images", "10"),
        ("golden", "--kind", "float32"),
        ("report",),
    ],
    ids=lambda words: words[0],
)
def test_a_run_of_a_relative_path_is_usable_from_any_directory(
    words: tuple[str, ...],
    home: Path,
    elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = elsewhere / "copy"
    shutil.copytree(home / "run", folder)
    if words[0] in ("verify", "golden"):
        assert run("convert", folder, "--kinds", "float32") == 0
    capsys.readouterr()
    assert run(words[0], folder, *words[1:]) == 0, capsys.readouterr().err
    assert "There is no folder" not in capsys.readouterr().err
    if words[0] == "report":
        assert "no longer" not in (folder / "report.html").read_text("utf-8")


def test_the_same_run_is_known_by_any_name_of_its_folder(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Run(home / "run").experiment
    assert experiment is not None and experiment.data.source == f"folder:{home / 'photos'}"
    (elsewhere / "link").symlink_to(home)
    for spec in (f"folder:{home}/photos", f"folder:{home}/./photos/"):
        assert run(*TRAINING, "--data", spec, "--out", home / "run") == 0
        assert "is finished" in capsys.readouterr().err
    assert run(*TRAINING, "--data", "folder:photos", "--out", home / "run") == 2
    assert "holds another experiment: its data.source is" in capsys.readouterr().err


def test_a_relative_path_in_an_old_run_folder_is_explained(
    home: Path,
    elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = elsewhere / "old"
    shutil.copytree(home / "run", old)
    text = (old / "experiment.yaml").read_text("utf-8")
    (old / "experiment.yaml").write_text(text.replace(f"folder:{home}/photos", "folder:photos"))
    assert run("evaluate", old) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "There is no folder photos" in error
    assert f"{old}/experiment.yaml names photos relative to the folder in which" in error
    monkeypatch.chdir(home)
    assert run("evaluate", old) == 0
    assert run(*TRAINING, "--data", "folder:photos", "--out", old) == 0
    assert "is finished" in capsys.readouterr().err


# --- Labels -----------------------------------------------------------------------------------


def evaluated(model: Path, data: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict, str]:
    capsys.readouterr()
    code = run("evaluate", model, "--data", data, "--json")
    output = capsys.readouterr()
    assert code == 0, output.err
    return json.loads(output.out), output.err


def recalls(evaluation: dict) -> dict[str, float | None]:
    return {row["label"]: row["recall"]["value"] for row in evaluation["classes"]}


def relabelled(home: Path, labels: Sequence[str], to: Path) -> Path:
    """The run's model with its outputs, or some of them, in another order of the labels."""
    model = keras_resnet.load_model(home / "run" / "model.keras")
    old = model.contract.labels
    order = [old.index(label) for label in labels]
    contract = model.contract.replace(labels=tuple(labels))
    other = keras_resnet.ResNet8(
        input_shape=(32, 32, 3),
        classes=len(labels),
        include_preprocessing=True,
        contract=contract,
        zero_init_residual=False,
    )
    weights = model.get_weights()
    weights[-2:] = weights[-2][:, order], weights[-1][order]
    other.set_weights(weights)
    other.save(to)
    return to


def test_the_same_classes_in_another_order_are_matched_by_name(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"folder:{home}/photos"
    expected, said = evaluated(home / "run" / "model.keras", data, capsys)
    assert expected["top1"]["value"] > 0.9 and "matched" not in said
    order = ("cob", "elk", "ash", "dun", "bay")
    found, _ = evaluated(relabelled(home, order, elsewhere / "m.keras"), data, capsys)
    assert found["top1"] == expected["top1"]
    assert recalls(found) == recalls(expected)
    assert [row["label"] for row in found["classes"]] == list(order)


def test_some_of_the_models_classes_and_similar_names_are_evaluated_and_said(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, to in (("elk", "elk"), ("bay", "Bay "), ("dun", "dun")):
        shutil.copytree(home / "photos" / name, elsewhere / "some" / to)
    found, said = evaluated(home / "run" / "model.keras", "folder:some", capsys)
    assert "the images have 3 of the model's 5 classes" in said
    assert "classes matched by similar names: Bay  is bay" in said
    assert found["top1"]["images"] == 27 and found["top1"]["value"] > 0.9
    assert {k for k, v in recalls(found).items() if v is not None} == {"bay", "dun", "elk"}


def test_classes_that_the_model_lacks_are_named(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "photos" / "elk", elsewhere / "d" / "elk")
    shutil.copytree(home / "photos" / "ash", elsewhere / "d" / "zebra")
    assert run("evaluate", home / "run" / "model.keras", "--data", "folder:d") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "folder:d has the classes elk, zebra: the model lacks zebra; it knows ash, bay" in error
    # Calibration needs no labels.
    command = ("convert", home / "run" / "model.keras", "--kinds", "int8", "--out", "tflite")
    assert run(*command, "--data", "folder:d") == 0
    assert "The labels are not needed here" in capsys.readouterr().err


def test_a_model_without_labels_is_matched_by_number_if_it_can_be(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras_resnet.load_model(home / "run" / "model.keras")
    model.contract = model.contract.replace(labels=())
    model.save("bare.keras")
    found, said = evaluated(Path("bare.keras"), f"folder:{home}/photos", capsys)
    assert found["top1"]["value"] > 0.9
    assert "the model names no classes; its outputs are matched in order: ash, bay" in said
    shutil.copytree(home / "photos" / "elk", elsewhere / "d" / "elk")
    shutil.copytree(home / "photos" / "ash", elsewhere / "d" / "ash")
    assert run("evaluate", "bare.keras", "--data", "folder:d") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "folder:d has 2 classes (ash, elk), and the model has 5 outputs without names" in error


# --- Calibration ------------------------------------------------------------------------------


def test_calibration_with_100_of_180_pictures_is_as_good_for_the_last_class_as_with_all(
    home: Path, elsewhere: Path
) -> None:
    """The first 100 of five sorted classes of 36 show none of the last, black and white class."""
    from tflite.classifier import Classifier
    from tflite.convert import convert

    model = keras_resnet.load_model(home / "run" / "model.keras")
    # Less certain, so that no probability is so near 1 that nothing can change it.
    *body, kernel, bias = model.get_weights()
    model.set_weights([*body, kernel / 4, bias / 4])
    model.save("soft.keras")
    data = f"folder:{home}/photos"
    pictures = list(images(open_source(DataConfig(source=data), seed=0).train, model.contract))
    last = np.stack([image for image, label in pictures if label == 4])

    def change(folder: Path) -> float:
        kinds = ("float32", "int8")
        files = [Classifier(folder / f"model_{kind}.tflite") for kind in kinds]
        exact, quantized = (file.probabilities(last) for file in files)
        return float(np.abs(exact - quantized).max())

    for count in (100, 180):
        command = ("convert", "soft.keras", "--data", data, "--calibration", count)
        assert run(*command, "--kinds", "float32", "int8", "--out", f"of{count}") == 0
    convert(model, "first", ("float32", "int8"), [image for image, _ in pictures[:100]])
    changes = [change(elsewhere / name) for name in ("of100", "of180", "first")]
    assert changes[0] < 2 * changes[1]
    assert changes[2] > 4 * changes[1]
