"""Arguments are checked before TensorFlow starts, and messages name the option that was typed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.terminal import in_shell
from tests.command_line import run

# RUN is replaced by a converted run, MODEL for its model.keras in a folder of its own.
WRONG: tuple[tuple[str, str], ...] = (
    ("evaluate /nowhere", "There is no model /nowhere/model.keras"),
    ("evaluate MODEL", "Name them: --data folder:PATH"),
    ("export /nowhere", "There is no model"),
    ("report /nowhere", "There is no model"),
    ("convert RUN --kinds int8 int9", "--kinds must be of float32"),
    ("convert RUN --calibration 0", "--calibration must be at least 1. Received: 0"),
    ("convert RUN --batch 0", "--batch must be at least 1. Received: 0"),
    ("convert RUN --top-k 0", "--top-k must be at least 1. Received: 0"),
    ("convert RUN --top-k 3 --logits", "Give one of --logits and --top-k"),
    ("convert RUN --max-drop 1", "--max-drop and --max-latency are for the kind mixed"),
    ("convert RUN --kinds mixed --max-drop nan", "--max-drop must be from 0 to 100. Received: nan"),
    ("convert RUN --kinds mixed --max-latency inf", "--max-latency must be above 0. Received: inf"),
    ("convert MODEL --kinds int8", "Name them: --data folder:PATH"),
    ("verify RUN --images 0", "--images must be at least 1"),
    ("verify RUN --max-drop -1", "--max-drop must be from 0 to 100"),
    ("verify RUN --arch arm64 --max-drop 1", "Leave them out with --arch"),
    ("verify MODEL", "Make them: keras-resnet convert"),
    ("benchmark RUN --rounds 0", "--rounds must be at least 1"),
    ("benchmark RUN --threads 1 0", "--threads must be at least 1"),
    ("benchmark MODEL", "Make them: keras-resnet convert"),
    ("benchmark RUN --adb", "adb"),
    ("layers RUN --out a.pdf", "--out must end in .svg or .png. Received: a.pdf"),
    ("layers RUN --out /nowhere/a.svg", "There is no folder /nowhere for --out"),
    ("layers RUN --kind mixed", "There is no mixed file in"),
    ("golden RUN --kind mixed", "There is no mixed file in"),
    ("golden RUN --out RUN/model.keras", "--out must end in .zip"),
    ("export RUN --out RUN", "is not a SavedModel, and is not replaced"),
    ("export RUN --out MODEL", "is not a SavedModel, and is not replaced"),
    ("convert RUN --out MODEL", "--out must be a folder"),
    ("golden RUN --images 0", "--images must be at least 1"),
    ("golden RUN --out /nowhere/a.zip", "There is no folder /nowhere for --out"),
    ("predict RUN a.png --out b.txt", "--out must end in .csv or .jsonl"),
    ("predict RUN", "Name files, folders or a --list"),
    ("predict RUN --list /nowhere", "The list /nowhere cannot be read"),
    ("predict RUN a.png --top 0", "--top must be at least 1"),
    ("predict /nowhere.tflite a.png", "There is no model file /nowhere.tflite"),
    ("compare RUN --out a.jpeg", "--out must end in .svg or .png or .pdf"),
    ("train --epochs 0", "--epochs must be at least 1"),
    ("train --batch-size -4", "--batch-size must be at least 1"),
    ("train --recipe digit-resnet8", "Did you mean digits-resnet8?"),
    ("train --set a=[", "--set takes KEY=VALUE"),
    ("train --set optimizer.learning_rate=x --set schedule.epochs=3", "must be a number"),
    ("train --epochs 1 --epochs 2", "--epochs is given twice"),
    ("train --coordinator here:1", "Give --backend jax to each of them"),
    ("train --machines 2 --out OUT", "Give --backend jax to each of them"),
    ("train --coordinator here:1 --backend jax", "need to agree on a run folder: --out FOLDER"),
    ("tune --trials 0", "--trials must be above 0"),
    ("tune --timeout nan", "--timeout must be above 0"),
    ("tune --max-size-mb 0", "--max-size-mb must be above 0"),
    ("tune --chief --worker", "Give one of --chief and --worker"),
    ("tune --worker", "Give it: --out FOLDER"),
    ("tune --space /nowhere.yaml", "There is no space file"),
)


@pytest.fixture(scope="module")
def model(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    return Path(shutil.copy(converted / "model.keras", folder))


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[words for words, _ in WRONG])
def test_a_wrong_argument_is_reported_before_tensorflow_starts(
    words: str, says: str, converted: Path, model: Path, tmp_path: Path
) -> None:
    for name, path in {"RUN": converted, "MODEL": model, "OUT": tmp_path / "out"}.items():
        words = words.replace(name, str(path))
    ended = in_shell(f"cd {tmp_path}; PATH=/nowhere $COMMAND {words}")
    assert ended.code == 2 and not ended.out
    assert ended.error.startswith("keras-resnet: error: ") and says in ended.error
    assert "starting" not in ended.err and "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ("benchmark", "RUN", "--rounds", "1", "--starts", "0"),
        ("inspect", "RUN/tflite/model_float32.tflite"),
        ("weights",),
    ],
    ids=lambda words: words[0],
)
def test_what_needs_no_keras_starts_none(words: Sequence[str], converted: Path) -> None:
    line = " ".join(words).replace("RUN", str(converted))
    ended = in_shell(f"$COMMAND {line}")
    assert ended.code == 0 and "starting" not in ended.err


def test_a_file_of_the_likeliest_classes_says_that_it_has_no_more(
    converted: Path, digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top_2 = ("--kinds", "float32", "--top-k", "2", "--out", tmp_path)
    assert run("convert", converted, *top_2) == 0
    file = tmp_path / "model_float32.tflite"
    capsys.readouterr()
    assert run("predict", file, digit) == 0
    output = capsys.readouterr()
    assert output.out.count("%") == 2
    assert output.err.endswith("outputs the 2 likeliest classes only: --top 5 shows 2\n")
    assert run("predict", file, digit, "--top", "2") == 0
    assert not capsys.readouterr().err
