"""What changes from epoch to epoch: image size and frozen part, and resuming around a change."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
import training.task
import training.train
from training.checkpoint import latest_checkpoint
from training.config import Experiment, from_dict
from training.dry_run import dry_run
from training.experiment_file import load_experiment, save_experiment
from training.phases import Phase, first_trained_epochs, most_expensive, phase_at
from training.run import Run
from training.task import make_model
from training.train import Interrupted, train

STAGED = {
    "model.freeze": "stage1",
    "model.size": 40,
    "data.cache_gb": 0,
    "schedule.epochs": 4,
    "schedule.warmup_epochs": 0,
    "schedule.sizes": [[0, 32], [2, 48]],
    "schedule.unfreeze": [[1, "stage1"], [3, "stem"]],
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.01,
    "runtime.batch_size": 256,  # 5 steps an epoch
}


def quiet(_: str) -> None:
    pass


def tiny(experiment: Any, contract: Any) -> keras_resnet.classifier.ImageClassifier:
    """Traced in no time, of any size, and named as the real ones are."""
    x = inputs = keras.Input((contract.height, contract.width, 1))
    x = keras.layers.Rescaling(1 / 255)(x)
    for part in ("stem", "stage1"):
        x = keras.layers.Conv2D(4, 3, strides=3, use_bias=False, name=f"{part}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{part}_norm")(x)
        x = keras.layers.ReLU(name=f"{part}_relu")(x)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    outputs = keras.layers.Dense(10, activation="softmax", name="predictions")(x)
    model = keras_resnet.classifier.ImageClassifier(inputs, outputs)
    model.contract = contract
    return model


def test_a_stage_follows_from_the_epoch(tmp_path: Path) -> None:
    experiment = load_experiment("digits-resnet8", STAGED)
    assert [phase_at(experiment, epoch) for epoch in range(5)] == [
        Phase(32, "stage1"),
        Phase(32, "stem"),
        Phase(48, "stem"),
        Phase(48, ""),
        Phase(48, ""),
    ]
    save_experiment(experiment, tmp_path / "e.yaml")
    assert load_experiment(tmp_path / "e.yaml") == experiment
    plain = load_experiment("digits-resnet8")
    assert phase_at(plain, 7) == Phase(32, "") and most_expensive(plain) == plain
    most = most_expensive(experiment)
    assert phase_at(most, 0) == Phase(48, "")
    short = most_expensive(load_experiment("digits-resnet8", STAGED | {"schedule.epochs": 2}))
    assert phase_at(short, 0) == Phase(32, "stem")  # what no epoch reaches costs nothing


@pytest.mark.parametrize(
    ("model", "schedule", "says"),
    [
        ({}, {"sizes": [[1, 64]]}, "must begin at epoch 0 and rise"),
        ({}, {"sizes": [[0, 64], [5, 96], [5, 128]]}, "must begin at epoch 0 and rise"),
        ({}, {"sizes": [[0, 16]]}, r"schedule.sizes\[0\]\[1\] must be between 32 and 4096"),
        ({}, {"sizes": [[0]]}, r"schedule.sizes\[0\] must be a list of 2. Received: .0."),
        ({}, {"sizes": [0, 64]}, r"schedule.sizes\[0\] must be a list of 2. Received: 0"),
        ({}, {"sizes": 64}, "schedule.sizes must be a list of lists"),
        ({}, {"unfreeze": [[1, "stage4"]]}, "needs model.freeze"),
        ({"freeze": "stage4"}, {"unfreeze": [[0, "stage4"]]}, "must rise from epoch 1"),
        (
            {"freeze": "stage4"},
            {"unfreeze": [[1, "stage5"]]},
            r"unfreeze\[0\]\[1\] must be one of stem, st",
        ),
        ({"freeze": "stage3"}, {"unfreeze": [[1, "stage4"]]}, "down from model.freeze=stage3"),
        (
            {"freeze": "stage4"},
            {"unfreeze": [[1, "stage3"], [2, "stage4"]]},
            "down from model.freeze=stage4",
        ),
    ],
)
def test_stages_that_make_no_sense_are_refused(model: dict, schedule: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_dict({"model": model, "schedule": schedule})


def test_the_epoch_of_each_variable_is_that_of_its_part() -> None:
    changes = {"model.freeze": "stage3", "schedule.unfreeze": [[2, "stage3"], [5, "stage1"]]}
    experiment = load_experiment("digits-resnet8", changes)
    model = keras_resnet.ResNet8()
    begins = first_trained_epochs(model, experiment)
    of_part = {path.split("_")[0].split("/")[0]: epoch for path, epoch in begins.items()}
    assert of_part == {"predictions": 0, "stage3": 2, "stage2": 5, "stage1": 5}
    assert set(begins) == {variable.path for variable in model.trainable_variables}


def weights_of(run: Run) -> dict[str, np.ndarray]:
    checkpoint = latest_checkpoint(run.checkpoints, pytest.fail)
    assert checkpoint is not None
    return checkpoint.arrays


def part(arrays: dict[str, np.ndarray], first: int, count: int) -> list[bytes]:
    """Some of the model's variables, in its order: a kernel and four of the norm, a part."""
    return [arrays[name].tobytes() for name in sorted(arrays) if name.startswith("model/")][
        first : first + count
    ]


def stem(arrays: dict[str, np.ndarray]) -> list[bytes]:
    return part(arrays, 0, 5)


def stage1(arrays: dict[str, np.ndarray]) -> list[bytes]:
    return part(arrays, 5, 5)


@pytest.mark.slow
def test_stopped_around_every_border_it_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.task, "make_model", tiny)
    experiment = load_experiment("digits-resnet8", STAGED)
    calm = train(experiment, tmp_path / "calm", quiet, verbose=0)

    sizes = sizes_seen(monkeypatch)
    run = train(experiment, tmp_path / "run", quiet, verbose=0, until=1)
    epochs = [weights_of(run)]
    stop_in(monkeypatch, experiment, run, step=3)  # of the second epoch
    train(experiment, run.folder, quiet, verbose=0, until=2)
    epochs.append(weights_of(run))
    stop_in(monkeypatch, experiment, run, step=1)  # of the first with larger images
    train(experiment, run.folder, quiet, verbose=0, until=3)
    epochs.append(weights_of(run))
    stop_in(monkeypatch, experiment, run, step=5)  # before the last validation
    train(experiment, run.folder, quiet, verbose=0)
    epochs.append(weights_of(run))

    assert sizes == [32, 32, 32, 48, 48, 48, 48]
    # What is frozen keeps every bit, statistics included; what is free does not.
    assert stem(epochs[0]) == stem(epochs[1]) == stem(epochs[2])
    assert stage1(epochs[1])[0] != stage1(epochs[0])[0]
    assert all(one != other for one, other in zip(stage1(epochs[1]), stage1(epochs[2])))
    assert all(one != other for one, other in zip(stem(epochs[2]), stem(epochs[3])))

    ours, theirs = epochs[3], weights_of(calm)
    assert {name: a.tobytes() for name, a in ours.items()} == {
        name: a.tobytes() for name, a in theirs.items()
    }
    assert run.log_file.read_bytes() == calm.log_file.read_bytes()
    model, other = (keras_resnet.load_model(r.model_file) for r in (run, calm))
    assert model.input_shape == (None, 40, 40, 1) and model.contract.height == 40
    for one, same in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, same)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no JAX")
def test_it_does_on_jax_too() -> None:
    """The test above in a process of its own, whose backend is another."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "border", __file__],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


def sizes_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Heights of the images of every training step that is compiled from now on."""
    seen: list[int] = []
    steps = training.train.backend_steps()
    original = steps.train_step

    def train_step(task: Any, spec: tuple) -> Any:
        seen.append(spec[0].shape[1])
        return original(task, spec)

    monkeypatch.setattr(steps, "train_step", train_step)
    return seen


def stop_in(monkeypatch: pytest.MonkeyPatch, experiment: Experiment, run: Run, step: int) -> None:
    """Goes on, and is stopped after so many steps of the epoch."""
    original = training.train._check_loss

    def stopping(task: Any, progress: Any, loss: Any) -> None:
        if progress.step == step - 1:  # it is told of the step before
            os.kill(os.getpid(), signal.SIGTERM)
        original(task, progress, loss)

    with monkeypatch.context() as patch:
        patch.setattr(training.train, "_check_loss", stopping)
        with pytest.raises(Interrupted, match=f"{step} steps"):
            train(experiment, run.folder, quiet, verbose=0)


@pytest.mark.parametrize("more", [{}, {"shortcut": "A"}, {"variant": "d", "antialias": True}])
def test_a_network_of_any_size_is_the_one_of_each_size(more: dict[str, Any]) -> None:
    changes = {"model.architecture": "ResNet18", "model.size": 64}
    if more.get("shortcut") == "A":
        changes["model.architecture"] = "ResNet8"
    experiment = load_experiment(
        "folder-resnet18", changes | {f"model.{key}": value for key, value in more.items()}
    )
    contract = keras_resnet.contract.Contract(64, 64, labels=tuple("abc"))
    fixed = make_model(experiment, contract)
    free = make_model(experiment, contract.replace(height=None, width=None))
    fixed.set_weights(free.get_weights())
    assert [w.path for w in free.weights] == [w.path for w in fixed.weights]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(free(pixels), fixed(pixels), rtol=1e-5)
    assert free(tf.zeros((1, 96, 96, 3))).shape == (1, 3)


def test_a_dry_run_estimates_all_epochs_at_the_cost_of_the_most_expensive(tmp_path: Path) -> None:
    said: list[str] = []
    changes = {
        "model.freeze": "stage3",
        "schedule.unfreeze": [[1, "stem"]],
        "schedule.sizes": [[0, 32], [1, 48]],
        "runtime.batch_size": 8,
    }
    found = dry_run(load_experiment("digits-resnet8", changes), tmp_path / "run", said.append)
    plain = keras_resnet.ResNet8(input_shape=(48, 48, 1), include_preprocessing=True)
    assert found.trainable == sum(int(np.prod(v.shape)) for v in plain.trainable_variables)
    assert found.multiply_adds == keras_resnet.complexity.multiply_adds(plain)
    assert any("images of 48 pixels, all layers trainable" in line for line in said)
