"""TensorBoard's event files hold what is promised: read back with TensorFlow's own reader."""

from collections import defaultdict
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
from training.data.pipeline import evaluation_batches, training_batches
from training.data.sources import open_source
from training.evaluate import evaluate
from training.experiment_file import load_experiment
from training.report.tensorboard import RIGHT, WRONG, Profile, confusion_picture
from training.run import Run
from training.train import train


def tiny(experiment: Any, contract: Any) -> keras_resnet.classifier.ImageClassifier:
    x = inputs = keras.Input((32, 32, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x))
    outputs = keras.layers.Dense(10, activation="softmax", name="predictions")(x)
    model = keras_resnet.classifier.ImageClassifier(inputs, outputs)
    model.contract = contract
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    changes = {"schedule.epochs": 2, "runtime.batch_size": 200, "optimizer.learning_rate": 0.01}
    changes["augment.mixup"] = 0.4
    out = tmp_path_factory.mktemp("tensorboard") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.task, "make_model", tiny)
        experiment = load_experiment("digits-resnet8", changes)
        return train(experiment, out, lambda _: None, verbose=0, profile=(2, 3))


def values(run: Run, name: str) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Steps and values of each tag."""
    found: dict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for path in (run.folder / "tensorboard" / name).glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag].append((event.step, tf.make_ndarray(value.tensor)))
    return found


def pictures(value: np.ndarray) -> list[np.ndarray]:
    """Of an image summary: width, height, and a PNG each."""
    return [tf.io.decode_png(png).numpy() for png in value[2:]]


def test_the_first_batch_is_shown_once_as_the_network_sees_it(run: Run) -> None:
    found = values(run, "train")
    ((step, images),) = found["first_batch"]
    assert step == 0 and len(pictures(images)) == 16
    experiment = run.experiment
    assert experiment is not None and run.contract is not None
    split = open_source(experiment.data, 0).train
    ((x, y),) = training_batches(split, run.contract, experiment).take(1).as_numpy_iterator()
    for shown, seen in zip(pictures(images), x):
        np.testing.assert_allclose(shown, seen, atol=1)
    ((_, text),) = found["first_batch_labels"]
    labels = text.item().decode().split("\n\n")
    assert len(labels) == 16 and any(" + " in label for label in labels)
    assert labels[0].split(" + ")[0].split()[-1] == str(y[0].argmax())


def test_the_confusion_matrix_of_every_validation_is_shown(run: Run) -> None:
    shown = values(run, "validation")["confusion"]
    assert [step for step, _ in shown] == [0, 1]
    experiment, model = run.experiment, keras_resnet.load_model(run.model_file)
    assert experiment is not None
    source = open_source(experiment.data, 0)
    batches = evaluation_batches(source.test, model.contract, 100)
    expected = np.array(evaluate(model, batches, source.labels).confusion)
    assert 50 < np.trace(expected) < expected.sum() == 360
    np.testing.assert_array_equal(pictures(shown[1][1])[0], confusion_picture(expected))
    checkpoint = latest_checkpoint(run.checkpoints, pytest.fail)
    assert checkpoint is not None  # a run that goes on draws it again from there
    np.testing.assert_array_equal(checkpoint.arrays["confusion/00000/confusion"], expected)


def test_the_figures_have_the_names_that_keras_gives_them(run: Run) -> None:
    rows = run.read("metrics.json")["history"]
    found = {name: values(run, name) for name in ("train", "validation")}
    for name, tag, key in (
        ("train", "epoch_loss", "loss"),
        ("train", "epoch_learning_rate", "learning_rate"),
        ("validation", "epoch_accuracy", "val_accuracy"),
    ):
        points = [(step, float(value)) for step, value in found[name][tag]]
        assert points == [(i, pytest.approx(row[key])) for i, row in enumerate(rows)]


def test_the_steps_asked_for_are_profiled(run: Run) -> None:
    (profile,) = (run.folder / "tensorboard").rglob("*.xplane.pb")
    assert profile.parts[-5:-2] == ("train", "plugins", "profile")
    operation = b"jit_step" if keras.backend.backend() == "jax" else b"MatMul"
    assert operation in profile.read_bytes()


@pytest.mark.parametrize("steps", [(0, 3), (5, 4)])
def test_a_profile_of_no_steps_is_refused(tmp_path: Path, steps: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"Received: {steps[0]} {steps[1]}"):
        Profile(tmp_path, steps)
    assert not list(tmp_path.iterdir())


def test_the_picture_of_a_matrix_says_what_is_right_and_what_is_wrong() -> None:
    picture = confusion_picture(np.array([[9, 1, 0], [0, 0, 0], [0, 5, 0]]))
    assert picture.shape == (321, 321, 3)
    middle = picture[53::107, 53::107]
    assert (middle[[0, 1, 1, 1, 2], [2, 0, 1, 2, 0]] == 255).all()
    np.testing.assert_array_equal(middle[2, 1], WRONG)
    blue, pale = (np.abs(middle[0, i] - np.array(c)).sum() for i, c in ((0, RIGHT), (1, WRONG)))
    assert blue < 60 < pale < 400
    assert confusion_picture(np.zeros((1000, 1000), int)).shape == (1000, 1000, 3)
