"""The experiment: one tree of frozen dataclasses that says all there is to say about a run.

A recipe is a YAML file with a complete instance of the tree. The resolved experiment is
written beside every run, and running that file again is the same run.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

RECIPES = Path(__file__).parent / "recipes"

Part = Literal["stem", "stage1", "stage2", "stage3", "stage4"]
PARTS: tuple[Part, ...] = typing.get_args(Part)


@dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        architecture: One of ``keras_resnet.list_models()``.
        variant: ``"v1"``, ``"v1.5"``, ``"v2"``, ``"c"``, ``"s"``, ``"d"``, or ``"auto"`` for the
            architecture's own.
        width: Times the filters that the architecture has, 0.25–4, in multiples of 8.
        shortcut: ``"A"`` (subsample and zero-pad), ``"B"`` (projection), or ``"none"`` for a
            plain network.
        zero_init_residual: Whether each block starts as the identity.
        size: Height and width of the input, in pixels. It is trained at them too, unless
            ``schedule.sizes`` says otherwise.
        weights: What to start from: a tag or ``"imagenet"`` (see ``keras-resnet weights``), a
            file, or ``hf://owner/name``; random weights if empty.
        freeze: The last part that is not trained: ``"stem"``, ``"stage1"`` …; none if empty.
            ``schedule.unfreeze`` may set it free later.
        frozen_batch_norm: Whether the batch norms of the frozen part stay still too.
        stochastic_depth: Probability that the last block is dropped in training.
        dropout_rate: Dropout before the classifier.
        norm: ``"batch"``, ``"sync_batch"`` (its statistics over all devices), or ``"group"``.
        antialias: Whether a blur subsamples after strided convolutions and pools.
    """

    architecture: str = "ResNet50"
    variant: Literal["auto", "v1", "v1.5", "v2", "c", "s", "d"] = "auto"
    width: float = 1.0
    shortcut: Literal["A", "B", "none"] = "B"
    zero_init_residual: bool = True
    size: int = 224
    weights: str = ""
    freeze: Literal["", "stem", "stage1", "stage2", "stage3", "stage4"] = ""
    frozen_batch_norm: Literal["frozen", "train"] = "frozen"
    stochastic_depth: float = 0.0
    dropout_rate: float = 0.0
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    antialias: bool = False


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are fitted to the model.

    How they are fitted is by default what ``model.weights`` were trained with, and otherwise
    ImageNet's ways: its statistics, and the centre that keeps 0.875.

    Attributes:
        source: ``digits``, ``tfds:<name>``, ``folder:<path>`` or ``tfrecord:<pattern>``; see
            ``training/data/sources.py``.
        color: Whether picture files are read as ``"rgb"`` or ``"grayscale"``.
        data_dir: Where tensorflow-datasets keeps its data; its own default if empty.
        test_fraction: Share held out where the source has no split of its own.
        sampling: ``"shuffle"`` sees every training image once an epoch; ``"balanced"`` sees as
            many, of each class equally many: of large classes a part, of small ones some again.
        mean: Mean of each channel, 0–255.
        std: Standard deviation of each channel, 0–255.
        resize: ``"crop"`` keeps the aspect ratio, ``"stretch"`` does not.
        crop_fraction: Share of the image that evaluation keeps.
        interpolation: Resampling filter, ``"bilinear"`` or ``"bicubic"``.
        bad_images: What to do about files that are no readable pictures: ``"error"`` stops
            and names them, ``"skip"`` leaves them out and says how many.
        max_bad_images: So many may be skipped; one more is an error.
        cache_gb: Fitted images are kept in memory where they take no more GiB than this.
    """

    source: str = "digits"
    color: Literal["rgb", "grayscale"] = "rgb"
    data_dir: str = ""
    test_fraction: float = 0.2
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Literal["auto", "crop", "stretch"] = "auto"
    crop_fraction: float | None = None
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"
    bad_images: Literal["error", "skip"] = "error"
    max_bad_images: int = 100
    cache_gb: float = 1.0


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
        color_jitter: How far brightness, contrast and saturation (factors of 1 ± 0–1) and hue
            (± 0–0.5 of the circle) go (Howard 2013, arXiv:1312.5402, section 2).
        policy: ``"randaugment"`` (Cubuk et al. 2019, arXiv:1909.13719), ``"trivialaugment"``,
            its *wide* kind (Müller & Hutter 2021, arXiv:2103.10158), or ``"none"``.
        randaugment_layers: Operations an image; the paper's N.
        randaugment_magnitude: Their strength, 0–30; the paper's M. timm's 0–10 is this in
            thirds.
        erasing: Share of the images that lose a box (Zhong et al. 2017, arXiv:1708.04896).
        mixup: α of MixUp's Beta distribution (Zhang et al. 2017, arXiv:1710.09412), 0 for none.
        cutmix: α of CutMix's (Yun et al. 2019, arXiv:1905.04899), 0 for none. Where both are
            asked for, each batch gets one of them by chance.
    """

    crop: Literal["resized", "pad", "none"] = "resized"
    min_area: float = 0.08
    padding: int = 4
    flip: bool = True
    color_jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    randaugment_layers: int = 2
    randaugment_magnitude: float = 9.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and the loss.

    Attributes:
        name: ``"sgd"``; ``"adamw"`` (Loshchilov & Hutter 2017, arXiv:1711.05101); or ``"lamb"``
            (You et al. 2019, arXiv:1904.00962, algorithm 2).
        learning_rate: Peak learning rate.
        reference_batch: Images an update that it is for. For others SGD's is scaled in proportion
            (Goyal et al. 2017, arXiv:1706.02677, section 2.1), AdamW's and LAMB's with the square
            root (You et al. 2019, arXiv:1904.00962, section 4); 0 to never scale it.
        momentum: Share of the last step that is kept; AdamW's and LAMB's β₁. Their β₂ is 0.999.
        nesterov: Whether SGD takes the gradient ahead of the step.
        weight_decay: A share of each kernel lost a step, times the learning rate: decoupled from
            the gradient and outside the momentum. PyTorch's coupled decay λ of SGD corresponds
            to λ / (1 − momentum); its AdamW's and LAMB's decay is the same as here. Biases and
            norms are left alone.
        layer_decay: What the learning rate and the decay of each stage are multiplied by, as
            against the stage above it (Howard & Ruder 2018, arXiv:1801.06146, section 3.2); the
            classifier has the whole rate. 1 for one rate.
        clip_norm: Length that the gradient of all weights together is cut to; 0 for never.
        gradient_accumulation_steps: Batches whose mean gradient makes one update.
        loss: ``"cross_entropy"`` of a softmax, or ``"binary"``: each class by itself, by a
            sigmoid, with every class of a mixed image present in it (Wightman et al. 2021,
            arXiv:2110.00476, section 4.2).
        label_smoothing: Share of the target spread over all classes.
        class_weights: ``"balanced"`` makes each class count alike, however few its images.
        ema_momentum: Share of a moving average of all weights, batch-norm statistics included,
            that is kept at each update (arXiv:1512.00567, section 7), such as 0.999; 0 for none.
            The average is evaluated beside the raw weights, and it is what is deployed.
    """

    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    learning_rate: float = 0.1
    reference_batch: int = 0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-3
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    gradient_accumulation_steps: int = 1
    loss: Literal["cross_entropy", "binary"] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    ema_momentum: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and how the learning rate moves.

    Attributes:
        epochs: Passes over the training images.
        warmup_epochs: Epochs in which the learning rate rises from zero in a line; fractions
            are fine.
        decay: How it falls afterwards: ``"cosine"``, half of one to zero (arXiv:1608.03983);
            ``"step"``, to a tenth at each of ``step_epochs``; or ``"one_cycle"``, in a line to
            zero (Smith & Topin 2017, arXiv:1708.07120), the momentum staying as it is.
        step_epochs: For ``"step"``: the epochs after which it falls; fractions are fine.
        sizes: Pairs of an epoch, from 0, and the pixels that training images have from it on,
            such as ``[[0, 128], [10, 160]]`` (Howard 2018, fast.ai's DAWNBench entry; Tan & Le
            2021, arXiv:2104.00298, section 4). Tested and deployed is at ``model.size``.
        unfreeze: Pairs of an epoch, from 1, and a part that is trained from it on, with all
            that comes after it, such as ``[[3, stage4], [6, stage3]]`` with
            ``model.freeze=stage4`` (Howard & Ruder 2018, arXiv:1801.06146, section 3.3).
        patience: Epochs without a better ``checkpoint.monitor`` after which the run ends; 0
            for never.
    """

    epochs: int = 90
    warmup_epochs: float = 5.0
    decay: Literal["cosine", "step", "one_cycle"] = "cosine"
    step_epochs: tuple[float, ...] = (30.0, 60.0, 80.0)
    sizes: tuple[tuple[int, int], ...] = ()
    unfreeze: tuple[tuple[int, Part], ...] = ()
    patience: int = 0


@dataclass(frozen=True)
class RuntimeConfig:
    """How the work is done on this machine.

    Attributes:
        batch_size: Images a step, on all devices of all machines together.
        devices: How many devices of this machine compute a step; 0 for all accelerators there
            are, or else the CPU.
        precision: A Keras dtype policy, or ``"auto"``: bfloat16 on a GPU that has it,
            float16 on an older one, float32 on a CPU.
        jit_compile: Whether XLA compiles the step; ``"auto"`` does on a GPU.
        threads: Threads that one operation is spread over; by default as many as this process
            may have of the machine's cores.
        inter_op_threads: Operations that TensorFlow runs at once; its own choice by default.
        decoders: Training images that are read at once; what tf.data finds useful by default.
        prefetch: Batches that are made ahead; 2 by default.
        seed: Seed of the weights, the order and the augmentation.
        deterministic: Whether only operations are used that give the same bits twice, also on a
            GPU. On a CPU they do in any case, with the same number of threads.
    """

    batch_size: int = 128
    devices: int = 0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    jit_compile: Literal["auto", "on", "off"] = "auto"
    threads: int | None = None
    inter_op_threads: int | None = None
    decoders: int | None = None
    prefetch: int | None = None
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
        return [plain(item) for item in value] if isinstance(value, tuple) else value

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
    if origin is types.UnionType:  # something or None, which stands for a default
        return None if value is None else _typed(arguments[0], value, key)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        expected = "one of " + ", ".join(map(str, arguments))
    elif origin is tuple and ... not in arguments:
        if isinstance(value, (list, tuple)) and len(value) == len(arguments):
            return tuple(_typed(kind, item, key) for kind, item in zip(arguments, value))
        expected = f"lists of {len(arguments)}"
    elif origin is tuple:
        lists = typing.get_origin(arguments[0]) is tuple
        if isinstance(value, (list, tuple)) and (value or lists):
            return tuple(_typed(arguments[0], item, key) for item in value)
        expected = "a list of lists" if lists else "a list of numbers"
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
    jitter = list(enumerate(e.augment.color_jitter))
    if len(jitter) != 4:
        raise ValueError(
            "augment.color_jitter must be four numbers: brightness, contrast, saturation, hue. "
            f"Received: {list(e.augment.color_jitter)}"
        )
    limits: tuple[tuple[str, float, float, float], ...] = (
        ("model.size", e.model.size, 32, 4096),
        ("model.width", e.model.width, 0.25, 4),
        ("model.stochastic_depth", e.model.stochastic_depth, 0, 0.99),
        ("model.dropout_rate", e.model.dropout_rate, 0, 0.99),
        ("data.test_fraction", e.data.test_fraction, 0.01, 0.9),
        (
            "data.crop_fraction",
            1 if e.data.crop_fraction is None else e.data.crop_fraction,
            0.01,
            1,
        ),
        ("data.max_bad_images", e.data.max_bad_images, 0, 10**9),
        ("data.cache_gb", e.data.cache_gb, 0, 1024),
        ("augment.min_area", e.augment.min_area, 0.01, 1),
        ("augment.padding", e.augment.padding, 0, 64),
        *((f"augment.color_jitter[{i}]", reach, 0, 0.5 if i == 3 else 1) for i, reach in jitter),
        ("augment.randaugment_layers", e.augment.randaugment_layers, 1, 10),
        ("augment.randaugment_magnitude", e.augment.randaugment_magnitude, 0, 30),
        ("augment.erasing", e.augment.erasing, 0, 1),
        ("augment.mixup", e.augment.mixup, 0, 100),
        ("augment.cutmix", e.augment.cutmix, 0, 100),
        ("optimizer.learning_rate", e.optimizer.learning_rate, 0, 100),
        ("optimizer.reference_batch", e.optimizer.reference_batch, 0, 65_536),
        ("optimizer.momentum", e.optimizer.momentum, 0, 0.9999),
        ("optimizer.weight_decay", e.optimizer.weight_decay, 0, 1),
        ("optimizer.layer_decay", e.optimizer.layer_decay, 0.01, 1),
        ("optimizer.clip_norm", e.optimizer.clip_norm, 0, 1e6),
        (
            "optimizer.gradient_accumulation_steps",
            e.optimizer.gradient_accumulation_steps,
            1,
            100_000,
        ),
        ("optimizer.label_smoothing", e.optimizer.label_smoothing, 0, 0.99),
        ("optimizer.ema_momentum", e.optimizer.ema_momentum, 0, 0.999999),
        ("schedule.epochs", e.schedule.epochs, 1, 100_000),
        ("schedule.warmup_epochs", e.schedule.warmup_epochs, 0, 1000),
        *(("schedule.sizes", size, 32, 4096) for _, size in e.schedule.sizes),
        ("schedule.patience", e.schedule.patience, 0, 100_000),
        ("runtime.batch_size", e.runtime.batch_size, 1, 65_536),
        ("runtime.devices", e.runtime.devices, 0, 4096),
        *(
            (f"runtime.{key}", 1 if value is None else value, 1, 1024)
            for key in ("threads", "inter_op_threads", "decoders", "prefetch")
            for value in (getattr(e.runtime, key),)
        ),
        ("runtime.seed", e.runtime.seed, 0, 2**31 - 1),
        ("checkpoint.every_seconds", e.checkpoint.every_seconds, 0, 1e6),
        ("checkpoint.every_steps", e.checkpoint.every_steps, 0, 1e9),
    )
    for key, value, low, high in limits:
        if not low <= value <= high:  # NaN fails too
            raise ValueError(f"{key} must be between {low:g} and {high:g}. Received: {value}")
    _check_together(e)


def _check_together(experiment: Experiment) -> None:
    """What is wrong only beside another key."""
    optimizer, steps = experiment.optimizer, experiment.schedule.step_epochs
    if optimizer.loss == "binary" and optimizer.label_smoothing:
        raise ValueError(
            "optimizer.label_smoothing is for optimizer.loss=cross_entropy. Received: "
            f"{optimizer.label_smoothing:g} with loss=binary"
        )
    if optimizer.class_weights == "balanced" and experiment.data.sampling == "balanced":
        raise ValueError(
            "optimizer.class_weights=balanced and data.sampling=balanced would count each small "
            "class twice. Leave one of them out"
        )
    if not all(one < other for one, other in zip((0.0, *steps), steps)):
        raise ValueError(f"schedule.step_epochs must rise from above 0. Received: {list(steps)}")
    _check_stages(experiment)


def _check_stages(experiment: Experiment) -> None:
    sizes, unfreeze = experiment.schedule.sizes, experiment.schedule.unfreeze
    begins = [epoch for epoch, _ in sizes]
    if begins[:1] not in ([], [0]) or sorted(set(begins)) != begins:
        raise ValueError(f"schedule.sizes must begin at epoch 0 and rise. Received: {begins}")
    begins = [0, *(epoch for epoch, _ in unfreeze)]
    if sorted(set(begins)) != begins:
        raise ValueError(f"schedule.unfreeze must rise from epoch 1. Received: {begins[1:]}")
    if unfreeze and not experiment.model.freeze:
        raise ValueError(
            "schedule.unfreeze needs model.freeze, the last part that is frozen at first, such "
            "as stage4. Received: model.freeze=''"
        )
    freed = [PARTS.index(part) for _, part in unfreeze]
    allowed = [PARTS.index(experiment.model.freeze) + 1, *freed] if freed else []
    if any(one <= other for one, other in zip(allowed, freed)):
        raise ValueError(
            f"schedule.unfreeze must go down from model.freeze={experiment.model.freeze} to the "
            f"stem. Received: {[part for _, part in unfreeze]}"
        )


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}? " if near else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
