"""``train`` and ``tune`` on folders and lists of images: options, results, errors of one line."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.command_line import run
from training.run import open_run

ONE_EPOCH = ("--epochs", "1", "--batch-size", "4")
SETS = "training_set/a training_set/b test_set/a test_set/b"


def fill(root: Path, *folders: str, count: int = 4) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(root / folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("folders", "options", "source", "test"),
    [
        ("train/a train/b valid/a valid/b", "--data folder:{}", "folder:{}", ""),
        (SETS, "--data folder:{}", "folder:{}", ""),
        ("x/a x/b y/a y/b", "--train {}/x --test {}/y", "folder:{}/x/*", "{}/y"),
        ("x/a x/b", "--train {}/x --set data.test_fraction=0.5", "folder:{}/x/*", ""),
    ],
)
def test_training_is_on_the_classes_of_the_folders(
    folders: str,
    options: str,
    source: str,
    test: str,
    tmp_path: Path,
) -> None:
    data = fill(tmp_path / "d", *folders.split())
    words = [word.replace("{}", str(data)) for word in options.split()]
    assert run("train", "--out", tmp_path / "run", *ONE_EPOCH, *words) == 0
    contract = open_run(tmp_path / "run").contract
    assert contract and contract.labels == ("a", "b")
    experiment = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())["data"]
    assert experiment["source"] == source.replace("{}", str(data))
    assert experiment["test"] == test.replace("{}", str(data))


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The line that a command ends with, which leaves with exit code 2."""
    assert run(*words) == 2
    output = capsys.readouterr()
    last = output.err.strip().splitlines()[-1]
    assert last.startswith("keras-resnet: error: ")
    assert "Traceback" not in output.err and not output.out
    return last


@pytest.mark.parametrize(
    ("folders", "options", "says"),
    [
        ("insects/ants insects/bees mammals/cats", "--data folder:{}", "folder:{}/insects"),
        ("treino/a treino/b teste/a teste/b", "--data folder:{}", "--train {}/teste --test"),
        ("a b", "--train {}/a", "{}/a needs a folder of pictures for each of at least two classes"),
        ("a b", "--train {} --test {}/c", "There is no folder {}/c"),
        ("a b", "--data csv:{}/list.csv", "There is no file {}/list.csv"),
        ("a b", "--data folder:{} --set task=multi", "one label. For task=multi give csv:"),
        ("a b c", "--data folder:{} --set task=binary data.test_fraction=0.5", "is for two"),
        ("a b c", "--data folder:{}", "A share of 0.2 of 6 images has no room for each of 3"),
    ],
)
def test_images_that_are_not_understood_are_an_error_of_one_line(
    folders: str,
    options: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = fill(tmp_path / "d", *folders.split(), count=2)
    words = [word.replace("{}", str(data)) for word in options.split()]
    line = error_of(capsys, "train", "--out", tmp_path / "out", *words)
    assert says.replace("{}", str(data)) in line


@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--test x", "--test names the test images beside those of --train. Give both: "),
        ("--test x --data digits", "--test names the test images beside those of --train."),
        ("--train x --data digits", "--data and --train both name the training images"),
    ],
)
def test_options_that_name_the_same_images_are_an_error(
    command: str, options: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in error_of(capsys, command, *options.split())


def test_a_class_of_one_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "a", "b")
    fill(tmp_path, "c", count=1)
    line = error_of(capsys, "train", "--data", f"folder:{tmp_path}")
    assert "1 of 3 classes have one image only: c. Add images or give test images" in line
