"""The command, as a person types it: results, errors of one line, and exit codes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from keras_resnet.cli import pipeline
from tests.command_line import run

WINGS = ("train", "evaluate", "export", "convert", "verify", "benchmark", "predict", "compare")
COMMANDS = (
    "models",
    "weights",
    "audit",
    *WINGS,
    "report",
    "quickstart",
    "tune",
    "inspect",
    "layers",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    output = capsys.readouterr()
    assert "usage: keras-resnet" in output.out and not output.err


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["models", "--json"], ["trian"]]
)
def test_help_lists_and_usage_errors_import_nothing_heavy(words: list[str]) -> None:
    """A count of modules, where a limit in seconds would depend on the machine."""
    code = (
        f"import sys; sys.argv = ['keras-resnet', *{words!r}]\n"
        "from keras_resnet.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.stdout = sys.__stdout__\n"
        "print('MODULES', *sys.modules, file=sys.__stdout__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.rpartition("MODULES")[2].split())
    assert "keras_resnet.cli.pipeline" in modules
    heavy = {"tensorflow", "keras", "numpy", "matplotlib", "rich", "yaml", "training", "tflite"}
    assert not heavy & modules
    assert len(modules) < 450


def test_models_lists_all_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ResNet50"]["parameters"] == 25_557_032
    assert run("models") == 0
    assert "25,557,032" in capsys.readouterr().out


def test_evaluate_prints_one_json_object(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", converted, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["top1"]["images"] == 360 and result["top1"]["value"] > 0.9
    assert result["top1"]["low"] < result["top1"]["value"] < result["top1"]["high"]
    assert sum(map(sum, result["confusion"])) == 360
    kept = (converted / "evaluation.json").read_bytes()
    assert run("evaluate", converted, "--flip", "--json") == 0
    assert json.loads(capsys.readouterr().out)["hardest"] != result["hardest"]
    assert (converted / "evaluation.json").read_bytes() == kept


def test_verify_judges_by_the_tolerance_asked_for(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", converted, "--max-drop", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 360
    kinds = {row["kind"]: row for row in result["kinds"]}
    assert list(kinds) == ["float32", "float16", "dynamic", "int8"]
    assert kinds["float32"]["agreement"] == 100
    assert all(abs(row["difference"]) <= 3 for row in kinds.values())

    assert run("verify", converted, "--images", "50") == 0
    assert "50 test images" in capsys.readouterr().out


def test_verify_exits_with_1_if_a_file_disagrees(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files of a model are held against another model, an untrained one."""
    import keras_resnet

    folder = tmp_path / "other"
    shutil.copytree(converted, folder)
    trained = keras_resnet.load_model(folder / "model.keras")
    keras_resnet.ResNet8(
        input_shape=(32, 32, 1), include_preprocessing=True, contract=trained.contract
    ).save(folder / "model.keras")
    assert run("verify", folder, "--min-agreement", "90", "--images", "60") == 1
    output = capsys.readouterr()
    assert "float32" in output.out
    assert "and must on 90" in output.err and "Traceback" not in output.err


def test_benchmark_times_every_file(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", converted, "--rounds", "5", "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert {(r["kind"], r["threads"]) for r in records} == {
        (kind, threads) for kind in ("float32", "float16", "dynamic", "int8") for threads in (1, 2)
    }
    assert all(0 < r["median_ms"] <= r["p90_ms"] for r in records)


def test_predictions_are_the_same_from_every_format(
    converted: Path, digit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = {}
    for model in (
        "model.keras",
        "saved_model",
        "tflite/model_float32.tflite",
        "tflite/model_int8.tflite",
        ".",
    ):
        assert run("predict", converted / model, digit, "--json") == 0
        (prediction,) = json.loads(capsys.readouterr().out)
        predictions[model] = {row["label"]: row["probability"] for row in prediction["top"]}
    expected = predictions["model.keras"]
    assert max(expected, key=expected.__getitem__) == "0"
    for model in (".", "saved_model", "tflite/model_float32.tflite"):
        assert predictions[model] == pytest.approx(expected, abs=1e-4), model
    assert next(iter(predictions["tflite/model_int8.tflite"])) == "0"


def test_report_is_one_file_with_the_run_in_it(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", converted) == 0
    page = Path(capsys.readouterr().out.strip()).read_text("utf-8")
    assert "ResNet8" in page and "digits" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trian",), "Unrecognized options: trian"),
        (("train", "--epohs", "3"), "perhaps you meant --epochs"),
        (("train", "--epochs", "x"), "--epochs"),
        (("train", "--recipe", "digit-resnet8"), "Did you mean digits-resnet8?"),
        (("train", "--set", "optimizer.lr=1"), "Unknown key optimizer.lr"),
        (("train", "--set", "nonsense"), "--set takes KEY=VALUE"),
        (("train", "--data", "folder:/nowhere"), "There is no folder /nowhere"),
        (("train", "--epochs", "0"), "--epochs must be at least 1"),
        (("evaluate", "/nowhere"), "There is no model /nowhere/model.keras"),
        (("export",), "There is no run under runs/"),
        (("convert", "/nowhere/model.keras"), "There is no model"),
        (("predict", "/nowhere.tflite", "x.png"), "/nowhere.tflite"),
        (("predict", "/nowhere.tflite"), "There are no images"),
        (("audit", "/nowhere"), "A source is 'digits'"),
        (("audit", "folder:/nowhere"), "There is no folder /nowhere"),
        (("audit", "digits", "--fail-on", "ugly"), "--fail-on must be of unreadable, leaks"),
        (("audit", "digits", "--out", "page.pdf"), "--out must end in .html"),
        (("audit", "digits", "--model", "/nowhere"), "There is no model /nowhere"),
    ],
)
def test_an_error_is_one_line_with_exit_code_2(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    output = capsys.readouterr()
    last = output.err.strip().splitlines()[-1]
    assert last.startswith("keras-resnet: error: ") and says in last
    assert "Traceback" not in output.err and not output.out


def test_debug_shows_the_traceback_before_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "/nowhere", "--debug") == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and "open_run" in error
    assert error.splitlines()[-1].startswith("keras-resnet: error: There is no model /nowhere")


def test_images_of_other_classes_are_refused(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(5):
            Image.new("RGB", (40, 40)).save(tmp_path / label / f"{i}.png")
    assert run("evaluate", converted, "--data", f"folder:{tmp_path}") == 2
    assert "has 3 channels, the model takes 1" in capsys.readouterr().err


def test_a_damaged_model_file_gives_one_line(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes((converted / "model.keras").read_bytes()[:5000])
    assert run("export", path) == 2
    assert "is not a readable .keras file" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.keras"]


def test_quickstart_prints_one_object_and_leaves_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real thing on fewer epochs; `make quickstart` runs all of them."""
    from training.experiment_file import load_experiment, save_experiment

    short = tmp_path / "short.yaml"
    save_experiment(load_experiment(pipeline.QUICKSTART_RECIPE, {"schedule.epochs": 8}), short)
    monkeypatch.setattr(pipeline, "QUICKSTART_RECIPE", str(short))
    assert run("quickstart", "--out", tmp_path / "q", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracy"] > 0.9 and result["seconds"] > 0
    assert set(result["kinds"]) == {"float32", "float16", "dynamic", "int8"}
    for figures in result["kinds"].values():
        assert abs(figures["top1"] - result["accuracy"]) < 0.03
        assert 0.9 < figures["agreement"] <= 1
        assert figures["bytes"] > 10_000 and figures["latency_ms"] > 0
    assert result["kinds"]["int8"]["bytes"] < result["kinds"]["float32"]["bytes"] / 2
    left = {path.name for path in (tmp_path / "q").iterdir()}
    assert left >= {"experiment.yaml", "log.csv", "tensorboard", "checkpoints", "model.keras"}
    assert left >= {"metrics.json", "saved_model", "tflite", "report.html"}


def test_measurements_of_files_that_are_replaced_are_removed(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "run"))
    verified = folder / "tflite" / "verify.json"
    verified.write_text("{}")
    assert run("convert", folder, "--kinds", "float32") == 0
    assert verified.exists(), "the same file was written again"
    assert run("convert", folder, "--kinds", "float32", "--io", "uint8") == 0
    assert not verified.exists()
    assert "replaced: " in capsys.readouterr().err
