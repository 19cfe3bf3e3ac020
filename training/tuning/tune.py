"""``tune(experiment, space, out)``: hyperparameter search by KerasTuner.

KerasTuner decides what is tried; each trial is a run of ``training.train`` in a process of its
own. The state of a search is KerasTuner's, in its folder, and so the same call goes on with a
search that was killed at any moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml

from keras_resnet.files import atomic_write
from training.config import Experiment, from_dict, to_dict
from training.report.search_page import write_report
from training.run import lock_folder
from training.tuning.budget import NO_BUDGET, Budget, Measure
from training.tuning.display import board
from training.tuning.hypermodel import ResNetHyperModel
from training.tuning.oracles import LEASE_SECONDS, ORACLES, Lasting, make_oracle
from training.tuning.results import Row, best_row, recipe_row, write_results
from training.tuning.space import Space, load_space, make_space, to_tree
from training.tuning.trial import Runner, run_sandboxed
from training.tuning.tuner import Address, ExperimentTuner, Plan, check_reachable, role, serve

__all__ = [
    "Address",
    "Budget",
    "Exhausted",
    "Found",
    "ResNetHyperModel",
    "Search",
    "load_space",
    "parse_address",
    "tune",
    "work",
]

Say = Callable[[str], None]


class Exhausted(RuntimeError):
    """Too many trials failed one after the other; the message ends with the last error."""


@dataclass(frozen=True)
class Search:
    """Everything that defines a search.

    Attributes:
        experiment: What is varied.
        space: How.
        tuner: ``"random"``, ``"grid"``, ``"bayesian"`` or ``"hyperband"``.
        trials: The most trials; Hyperband's number follows from the epochs.
        budget: What the int8 file of a model may cost, if anything.
        timeout: Seconds a trial may take; ``None`` for any.
        failures: Trials that may fail one after the other.
        seed: Decides the points that are tried.
        lease: Seconds after which a worker that is not heard of is taken for dead.
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


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        folder: With ``best.yaml``, ``trials.csv``, ``report.html`` and a folder for each trial.
        rows: A row a trial, as in ``trials.csv``.
        best: The best of them; ``None`` where none was trained within the budget.
        recipe: That of the recipe itself; ``None`` where it was not among them.
    """

    folder: Path
    rows: list[Row]
    best: Row | None
    recipe: Row | None


def tune(
    search: Search,
    out: str | Path,
    *,
    measure: Measure | None = None,
    chief: Address | None = None,
    runner: Runner = run_sandboxed,
    say: Say = print,
) -> Found:
    """Searches, from where the folder stands: from nothing, or from where a search was killed.

    Trials are processes of ``multiprocessing``, so a script that calls this does so below
    ``if __name__ == "__main__":``.

    Args:
        search: What is searched, and how.
        out: Folder of the search: a new one, or one of the same search.
        measure: What finds the cost of a model; needed for a budget.
        chief: Where to listen for workers, which then run the trials; without it they run here.
        runner: What runs a trial.
        say: Called with lines for people.

    Raises:
        ValueError: The search cannot be, or the folder holds another or is in use.
        OSError: The folder can no longer be written.
        Exhausted: Too many trials failed one after the other.
        KeyboardInterrupt: It was asked to stop; the same call goes on.
    """
    _check(search, measure)
    folder = Path(out)
    with lock_folder(folder), role("chief", chief):
        _keep(search, folder)
        plan = _plan(search, folder, measure)
        oracle = _oracle(search)
        with board(oracle, plan, say) as ended:
            tuner = _tuner(oracle, plan, runner, search, ended)
            if chief:
                say(f"waiting for workers at {chief}")
                tuner.save()
                serve(oracle, chief, _announcer(oracle, ended))
            else:
                with warnings.catch_warnings():
                    # The Gaussian process of a few trials is not sure of its length scales.
                    warnings.simplefilter("ignore")
                    tuner.search()
        _drop_checkpoints(folder)
        rows = write_results(oracle, plan)
        write_report(plan, rows, search.objective)
        if oracle.given_up:
            raise Exhausted(
                f"{search.failures} trials failed one after the other. The last: {oracle.given_up}"
            )
        return Found(folder, rows, best_row(rows), recipe_row(plan, rows))


def work(
    out: str | Path,
    oracle: Address,
    *,
    measure: Measure | None = None,
    runner: Runner = run_sandboxed,
    say: Say = print,
) -> None:
    """Runs trials for a chief until it has no more.

    Args:
        out: The search's folder, which chief and workers share.
        oracle: Where the chief listens.
        measure: What finds the cost of a model; needed for a budget.
        runner: What runs a trial.
        say: Called with lines for people.

    Raises:
        ValueError: No chief answers there, or the folder holds no search.
    """
    check_reachable(oracle)
    folder = Path(out)
    search = _kept(folder)
    if search is None:
        raise ValueError(f"{folder} holds no search. Give the chief's folder: --out FOLDER")
    name = f"worker-{socket.gethostname()}-{os.getpid()}"
    with role(name, oracle):
        plan = _plan(search, folder, measure)
        try:
            tuner = _tuner(_oracle(search), plan, runner, search, lambda t: say(_told(t)))
            say(f"{name} works for {oracle}")
            tuner.search()
        except grpc.RpcError as error:
            raise ValueError(
                f"The oracle at {oracle} no longer answers: {error.details()}"
            ) from None
        finally:
            (folder / f"{name}.json").unlink(missing_ok=True)


def parse_address(text: str) -> Address:
    """``host:port`` in words; raises ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"--oracle takes HOST:PORT, such as 127.0.0.1:8000. Received: {text}")
    return Address(host, int(port))


# --- The parts of a search --------------------------------------------------------------------


def _check(search: Search, measure: Measure | None) -> None:
    if search.tuner not in ORACLES:
        raise ValueError(f"tuner must be one of {', '.join(ORACLES)}. Received: {search.tuner!r}")
    numbers: dict[str, float] = {"trials": search.trials, "failures": search.failures}
    optional = {
        "timeout": search.timeout,
        "max_size_mb": search.budget.max_size_mb,
        "max_latency_ms": search.budget.max_latency_ms,
    }
    for name, number in (numbers | {k: v for k, v in optional.items() if v is not None}).items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0. Received: {number}")
    if search.tuner == "hyperband" and "schedule.epochs" in search.space.keys:
        raise ValueError("Hyperband sets schedule.epochs itself. Leave it out of the space")
    if search.budget and measure is None:
        raise ValueError("A budget needs a function that measures models: measure=")


def _plan(search: Search, folder: Path, measure: Measure | None) -> Plan:
    return Plan(search.experiment, search.space, folder, search.budget, measure, search.timeout)


def _oracle(search: Search) -> Lasting:
    oracle = make_oracle(
        search.tuner,
        search.space,
        objective=search.objective,
        trials=search.trials,
        epochs=search.experiment.schedule.epochs,
        failures=search.failures,
        seed=search.seed + 1,  # KerasTuner takes 0 for none
        start=search.space.point(search.experiment),
    )
    oracle.lease = search.lease
    oracle.verbose = 0
    return oracle


def _tuner(
    oracle: Lasting, plan: Plan, runner: Runner, search: Search, ended: Callable[[Any], None]
) -> ExperimentTuner:
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it reloads
        return ExperimentTuner(oracle, plan, runner, search.lease / 4, ended)


def _announcer(oracle: Lasting, ended: Callable[[Any], None]) -> Callable[[], None]:
    """Tells of each trial that ended since it was last called."""
    told = len(oracle.end_order)

    def look() -> None:
        nonlocal told
        for name in oracle.end_order[told:]:
            told += 1
            ended(oracle.trials[name])

    return look


def _told(trial: Any) -> str:
    return f"trial {trial.trial_id} {trial.status.lower()}"


def _drop_checkpoints(folder: Path) -> None:
    for checkpoints in folder.glob("trial_*/run/checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)


# --- The search in its folder -----------------------------------------------------------------


def _keep(search: Search, folder: Path) -> None:
    """Writes ``search.yaml``, or finds that it is there already; another search is refused."""
    there = _kept(folder)
    if there is None:
        if set(os.listdir(folder)) - {".lock"}:
            raise ValueError(f"{folder} holds something else. Give another folder: --out FOLDER")
        with atomic_write(folder / "search.yaml") as beside:
            beside.write_text(yaml.safe_dump(_tree(search), sort_keys=False), "utf-8")
        return
    for key, theirs in _tree(there).items():
        if theirs != (ours := _tree(search)[key]):
            if isinstance(theirs, dict):
                key, theirs, ours = _differing(key, theirs, ours)
            raise ValueError(
                f"{folder} holds another search: its {key} is {theirs!r}, not {ours!r}. Give "
                "another folder: --out FOLDER"
            )


def _differing(name: str, theirs: Any, ours: Any) -> tuple[str, Any, Any]:
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return name, theirs, ours
    key = next(k for k in theirs | ours if theirs.get(k) != ours.get(k))
    return _differing(f"{name}: {key}", theirs.get(key), ours.get(key))


def _tree(search: Search) -> dict[str, Any]:
    plain = {f.name: getattr(search, f.name) for f in dataclasses.fields(search)}
    return plain | {
        "experiment": to_dict(search.experiment),
        "space": to_tree(search.space),
        "budget": dataclasses.asdict(search.budget),
    }


def _kept(folder: Path) -> Search | None:
    path = folder / "search.yaml"
    if not path.is_file():
        return None
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
        experiment = from_dict(tree.pop("experiment"))
        space = make_space(tree.pop("space"), experiment)
        return Search(experiment, space, budget=Budget(**tree.pop("budget")), **tree)
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} was not written by this version: {reason}") from None
