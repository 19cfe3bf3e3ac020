"""Results of a search: tables, best experiment, TensorBoard's HParams, Pareto front."""

from __future__ import annotations

import shutil
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus

from keras_resnet.files import atomic_write
from training.experiment_file import save_experiment
from training.run import Run
from training.tuning.budget import COSTS, pareto_front
from training.tuning.trial import Outcome, read_outcome
from training.tuning.tuner import Plan

Row = dict[str, Any]
FIGURES = ("val_accuracy", "val_loss", "accuracy", "loss")


def rows_of(oracle: Any, plan: Plan) -> list[Row]:
    """One row per trial: status, figures, costs, and its point of the space."""
    return [_row(oracle, plan, trial) for trial in oracle.trials.values()]


def _row(oracle: Any, plan: Plan, trial: Trial) -> Row:
    outcome = read_outcome(plan.trial_folder(trial.trial_id)) or Outcome()
    values = trial.hyperparameters.values
    failed = trial.status == TrialStatus.FAILED
    row: Row = {
        "trial": trial.trial_id,
        "status": trial.status.lower(),
        "score": trial.score,
        "epochs": outcome.figures.get("epochs"),
        "continues": values.get("tuner/trial_id", ""),
    }
    row |= {name: outcome.figures.get(name) for name in FIGURES}
    if plan.budget:
        row |= {name: outcome.figures.get(name) for name in COSTS}
    row |= {"seconds": outcome.seconds}
    row |= plan.space.plain(values)
    return row | {"failure": oracle.failure(trial) if failed else ""}


def best_row(rows: list[Row]) -> Row | None:
    """The trial with the best score, within the budget; ``None`` if there is none."""
    done = [row for row in rows if row["status"] == "completed" and row["val_accuracy"] is not None]
    return max(done, key=lambda row: (row["score"], row["epochs"]), default=None)


def recipe_row(plan: Plan, rows: list[Row]) -> Row | None:
    """The trial of the recipe's own point; ``None`` if it was not trained."""
    start = plan.space.point(plan.base)
    trained = (row for row in rows if row["val_accuracy"] is not None)
    return next((r for r in trained if start and start.items() <= r.items()), None)


def write_results(oracle: Any, plan: Plan) -> list[Row]:
    """Writes ``trials.csv``, ``best.yaml``, ``pareto.csv`` and ``.json``, ``tensorboard/``.

    Returns:
        The rows of ``trials.csv``.
    """
    folder, rows = Run(plan.folder), rows_of(oracle, plan)
    folder.write_rows("trials.csv", rows)
    if best := best_row(rows):
        with atomic_write(plan.folder / "best.yaml") as temporary:
            values = {key: best[key] for key in plan.space.keys}
            save_experiment(plan.space.experiment(plan.base, values), temporary)
    if plan.budget:
        front = front_of(rows)
        folder.write("pareto.json", front)
        folder.write_rows("pareto.csv", front)
    _write_hparams(plan, rows)
    return rows


def front_of(rows: list[Row]) -> list[Row]:
    """The Pareto front of the completed trials."""
    return pareto_front([r for r in rows if r["status"] == "completed" and r.get("val_accuracy")])


def _write_hparams(plan: Plan, rows: list[Row]) -> None:
    """One TensorBoard run per trial, for ``tensorboard --logdir``."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    tensorboard = plan.folder / "tensorboard"
    shutil.rmtree(tensorboard, ignore_errors=True)
    for row in rows:
        if row["val_accuracy"] is None:
            continue
        with tf.summary.create_file_writer(str(tensorboard / row["trial"])).as_default():
            api.hparams({key: row[key] for key in plan.space.keys}, trial_id=row["trial"])
            for name in (*FIGURES, *COSTS):
                if row.get(name) is not None:
                    tf.summary.scalar(name, row[name], step=int(row["epochs"]))
