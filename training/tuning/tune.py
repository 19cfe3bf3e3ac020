"""``tune(search, out)``: hyperparameter search with KerasTuner.

KerasTuner chooses the points; each trial is a run of ``training.train`` in a separate process. The
state of a search is KerasTuner's, in the search's folder, so a search that was killed at any moment
is resumed by the same call.
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

import grpc

from training.data.validate_images import Say
from training.paths import with_absolute_paths
from training.report.search_page import write_report
from training.run import lock_folder
from training.runtime import require_backend
from training.tuning.budget import Budget, Measure
from training.tuning.display import OnEnd, show_search
from training.tuning.hypermodel import ResNetHyperModel
from training.tuning.oracles import ResilientOracle, make_oracle
from training.tuning.results import Row, best_row, recipe_row, write_results
from training.tuning.search import Search, check_search, claim_folder, read_search
from training.tuning.space import load_space
from training.tuning.trial import Runner, run_sandboxed
from training.tuning.tuner import (
    Address,
    ExperimentTuner,
    Plan,
    check_reachable,
    serve_oracle,
    tuner_role,
)

__all__ = [
    "Address",
    "Budget",
    "ResNetHyperModel",
    "Search",
    "SearchResult",
    "TooManyFailures",
    "load_space",
    "parse_address",
    "tune",
    "work",
]


class TooManyFailures(RuntimeError):
    """Too many consecutive trials failed; the message ends with the last error."""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        folder: With ``best.yaml``, ``trials.csv``, ``report.html`` and a folder for each trial.
        rows: One row per trial, as in ``trials.csv``.
        best: The row of the best trial; ``None`` if none was trained within the budget.
        recipe: The row of the recipe's own point; ``None`` if it was not trained.
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
) -> SearchResult:
    """Searches from scratch, or resumes the search in the folder.

    Trials are processes of ``multiprocessing``, so scripts must call this below
    ``if __name__ == "__main__":``.

    Args:
        search: The search.
        out: Folder of the search: a new one, or one of the same search.
        measure: Measures the cost of a model; required with a budget.
        chief: Address to listen at for workers that run the trials; by default they run here.
        runner: Runs a trial.
        say: Called with lines for people.

    Raises:
        ValueError: The search cannot run, or the folder holds another one or is in use.
        OSError: The folder can no longer be written.
        TooManyFailures: ``search.failures`` consecutive trials failed.
        KeyboardInterrupt: The search was asked to stop; the same call resumes it.
    """
    require_backend("A search", "tensorflow", "jax")
    check_search(search, measure)
    search = dataclasses.replace(search, experiment=with_absolute_paths(search.experiment))
    folder = Path(out)
    with lock_folder(folder), tuner_role("chief", chief):
        claim_folder(search, folder)
        plan = _plan(search, folder, measure)
        oracle = _oracle(search)
        with show_search(oracle, plan, say) as on_end:
            tuner = _tuner(oracle, plan, runner, search, on_end)
            if chief:
                say(f"waiting for workers at {chief}")
                tuner.save()
                serve_oracle(oracle, chief, _announcer(oracle, on_end))
            else:
                with warnings.catch_warnings():
                    # With few trials the Gaussian process warns about its length scales.
                    warnings.simplefilter("ignore")
                    tuner.search()
        _remove_checkpoints(folder)
        rows = write_results(oracle, plan)
        write_report(plan, rows, search.objective)
        if oracle.stop_reason:
            raise TooManyFailures(
                f"{search.failures} consecutive trials failed. The last: {oracle.stop_reason}"
            )
        return SearchResult(folder, rows, best_row(rows), recipe_row(plan, rows))


def work(
    out: str | Path,
    oracle: Address,
    *,
    measure: Measure | None = None,
    runner: Runner = run_sandboxed,
    say: Say = print,
) -> None:
    """Runs trials for a chief until the search is over.

    Args:
        out: The search's folder, shared by chief and workers.
        oracle: Address of the chief.
        measure: Measures the cost of a model; required with a budget.
        runner: Runs a trial.
        say: Called with lines for people.

    Raises:
        ValueError: No chief answers at the address, or the folder holds no search.
    """
    check_reachable(oracle)
    folder = Path(out)
    search = read_search(folder)
    if search is None:
        raise ValueError(f"{folder} holds no search. Give the chief's folder: --out FOLDER")
    name = f"worker-{socket.gethostname()}-{os.getpid()}"
    with tuner_role(name, oracle):
        plan = _plan(search, folder, measure)
        try:
            tuner = _tuner(
                _oracle(search),
                plan,
                runner,
                search,
                lambda trial: say(f"trial {trial.trial_id} {trial.status.lower()}"),
            )
            say(f"{name} works for {oracle}")
            tuner.search()
        except grpc.RpcError as error:
            raise ValueError(
                f"The oracle at {oracle} no longer answers: {error.details()}"
            ) from None
        finally:
            (folder / f"{name}.json").unlink(missing_ok=True)


def parse_address(text: str) -> Address:
    """An address from ``host:port``.

    Raises:
        ValueError: The text has another form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"--oracle takes HOST:PORT, such as 127.0.0.1:8000. Received: {text}")
    return Address(host, int(port))


def _plan(search: Search, folder: Path, measure: Measure | None) -> Plan:
    return Plan(search.experiment, search.space, folder, search.budget, measure, search.timeout)


def _oracle(search: Search) -> ResilientOracle:
    oracle = make_oracle(
        search.tuner,
        search.space,
        objective=search.objective,
        trials=search.trials,
        epochs=search.experiment.schedule.epochs,
        failures=search.failures,
        seed=search.seed + 1,  # KerasTuner treats 0 as no seed
        start=search.space.point(search.experiment),
    )
    oracle.lease = search.lease
    oracle.verbose = 0
    return oracle


def _tuner(
    oracle: ResilientOracle, plan: Plan, runner: Runner, search: Search, on_end: OnEnd
) -> ExperimentTuner:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it reloads
        return ExperimentTuner(oracle, plan, runner, search.lease / 4, on_end)


def _announcer(oracle: ResilientOracle, on_end: OnEnd) -> Callable[[], None]:
    """A function that passes on each trial that ended since its last call."""
    announced = len(oracle.end_order)

    def poll() -> None:
        nonlocal announced
        for name in oracle.end_order[announced:]:
            announced += 1
            on_end(oracle.trials[name])

    return poll


def _remove_checkpoints(folder: Path) -> None:
    for checkpoints in folder.glob("trial_*/run/checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)
