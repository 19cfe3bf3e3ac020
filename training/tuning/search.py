"""The definition of a search, and its file ``search.yaml`` in the search's folder."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from keras_resnet.files import atomic_write
from training.config import Experiment, from_dict, to_dict
from training.experiment_file import read_yaml
from training.paths import with_absolute_paths
from training.tuning.budget import NO_BUDGET, Budget, Measure
from training.tuning.oracles import LEASE_SECONDS, ORACLES
from training.tuning.space import Space, make_space, to_tree


@dataclass(frozen=True)
class Search:
    """Everything that defines a search.

    Attributes:
        experiment: The experiment that is varied.
        space: The search space.
        tuner: ``"random"``, ``"grid"``, ``"bayesian"`` or ``"hyperband"``.
        trials: Maximum number of trials; Hyperband's follows from the epochs.
        budget: Limits on the cost of a model's int8 file.
        timeout: Maximum seconds per trial; ``None`` for no limit.
        failures: Consecutive failed trials that end the search.
        seed: Seed of the points that are tried.
        lease: Seconds without a heartbeat after which a worker counts as lost.
    """

    experiment: Experiment
    space: Space
    tuner: str = "hyperband"
    trials: int = 20
    budget: Budget = NO_BUDGET
    timeout: float | None = None
    failures: int = 3
    seed: int = 0
    lease: float = LEASE_SECONDS

    @property
    def objective(self) -> str:
        return "accuracy_within_budget" if self.budget else "val_accuracy"


def check_search(search: Search, measure: Measure | None) -> None:
    """Checks values and their combination.

    Raises:
        ValueError: The search cannot run.
    """
    if search.tuner not in ORACLES:
        raise ValueError(f"tuner must be one of {', '.join(ORACLES)}. Received: {search.tuner!r}")
    numbers: dict[str, float | None] = {
        "trials": search.trials,
        "failures": search.failures,
        "timeout": search.timeout,
        "max_size_mb": search.budget.max_size_mb,
        "max_latency_ms": search.budget.max_latency_ms,
    }
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name} must be above 0. Received: {number}")
    if search.tuner == "hyperband" and "schedule.epochs" in search.space.keys:
        raise ValueError("Hyperband sets schedule.epochs itself. Leave it out of the space")
    if search.budget and measure is None:
        raise ValueError("A budget needs a function that measures models: measure=")


def claim_folder(search: Search, folder: Path) -> None:
    """Writes ``search.yaml`` to a new folder, or checks that it holds the same search.

    Raises:
        ValueError: The folder holds another search, or other files.
    """
    existing = read_search(folder)
    if existing is None:
        if set(os.listdir(folder)) - {".lock"}:
            raise ValueError(f"{folder} holds something else. Give another folder: --out FOLDER")
        with atomic_write(folder / "search.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(_to_tree(search), sort_keys=False), "utf-8")
        return
    for key, theirs in _to_tree(existing).items():
        if theirs != (ours := _to_tree(search)[key]):
            if isinstance(theirs, dict):
                key, theirs, ours = _first_difference(key, theirs, ours)
            raise ValueError(
                f"{folder} holds another search: its {key} is {theirs!r}, not {ours!r}. Give "
                "another folder: --out FOLDER"
            )


def read_search(folder: Path) -> Search | None:
    """The search of a folder; ``None`` if there is none.

    Raises:
        ValueError: ``search.yaml`` is not one of this version.
    """
    path = folder / "search.yaml"
    if not path.is_file():
        return None
    try:
        tree = read_yaml(path)
        experiment = with_absolute_paths(from_dict(tree.pop("experiment")))
        space = make_space(tree.pop("space"), experiment)
        return Search(experiment, space, budget=Budget(**tree.pop("budget")), **tree)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} was not written by this version: {reason}") from None


def _first_difference(name: str, theirs: Any, ours: Any) -> tuple[str, Any, Any]:
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return name, theirs, ours
    key = next(k for k in theirs | ours if theirs.get(k) != ours.get(k))
    return _first_difference(f"{name}: {key}", theirs.get(key), ours.get(key))


def _to_tree(search: Search) -> dict[str, Any]:
    plain = {f.name: getattr(search, f.name) for f in dataclasses.fields(search)}
    return plain | {
        "experiment": to_dict(search.experiment),
        "space": to_tree(search.space),
        "budget": dataclasses.asdict(search.budget),
    }
