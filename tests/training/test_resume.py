"""Resuming: the state is complete, and a folder is never mistaken for another run's."""

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
import training.task
import training.train
from training.checkpoint import (
    Checkpoint,
    Damaged,
    Progress,
    assign,
    latest_checkpoint,
    read_checkpoint,
    values_of,
    write_checkpoint,
)
from training.data.sources import Source, array_split
from training.experiment_file import load_experiment
from training.optim import update_ema
from training.run import Run, lock_folder, open_run
from training.train import Interrupted, train


def quiet(_: str) -> None:
    pass


def tiny(experiment: Any, contract: Any) -> keras_resnet.classifier.ImageClassifier:
    """A network that is traced in no time, with batch norm and with chance of its own."""
    x = inputs = keras.Input((32, 32, 1))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(4, 3, strides=4, use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.Dropout(0.2)(keras.layers.Flatten()(x))
    outputs = keras.layers.Dense(10, activation="softmax", name="top")(x)
    model = keras_resnet.classifier.ImageClassifier(inputs, outputs)
    model.contract = contract
    return model


EXPERIMENT = load_experiment(
    "digits-resnet8",
    {
        "schedule.epochs": 4,
        "runtime.batch_size": 128,  # 11 steps an epoch
        "optimizer.ema_momentum": 0.9,
        "checkpoint.every_steps": 3,
    },
)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.task, "make_model", tiny)


def stop_at(
    monkeypatch: pytest.MonkeyPatch, name: str, nth: int, by: signal.Signals = signal.SIGTERM
) -> None:
    """Sends a signal when a function of ``training.train`` is entered for the nth time."""
    original, calls = getattr(training.train, name), iter(range(1, 10**9))

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == nth:
            os.kill(os.getpid(), by)
        return original(*args, **kwargs)

    monkeypatch.setattr(training.train, name, stopping)


def state_of(run: Run) -> tuple[dict[str, bytes], Any, bytes]:
    checkpoint = latest_checkpoint(run.checkpoints, pytest.fail)
    assert checkpoint is not None
    arrays = {name: array.tobytes() for name, array in checkpoint.arrays.items()}
    return arrays, checkpoint.progress.rows, run.log_file.read_bytes()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.task, "make_model", tiny)
        return train(EXPERIMENT, tmp_path_factory.mktemp("calm") / "run", quiet, verbose=0)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that was stopped after 16 of 44 steps, with checkpoints at 14 and 16."""
    with monkeypatch.context() as patch:
        stop_at(patch, "_check_loss", 20)  # it also looks after an epoch, and before a checkpoint
        with pytest.raises(Interrupted, match="after 1 completed epochs"):
            train(EXPERIMENT, tmp_path / "run", quiet, verbose=0)
    return Run(tmp_path / "run")


def test_stopped_anywhere_it_ends_with_the_same_bits(
    calm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, nth in (("_check_loss", 3), ("_check_loss", 9), ("_validate", 1), ("_validate", 2)):
        with monkeypatch.context() as patch:
            stop_at(patch, place, nth)
            with pytest.raises(Interrupted):
                train(EXPERIMENT, tmp_path / "run", quiet, verbose=0)
    run = train(EXPERIMENT, tmp_path / "run", quiet, verbose=0)
    assert state_of(run) == state_of(calm)
    signals = [json.loads(line)["event"] for line in (run.folder / "events.jsonl").open()]
    assert signals == ["begun", "stopped", *["resumed", "stopped"] * 3, "resumed"]


@pytest.mark.parametrize(
    ("optimizer", "decay"),
    [
        ("lamb", "step"),
        pytest.param("adamw", "one_cycle", marks=pytest.mark.slow),
        pytest.param("sgd", "one_cycle", marks=pytest.mark.slow),
    ],
)
def test_every_optimizer_and_schedule_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, decay: str
) -> None:
    changes = {
        "optimizer.name": optimizer,
        "optimizer.learning_rate": 0.02,
        "optimizer.gradient_accumulation_steps": 2,
        "schedule.epochs": 2,
        "schedule.warmup_epochs": 0.3,
        "schedule.decay": decay,
        "schedule.step_epochs": [0.5, 1.2],
        "data.sampling": "balanced",
        "runtime.batch_size": 256,  # 5 steps an epoch
    }
    experiment = load_experiment("digits-resnet8", changes)
    calm = train(experiment, tmp_path / "calm", quiet, verbose=0)
    for nth in (2, 6):
        with monkeypatch.context() as patch:
            stop_at(patch, "_check_loss", nth)
            with pytest.raises(Interrupted):
                train(experiment, tmp_path / "run", quiet, verbose=0)
    run = train(experiment, tmp_path / "run", quiet, verbose=0)
    assert state_of(run) == state_of(calm)
    rates = [float(line.rsplit(",", 1)[1]) for line in calm.log_file.open().readlines()[1:]]
    assert rates[0] > rates[1] >= 0


def test_ctrl_c_keeps_a_model_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, "_check_loss", 20, signal.SIGINT)
        with pytest.raises(Interrupted, match="after 1 completed epochs") as stop:
            train(EXPERIMENT, tmp_path / "run", quiet, verbose=0)
    run = open_run(tmp_path / "run")
    assert stop.value.run == run
    assert keras_resnet.load_model(run.model_file).count_params() > 0
    metrics = run.read("metrics.json")
    assert (metrics["epochs"], metrics["finished"]) == (1, False)


def test_every_part_of_the_state_is_in_the_checkpoint(stopped: Run) -> None:
    checkpoint = latest_checkpoint(stopped.checkpoints, pytest.fail)
    assert checkpoint is not None
    names = [name.partition("/")[2].partition("/")[2] for name in checkpoint.arrays]
    groups = {name.partition("/")[0] for name in checkpoint.arrays}
    assert groups == {"model", "average", "optimizer", "figures", "confusion"}
    assert {"kernel", "moving_mean", "seed_generator_state", "iteration"} <= set(names)
    assert any("momentum" in name for name in names) and "total" in names


def test_what_is_logged_does_not_depend_on_the_clock(calm: Run) -> None:
    header = calm.log_file.read_text().splitlines()[0].split(",")
    assert header[:5] == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert header[5:] == ["val_ema_accuracy", "val_ema_loss", "learning_rate"]
    rows = [json.loads(line) for line in (calm.folder / "log.jsonl").open()]
    metrics = calm.read("metrics.json")
    assert [row | {"seconds": m["seconds"]} for row, m in zip(rows, metrics["history"])] == (
        metrics["history"]
    )
    best = max(rows, key=lambda row: row["val_ema_accuracy"])
    assert metrics["best_epoch"] == best["epoch"] and metrics["finished"]
    timing = (calm.folder / "timing.csv").read_text().splitlines()
    assert timing[0] == "epoch,seconds,images_per_second,waiting" and len(timing) == 5


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    calm: Run, stopped: Run, harm: str
) -> None:
    newest = sorted(stopped.checkpoints.glob("step-*"))[-1]
    damage(newest, harm)
    said: list[str] = []
    run = train(EXPERIMENT, stopped.folder, said.append, verbose=0)
    assert any(newest.name in line and "the one before it" in line for line in said)
    assert newest.name in (run.folder / "events.jsonl").read_text()
    assert newest.with_suffix(".damaged").exists()
    assert state_of(run) == state_of(calm)


def damage(path: Path, harm: str) -> None:
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[harm])


def test_where_all_are_damaged_it_refuses_and_changes_nothing(stopped: Run) -> None:
    for path in stopped.checkpoints.glob("step-*"):
        damage(path, "flip")
    before = contents(stopped.folder)
    with pytest.raises(ValueError, match="to start over, or give another folder") as error:
        train(EXPERIMENT, stopped.folder, quiet, verbose=0)
    assert "\n" not in str(error.value)
    after = contents(stopped.folder)
    assert {k: v for k, v in after.items() if k.name != "events.jsonl"} == {
        k: v for k, v in before.items() if k.name != "events.jsonl"
    }


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_bit_of_a_checkpoint_can_change_unseen(tmp_path: Path) -> None:
    arrays = {"a/0/x": np.arange(50, dtype="float32"), "a/1/y": np.array(3, "int64")}
    path = write_checkpoint(tmp_path, 1, Checkpoint(Progress(2, 3), {"data": {}}, arrays))
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        try:
            seen = read_checkpoint(path)
        except Damaged:
            continue
        # Left is what means the same, such as another escape of the same letter.
        assert seen.progress == Progress(2, 3), position
        for name, array in arrays.items():
            np.testing.assert_array_equal(seen.arrays[name], array)


@pytest.mark.parametrize(
    ("progress", "facts", "why"),
    [
        (Progress(epoch="x"), {}, "progress.epoch must be a whole number"),  # type: ignore[arg-type]
        (Progress(step=-3), {}, "progress.step must be a whole number"),
        (Progress(rows=({"loss": "low"},)), {}, "must be a number"),  # type: ignore[dict-item]
        (Progress(), {"data": [1]}, "facts.data must be an object"),
    ],
    ids=str,
)
def test_a_sound_file_of_another_version_is_not_called_damaged(
    tmp_path: Path, progress: Progress, facts: Any, why: str
) -> None:
    write_checkpoint(tmp_path, 1, Checkpoint(Progress(), {}, {"a/0/x": np.zeros(1)}))
    path = write_checkpoint(tmp_path, 2, Checkpoint(progress, facts, {"a/0/x": np.zeros(1)}))
    with pytest.raises(ValueError, match=f"another version of keras-resnet .*{why}") as error:
        latest_checkpoint(tmp_path, pytest.fail)
    assert "damaged" not in str(error.value) and "Delete" not in str(error.value)
    assert path.exists()


def test_two_checkpoints_are_kept_and_a_value_that_is_not_the_models_is_refused(
    tmp_path: Path,
) -> None:
    variable = keras.Variable(np.ones(3), name="w")
    for step in (1, 2, 10):
        arrays = values_of({"model": [variable]})
        write_checkpoint(tmp_path, step, Checkpoint(Progress(), {}, arrays))
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "step-000000002.safetensors",
        "step-000000010.safetensors",
    ]
    with pytest.raises(ValueError, match="another version"):
        assign({"model": [keras.Variable(np.ones(4))]}, arrays)
    with pytest.raises(ValueError, match="another version"):
        assign({"model": [variable], "optimizer": [variable]}, arrays)


def changed(key: str, value: Any) -> Any:
    from training.config import from_dict, to_dict

    tree = to_dict(EXPERIMENT)
    group, name = key.split(".")
    tree[group][name] = value
    return from_dict(tree)


def test_another_experiment_is_refused_by_the_first_key_that_differs(stopped: Run) -> None:
    with pytest.raises(ValueError, match=r"schedule\.epochs is 4, not 5.*--out"):
        train(changed("schedule.epochs", 5), stopped.folder, quiet)


def test_a_finished_run_says_so_and_stays_as_it_is(calm: Run) -> None:
    before, said = contents(calm.folder), []
    assert train(EXPERIMENT, calm.folder, said.append, verbose=0) == calm
    assert said == [f"{calm.folder} is finished: 4 epochs"]
    after = contents(calm.folder)
    assert {k: v for k, v in after.items() if k.name != ".lock"} == {
        k: v for k, v in before.items() if k.name != ".lock"
    }


def test_a_folder_that_is_no_run_of_this_kind_is_refused(calm: Run, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes((calm.folder / "model.keras").read_bytes())
    with pytest.raises(ValueError, match="holds another run"):
        train(EXPERIMENT, tmp_path, quiet)
    copy = tmp_path / "copy"
    shutil.copytree(calm.folder, copy)
    (copy / "metrics.json").unlink()
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(ValueError, match="without checkpoints"):
        train(EXPERIMENT, copy, quiet)


def test_other_data_are_refused(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.task.open_source

    def fewer(*args: Any) -> Source:
        source = real(*args)
        examples = list(source.train.examples.take(1000).as_numpy_iterator())
        images, classes = map(np.stack, zip(*examples))
        return dataclasses.replace(source, train=array_split(images, classes))

    monkeypatch.setattr(training.task, "open_source", fewer)
    with pytest.raises(ValueError, match="training images were 1437 and are 1000"):
        train(EXPERIMENT, stopped.folder, quiet, verbose=0)


def test_a_folder_in_use_is_refused_and_one_made_for_nothing_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        lock_folder(folder),
        pytest.raises(ValueError, match=f"in use by process {os.getpid()}"),
        lock_folder(folder),
    ):
        pass
    assert not folder.exists()


def test_the_average_moves_with_every_weight_batch_norm_statistics_included() -> None:
    model, average = tiny(None, None), tiny(None, None)
    model.compile(keras.optimizers.SGD(0.1))
    average.set_weights(model.get_weights())
    expected = [np.zeros(w.shape) for w in model.weights]
    rng = np.random.default_rng(0)
    for variable in average.weights:
        variable.assign(np.zeros(variable.shape))
    for step in range(1, 60):
        model.optimizer.iterations.assign(step)
        for i, variable in enumerate(model.weights):
            variable.assign(rng.normal(size=variable.shape))
            kept = min(0.8, (1 + step) / (10 + step))
            expected[i] = kept * expected[i] + (1 - kept) * np.asarray(variable)
        update_ema(average, model, 0.8)
    for variable, value in zip(average.weights, expected):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-5)


def test_the_average_knows_the_step_where_the_loss_is_scaled() -> None:
    model, average = tiny(None, None), tiny(None, None)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    model.optimizer.build(model.trainable_variables)
    zeros = [np.zeros(variable.shape) for variable in model.trainable_variables]
    for _ in range(20):
        model.optimizer.apply(zeros)
    for weights, value in ((model.weights, 1.0), (average.weights, 0.0)):
        for variable in weights:
            variable.assign(np.full(variable.shape, value))
    update_ema(average, model, 0.99)
    np.testing.assert_allclose(average.weights[0], 1 - (1 + 20) / (10 + 20), rtol=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_over_two_hundred_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: list[int] = []
    close: Callable = training.train._close_epoch

    def measured(*args: Any) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
        return close(*args)

    monkeypatch.setattr(training.train, "_close_epoch", measured)
    changes = {"schedule.epochs": 200, "runtime.batch_size": 700, "optimizer.ema_momentum": 0.9}
    train(load_experiment("digits-resnet8", changes), tmp_path / "run", quiet, verbose=0)
    assert len(memory) == 200
    assert memory[-1] - memory[49] < 20 * 2**20, [m >> 20 for m in memory[::10]]
