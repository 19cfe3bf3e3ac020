"""A run that starts from weights: they arrive, stay frozen where asked, and are needed once."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_resnet
import training.task
import training.train
from keras_resnet.contract import Contract
from training.config import Experiment
from training.experiment_file import load_experiment
from training.run import Run
from training.train import Interrupted, train

MEAN, STD = (60.0,), (80.0,)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of seven classes that was trained on other statistics."""
    contract = Contract(32, 32, 1, MEAN, STD, resize="stretch", interpolation="bicubic")
    model = keras_resnet.ResNet8(
        input_shape=(32, 32, 1),
        classes=7,
        contract=contract.replace(labels=tuple("abcdefg"), crop_fraction=0.9),
    )
    for variable in model.variables:
        if "moving" in variable.name:
            variable.assign(variable + 0.1)
    path = tmp_path_factory.mktemp("weights") / "other.keras"
    model.save(path)
    return path


def experiment(weights: Path, changes: dict[str, Any] | None = None) -> Experiment:
    return load_experiment(
        "digits-resnet8",
        {
            "model.weights": str(weights),
            "data.mean": None,
            "data.std": None,
            "data.resize": "auto",
            "data.crop_fraction": None,
            "schedule.epochs": 2,
            "schedule.warmup_epochs": 0,
            "runtime.batch_size": 479,  # 3 steps an epoch
            "checkpoint.every_steps": 1,
            **(changes or {}),
        },
    )


def by_name(model: keras_resnet.classifier.ImageClassifier) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in model.variables}


def test_the_contract_follows_the_weights_and_the_report_is_said(
    weights: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    changes = {"schedule.epochs": 1, "data.crop_fraction": 0.95}
    run = train(experiment(weights, changes), tmp_path / "run", said.append, verbose=0)
    contract = keras_resnet.load_model(run.model_file).contract
    assert (contract.mean, contract.std, contract.resize) == (MEAN, STD, "stretch")
    assert contract.interpolation == "bicubic" and contract.normalization == "inside"
    assert contract.crop_fraction == 0.95  # what the experiment says goes before
    assert contract.labels == tuple(map(str, range(10))) and run.contract == contract
    assert any(str(weights) in line and "predictions/kernel" in line for line in said)


def test_what_is_frozen_keeps_every_bit_and_the_rest_learns(weights: Path, tmp_path: Path) -> None:
    given = by_name(keras_resnet.load_model(weights))
    frozen = experiment(weights, {"model.freeze": "stage2", "optimizer.weight_decay": 0.1})
    trained = by_name(keras_resnet.load_model(train(frozen, tmp_path / "run", quiet, 0).model_file))
    for path, value in trained.items():
        if path.startswith(("stem", "stage1", "stage2")):
            np.testing.assert_array_equal(value, given[path], err_msg=path)
        elif path.startswith("stage3") and path.endswith(("kernel", "moving_mean")):
            assert not np.array_equal(value, given[path]), path


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_when_the_file_is_gone(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "there.keras"
    file.write_bytes(weights.read_bytes())
    changes = {
        "model.freeze": "stage1",
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "optimizer.layer_decay": 0.7,
        "optimizer.gradient_accumulation_steps": 2,
        "optimizer.clip_norm": 1.0,
        "optimizer.class_weights": "balanced",
        "optimizer.ema_momentum": 0.9,
    }
    asked = experiment(file, changes)
    calm = train(asked, tmp_path / "calm", quiet, verbose=0)
    check, calls = training.train._check_loss, iter(range(100))

    def stopping(*args: Any) -> None:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        check(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training.train, "_check_loss", stopping)
        with pytest.raises(Interrupted):
            train(asked, tmp_path / "run", quiet, verbose=0)
    file.unlink()
    run = train(asked, tmp_path / "run", quiet, verbose=0)
    assert checkpoint_bits(run) == checkpoint_bits(calm)
    assert run.log_file.read_bytes() == calm.log_file.read_bytes()
    assert run.contract == calm.contract


def checkpoint_bits(run: Run) -> dict[str, bytes]:
    checkpoint = training.train.latest_checkpoint(run.checkpoints, pytest.fail)
    assert checkpoint is not None
    return {name: array.tobytes() for name, array in checkpoint.arrays.items()}


def test_weights_that_do_not_fit_leave_no_folder(weights: Path, tmp_path: Path) -> None:
    for changes, says in (
        ({"model.architecture": "ResNet20"}, "other.keras"),
        ({"model.weights": str(tmp_path / "none.keras")}, "none.keras"),
    ):
        with pytest.raises(ValueError, match=says) as error:
            train(experiment(weights, changes), tmp_path / "run", quiet, verbose=0)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_ends_when_nothing_gets_better(tmp_path: Path) -> None:
    changes = {
        "schedule.epochs": 50,
        "schedule.patience": 1,
        "optimizer.learning_rate": 0.0,
        "checkpoint.monitor": "val_accuracy",
        "runtime.batch_size": 700,
    }
    asked = load_experiment("digits-resnet8", changes)
    run = train(asked, tmp_path / "run", quiet, verbose=0)
    metrics = run.read("metrics.json")
    assert metrics["finished"] and metrics["epochs"] - metrics["best_epoch"] == 1
    said: list[str] = []
    train(asked, tmp_path / "run", said.append, verbose=0)
    assert said == [f"{run.folder} is finished: {metrics['epochs']} epochs"]
