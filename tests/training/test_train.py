"""A short run on real digits, and what it leaves behind."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_resnet
from training.data.pipeline import evaluation_batches, images
from training.data.sources import open_source
from training.evaluate import evaluate
from training.experiment_file import load_experiment
from training.export import export_saved_model, read_contract
from training.run import Run
from training.train import train


def quiet(_: str) -> None:
    pass


def test_the_run_folder_is_complete_and_the_model_has_learned(digits_run: Run) -> None:
    experiment = digits_run.experiment
    assert experiment is not None and experiment.schedule.epochs == 8
    model = keras_resnet.load_model(digits_run.model_file)
    source = open_source(experiment.data, experiment.runtime.seed)
    batches = evaluation_batches(source.test, model.contract, 128)
    evaluation = evaluate(keras_resnet.deployable(model), batches, source.labels)
    assert evaluation.top1.value > 0.9
    assert model.contract.labels == source.labels
    for name in ("checkpoints/best.keras", "tensorboard", "log.csv", "log.jsonl", "timing.csv"):
        assert (digits_run.folder / name).exists(), name


def test_the_log_has_a_row_an_epoch_with_the_learning_rate(digits_run: Run) -> None:
    with digits_run.log_file.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(i) for i in range(1, 9)]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["learning_rate"]) < float(rows[3]["learning_rate"])
    assert json.loads((digits_run.folder / "metrics.json").read_text())["epochs"] == 8


def test_the_best_model_is_the_one_of_the_best_epoch(digits_run: Run) -> None:
    metrics = digits_run.read("metrics.json")
    accuracies = [row["val_accuracy"] for row in metrics["history"]]
    assert metrics["best_epoch"] == 1 + int(np.argmax(accuracies))
    experiment = digits_run.experiment
    assert experiment is not None
    best = keras_resnet.load_model(digits_run.checkpoints / "best.keras")
    source = open_source(experiment.data, experiment.runtime.seed)
    batches = evaluation_batches(source.test, best.contract, 128)
    evaluation = evaluate(keras_resnet.deployable(best), batches, source.labels)
    assert evaluation.top1.value == pytest.approx(max(accuracies))


@pytest.mark.parametrize(
    "precision",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("mixed_bfloat16", "mixed_float16")],
)
def test_a_mixed_precision_run_learns_and_deploys_in_float32(
    precision: str, tmp_path: Path
) -> None:
    changes = {"schedule.epochs": 2, "runtime.precision": precision}
    try:
        run = train(load_experiment("digits-resnet8", changes), tmp_path / "r", quiet, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    history = run.read("metrics.json")["history"]
    assert history[1]["loss"] < history[0]["loss"]
    model = keras_resnet.load_model(run.model_file)
    assert model.get_layer("stem_conv").compute_dtype == precision.removeprefix("mixed_")
    deployed = keras_resnet.deployable(model)
    assert {layer.compute_dtype for layer in deployed.layers} == {"float32"}


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (40, 40), (i, 0, 0)).save(tmp_path / "data" / label / f"{i}.jpg")
    (tmp_path / "data" / "cat" / "3.jpg").write_bytes(b"no picture at all")
    changes = {
        "data.source": f"folder:{tmp_path / 'data'}",
        "model.architecture": "ResNet8",
        "model.size": 32,
        "runtime.batch_size": 4,
        "schedule.epochs": 1,
    }
    with pytest.raises(ValueError, match=r"cat/3\.jpg is not a readable picture"):
        train(load_experiment("folder-resnet18", changes), tmp_path / "run", quiet, verbose=0)


# What a server without this package does with the export.
SERVE = """
import sys
sys.path = [p for p in sys.path if p and not p.rstrip("/").endswith("{project}")]
sys.meta_path = [f for f in sys.meta_path if "editable" not in type(f).__module__.lower()
                 and "editable" not in getattr(f, "__name__", "").lower()]
import numpy as np, tensorflow as tf
m = tf.saved_model.load(sys.argv[1])
x = np.load(sys.argv[2])
out = {{
    "uint8": m.serve(tf.constant(x))["probabilities"],
    "float": m.signatures["serve"](images=tf.constant(x.astype("float32")))["probabilities"],
    "labels": m.signatures["serve"](images=tf.constant(x.astype("float32")))["top_labels"],
}}
files = [open(f, "rb").read() for f in sys.argv[4:]]
out["files"] = m.signatures["serve_bytes"](files=tf.constant(files))["probabilities"]
for name in ("keras_resnet", "training", "tflite"):
    assert name not in sys.modules, name
try:
    import keras_resnet
except ImportError:
    pass
else:
    raise SystemExit("keras_resnet can still be imported: the test proves nothing")
out["labels"] = out["labels"].numpy().astype("S")
np.savez(sys.argv[3], **out)
"""


def test_the_saved_model_answers_alike_without_this_package(
    digits_run: Run, tmp_path: Path
) -> None:
    model = keras_resnet.load_model(digits_run.model_file)
    folder = export_saved_model(model, tmp_path / "saved_model")
    experiment = digits_run.experiment
    assert experiment is not None
    split = open_source(experiment.data, experiment.runtime.seed).test
    x = np.stack([image for image, _ in images(split, model.contract, 12)])
    np.save(tmp_path / "x.npy", x)
    pictures = []
    for i, image in enumerate(x):
        pictures.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image[..., 0]).save(pictures[-1])

    project = Path(__file__).parents[2].name
    script = SERVE.format(project=project)
    command = [sys.executable, "-c", script, folder, tmp_path / "x.npy", tmp_path / "y.npz"]
    done = subprocess.run(
        [*map(str, command), *pictures], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = np.load(tmp_path / "y.npz")
    expected = np.asarray(keras_resnet.deployable(model)(x.astype("float32")))
    for name in ("uint8", "float", "files"):
        np.testing.assert_allclose(answers[name], expected, atol=1e-5, err_msg=name)
    first = [label.decode() for label in answers["labels"][:, 0]]
    assert first == [model.contract.labels[i] for i in expected.argmax(1)]
    assert read_contract(folder) == model.contract


def test_a_model_of_any_size_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images of one size"):
        export_saved_model(keras_resnet.ResNet8(input_shape=(None, None, 3)), tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_what_cannot_start_leaves_no_folder_and_can_be_mended(tmp_path: Path) -> None:
    wrong = load_experiment("digits-resnet8", {"runtime.batch_size": 5000})
    with pytest.raises(ValueError, match="for a batch of 5000"):
        train(wrong, tmp_path / "run", quiet, verbose=0)
    wrong = load_experiment("digits-resnet8", {"model.architecture": "ResNet9"})
    with pytest.raises(ValueError, match="No architecture is called"):
        train(wrong, tmp_path / "run", quiet, verbose=0)
    assert not list(tmp_path.iterdir())
    right = load_experiment("digits-resnet8", {"schedule.epochs": 1})
    assert train(right, tmp_path / "run", quiet, verbose=0).model_file.is_file()
