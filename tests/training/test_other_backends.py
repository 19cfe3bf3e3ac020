"""Models of this package are used on any Keras backend; training names those that it needs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.predict import keras_predictor
from training.run import Run

PATH = os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"no {name}"),
    )
    for name in ("jax", "torch")
]

USE = """
import sys
import numpy as np, tensorflow as tf
import keras_resnet
from training.evaluate import evaluate
from training.predict import keras_predictor

folder, x, y, out = sys.argv[1:]
contract, predict = keras_predictor(folder + "/model.keras")
x, y = np.load(x), np.load(y)
model = keras_resnet.deployable(keras_resnet.load_model(folder + "/model.keras"))
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
top1 = [evaluate(model, batches, contract.labels, flip=flip).top1.value for flip in (False, True)]
np.savez(out, probabilities=predict(x), top1=top1)
"""

REFUSE = """
import sys
import keras_resnet
from training.dry_run import dry_run
from training.experiment_file import load_experiment
from training.export import export_saved_model
from training.train import train
from training.tuning.space import default_space
from training.tuning.tune import Search, tune
from pathlib import Path

model, out = sys.argv[1:]
experiment = load_experiment("digits-resnet8")
search = Search(experiment, default_space("digits-resnet8", experiment))
for call in (
    lambda: train(experiment, out, verbose=0),
    lambda: dry_run(experiment, out),
    lambda: tune(search, out),
    lambda: export_saved_model(keras_resnet.load_model(model), Path(out)),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""


def in_backend(name: str, code: str, *arguments: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"KERAS_BACKEND": name, "JAX_PLATFORMS": "cpu", "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_and_evaluations_are_those_of_tensorflow(
    backend: str, digits_run: Run, tmp_path: Path
) -> None:
    _, predict = keras_predictor(digits_run.model_file)
    x = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 1), "uint8")
    expected = predict(x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", expected.argmax(1))
    files = (tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "out.npz")
    in_backend(backend, USE, digits_run.folder, *files)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    assert found["top1"][0] == 1 and 0 <= found["top1"][1] <= 1


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no torch")
@pytest.mark.slow
def test_training_and_export_on_torch_are_refused_in_one_line(
    digits_run: Run, tmp_path: Path
) -> None:
    lines = in_backend("torch", REFUSE, digits_run.model_file, tmp_path / "out").splitlines()
    needs = "needs the Keras backend tensorflow or jax. Received: torch. Set KERAS_BACKEND="
    assert len(lines) == 4, json.dumps(lines)
    assert all(needs in line for line in lines[:3])
    assert lines[3].startswith("Exporting a SavedModel needs the Keras backend tensorflow.")
    assert not (tmp_path / "out").exists()
