"""KerasTuner's oracles, made robust against ``kill -9`` and lost workers.

Changes to each of them, and the reasons (KerasTuner 1.4.8):

- it writes its files in place, so that a kill can truncate them: here they are written atomically;
- a trial whose file was written before the oracle's is loaded as running for ever: it is dropped,
  and its number used again;
- a trial that ended is still saved as running, so that a kill would count it twice;
- a worker that dies leaves its trial running for ever, and the chief waits for it: here the trial
  of a worker without heartbeat is given to another;
- workers are told to stop while others still run, so that none is left to take over such a trial:
  here they wait;
- too many failures raise in the chief's thread while it holds its lock: here they end the search;
- grid search loses its position: here it is recomputed from the trials.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_resnet.files import atomic_write
from training.tuning.space import Space
from training.tuning.trial import read_outcome

LEASE_SECONDS = 60.0


class ResilientOracle(kt.Oracle):
    """The changes that all oracles share.

    Attributes:
        lease: Seconds without a heartbeat after which a worker counts as lost.
        start: The recipe's own point, which is tried as well, so that the best trial is never worse
            than the recipe. Grid search has a fixed order and tries it in its turn.
        stop_reason: The failure that ended the search; empty if none did.
        disk_error: The last error of writing a file. Raised by the caller that drives the oracle,
            not here, where KerasTuner would never release its lock.
    """

    trials: dict[str, Trial]
    lease: float = LEASE_SECONDS
    start: dict[str, Any] | None = None
    stop_reason: str = ""
    disk_error: OSError | None = None
    _ended_before: int = 0

    @functools.cached_property
    def _heartbeats(self) -> dict[str, float]:
        """Time of the last heartbeat of each worker."""
        return {}

    def _random_values(self) -> dict[str, Any] | None:
        if self.start and self._takes_start() and not self._duplicate(self.start):
            return dict(self.start)
        return super()._random_values()

    def _takes_start(self) -> bool:
        return True

    @kt.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        self._heartbeats[tuner_id] = time.monotonic()
        if self.stop_reason:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    def get_trial(self, trial_id: str) -> Trial:
        """Returns a trial. A worker that asks for its own one sends a heartbeat."""
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self._heartbeats[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @kt.synchronized
    def end_trial(self, trial: Trial) -> None:
        ongoing = {trial.trial_id for trial in self.ongoing_trials.values()}
        if trial.trial_id in ongoing:  # otherwise another worker has it: must not count twice
            # The original ones, not those that went through gRPC.
            trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
            super().end_trial(trial)

    @kt.synchronized
    def reclaim_trials(self) -> list[str]:
        """Takes trials back from workers whose lease has expired; returns the workers."""
        now = time.monotonic()
        lost = [
            tuner_id
            for tuner_id in self.tuner_ids | set(self.ongoing_trials)
            if now - self._heartbeats.setdefault(tuner_id, now) > self.lease
        ]
        for tuner_id in lost:
            self.tuner_ids.discard(tuner_id)
            if trial := self.ongoing_trials.pop(tuner_id, None):
                self._retry_queue.append(trial.trial_id)
        if lost:
            self.save()
        return lost

    def save(self) -> str:
        text = json.dumps(self.get_state())
        self._write(Path(self._get_oracle_fname()), text)
        return text

    def _save_trial(self, trial: Trial) -> None:
        folder = Path(self._get_trial_dir(trial.trial_id))
        self._write(folder / "trial.json", json.dumps(trial.get_state()))

    def _write(self, path: Path, text: str) -> None:
        try:
            with atomic_write(path) as temporary:
                temporary.write_text(text, "utf-8")
        except OSError as error:
            self.disk_error = error

    def reload(self) -> None:
        super().reload()
        # In the order of their start, without those that only their own file knows of.
        self.trials = {name: self.trials[name] for name in self.start_order}
        # A trial that ended is saved before it is removed from the running ones.
        ended = set(self.end_order)
        self._retry_queue[:] = [name for name in self._retry_queue if name not in ended]
        self._ended_before = len(self.end_order)

    def _check_consecutive_failures(self) -> None:
        """As in KerasTuner, but counts only since the search was started or resumed."""
        most = self.max_consecutive_failed_trials
        last = [self.trials[name] for name in self.end_order[self._ended_before :]][-most:]
        if len(last) == most and all(trial.status == TrialStatus.FAILED for trial in last):
            self.stop_reason = self.failure(last[-1])

    def failure(self, trial: Trial) -> str:
        """Why a trial failed, from its folder: workers do not send KerasTuner's message."""
        outcome = read_outcome(Path(self._get_trial_dir(trial.trial_id)))
        return (outcome and outcome.failure) or trial.message or "no reason given"


class RandomSearch(ResilientOracle, kt.oracles.RandomSearchOracle):
    """Random points of the space."""


class BayesianOptimization(ResilientOracle, kt.oracles.BayesianOptimizationOracle):
    """Points at which a Gaussian process expects the best score."""


class Hyperband(ResilientOracle, kt.oracles.HyperbandOracle):
    """Many points for few epochs, the best of them for more (arXiv:1603.06560)."""

    def reload(self) -> None:
        super().reload()
        for bracket in self._brackets:
            for number, entries in enumerate(bracket["rounds"]):
                bracket["rounds"][number] = [e for e in entries if e["id"] in self.trials]

    def _takes_start(self) -> bool:
        return self._current_bracket == 0  # a later bracket may stop it early

    @property
    def size(self) -> int:
        """Number of trials."""
        brackets = range(self._get_num_brackets())
        one = sum(self._get_size(b, r) for b in brackets for r in range(self._get_num_rounds(b)))
        return one * self.hyperband_iterations


class GridSearch(ResilientOracle, kt.oracles.GridSearchOracle):
    """Every point of the space; a range without steps is divided into ten."""

    def reload(self) -> None:
        super().reload()

        def values(name: str) -> dict[str, Any]:
            return self.trials[name].hyperparameters.values

        def compare(one: str, other: str) -> int:
            return self._compare(values(one), values(other))

        ordered = sorted(self.start_order, key=functools.cmp_to_key(compare))
        for before, name in zip([None, *ordered], ordered):
            self._ordered_ids.insert(name, before)
        self._populate_next = list(self.start_order)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len({*hp.values, hp.default}) for hp in self.get_space().space)


def make_oracle(
    tuner: str,
    space: Space,
    *,
    objective: str,
    trials: int,
    epochs: int,
    failures: int,
    seed: int,
    start: dict[str, Any] | None = None,
) -> Any:
    """Creates one of ``ORACLES``.

    Args:
        tuner: Its name.
        space: The search space.
        objective: Name of the figure to maximize.
        trials: Maximum number of trials; Hyperband computes its own.
        epochs: Epochs of a complete training, which Hyperband divides.
        failures: Consecutive failures that end the search.
        seed: Seed of the points.
        start: A point to try in any case.
    """
    hp = kt.HyperParameters()
    space.declare(hp)
    common: dict[str, Any] = {
        "objective": kt.Objective(objective, "max"),
        "hyperparameters": hp,
        "seed": seed,
        "max_consecutive_failed_trials": failures,
    }
    size = {"max_epochs": epochs} if tuner == "hyperband" else {"max_trials": trials}
    oracle = ORACLES[tuner](**size, **common)
    oracle.start = start
    return oracle


ORACLES: dict[str, Callable[..., Any]] = {
    "random": RandomSearch,
    "grid": GridSearch,
    "bayesian": BayesianOptimization,
    "hyperband": Hyperband,
}


def trial_count(oracle: Any) -> int:
    """Number of trials of a complete search."""
    sizes = [n for n in (oracle.max_trials, getattr(oracle, "size", None)) if n is not None]
    return min(sizes)
