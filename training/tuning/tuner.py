"""The adapter to KerasTuner: its tuner, chief and workers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import keras_tuner as kt
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError
from keras_tuner.src import config, protos
from keras_tuner.src.distribute import oracle_chief, oracle_client

from keras_resnet.classifier import ImageClassifier
from keras_resnet.files import atomic_write
from keras_resnet.saving import load_model
from training.config import Experiment
from training.tuning.budget import NO_BUDGET, Budget, Measure
from training.tuning.space import Space
from training.tuning.trial import Job, Outcome, Runner, write_outcome

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
IDLE_SECONDS = 0.2


@dataclass(frozen=True)
class Address:
    """Address at which the chief's oracle listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Plan:
    """What all trials of a search have in common.

    Attributes:
        base: The experiment that is varied.
        space: The search space.
        folder: Folder of the search.
        budget: Limits on the cost of a network.
        measure: Measures the cost.
        timeout: Maximum seconds per trial; ``None`` for no limit.
    """

    base: Experiment
    space: Space
    folder: Path
    budget: Budget = NO_BUDGET
    measure: Measure | None = None
    timeout: float | None = None

    def job(self, trial: Trial) -> Job:
        """The training job of a KerasTuner trial."""
        values = trial.hyperparameters.values
        parent = values.get("tuner/trial_id")
        experiment = self.space.experiment(self.base, values)
        return Job(
            experiment=experiment,
            folder=self.trial_folder(trial.trial_id),
            until=values.get("tuner/epochs", experiment.schedule.epochs),
            parent=self.trial_folder(parent) / "run" if parent else None,
            budget=self.budget,
            measure=self.measure,
            costs=self.folder / "costs",
            timeout=self.timeout,
        )

    def trial_folder(self, trial_id: str) -> Path:
        return self.folder / f"trial_{trial_id}"


class ExperimentTuner(BaseTuner):
    """Runs trials of a KerasTuner oracle, each in a separate process.

    Args:
        oracle: The oracle; on a worker, a client of the chief's.
        plan: Defines the trials.
        runner: Runs a trial: ``run_sandboxed``.
        heartbeat: Seconds between heartbeats to a chief.
        on_end: Called after each trial.
    """

    def __init__(
        self,
        oracle: kt.Oracle,
        plan: Plan,
        runner: Runner,
        heartbeat: float,
        on_end: Callable[[Trial], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.runner = runner
        self.heartbeat = heartbeat
        self.on_end = on_end
        self.keeps_checkpoints = isinstance(oracle, kt.oracles.HyperbandOracle)
        folder = plan.folder.absolute()
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)

    def on_search_begin(self) -> None:
        self.save()  # from here on the same command resumes

    def on_trial_begin(self, trial: Trial) -> None:
        self._check_disk()

    def pre_create_trial(self) -> None:
        if self._is_worker():
            time.sleep(IDLE_SECONDS)  # between requests to an oracle without a free trial

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """The score of one trial.

        Raises:
            FailedTrialError: The trial failed; its folder has the reason.
        """
        outcome = self._outcome(trial)
        if outcome.score is None:
            raise FailedTrialError(outcome.failure)
        return {self.oracle.objective.name: outcome.score}

    def _outcome(self, trial: Trial) -> Outcome:
        try:
            job = self.plan.job(trial)
        except ValueError as error:  # values that cannot be combined
            outcome = Outcome(failure=str(error))
            write_outcome(self.plan.trial_folder(trial.trial_id), outcome)
            return outcome
        sent = time.monotonic()

        def heartbeat() -> None:
            nonlocal sent
            if self._is_worker() and time.monotonic() - sent > self.heartbeat:
                sent = time.monotonic()
                self.oracle.get_trial(trial.trial_id)

        return self.runner(job, heartbeat)

    def on_trial_end(self, trial: Trial) -> None:
        if trial.message:  # the last line of the traceback
            trial.message = trial.message.strip().splitlines()[-1].partition(": ")[2]
        super().on_trial_end(trial)
        self._check_disk()
        if not self.keeps_checkpoints:
            shutil.rmtree(self.plan.trial_folder(trial.trial_id) / "run" / "checkpoints", True)
        self.on_end(trial)

    def _check_disk(self) -> None:
        if not self._is_worker() and self.oracle.disk_error:
            raise self.oracle.disk_error

    def load_model(self, trial: Trial) -> ImageClassifier:
        """The final model of a trial."""
        return load_model(self.plan.trial_folder(trial.trial_id) / "run" / "model.keras")

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        with atomic_write(Path(self._get_tuner_fname())) as temporary:
            temporary.write_text(json.dumps(self.get_state()), "utf-8")


# --- Several machines -------------------------------------------------------------------------


@contextlib.contextmanager
def tuner_role(tuner_id: str, address: Address | None) -> Iterator[None]:
    """Sets KerasTuner's environment variables for chief and workers, and its quiet mode.

    Args:
        tuner_id: ``"chief"``, or the name of a worker.
        address: The chief's address; ``None`` for a search in a single process.
    """
    names = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
    before = {name: os.environ.pop(name, None) for name in names}
    timeout, debug = oracle_client.TIMEOUT, config.DEBUG
    config.DEBUG = False
    if address:
        os.environ |= dict(zip(names, (tuner_id, address.host, str(address.port))))
        oracle_client.TIMEOUT = ANSWER_SECONDS  # the default is an hour
    try:
        yield
    finally:
        oracle_client.TIMEOUT, config.DEBUG = timeout, debug
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def serve_oracle(oracle: Any, address: Address, poll: Callable[[], None]) -> None:
    """The chief: serves workers until every worker has received STOPPED.

    KerasTuner's own loop checks only every twenty seconds whether the workers are gone, and waits
    for ever for one that died.

    Args:
        oracle: One of ``oracles.ORACLES``.
        address: Address to listen at.
        poll: Called every tenth of a second.

    Raises:
        ValueError: The address cannot be used.
        OSError: The folder can no longer be written.
    """
    _check_port_is_free(address)
    servicer = oracle_chief.OracleServicer(oracle)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(str(address))
    except RuntimeError:
        raise ValueError(f"Cannot listen at {address}. Give another --oracle") from None
    server.start()
    try:
        while not servicer.stop_triggered or oracle.ongoing_trials or oracle.tuner_ids:
            time.sleep(0.1)
            if oracle.disk_error:
                raise oracle.disk_error
            oracle.reclaim_trials()
            poll()
    finally:
        server.stop(grace=1).wait()


def check_reachable(address: Address) -> None:
    """Raises ValueError if no chief answers within ten seconds."""
    with grpc.insecure_channel(str(address)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise ValueError(
                f"No oracle answers at {address}. Start it: keras-resnet tune --chief --oracle "
                f"{address}"
            ) from None


def _check_port_is_free(address: Address) -> None:
    # gRPC would share the port of another chief, and each of them would get half of the calls.
    try:
        with socket.create_server((address.host, address.port)):
            pass
    except OSError as error:
        raise ValueError(f"Cannot listen at {address}: {error.strerror}") from None
