"""A global keras.json and other settings of Keras change nothing that a command does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.cli.terminal import REPOSITORY, TIMEOUT
from tests.command_line import run

# Everything that keras.json can set, as another program may have left it.
KERAS_JSON = {
    "floatx": "float16",
    "epsilon": 0.01,
    "backend": "torch",
    "image_data_format": "channels_first",
    "nnx_enabled": True,
}
# Trains, exports, converts and predicts in one process.
PROGRAM = """
import sys
from keras_resnet.cli import main

def run(*words):
    sys.argv = ["keras-resnet", *words]
    try:
        main()
    except SystemExit as leave:
        assert not leave.code, words

run("train", "--epochs", "1", "--out", "run", "--set", "schedule.warmup_epochs=0", "--json")
run("export", "run")
run("convert", "run", "--kinds", "float32", "int8")
run("predict", "run", PICTURE, "--json")
run("predict", "run/saved_model", PICTURE, "--json")
run("predict", "run/tflite/model_int8.tflite", PICTURE, "--json")
"""


def _results(folder: Path, picture: Path, settings: dict[str, object] | None) -> dict[str, object]:
    """What the commands print and write."""
    home = folder / "keras"
    home.mkdir(parents=True)
    if settings is not None:
        (home / "keras.json").write_text(json.dumps(settings))
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "KERAS_HOME": str(home),
        "KERAS_MAX_EPOCHS": "nonsense" if settings else "",
    }
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", f"PICTURE = {str(picture)!r}\n{PROGRAM}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    files = ("run/log.csv", "run/tflite/model_float32.tflite", "run/tflite/model_int8.tflite")
    assert len(list(home.iterdir())) == (settings is not None)  # and none is written there
    return {"printed": done.stdout, **{name: (folder / name).read_bytes() for name in files}}


@pytest.mark.slow
def test_keras_json_changes_nothing(digit: Path, tmp_path: Path) -> None:
    plain = _results(tmp_path / "plain", digit, None)
    assert _results(tmp_path / "set", digit, KERAS_JSON) == plain


def test_settings_of_this_process_change_nothing(converted: Path, digit: Path) -> None:
    from keras_resnet.cli.backend import start_keras

    try:
        keras.config.set_floatx("float16")
        keras.config.set_epsilon(0.01)
        keras.config.set_image_data_format("channels_first")
        keras.config.set_dtype_policy("mixed_bfloat16")
        start_keras()
        assert keras.config.floatx() == "float32"
        assert keras.config.epsilon() == 1e-7
        assert keras.config.image_data_format() == "channels_last"
        assert keras.config.dtype_policy().name == "float32"
    finally:
        start_keras()


@pytest.mark.parametrize("name", ["", "tensorflow"])
def test_an_empty_backend_is_tensorflow(
    name: str, converted: Path, digit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    assert run("predict", converted, digit) == 0
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
