"""The tasks ``binary`` and ``multi`` from labels to a trained model, on real digits."""

import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import training.task
from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import decode_predictions
from keras_resnet.saving import load_model
from tests.training.test_resume import stop_at
from training.checkpoint import latest_checkpoint, values_of
from training.config import from_dict
from training.data.augment import mix
from training.data.pipeline import target, training_batches, validation_batches
from training.data.split import Source, array_split
from training.experiment_file import load_experiment
from training.export import export_saved_model
from training.optim import batch_loss, make_accuracy, make_loss
from training.train import Interrupted, train

TASKS = ("binary", "multi")
LABELS = {"binary": ("0–4", "5–9"), "multi": ("even", "large", "prime")}
TRAIN = 1400


def labels_of_digits(task: str) -> np.ndarray:
    digits = load_digits().target
    if task == "binary":
        return (digits >= 5).astype("int64")
    properties = (digits % 2 == 0, digits >= 5, np.isin(digits, (2, 3, 5, 7)))
    return np.stack(properties, axis=1).astype("uint8")


def digits_source(task: str) -> Source:
    pixels = np.rint(load_digits().images * (255 / 16)).astype("uint8")[..., np.newaxis]
    truth = labels_of_digits(task)
    parts = slice(None, TRAIN), slice(TRAIN, None)
    return Source(LABELS[task], 1, *(array_split(pixels[p], truth[p]) for p in parts))


def experiment(task: str, **changes: Any) -> Any:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return load_experiment("digits-resnet8", {"task": task, "schedule.epochs": 2, **keys})


@pytest.fixture(autouse=True)
def digits_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training.task, "open_source", lambda data, seed, say, task: digits_source(task)
    )


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize("augment", [{}, {"augment__mixup": 0.5}, {"augment__cutmix": 0.5}])
@pytest.mark.parametrize("task", TASKS)
def test_targets_are_float32_of_the_labels(task: str, augment: dict[str, float]) -> None:
    source, config = digits_source(task), experiment(task, **augment)
    contract = Contract(32, 32, 1, labels=LABELS[task], task=task)
    images, targets = next(iter(training_batches(source.train, contract, config)))
    assert targets.dtype == "float32" and targets.shape == (len(images), contract.outputs)
    values = set(np.unique(targets))
    assert values > {0.0, 1.0} if augment else values == {0.0, 1.0}
    batches = list(validation_batches(source.test, contract, config))
    found = np.concatenate([np.asarray(targets) for _, targets in batches])
    np.testing.assert_array_equal(found, labels_of_digits(task)[TRAIN:].reshape(found.shape))


def test_targets_by_hand() -> None:
    binary = Contract(8, 8, 1, labels=("a", "b"), task="binary")
    np.testing.assert_array_equal(target(np.array([1, 0]), binary), [[1.0], [0.0]])
    multi = Contract(8, 8, 1, labels=("a", "b"), task="multi")
    rows = np.array([[1, 1], [0, 0]], "uint8")
    np.testing.assert_array_equal(target(rows, multi), rows)
    single = Contract(8, 8, 1, labels=("a", "b"))
    np.testing.assert_array_equal(target(np.array([1, 0]), single), [[0.0, 1.0], [1.0, 0.0]])


def test_mixing_keeps_the_mean_of_several_labels() -> None:
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]], "float32")
    config = experiment("multi", augment__mixup=1.0).augment
    _, mixed = mix(np.zeros((3, 8, 8, 1), "uint8"), labels, config, np.array([1, 2], "int64"))
    np.testing.assert_allclose(np.mean(mixed, axis=0), labels.mean(axis=0), rtol=1e-6)


def test_loss_by_hand() -> None:
    labels, outputs = np.array([[1.0, 0.0]], "float32"), np.array([[0.8, 0.4]], "float32")
    expected = -(np.log(0.8) + np.log(0.6)) / 2  # the mean over the labels
    config = experiment("multi", optimizer__label_smoothing=0.0).optimizer
    assert float(make_loss(config, "multi")(labels, outputs)) == pytest.approx(expected, rel=1e-5)
    smooth = experiment("multi", optimizer__label_smoothing=0.2).optimizer
    expected = -(0.9 * np.log(0.8) + 0.1 * np.log(0.2) + 0.9 * np.log(0.6) + 0.1 * np.log(0.4)) / 2
    assert float(make_loss(smooth, "multi")(labels, outputs)) == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_of_a_binary_task_by_hand() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    config = experiment("binary", optimizer__label_smoothing=0.0).optimizer
    model.compile(loss=make_loss(config, "binary"))
    labels, outputs = np.array([[1.0], [0.0]], "float32"), np.array([[0.8], [0.4]], "float32")
    weighted = float(batch_loss(model, labels, outputs, (0.5, 2.0)))
    expected = (2.0 * -np.log(0.8) + 0.5 * -np.log(0.6)) / 2
    assert weighted == pytest.approx(expected, rel=1e-5)


def test_accuracy_counts_decisions() -> None:
    metric = make_accuracy("multi")
    metric.update_state(np.array([[1, 0, 0.7]]), np.array([[0.6, 0.6, 0.9]], "float32"))
    assert float(metric.result()) == pytest.approx(2 / 3)  # the mixed label counts as present


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("binary", {"optimizer": {"loss": "binary"}}, "task=binary has one"),
        ("multi", {"optimizer": {"class_weights": "balanced"}}, "class_weights=balanced needs one"),
        ("multi", {"data": {"sampling": "balanced"}}, "data.sampling=balanced needs one class"),
        ("several", {}, "task must be one of single, binary, multi"),
    ],
)
def test_what_cannot_be_combined_is_refused(task: str, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_dict({"task": task, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("binary", {}),
        ("binary", {"data__sampling": "balanced", "optimizer__label_smoothing": 0.1}),
        ("binary", {"optimizer__class_weights": "balanced", "augment__mixup": 0.2}),
        ("multi", {}),
        ("multi", {"optimizer__loss": "binary", "optimizer__label_smoothing": 0.0}),
    ],
)
def test_training_learns(task: str, changes: dict[str, Any], tmp_path: Path) -> None:
    run = train(experiment(task, schedule__epochs=6, **changes), tmp_path, quiet, verbose=0)
    model = load_model(run.model_file)
    assert model.contract.task == task and model.contract.labels == LABELS[task]
    assert model.output_shape == (None, model.contract.outputs)
    row = run.read("metrics.json")["history"][-1]
    assert row["val_accuracy"] > 0.8  # half are right by chance
    assert 0 < row["val_loss"] < 0.6


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_is_the_same_run(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(task, checkpoint__every_steps=3, optimizer__ema_momentum=0.9)
    whole = train(config, tmp_path / "whole", quiet, verbose=0)
    with monkeypatch.context() as patch:
        stop_at(patch, "_save", 4, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "stopped", quiet, verbose=0)
    resumed = train(config, tmp_path / "stopped", quiet, verbose=0)
    states = [latest_checkpoint(run.checkpoints, quiet) for run in (whole, resumed)]
    assert states[0] and states[1]
    assert states[0].arrays.keys() == states[1].arrays.keys()
    for key, array in states[0].arrays.items():
        np.testing.assert_array_equal(array, states[1].arrays[key], err_msg=str(key))
    models = [load_model(run.model_file) for run in (whole, resumed)]
    assert models[0].contract == models[1].contract
    for one, other in zip(*(values_of({"all": model.weights}).values() for model in models)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("task", TASKS)
def test_fine_tuning_replaces_a_softmax(task: str, tmp_path: Path) -> None:
    contract = Contract(32, 32, 1, mean=(10.0,), std=(20.0,), labels=tuple("0123456789"))
    old = ResNet8(input_shape=(32, 32, 1), contract=contract)
    old.save(tmp_path / "old.keras")
    config = experiment(task, model__weights=str(tmp_path / "old.keras"), schedule__epochs=1)
    said: list[str] = []
    run = train(config, tmp_path / "run", said.append, verbose=0)
    assert any("predictions/kernel" in line for line in said)  # the classifier is new
    model = load_model(run.model_file)
    assert model.contract.mean == (77.9,)  # the recipe's own
    assert model.layers[-1].activation is keras.activations.sigmoid
    assert model.output_shape[1] == model.contract.outputs


@pytest.mark.parametrize("task", TASKS)
def test_saved_model_decides_as_the_contract_says(task: str, tmp_path: Path) -> None:
    import tensorflow as tf

    contract = Contract(32, 32, 1, labels=LABELS[task], task=task)
    keras.utils.set_random_seed(0)
    model = ResNet8(
        input_shape=(32, 32, 1),
        classes=contract.outputs,
        classifier_activation="sigmoid",
        contract=contract,
        include_preprocessing=True,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1), "uint8")
    # Half of the images are on each side, and none is near: the network is not trained.
    sorted_outputs = np.sort(model(pixels.astype("float32")), axis=0)
    thresholds = tuple(sorted_outputs[7:9].mean(axis=0).tolist())
    model.contract = model.contract.replace(thresholds=thresholds)
    loaded = tf.saved_model.load(str(export_saved_model(model, tmp_path / "saved")))
    outputs = loaded.serve(tf.constant(pixels))
    probabilities = np.asarray(outputs["probabilities"])
    np.testing.assert_allclose(probabilities, model(pixels.astype("float32")), atol=1e-5)
    decided = np.asarray(outputs["decisions"])
    np.testing.assert_array_equal(decided, probabilities >= np.array(thresholds, "float32"))
    np.testing.assert_array_equal(decided.sum(axis=0), [8] * contract.outputs)
    expected = decode_predictions(probabilities, model.contract)
    assert [[label.decode() for label in row] for row in outputs["top_labels"].numpy()] == [
        [label for label, _ in row] for row in expected
    ]
