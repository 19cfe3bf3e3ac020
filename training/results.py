"""What a training run leaves in its folder beside checkpoints: logs, models, figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import keras

from keras_resnet.classifier import ImageClassifier
from keras_resnet.files import atomic_write
from training.checkpoint import Progress
from training.config import Experiment, first_difference
from training.experiment_file import save_experiment
from training.paths import with_absolute_paths
from training.run import Run
from training.runtime import describe
from training.task import Task

Figures = dict[str, float]


def finished_epochs(run: Run, experiment: Experiment) -> int:
    """Epochs of this experiment's finished run in the folder; 0 if it is not finished.

    Raises:
        ValueError: The folder holds another experiment, or a model from elsewhere.
    """
    existing = run.experiment
    if existing is None:
        if run.model_file.exists() or run.log_file.exists():
            raise ValueError(f"{run.folder} holds another run. Give another folder: --out FOLDER")
        return 0
    both = with_absolute_paths(existing), with_absolute_paths(experiment)
    if difference := first_difference(*both):
        key, theirs, ours = difference
        raise ValueError(
            f"{run.folder} holds another experiment: its {key} is {theirs!r}, not {ours!r}. "
            "Give another folder: --out FOLDER"
        )
    metrics = run.read("metrics.json")
    if not isinstance(metrics, dict) or metrics.get("finished") is not True:
        return 0
    epochs = metrics.get("epochs")
    return epochs if isinstance(epochs, int) and run.model_file.exists() else 0


def write_description(task: Task) -> None:
    """Writes what is known before the first step: experiment, contract, environment."""
    run = task.run
    with atomic_write(run.experiment_file) as temporary:
        save_experiment(task.experiment, temporary)
    run.write("contract.json", task.contract.to_dict())
    run.write("run.json", {"seed": task.experiment.runtime.seed, "environment": describe()})
    run.log_event("begun", **task.facts["machine"])


def write_epochs(task: Task, progress: Progress) -> None:
    """Writes logs, best model and TensorBoard events of the completed epochs.

    All of it follows from ``progress`` and the variables: writing it again changes nothing.
    """
    run, rows = task.run, progress.rows
    if not rows:
        return
    run.write_rows("log.csv", rows)
    run.write_text("log.jsonl", "".join(json.dumps(_finite(row)) + "\n" for row in rows))
    run.write_rows("timing.csv", progress.timings)
    if progress.step == 0 and progress.best_epoch == progress.epoch:
        save_model(task.deployed(), run.checkpoints / "best.keras")
    _write_tensorboard(task, rows[-1])


def _write_tensorboard(task: Task, row: Figures) -> None:
    """Writes the figures of an epoch and its confusion matrix."""
    confusion = task.confusion
    task.tensorboard.epoch(
        row, None if confusion is None else keras.ops.convert_to_numpy(confusion)
    )


def write_model(task: Task, thresholds: tuple[float, ...] = ()) -> None:
    """Writes ``model.keras``, and the thresholds to its contract if there are any."""
    model = task.deployed()
    if thresholds:
        model.contract = model.contract.replace(thresholds=thresholds)
        task.run.write("contract.json", model.contract.to_dict())
    save_model(model, task.run.model_file)


def write_results(task: Task, progress: Progress, finished: bool) -> None:
    """Writes ``metrics.json``, which says whether the run is finished; ``model.keras`` is there."""
    seconds = [timing["seconds"] for timing in progress.timings]
    history = [_finite(row) | {"seconds": s} for row, s in zip(progress.rows, seconds)]
    task.run.write(
        "metrics.json",
        {
            "epochs": progress.epoch,
            "finished": finished,
            "best_epoch": progress.best_epoch,
            "history": history,
        },
    )


def best_epoch(rows: tuple[Figures, ...], task: Task) -> int:
    """The first epoch, from 1, with the best monitored figure; NaN is never the best."""
    monitor = task.experiment.checkpoint.monitor
    sign = -1 if monitor == "val_loss" else 1
    key = monitor.replace("val_", "val_ema_") if task.ema_model else monitor
    scores = [sign * row[key] if math.isfinite(row[key]) else -math.inf for row in rows]
    return 1 + scores.index(max(scores))


def save_model(model: ImageClassifier, path: Path) -> None:
    """Writes a model atomically, without its optimizer, which is in the checkpoints."""
    bare = ImageClassifier(model.inputs, model.outputs, name=model.name)
    bare.contract, bare.block_config = model.contract, model.block_config
    with atomic_write(path) as temporary:
        bare.save(temporary)


def _finite(row: Figures) -> Figures:
    """The row without infinities and NaNs, which JSON cannot express."""
    return {key: value for key, value in row.items() if math.isfinite(value)}
