"""Every recipe that comes with the package builds its network and takes a step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training.task
import training.train
from training.data.sources import Source, array_split
from training.dry_run import dry_run
from training.experiment_file import list_recipes, load_experiment
from training.phases import phase_at
from training.task import make_contract, make_model
from training.train import train

BATCH = 4


def noise(channels: int, classes: int = 3) -> Source:
    """Two batches to learn from and one to test on."""
    images = np.random.default_rng(0).integers(0, 256, (3 * BATCH, 32, 32, channels), "uint8")
    labels = np.arange(3 * BATCH) % classes
    cut = 2 * BATCH
    splits = (array_split(images[:cut], labels[:cut]), array_split(images[cut:], labels[cut:]))
    return Source(tuple("abc")[:classes], channels, *splits)


def channels_of(recipe: str) -> int:
    return 1 if recipe.startswith("digits") else 3


@pytest.mark.parametrize("recipe", list_recipes())
def test_the_recipe_builds_its_network(recipe: str) -> None:
    experiment = load_experiment(recipe, {"model.weights": ""})
    contract = make_contract(experiment, noise(channels_of(recipe)), None)
    model = make_model(experiment, contract)
    assert model.input_shape[1:3] == (experiment.model.size,) * 2
    assert model.output_shape == (None, 3)


# The recipe with most in it; the others in `make test-all`.
FULLEST = "imagenet-resnet50-a3"


@pytest.mark.parametrize(
    "recipe",
    [
        FULLEST,
        *(pytest.param(name, marks=pytest.mark.slow) for name in list_recipes() if name != FULLEST),
    ],
)
def test_the_recipe_trains(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small network, whose steps take no time; all else is the recipe's."""
    changes: dict[str, Any] = {
        "model.architecture": "ResNet8",
        "model.size": 32,
        "model.weights": "",
        "schedule.epochs": 1,
        "runtime.batch_size": BATCH,
    }
    if sizes := load_experiment(recipe).schedule.sizes:
        changes["schedule.sizes"] = [(epoch, size // 4) for epoch, size in sizes]
    monkeypatch.setattr(training.task, "open_source", lambda *_: noise(channels_of(recipe)))
    experiment = load_experiment(recipe, changes)
    run = train(experiment, tmp_path / "run", lambda _: None, verbose=0)
    (row,) = run.read("metrics.json")["history"]
    assert np.isfinite(row["loss"]) and np.isfinite(row["val_loss"])


def test_the_imagenet_recipes_are_those_of_their_papers() -> None:
    a3 = load_experiment("imagenet-resnet50-a3")
    images = a3.runtime.batch_size * a3.optimizer.gradient_accumulation_steps
    assert (images, a3.optimizer.learning_rate, a3.schedule.epochs) == (2048, 8e-3, 100)
    assert (phase_at(a3, 0).size, a3.model.size) == (160, 224)
    goyal = load_experiment("imagenet-resnet50-90")
    coupled = goyal.optimizer.weight_decay * (1 - goyal.optimizer.momentum)
    assert (goyal.runtime.batch_size, goyal.optimizer.learning_rate) == (256, 0.1)
    assert coupled == pytest.approx(1e-4)


def test_a_dry_run_counts_what_there_is_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"optimizer.ema_momentum": 0.9, "model.freeze": "stage3", "schedule.epochs": 2}
    experiment = load_experiment("digits-resnet8", changes)
    found = dry_run(experiment, tmp_path / "run", lambda _: None)
    assert not list(tmp_path.iterdir())
    # Of the classifier alone: 64 inputs, 10 classes.
    assert found.trainable == 650 and found.multiply_adds > 12_000_000
    assert (found.steps_per_epoch, found.steps) == (1437 // 64, 2 * (1437 // 64))
    # Two copies of the weights; momentum and gradient of the classifier; the confusion matrix of
    # ten classes; and a few counters.
    floats = 2 * found.parameters + 2 * found.trainable + 10 * 10
    assert floats * 4 <= found.state_bytes < floats * 4 + 100
    assert found.activation_bytes > 64 * 32 * 32 * 16 * 4 and found.step_seconds > 0
    assert found.hours == pytest.approx(found.steps * found.step_seconds / 3600)
