"""The experiment: one tree of frozen dataclasses that says all there is to say about a run.

A recipe is a YAML file with a complete instance of the tree. The resolved experiment is
written beside every run, and running that file again is the same run.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        architecture: One of ``keras_resnet.list_models()``.
        variant: ``"v1"``, ``"v1.5"``, ``"v2"``, ``"c"``, ``"s"``, ``"d"``, or ``"auto"`` for the
            architecture's own.
        shortcut: ``"A"`` (subsample and zero-pad), ``"B"`` (projection), or ``"none"`` for a
            plain network.
        zero_init_residual: Whether each block starts as the identity.
        norm: ``"batch"``, ``"sync_batch"`` (its statistics over all devices), or ``"group"``.
        size: Height and width of the input, in pixels.
    """

    architecture: str = "ResNet50"
    variant: Literal["auto", "v1", "v1.5", "v2", "c", "s", "d"] = "auto"
    shortcut: Literal["A", "B", "none"] = "B"
    zero_init_residual: bool = True
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    size: int = 224


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are fitted to the model.

    Attributes:
        source: ``digits``, ``tfds:<name>`` or ``folder:<path>``.
        data_dir: Where tensorflow-datasets keeps its data; its own default if empty.
        test_fraction: Share held out where the source has no split of its own.
        mean: Mean of each channel, 0–255.
        std: Standard deviation of each channel, 0–255.
        resize: ``"crop"`` keeps the aspect ratio, ``"stretch"`` does not.
        crop_fraction: Share of the image that evaluation keeps.
    """

    source: str = "digits"
    data_dir: str = ""
    test_fraction: float = 0.2
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    resize: Literal["crop", "stretch"] = "crop"
    crop_fraction: float = 0.875


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied; each image draws its own.

    Attributes:
        crop: ``"resized"`` takes a box of random size and shape (Szegedy et al. 2014,
            arXiv:1409.4842, section 6), ``"pad"`` pads the fitted image and takes a window
            of the original size (He et al. 2015, section 4.2), ``"none"`` leaves it.
        min_area: Smallest share of the image that a resized crop covers.
        padding: Pixels added on each side before a pad crop.
        flip: Whether half of the images are mirrored left to right.
    """

    crop: Literal["resized", "pad", "none"] = "resized"
    min_area: float = 0.08
    padding: int = 4
    flip: bool = True


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent and the loss.

    Attributes:
        learning_rate: Peak learning rate.
        reference_batch: The batch size that it is for. For another one it is scaled in
            proportion (Goyal et al. 2017, arXiv:1706.02677, section 2.1); 0 to never scale it.
        momentum: Share of the last step that is kept.
        nesterov: Whether the gradient is taken ahead of the step.
        weight_decay: Keras's: decoupled, a share of each kernel lost a step, times the
            learning rate. PyTorch's coupled decay λ corresponds to λ / (1 − momentum).
            Biases and batch norms are left alone.
        label_smoothing: Share of the target spread over all classes.
        ema_momentum: Share of a moving average of all weights, batch-norm statistics included,
            that is kept at each step (arXiv:1512.00567, section 7), such as 0.999; 0 for none.
            The average is evaluated beside the raw weights, and it is what is deployed.
    """

    learning_rate: float = 0.1
    reference_batch: int = 0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-3
    label_smoothing: float = 0.0
    ema_momentum: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and how the learning rate moves: linear warm-up, then half a cosine to zero.

    Attributes:
        epochs: Passes over the training images.
        warmup_epochs: Epochs of rising learning rate; fractions are fine.
    """

    epochs: int = 90
    warmup_epochs: float = 5.0


@dataclass(frozen=True)
class RuntimeConfig:
    """How the work is done on this machine.

    Attributes:
        batch_size: Images a step, on all devices of all machines together.
        devices: How many devices of this machine compute a step; 0 for all accelerators there
            are, or else the CPU.
        accumulate: Parts in which each device computes its share of a batch one after another,
            for a batch that its memory does not hold; the step is that of the whole batch.
        precision: A Keras dtype policy, or ``"auto"``: bfloat16 on a GPU that has it,
            float16 on an older one, float32 on a CPU.
        jit_compile: Whether XLA compiles the step; ``"auto"`` does on a GPU.
        seed: Seed of the weights, the order and the augmentation.
        deterministic: Whether only operations are used that give the same bits twice, also on a
            GPU. On a CPU they do in any case, with the same number of threads.
    """

    batch_size: int = 128
    devices: int = 0
    accumulate: int = 1
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    jit_compile: Literal["auto", "on", "off"] = "auto"
    seed: int = 0
    deterministic: bool = False


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept. The state is saved after every epoch in any case.

    Attributes:
        every_seconds: Time after which the state is saved within an epoch; 0 for never.
        every_steps: Steps of an epoch after which it is saved; 0 for never.
        monitor: The figure by which ``checkpoints/best.keras`` is chosen. ``model.keras``
            is always the last epoch's, so that its accuracy is not the best of many looks
            at the test images.
    """

    every_seconds: float = 600.0
    every_steps: int = 0
    monitor: Literal["val_accuracy", "val_loss"] = "val_accuracy"


@dataclass(frozen=True)
class Experiment:
    """Everything that defines a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_experiment(recipe: str | Path, changes: dict[str, Any] | None = None) -> Experiment:
    """Reads a recipe by name, or any experiment file by path, and applies changes.

    Args:
        recipe: One of ``list_recipes()``, or the path of a YAML file.
        changes: Dotted keys and their values, such as ``{"schedule.epochs": 1}``.

    Raises:
        ValueError: No such recipe, unreadable YAML, an unknown key or a value out of range.
    """
    path = _recipe_path(recipe)
    try:
        tree = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold keys and values. Received: {type(tree).__name__}")
    for key, value in (changes or {}).items():
        _set(tree, key, value)
    return from_dict(tree)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Writes the experiment as YAML that ``load_experiment`` reads back as it was."""
    tree = yaml.safe_dump(to_dict(experiment), sort_keys=False, allow_unicode=True)
    path.write_text(tree, "utf-8")


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain data, with lists for tuples."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(experiment))


def from_dict(tree: dict[str, Any]) -> Experiment:
    """Builds and checks an experiment; keys left out keep their defaults.

    Raises:
        ValueError: A key is unknown (the nearest is suggested), or a value has the wrong
            type or is out of range.
    """
    experiment = _build(Experiment, tree, "")
    _check(experiment)
    return experiment


def first_difference(one: Experiment, other: Experiment) -> tuple[str, Any, Any] | None:
    """The first key at which two experiments differ, with both values."""
    ours, theirs = to_dict(one), to_dict(other)
    for group, values in ours.items():
        for key, value in values.items():
            if value != theirs[group][key]:
                return f"{group}.{key}", value, theirs[group][key]
    return None


def _recipe_path(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ValueError(f"There is no experiment file {path}")
    if str(recipe) in list_recipes():
        return RECIPES / f"{recipe}.yaml"
    raise ValueError(
        f"No recipe is called {str(recipe)!r}. {_nearest(str(recipe), list_recipes())}"
        f"Known: {', '.join(list_recipes())}; or give the path of a .yaml file"
    )


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, key = dotted.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
        if not isinstance(tree, dict):
            raise ValueError(f"{dotted} is not a key of the experiment")
    tree[key] = value


def _build(kind: type, tree: Any, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'The experiment'} must hold keys and values")
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise ValueError(
                f"Unknown key {prefix}{key}. {_nearest(str(key), list(hints))}"
                f"Known: {', '.join(prefix + name for name in hints)}"
            )
    values = {
        key: _build(hints[key], value, f"{prefix}{key}.")
        if dataclasses.is_dataclass(hints[key])
        else _typed(hints[key], value, prefix + key)
        for key, value in tree.items()
    }
    return kind(**values)


def _typed(hint: Any, value: Any, key: str) -> Any:
    """The value as its declared type, or a ValueError that says what would do."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        expected = "one of " + ", ".join(map(str, arguments))
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and value:
            return tuple(_typed(arguments[0], item, key) for item in value)
        expected = "a list of numbers"
    elif hint is float and isinstance(value, str) and _is_number(value):
        return float(value)  # YAML 1.1 reads 1e-3 as a string
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    else:
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        expected = names[hint]
    raise ValueError(f"{key} must be {expected}. Received: {value!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check(experiment: Experiment) -> None:
    e = experiment
    limits: tuple[tuple[str, float, float, float], ...] = (
        ("model.size", e.model.size, 32, 4096),
        ("data.test_fraction", e.data.test_fraction, 0.01, 0.9),
        ("data.crop_fraction", e.data.crop_fraction, 0.01, 1),
        ("augment.min_area", e.augment.min_area, 0.01, 1),
        ("augment.padding", e.augment.padding, 0, 64),
        ("optimizer.learning_rate", e.optimizer.learning_rate, 0, 100),
        ("optimizer.reference_batch", e.optimizer.reference_batch, 0, 65_536),
        ("optimizer.momentum", e.optimizer.momentum, 0, 0.9999),
        ("optimizer.weight_decay", e.optimizer.weight_decay, 0, 1),
        ("optimizer.label_smoothing", e.optimizer.label_smoothing, 0, 0.99),
        ("optimizer.ema_momentum", e.optimizer.ema_momentum, 0, 0.999999),
        ("schedule.epochs", e.schedule.epochs, 1, 100_000),
        ("schedule.warmup_epochs", e.schedule.warmup_epochs, 0, 1000),
        ("runtime.batch_size", e.runtime.batch_size, 1, 65_536),
        ("runtime.devices", e.runtime.devices, 0, 4096),
        ("runtime.accumulate", e.runtime.accumulate, 1, 1024),
        ("runtime.seed", e.runtime.seed, 0, 2**31 - 1),
        ("checkpoint.every_seconds", e.checkpoint.every_seconds, 0, 1e6),
        ("checkpoint.every_steps", e.checkpoint.every_steps, 0, 1e9),
    )
    for key, value, low, high in limits:
        if not low <= value <= high:  # NaN fails too
            raise ValueError(f"{key} must be between {low:g} and {high:g}. Received: {value}")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}? " if near else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
