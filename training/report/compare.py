"""Runs side by side: their curves, their final figures, and what was different."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from keras_resnet.files import atomic_write
from training.config import to_dict
from training.run import Run

# What is drawn, by the names in the log: training thin, validation thick.
CURVES = (("loss", "val_loss", "loss"), ("accuracy", "val_accuracy", "accuracy"))


@dataclass(frozen=True)
class Compared:
    """One run among others.

    Attributes:
        name: Its folder.
        epochs: Whole epochs done.
        top1: Of its evaluation on test images, with the 95 % interval as ``low`` and ``high``
            and the number of ``images``; ``None`` before it was evaluated.
        rows: Its log.
        experiment: Values of the keys in which the runs differ.
    """

    name: str
    epochs: int
    top1: dict[str, Any] | None
    rows: tuple[dict[str, float], ...]
    experiment: dict[str, Any]


def compare(folders: Sequence[Path]) -> tuple[Compared, ...]:
    """Reads runs, finished or not.

    Raises:
        ValueError: There are fewer than two, one twice, or one that is no run.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError(
            "Name at least two run folders, each once. Received: "
            f"{' '.join(map(str, folders)) or 'none'}"
        )
    runs = [Run(folder) for folder in folders]
    trees = [_keys(run) for run in runs]
    known = dict.fromkeys(key for tree in trees for key in tree)
    differing = [key for key in known if any(t.get(key) != trees[0].get(key) for t in trees)]
    return tuple(
        _compared(run, {key: tree.get(key) for key in differing}) for run, tree in zip(runs, trees)
    )


def draw(runs: Sequence[Compared], path: Path) -> None:
    """Draws the curves of all runs into one picture, whose format the suffix says.

    Raises:
        ValueError: Matplotlib knows no such format.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    if path.suffix.removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"A picture is a .svg, .png or .pdf file. Received: {path}")
    for axes, (training, validation, title) in zip(figure.subplots(1, 2), CURVES):
        for number, run in enumerate(runs):
            epochs = [row["epoch"] for row in run.rows]
            for key, width, label in ((training, 0.8, None), (validation, 2.0, run.name)):
                # One epoch is a point, and would be no line.
                marker = "o" if len(epochs) == 1 else None
                values = [row.get(key, float("nan")) for row in run.rows]
                axes.plot(
                    epochs, values, f"C{number % 10}", linewidth=width, label=label, marker=marker
                )
        axes.set(title=f"{title} (thin: training)", xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    settings: dict[Any, Any] = {"svg.hashsalt": "compare", "text.parse_math": False}
    with matplotlib.rc_context(settings), atomic_write(path) as beside:
        figure.savefig(beside, dpi=150)


def _keys(run: Run) -> dict[str, Any]:
    """The experiment as dotted keys."""
    experiment = run.experiment
    if experiment is None:
        raise ValueError(f"{run.folder} is no run folder: it has no experiment.yaml")
    groups = to_dict(experiment).items()
    return {f"{group}.{key}": value for group, tree in groups for key, value in tree.items()}


def _compared(run: Run, experiment: dict[str, Any]) -> Compared:
    log = run.folder / "log.jsonl"
    rows = tuple(map(json.loads, log.read_text("utf-8").splitlines())) if log.is_file() else ()
    if not rows:
        raise ValueError(f"{run.folder} has no epoch to show yet")
    evaluation = run.read("evaluation.json")
    top1 = evaluation and evaluation["top1"]
    return Compared(str(run.folder), len(rows), top1, rows, experiment)
