"""Search spaces: ranges over keys of the experiment, in YAML.

optimizer.learning_rate: {min: 0.01, max: 1.0, log: true}
augment.padding: {min: 0, max: 4, step: 2}
model.architecture: {values: [ResNet8, ResNet20]}

Values are checked by the experiment itself, so a space has the types and ranges of ``config.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.architectures import ARCHITECTURES
from training.config import Experiment, Key, from_dict, keys, nearest, to_dict
from training.experiment_file import read_yaml

if TYPE_CHECKING:
    import keras_tuner as kt

SPACES = Path(__file__).parent / "spaces"
FIELDS = ("min", "max", "log", "step", "values")
# Significant digits of values: more of them in best.yaml would change nothing.
DIGITS = 6
# The keys that can be searched: those of a single value.
KEYS = {key.name: key for key in keys()}


@dataclass(frozen=True)
class Dimension:
    """The values of one key of the experiment.

    Attributes:
        key: Dotted, such as ``optimizer.learning_rate``.
        kind: ``int``, ``float``, ``bool`` or ``str``.
        values: The choices; empty for a range.
        low: Minimum of the range.
        high: Maximum of the range.
        log: Whether the range is sampled logarithmically.
        step: Difference of neighbouring values, or with ``log`` their ratio; ``None`` for any
            value.
    """

    key: str
    kind: type
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the choices, or within the range regardless of steps."""
        if self.values:
            return value in self.values
        return value is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class Space:
    """A search space, with one dimension per key."""

    dimensions: tuple[Dimension, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dimension.key for dimension in self.dimensions)

    def declare(self, hp: kt.HyperParameters) -> None:
        """Declares every dimension as a hyperparameter of KerasTuner."""
        for d in self.dimensions:
            sampling = "log" if d.log else "linear"
            if d.values == (False, True):
                hp.Boolean(d.key)
            elif d.values:
                hp.Choice(d.key, list(d.values))
            elif d.kind is int:
                hp.Int(d.key, int(d.low), int(d.high), step=d.step, sampling=sampling)
            else:
                hp.Float(d.key, d.low, d.high, step=d.step, sampling=sampling)

    def experiment(self, base: Experiment, values: Mapping[str, Any]) -> Experiment:
        """The base experiment at one point of the space; values of other keys are ignored.

        Raises:
            ValueError: The values cannot be combined.
        """
        tree = to_dict(base)
        for name, value in self.plain(values).items():
            group, key = name.split(".")
            tree[group][key] = value
        return from_dict(tree)

    def plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The point in the types of the experiment; values of other keys are ignored."""
        return {d.key: _plain(d.kind, values[d.key]) for d in self.dimensions}

    def point(self, base: Experiment) -> dict[str, Any] | None:
        """The point of the base experiment itself; ``None`` if it is outside of the space."""
        tree = to_dict(base)
        values = {d.key: tree[d.key.split(".")[0]][d.key.split(".")[1]] for d in self.dimensions}
        inside = all(d.holds(values[d.key]) for d in self.dimensions)
        return self.plain(values) if inside else None


def load_space(path: str | Path, base: Experiment) -> Space:
    """Reads a space and checks it against the experiment that it varies.

    Raises:
        ValueError: The file cannot be read, a key is unknown (the nearest one is suggested), a
            range is empty, or a value is not valid in the experiment.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no space file {path}. Its format is shown in docs/tuning.md")
    tree = read_yaml(path)
    try:
        return make_space(tree, base)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def make_space(tree: Any, base: Experiment) -> Space:
    """A space from the data of its YAML; raises as ``load_space`` does."""
    if not isinstance(tree, dict) or not tree:
        raise ValueError("a space must hold keys of the experiment and their ranges")
    return Space(tuple(_dimension(key, entry, base) for key, entry in tree.items()))


def to_tree(space: Space) -> dict[str, Any]:
    """Plain data for ``make_space``."""
    return {d.key: _entry(d) for d in space.dimensions}


def default_space(recipe: str | Path, base: Experiment) -> Space:
    """The space that comes with a recipe; for other experiments, ranges around their own values.

    Args:
        recipe: A recipe's name, or the path of an experiment.
        base: The experiment.
    """
    own = SPACES / f"{recipe}.yaml"
    return load_space(own, base) if own.is_file() else make_space(_around(base), base)


def _around(base: Experiment) -> dict[str, Any]:
    """Ranges around the experiment's learning rate, decay, label smoothing and crop."""
    optimizer, augment = base.optimizer, base.augment
    tree = {"optimizer.learning_rate": _times("optimizer.learning_rate", optimizer.learning_rate)}
    if optimizer.weight_decay:
        tree["optimizer.weight_decay"] = _times("optimizer.weight_decay", optimizer.weight_decay)
    if optimizer.loss == "cross_entropy":
        high = max(0.2, optimizer.label_smoothing)
        tree["optimizer.label_smoothing"] = {"min": 0.0, "max": high}
    if augment.crop == "resized":
        area = augment.min_area
        tree["augment.min_area"] = {"min": min(0.08, area), "max": max(0.6, area)}
    if augment.crop == "pad":
        high = min(2 * augment.padding + 2, int(_maximum("augment.padding")))
        tree["augment.padding"] = {"min": augment.padding // 2, "max": high}
    return tree


def _times(key: str, value: float) -> dict[str, Any]:
    """From a quarter to four times the value, within the key's range."""
    return {"min": value / 4, "max": min(4 * value, _maximum(key)), "log": True}


def _maximum(key: str) -> float:
    bounds = KEYS[key].bounds
    return bounds.high if bounds else math.inf


def _dimension(key: Any, entry: Any, base: Experiment) -> Dimension:
    if key not in KEYS:
        raise ValueError(f"Unknown key {key}. {_nearest(str(key), list(KEYS))}")
    kind = _single(KEYS[key])
    if kind is None:
        raise ValueError(f"{key} is not a single value, so it cannot be searched. Leave it out")
    if not isinstance(entry, dict) or not entry:
        raise ValueError(
            f"{key} must be {{min: …, max: …}} or {{values: […]}}. Received: {entry!r}"
        )
    for field in entry:
        if field not in FIELDS:
            raise ValueError(f"{key} has an unknown {field}. {_nearest(str(field), list(FIELDS))}")
    if "values" in entry:
        return _choice(key, kind, entry, base)
    return _range(key, kind, entry, base)


def _choice(key: str, kind: type, entry: dict[str, Any], base: Experiment) -> Dimension:
    values = entry["values"]
    if len(entry) > 1:
        raise ValueError(f"{key} has values and a range. Give one of them")
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key} has no values. Give at least one. Received: {values!r}")
    checked = tuple(_checked(key, value, base) for value in values)
    if len(set(checked)) < len(checked):
        raise ValueError(f"{key} has a value twice. Received: {values}")
    if kind is bool:
        checked = tuple(sorted(checked))
    return Dimension(key, kind, values=checked)


def _range(key: str, kind: type, entry: dict[str, Any], base: Experiment) -> Dimension:
    if kind not in (int, float):
        raise ValueError(f"{key} is not a number: give its values, {{values: […]}}")
    for end in ("min", "max"):
        if end not in entry:
            raise ValueError(f"{key} has no {end}. Give {{min: …, max: …}} or {{values: […]}}")
    low, high = (_checked(key, entry[end], base) for end in ("min", "max"))
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise ValueError(f"log of {key} must be true or false. Received: {log!r}")
    if not low < high:
        raise ValueError(f"{key} has an empty range: its min {low} must be below its max {high}")
    if log and low <= 0:
        raise ValueError(f"{key} has log: true, so its min must be above 0. Received: {low}")
    if step is not None:
        _check_step(key, kind, step, low, high, log)
    return Dimension(key, kind, low=low, high=high, log=log, step=step)


def _check_step(key: str, kind: type, step: Any, low: float, high: float, log: bool) -> None:
    number = isinstance(step, (int, float)) and not isinstance(step, bool)
    if not number or (kind is int and step != int(step)):
        raise ValueError(
            f"step of {key} must be a {'whole ' if kind is int else ''}number. Received: {step!r}"
        )
    least, most = (1, high / low) if log else (0, high - low)
    if not least < step <= most:
        raise ValueError(
            f"step of {key} must be above {least} and at most {most:g}. Received: {step}"
        )


def _checked(key: str, value: Any, base: Experiment) -> Any:
    """The value in the experiment's type."""
    group, name = key.split(".")
    tree = to_dict(base)
    tree[group][name] = value
    checked = getattr(getattr(from_dict(tree), group), name)
    if key == "model.architecture" and checked not in ARCHITECTURES:
        raise ValueError(f"{key} {checked!r} is unknown. {_nearest(checked, list(ARCHITECTURES))}")
    return checked


def _single(key: Key) -> type | None:
    """Type of a key's value; ``None`` for lists."""
    if key.choices:
        return type(key.choices[0])
    return key.kind if key.kind in (int, float, bool, str) else None


def _plain(kind: type, value: Any) -> Any:
    return float(f"{float(value):.{DIGITS}g}") if kind is float else kind(value)


def _entry(dimension: Dimension) -> dict[str, Any]:
    if dimension.values:
        return {"values": list(dimension.values)}
    entry = {"min": dimension.low, "max": dimension.high, "log": dimension.log}
    return entry if dimension.step is None else entry | {"step": dimension.step}


def _nearest(name: str, known: list[str]) -> str:
    if hint := nearest(name, known):
        return hint.strip()
    # The right key in the wrong group, or without one.
    same = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
    return f"Did you mean {same[0]}?" if same else f"Known: {', '.join(known)}"
