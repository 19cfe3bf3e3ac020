"""Limits on the cost of a model on a device, its measurement, and the Pareto front."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.classifier import ImageClassifier
from keras_resnet.files import atomic_write
from training.config import Experiment, to_dict
from training.data.pipeline import images
from training.data.sources import open_source
from training.task import make_contract, make_model

# Takes a model and calibration images; returns "size_mb" and "latency_ms". Passed in by the
# command, because training knows TFLite only through files.
Measure = Callable[[ImageClassifier, Sequence[np.ndarray]], dict[str, float]]
CALIBRATION = 20  # images; the cost does not depend on the calibrated ranges
COSTS = ("size_mb", "latency_ms")
# Keys of the model that do not change the TFLite file's size or latency.
ONLY_IN_TRAINING = (
    "zero_init_residual",
    "weights",
    "freeze",
    "frozen_batch_norm",
    "stochastic_depth",
    "dropout_rate",
)


@dataclass(frozen=True)
class Budget:
    """Limits on the cost of a model on a device; no limit if ``None``.

    Attributes:
        max_size_mb: Size of the int8 file in 10^6 bytes.
        max_latency_ms: Time per image on one thread of this host's CPU.
    """

    max_size_mb: float | None = None
    max_latency_ms: float | None = None

    def __bool__(self) -> bool:
        return self.max_size_mb is not None or self.max_latency_ms is not None

    def excess(self, cost: dict[str, float]) -> float:
        """The largest relative excess over a limit; 0 within the budget."""
        limits = {"size_mb": self.max_size_mb, "latency_ms": self.max_latency_ms}
        shares = [cost[name] / limit - 1 for name, limit in limits.items() if limit]
        return max(0.0, *shares)


NO_BUDGET = Budget()


def cost_of(experiment: Experiment, measure: Measure, cache: Path) -> dict[str, float]:
    """The cost of an experiment's network, measured once for all trials that share it.

    It does not depend on the weights, so it is known before training.

    Args:
        experiment: The experiment.
        measure: Converts and times the network.
        cache: Folder with one JSON file per network; created if missing.
    """
    source = open_source(experiment.data, experiment.runtime.seed, task=experiment.task)
    contract = make_contract(experiment, source, weights=None)
    network = to_dict(experiment)["model"]
    network = {key: value for key, value in network.items() if key not in ONLY_IN_TRAINING}
    key = [network, contract.channels, len(source.labels)]
    path = cache / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if known := _read_cost(path):
        return known
    calibration = [image for image, _ in images(source.train, contract, CALIBRATION)]
    cost = measure(make_model(experiment, contract), calibration)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"network": key, "cost": cost}), "utf-8")
    return cost


def _read_cost(path: Path) -> dict[str, float] | None:
    """A cost measured before; ``None`` if there is none, or the file is damaged."""
    try:
        cost = json.loads(path.read_text("utf-8"))["cost"]
        return {name: cost[name] for name in COSTS} if _is_cost(cost) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_cost(cost: dict[str, Any]) -> bool:
    values = [cost[name] for name in COSTS]
    return all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values)


def pareto_front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that no other row dominates in accuracy, size and latency.

    Args:
        rows: Each with ``val_accuracy``, ``size_mb`` and ``latency_ms``.

    Returns:
        By falling accuracy; only the first of equal rows.
    """

    def merits(row: dict[str, Any]) -> tuple[float, ...]:
        return (row["val_accuracy"], *(-row[cost] for cost in COSTS))

    front: dict[tuple[float, ...], dict[str, Any]] = {}
    for row in rows:
        own = merits(row)
        dominated = any(
            all(a >= b for a, b in zip(merits(other), own)) and merits(other) != own
            for other in rows
        )
        if not dominated:
            front.setdefault(own, row)
    return [front[key] for key in sorted(front, reverse=True)]
