"""KerasTuner's oracles, made to survive ``kill -9`` and workers that die.

What is added to each, and why (KerasTuner 1.4.8):

- its files are written in place, so that a kill may tear them: here they are written whole;
- a trial whose file was written before the oracle's is loaded as running for ever: it is dropped,
  and its number given again;
- a trial that ended is saved as still running too, and a kill then would count it twice;
- a worker that dies leaves its trial running for ever, and its chief waits: here a worker that is
  not heard of gives its trial back;
- a worker is told that the search is over while others still run, so that nobody is left to take
  a trial that is given back: here it waits;
- too many failures raise in the chief's thread with its lock held: here they end the search;
- grid search forgets where it was: here it is worked out from the trials.
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


class Lasting(kt.Oracle):
    """What is added to each oracle."""

    trials: dict[str, Trial]
    lease: float = LEASE_SECONDS
    # The recipe's own point, which is tried too, so that what is called the best is not worse.
    # Grid search has its own order, and takes it where it comes.
    start: dict[str, Any] | None = None
    # The error that ended the search, if one did.
    given_up: str = ""
    # What the disk last refused. Raised by whoever drives the oracle, not here: KerasTuner would
    # never let go of its lock.
    broken: OSError | None = None
    _forgiven: int = 0

    @functools.cached_property
    def _heard(self) -> dict[str, float]:
        """When each worker was last heard of."""
        return {}

    def _random_values(self) -> dict[str, Any] | None:
        if self.start and self._takes_start() and not self._duplicate(self.start):
            return dict(self.start)
        return super()._random_values()

    def _takes_start(self) -> bool:
        return True

    @kt.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        self._heard[tuner_id] = time.monotonic()
        if self.given_up:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = TrialStatus.IDLE
        return trial

    def get_trial(self, trial_id: str) -> Trial:
        """A worker asks for its own trial to say that it lives."""
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self._heard[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @kt.synchronized
    def end_trial(self, trial: Trial) -> None:
        ongoing = {trial.trial_id for trial in self.ongoing_trials.values()}
        if trial.trial_id in ongoing:  # else given to another meanwhile: it must not count twice
            # As they were given, not as they come back from gRPC.
            trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
            super().end_trial(trial)

    @kt.synchronized
    def release_the_dead(self) -> list[str]:
        """Takes trials back from workers that were not heard of for too long; returns whose."""
        now = time.monotonic()
        dead = [
            tuner_id
            for tuner_id in self.tuner_ids | set(self.ongoing_trials)
            if now - self._heard.setdefault(tuner_id, now) > self.lease
        ]
        for tuner_id in dead:
            self.tuner_ids.discard(tuner_id)
            if trial := self.ongoing_trials.pop(tuner_id, None):
                self._retry_queue.append(trial.trial_id)
        if dead:
            self.save()
        return dead

    def save(self) -> str:
        text = json.dumps(self.get_state())
        self._write(Path(self._get_oracle_fname()), text)
        return text

    def _save_trial(self, trial: Trial) -> None:
        folder = Path(self._get_trial_dir(trial.trial_id))
        self._write(folder / "trial.json", json.dumps(trial.get_state()))

    def _write(self, path: Path, text: str) -> None:
        try:
            with atomic_write(path) as beside:
                beside.write_text(text, "utf-8")
        except OSError as error:
            self.broken = error

    def reload(self) -> None:
        super().reload()
        # In the order of their start, and without any that only its own file knows.
        self.trials = {name: self.trials[name] for name in self.start_order}
        # A trial that ended is saved before it is taken off those that run.
        ended = set(self.end_order)
        self._retry_queue[:] = [name for name in self._retry_queue if name not in ended]
        self._forgiven = len(self.end_order)

    def _check_consecutive_failures(self) -> None:
        """As KerasTuner counts, but only since the search was begun, so that it can go on."""
        most = self.max_consecutive_failed_trials
        last = [self.trials[name] for name in self.end_order[self._forgiven :]][-most:]
        if len(last) == most and all(trial.status == TrialStatus.FAILED for trial in last):
            self.given_up = self.failure(last[-1])

    def failure(self, trial: Trial) -> str:
        """Why a trial failed; KerasTuner's messages do not travel from workers."""
        outcome = read_outcome(Path(self._get_trial_dir(trial.trial_id)))
        return (outcome and outcome.failure) or trial.message or "no reason given"


class RandomSearch(Lasting, kt.oracles.RandomSearchOracle):
    """Points of the space by chance."""


class BayesianOptimization(Lasting, kt.oracles.BayesianOptimizationOracle):
    """Points where a Gaussian process expects most."""


class Hyperband(Lasting, kt.oracles.HyperbandOracle):
    """Many points for few epochs, and the best of them for more (arXiv:1603.06560)."""

    def reload(self) -> None:
        super().reload()
        for bracket in self._brackets:
            for number, entries in enumerate(bracket["rounds"]):
                bracket["rounds"][number] = [e for e in entries if e["id"] in self.trials]

    def _takes_start(self) -> bool:
        return self._current_bracket == 0  # elsewhere it might be given up before its last epoch

    @property
    def size(self) -> int:
        """Trials in all."""
        brackets = range(self._get_num_brackets())
        one = sum(self._get_size(b, r) for b in brackets for r in range(self._get_num_rounds(b)))
        return one * self.hyperband_iterations


class GridSearch(Lasting, kt.oracles.GridSearchOracle):
    """Every point of the space; a range without steps is cut into ten."""

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
        """Points in all."""
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
    """One of ``ORACLES``.

    Args:
        tuner: Its name.
        space: What is searched.
        objective: What is maximized.
        trials: The most trials; Hyperband has its own number.
        epochs: Of a whole training, which Hyperband divides.
        failures: Trials that may fail one after the other.
        seed: Decides the points.
        start: A point to try by all means.
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


def total(oracle: Any) -> int:
    """Trials that the search will have run in the end, if none is left out."""
    sizes = [n for n in (oracle.max_trials, getattr(oracle, "size", None)) if n is not None]
    return min(sizes)
