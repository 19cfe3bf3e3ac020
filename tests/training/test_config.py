"""The experiment: recipes load, files round-trip, and mistakes are named."""

import runpy
from pathlib import Path

import pytest

import keras_resnet
from training.config import Experiment, Key, dotted, from_dict, keys
from training.experiment_file import list_recipes, load_experiment, save_experiment


@pytest.mark.parametrize("recipe", list_recipes())
def test_recipe_loads_and_names_a_real_architecture(recipe: str) -> None:
    experiment = load_experiment(recipe)
    assert experiment.model.architecture in keras_resnet.list_models()


def test_a_saved_experiment_reads_back_as_it_was(tmp_path: Path) -> None:
    experiment = load_experiment("cifar10-resnet20", {"optimizer.learning_rate": 0.07})
    save_experiment(experiment, tmp_path / "experiment.yaml")
    assert load_experiment(tmp_path / "experiment.yaml") == experiment


def test_keys_left_out_keep_their_defaults() -> None:
    assert from_dict({}) == Experiment()


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"optimizer": {"learning_rat": 1}}, "Did you mean learning_rate"),
        ({"optimiser": {}}, "Did you mean optimizer"),
        ({"schedule": {"epochs": "many"}}, "schedule.epochs must be a whole number"),
        ({"schedule": {"epochs": 0}}, "schedule.epochs must be between 1"),
        ({"schedule": {"epochs": True}}, "schedule.epochs must be a whole number"),
        ({"optimizer": {"momentum": float("nan")}}, "optimizer.momentum must be between"),
        ({"runtime": {"precision": "float8"}}, "runtime.precision must be one of"),
        ({"data": {"mean": []}}, "data.mean must be a list of numbers"),
        ({"augment": {"polici": "none"}}, "Did you mean policy"),
        ({"augment": {"policy": "autoaugment"}}, "augment.policy must be one of none, rand"),
        ({"augment": {"randaugment_layers": 0}}, "augment.randaugment_layers must be between 1"),
        ({"augment": {"randaugment_magnitude": 31}}, "augment.randaugment_magnitude must be"),
        ({"augment": {"color_jitter": [0.4, 0.4]}}, "augment.color_jitter must be a list of 4"),
        ({"augment": {"color_jitter": [0.4, 1.1, 0, 0]}}, r"color_jitter\[1\] must be between 0"),
        ({"augment": {"color_jitter": [0, 0, 0, 0.6]}}, r"color_jitter\[3\] must be .* 0.5"),
        ({"augment": {"erasing": 1.5}}, "augment.erasing must be between 0 and 1"),
        ({"augment": {"mixup": -0.1}}, "augment.mixup must be between"),
        ({"augment": {"cutmix": float("nan")}}, "augment.cutmix must be between"),
        ({"data": {"bad_images": "ignore"}}, "data.bad_images must be one of error, skip"),
        ({"data": {"max_bad_images": -1}}, "data.max_bad_images must be between"),
        ({"data": {"cache_gb": -1}}, "data.cache_gb must be between"),
        ({"data": {"sampling": "even"}}, "data.sampling must be one of shuffle, balanced"),
        (
            {"data": {"sampling": "balanced"}, "optimizer": {"class_weights": "balanced"}},
            "would count each small class twice",
        ),
        ({"schedule": {"step_epochs": [float("inf")]}}, r"step_epochs\[0\] must be between"),
        ({"data": {"mean": [float("nan")] * 3}}, r"data.mean\[0\] must be between"),
        ({"data": {"std": [1e9] * 3}}, r"data.std\[0\] must be between"),
        ({"model": "ResNet50"}, "model must hold keys and values"),
    ],
)
def test_a_mistake_is_named_with_what_would_do(tree: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_dict(tree)


def test_a_number_that_yaml_reads_as_text_is_still_a_number(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("optimizer: {weight_decay: 1e-3}")
    assert load_experiment(path).optimizer.weight_decay == 1e-3


@pytest.mark.parametrize(
    "text", ["", "null", "{}", "[]", "a: [", "- 1\n- 2", "\x00", "!!python/object:os.system x"]
)
def test_a_file_that_is_no_experiment_gives_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_experiment(path)
    assert "\n" not in str(error.value)


def test_the_table_of_keys_in_the_documentation_is_current() -> None:
    docs = Path(__file__).parents[2] / "docs"
    written = (docs / "recipes.md").read_text("utf-8")
    page = runpy.run_path(str(docs / "make_recipes_page.py"))["page"]
    assert written == page(written), "run: python docs/make_recipes_page.py"
    for key in dotted(Experiment()):
        assert f"| `{key}` |" in written


def numbers() -> list[Key]:
    return [key for key in keys() if key.kind in (int, float)]


@pytest.mark.parametrize("key", numbers(), ids=lambda key: key.name)
def test_every_number_has_a_range_and_is_held_to_it(key: Key) -> None:
    assert key.bounds is not None
    group, name = key.name.split(".")
    beyond = [key.bounds.low - 1, key.bounds.high * 2 + 1]
    for value in beyond if key.kind is int else [*beyond, float("nan"), float("inf")]:
        with pytest.raises(ValueError, match=f"{key.name} must be between"):
            from_dict({group: {name: value}})
    for value in (key.bounds.low, key.bounds.high):
        changes = {group: {name: key.kind(value)}}
        assert getattr(getattr(from_dict(changes), group), name) == value
