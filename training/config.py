"""The experiment: one tree of frozen dataclasses that defines a run.

The range of a value is part of its type: ``Annotated[float, Between(0, 1)]``. ``from_dict`` checks
types, ranges and combinations. YAML files are read and written by ``experiment_file.py``.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from keras_resnet.contract import Task

Part = Literal["stem", "stage1", "stage2", "stage3", "stage4"]
PARTS: tuple[Part, ...] = typing.get_args(Part)


@dataclass(frozen=True)
class Between:
    """The range of a number, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high  # false for NaN


Share = Annotated[float, Between(0, 1)]
Rate = Annotated[float, Between(0, 0.99)]
Pixels = Annotated[int, Between(32, 4096)]
Count = Annotated[int, Between(1, 1024)]
Seconds = Annotated[float, Between(0, 1e6)]
Level = Annotated[float, Between(0, 255)]  # of a pixel


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        architecture: One of ``keras_resnet.list_models()``.
        variant: ``v1``, ``v1.5``, ``v2``, ``c``, ``s``, ``d``, or ``auto`` for the architecture's
            default.
        width: Factor on the number of filters, which is rounded to multiples of 8.
        shortcut: ``A`` (subsample and zero-pad), ``B`` (projection), or ``none`` for a plain
            network.
        zero_init_residual: Initialize each block as the identity.
        size: Height and width of the input in pixels, for testing, deployment and, unless
            ``schedule.sizes`` is set, training.
        weights: Initial weights: a tag or ``imagenet`` (see ``keras-resnet weights``), a file, or
            ``hf://owner/name``; random if empty.
        freeze: The last part that is not trained, such as ``stem`` or ``stage3``; none if empty.
            ``schedule.unfreeze`` can unfreeze it later.
        frozen_batch_norm: ``frozen`` runs the batch norms of frozen parts in inference mode,
            ``train`` keeps training them.
        stochastic_depth: Probability that the last block is dropped in training; it rises linearly
            from the first block on.
        dropout_rate: Dropout before the classifier.
        norm: ``batch``, ``sync_batch`` (statistics over all devices), or ``group``.
        antialias: Blur before subsampling in strided convolutions and pools.
    """

    architecture: str = "ResNet50"
    variant: Literal["auto", "v1", "v1.5", "v2", "c", "s", "d"] = "auto"
    width: Annotated[float, Between(0.25, 4)] = 1.0
    shortcut: Literal["A", "B", "none"] = "B"
    zero_init_residual: bool = True
    size: Pixels = 224
    weights: str = ""
    freeze: Literal["", "stem", "stage1", "stage2", "stage3", "stage4"] = ""
    frozen_batch_norm: Literal["frozen", "train"] = "frozen"
    stochastic_depth: Rate = 0.0
    dropout_rate: Rate = 0.0
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    antialias: bool = False


@dataclass(frozen=True)
class DataConfig:
    """The images, and how they are resized and normalized.

    Resizing and normalization travel inside the model. They default to those that ``model.weights``
    were trained with, otherwise to ImageNet's statistics and a centre crop of 0.875.

    Attributes:
        source: ``digits``, ``tfds:<name>``, ``folder:<path>``, ``csv:<file>`` or
            ``tfrecord:<pattern>``.
        test: Folder of the test images, with a subfolder for each class, where it is not beside
            the training images; ``data.source=folder:<path>`` then holds training images only.
        color: Read image files as ``rgb`` or ``grayscale``.
        data_dir: Data folder of tensorflow-datasets; its own default if empty.
        test_fraction: Share of the training images held out for testing if the source has no
            labelled test split.
        sampling: ``shuffle`` draws every training image once per epoch; ``balanced`` draws as many
            images, but the same number of each class.
        mean: Mean of each channel, 0–255.
        std: Standard deviation of each channel, 0–255.
        resize: ``crop`` keeps the aspect ratio, ``stretch`` does not.
        crop_fraction: Share of the image that evaluation keeps.
        interpolation: Resampling filter.
        orientation: ``apply`` turns pictures upright by their EXIF orientation, ``ignore`` takes
            the pixels as they are stored.
        bad_images: ``error`` reports unreadable images and stops, ``skip`` leaves them out and
            reports their number.
        max_bad_images: More unreadable images than this are an error with ``skip``, too.
        cache_gb: Resized images are kept in memory if they take at most this many GiB.
    """

    source: str = "digits"
    test: str = ""
    color: Literal["rgb", "grayscale"] = "rgb"
    data_dir: str = ""
    test_fraction: Annotated[float, Between(0.01, 0.9)] = 0.2
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    mean: tuple[Level, ...] | None = None
    std: tuple[Level, ...] | None = None
    resize: Literal["auto", "crop", "stretch"] = "auto"
    crop_fraction: Annotated[float, Between(0.01, 1)] | None = None
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"
    orientation: Literal["apply", "ignore"] = "apply"
    bad_images: Literal["error", "skip"] = "error"
    max_bad_images: Annotated[int, Between(0, 10**9)] = 100
    cache_gb: Annotated[float, Between(0, 1024)] = 1.0


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images, drawn for each image.

    Attributes:
        crop: ``resized`` takes a box of random size and aspect ratio (Szegedy et al. 2014,
            arXiv:1409.4842, section 6), ``pad`` pads the resized image and takes a window
            of the original size (He et al. 2015, section 4.2), ``none`` takes all of it.
        min_area: Smallest share of the image that a ``resized`` crop covers.
        padding: Pixels added on each side before a ``pad`` crop.
        flip: Mirror half of the images left to right.
        color_jitter: Range of brightness, contrast and saturation (factors of 1 ± 0–1) and of hue
            (± 0–0.5 of the circle), such as ``[0.4, 0.4, 0.4, 0.1]`` (Howard 2013,
            arXiv:1312.5402, section 2).
        policy: ``randaugment`` (Cubuk et al. 2019, arXiv:1909.13719), ``trivialaugment``, its
            *wide* version (Müller & Hutter 2021, arXiv:2103.10158), or ``none``.
        randaugment_layers: Operations per image; the paper's N.
        randaugment_magnitude: Their strength; the paper's M. timm's range 0–10 is a third of it.
        erasing: Share of the images with a random box erased (Zhong et al. 2017, arXiv:1708.04896).
        mixup: α of MixUp's Beta distribution (Zhang et al. 2017, arXiv:1710.09412), 0 for none.
        cutmix: α of CutMix's (Yun et al. 2019, arXiv:1905.04899), 0 for none. If both are set, one
            of them is drawn for each batch.
    """

    crop: Literal["resized", "pad", "none"] = "resized"
    min_area: Annotated[float, Between(0.01, 1)] = 0.08
    padding: Annotated[int, Between(0, 64)] = 4
    flip: bool = True
    color_jitter: tuple[Share, Share, Share, Annotated[float, Between(0, 0.5)]] = (0.0,) * 4
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    randaugment_layers: Annotated[int, Between(1, 10)] = 2
    randaugment_magnitude: Annotated[float, Between(0, 30)] = 9.0
    erasing: Share = 0.0
    mixup: Annotated[float, Between(0, 100)] = 0.0
    cutmix: Annotated[float, Between(0, 100)] = 0.0


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and loss.

    Attributes:
        name: ``sgd``, ``adamw`` (Loshchilov & Hutter 2017, arXiv:1711.05101), or ``lamb`` (You et
            al. 2019, arXiv:1904.00962, algorithm 2).
        learning_rate: Peak learning rate.
        reference_batch: Images per update for which the learning rate is given; 0 to never scale
            it. For another number SGD's is scaled linearly (Goyal et al. 2017, arXiv:1706.02677,
            section 2.1), AdamW's and LAMB's with the square root (You et al. 2019, section 4).
        momentum: Momentum of SGD; β₁ of AdamW and LAMB, whose β₂ is 0.999.
        nesterov: Nesterov momentum for SGD.
        weight_decay: Decoupled weight decay of kernels, as a factor of the learning rate. PyTorch's
            coupled decay λ of SGD corresponds to λ / (1 − momentum); that of its AdamW and LAMB is
            the same as here. Biases and norms are not decayed.
        layer_decay: Factor on learning rate and decay from each stage to the one below it (Howard &
            Ruder 2018, arXiv:1801.06146, section 3.2); 1 for one rate.
        clip_norm: Maximum global norm of the gradient; 0 for no clipping.
        gradient_accumulation_steps: Batches whose mean gradient makes one update.
        loss: ``cross_entropy`` of a softmax, or for the tasks ``binary`` and ``multi`` the mean of
            each sigmoid's; or ``binary`` cross-entropy of each class, by a sigmoid, with every
            class of a mixed image present (Wightman et al. 2021, arXiv:2110.00476, section 4.2),
            for the tasks ``single`` and ``multi``.
        label_smoothing: Share of the target that is spread over all classes, or for a sigmoid over
            its two outcomes.
        class_weights: ``balanced`` weights the loss by inverse class frequency, for the tasks
            ``single`` and ``binary``.
        ema_momentum: Momentum of an exponential moving average of all weights, batch-norm
            statistics included, such as 0.999 (arXiv:1512.00567, section 7); 0 for none. The
            average is evaluated beside the raw weights, and deployed instead of them.
    """

    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    learning_rate: Annotated[float, Between(0, 100)] = 0.1
    reference_batch: Annotated[int, Between(0, 65_536)] = 0
    momentum: Annotated[float, Between(0, 0.9999)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Between(0, 1)] = 1e-3
    layer_decay: Annotated[float, Between(0.01, 1)] = 1.0
    clip_norm: Annotated[float, Between(0, 1e6)] = 0.0
    gradient_accumulation_steps: Annotated[int, Between(1, 100_000)] = 1
    loss: Literal["cross_entropy", "binary"] = "cross_entropy"
    label_smoothing: Rate = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    ema_momentum: Annotated[float, Between(0, 0.999999)] = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the run, and what changes in it.

    Attributes:
        epochs: Passes over the training images.
        warmup_epochs: Epochs, whole or fractional, in which the learning rate rises linearly from
            zero.
        decay: ``cosine``, half a cosine to zero (arXiv:1608.03983); ``step``, a tenth after each of
            ``step_epochs``; or ``one_cycle``, linear to zero with constant momentum (Smith & Topin
            2017, arXiv:1708.07120).
        step_epochs: Epochs, whole or fractional, after which ``step`` lowers the learning rate.
        sizes: Training at changing sizes: pairs of epoch, from 0, and pixels, such as
            ``[[0, 128], [10, 160]]`` (Howard 2018, fast.ai's DAWNBench entry; Tan & Le 2021,
            arXiv:2104.00298, section 4). Testing and deployment are at ``model.size``.
        unfreeze: Gradual unfreezing: pairs of epoch, from 1, and the first part that is trained
            from then on, such as ``[[3, stage4], [6, stage3]]`` with ``model.freeze=stage4``
            (Howard & Ruder 2018, arXiv:1801.06146, section 3.3).
        patience: Epochs without a better ``checkpoint.monitor`` after which the run stops; 0 for
            never.
    """

    epochs: Annotated[int, Between(1, 100_000)] = 90
    warmup_epochs: Annotated[float, Between(0, 1000)] = 5.0
    decay: Literal["cosine", "step", "one_cycle"] = "cosine"
    step_epochs: tuple[Annotated[float, Between(0, 100_000)], ...] = (30.0, 60.0, 80.0)
    sizes: tuple[tuple[int, Pixels], ...] = ()
    unfreeze: tuple[tuple[int, Part], ...] = ()
    patience: Annotated[int, Between(0, 100_000)] = 0


@dataclass(frozen=True)
class RuntimeConfig:
    """Hardware and reproducibility.

    Attributes:
        batch_size: Global batch size: images per step on all devices of all machines together.
        devices: Devices of this machine to use; 0 for all accelerators, or else the CPU.
        precision: A Keras dtype policy, or ``auto``: bfloat16 on a GPU that supports it, float16 on
            an older one, float32 on a CPU.
        jit_compile: Compile the step with XLA; ``auto`` does on a GPU, and always on JAX.
        threads: Threads per operation; by default the cores that affinity and container quota
            allow.
        inter_op_threads: Operations that TensorFlow runs in parallel; its own choice by default.
        decoders: Training images decoded in parallel; AUTOTUNE by default.
        prefetch: Batches prepared ahead; 2 by default.
        seed: Seed of weights, order and augmentation.
        deterministic: Use only deterministic operations, on a GPU too. Those of a CPU always are,
            with the same number of threads.
    """

    batch_size: Annotated[int, Between(1, 65_536)] = 128
    devices: Annotated[int, Between(0, 4096)] = 0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    jit_compile: Literal["auto", "on", "off"] = "auto"
    threads: Count | None = None
    inter_op_threads: Count | None = None
    decoders: Count | None = None
    prefetch: Count | None = None
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    deterministic: bool = False


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints. One is always written after each epoch.

    Attributes:
        every_seconds: Time between checkpoints within an epoch; 0 for none.
        every_steps: Steps between checkpoints within an epoch; 0 for none.
        monitor: Figure that selects ``checkpoints/best.keras``. ``model.keras`` always holds the
            last epoch, so that its accuracy is not selected on the test images.
    """

    every_seconds: Seconds = 600.0
    every_steps: Annotated[int, Between(0, 10**9)] = 0
    monitor: Literal["val_accuracy", "val_loss"] = "val_accuracy"


@dataclass(frozen=True)
class Experiment:
    """Everything that defines a run.

    Attributes:
        task: ``single``, one class an image, by a softmax; ``binary``, two classes, by one sigmoid
            output; ``multi``, any number of labels an image, by a sigmoid for each.
    """

    task: Task = "single"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


# Origins of "kind | None": of classes, and of what typing makes of Annotated.
OPTIONAL = (types.UnionType, typing.Union)


# --- Keys and plain data --------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One key of the experiment.

    Attributes:
        name: Dotted, such as ``schedule.epochs``.
        kind: Its type, without ranges and without ``None``.
        choices: The allowed values, if they are enumerated.
        bounds: The range of a single number, if it has one.
        default: Default value.
    """

    name: str
    kind: Any
    choices: tuple[Any, ...]
    bounds: Between | None
    default: Any


def keys() -> Iterator[Key]:
    """All keys of the experiment, in order."""
    for group, config in typing.get_type_hints(Experiment).items():
        if not dataclasses.is_dataclass(config):
            yield Key(group, config, typing.get_args(config), None, getattr(Experiment, group))
            continue
        hints = typing.get_type_hints(config, include_extras=True)
        for entry in dataclasses.fields(config):
            hint = hints[entry.name]
            if typing.get_origin(hint) in OPTIONAL:
                hint = typing.get_args(hint)[0]
            bounds = None
            if typing.get_origin(hint) is Annotated:
                hint, bounds = typing.get_args(hint)
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            yield Key(f"{group}.{entry.name}", hint, choices, bounds, entry.default)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain data, with lists for tuples."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(experiment))


def from_dict(tree: dict[str, Any]) -> Experiment:
    """Builds and checks an experiment; missing keys have their defaults.

    Raises:
        ValueError: A key is unknown (the nearest one is suggested), a value has the wrong type or
            is out of range, or two values cannot be combined.
    """
    experiment = _build(Experiment, tree, "")
    _check_combinations(experiment)
    _check_phases(experiment)
    return experiment


def first_difference(one: Experiment, other: Experiment) -> tuple[str, Any, Any] | None:
    """The first key in which two experiments differ, with both values."""
    ones, others = dotted(one), dotted(other)
    different = ((key, ones[key], others[key]) for key in ones if ones[key] != others[key])
    return next(different, None)


def dotted(experiment: Experiment) -> dict[str, Any]:
    """The values by dotted key, such as ``schedule.epochs``."""
    tree = to_dict(experiment).items()
    groups = {key: value if isinstance(value, dict) else {"": value} for key, value in tree}
    return {
        f"{group}.{key}".rstrip("."): value
        for group, values in groups.items()
        for key, value in values.items()
    }


def nearest(name: str, known: list[str]) -> str:
    """``"Did you mean …? "`` with the known name most similar to an unknown one; or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}? " if near else ""


# --- Checks ---------------------------------------------------------------------------------


def _build(kind: type, tree: Any, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'The experiment'} must hold keys and values")
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in tree:
        if key not in hints:
            raise ValueError(
                f"Unknown key {prefix}{key}. {nearest(str(key), list(hints))}"
                f"Known: {', '.join(prefix + name for name in hints)}"
            )
    values = {
        key: _build(hints[key], value, f"{prefix}{key}.")
        if dataclasses.is_dataclass(hints[key])
        else _parse(hints[key], value, prefix + key)
        for key, value in tree.items()
    }
    return kind(**values)


def _parse(hint: Any, value: Any, key: str) -> Any:
    """The value in its declared type.

    Raises:
        ValueError: It has another type or is out of range.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in OPTIONAL:  # a value or None, which stands for a default
        return None if value is None else _parse(arguments[0], value, key)
    if origin is Annotated:
        kind, bounds = arguments
        value = _parse(kind, value, key)
        if value not in bounds:
            raise ValueError(
                f"{key} must be between {bounds.low:g} and {bounds.high:g}. Received: {value}"
            )
        return value
    if origin is tuple:
        return _parse_tuple(arguments, value, key)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        expected = "one of " + ", ".join(map(str, arguments))
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


def _parse_tuple(kinds: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    is_list = isinstance(value, (list, tuple))
    if ... not in kinds:
        if is_list and len(value) == len(kinds):
            items = enumerate(zip(kinds, value))
            return tuple(_parse(kind, item, f"{key}[{i}]") for i, (kind, item) in items)
        raise ValueError(f"{key} must be a list of {len(kinds)}. Received: {value!r}")
    of_lists = typing.get_origin(kinds[0]) is tuple
    if is_list and (value or of_lists):
        return tuple(_parse(kinds[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    raise ValueError(
        f"{key} must be a list of {'lists' if of_lists else 'numbers'}. Received: {value!r}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_combinations(experiment: Experiment) -> None:
    optimizer, steps = experiment.optimizer, experiment.schedule.step_epochs
    _check_task(experiment)
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


def _check_task(experiment: Experiment) -> None:
    if experiment.task == "binary" and experiment.optimizer.loss == "binary":
        raise ValueError(
            "optimizer.loss=binary has an output for each class, and task=binary has one. Leave "
            "out optimizer.loss: that of task=binary is the cross-entropy of its sigmoid"
        )
    balanced = {
        "optimizer.class_weights": experiment.optimizer.class_weights,
        "data.sampling": experiment.data.sampling,
    }
    for key, value in balanced.items():
        if experiment.task == "multi" and value == "balanced":
            raise ValueError(
                f"{key}=balanced needs one class an image, and with task=multi an image has "
                "several labels. Leave it out"
            )


def _check_phases(experiment: Experiment) -> None:
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
    unfrozen = [PARTS.index(part) for _, part in unfreeze]
    limits = [PARTS.index(experiment.model.freeze) + 1, *unfrozen] if unfrozen else []
    if any(limit <= part for limit, part in zip(limits, unfrozen)):
        raise ValueError(
            f"schedule.unfreeze must go down from model.freeze={experiment.model.freeze} to the "
            f"stem. Received: {[part for _, part in unfreeze]}"
        )
