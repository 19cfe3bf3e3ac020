"""Runs side by side: their curves, their final metrics, and the keys in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from keras_resnet.files import atomic_write
from keras_resnet.text import printable
from training.config import dotted
from training.report.charts import missing_glyphs_allowed
from training.report.records import read_log, read_record
from training.run import Run

NAME = 60  # letters of a run's name in the picture
# By their names in the log: training thin, validation thick.
CURVES = (("loss", "val_loss", "loss"), ("accuracy", "val_accuracy", "accuracy"))


@dataclass(frozen=True)
class Compared:
    """One run among others.

    Attributes:
        name: Its folder.
        epochs: Number of completed epochs.
        top1: Top-1 accuracy of its evaluation: ``value``, its 95 % interval ``low`` and ``high``,
            and the number of ``images``; ``None`` if it was not evaluated.
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
        ValueError: There are fewer than two, one of them twice or no run, or a file in one is
            damaged.
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
    """Draws the curves of all runs into one picture, in the format of its suffix.

    Raises:
        ValueError: Matplotlib does not know the format.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    if path.suffix.removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"A picture is a .svg, .png or .pdf file. Received: {path}")
    names = [_legend(run.name) for run in runs]
    for axes, (training, validation, title) in zip(figure.subplots(1, 2), CURVES):
        for number, run in enumerate(runs):
            epochs = [row["epoch"] for row in run.rows]
            for key, width, label in ((training, 0.8, None), (validation, 2.0, names[number])):
                # A single epoch makes no line.
                marker = "o" if len(epochs) == 1 else None
                values = [float(row.get(key, "nan")) for row in run.rows]
                axes.plot(
                    epochs, values, f"C{number % 10}", linewidth=width, label=label, marker=marker
                )
        axes.set(title=f"{title} (thin: training)", xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    settings: dict[Any, Any] = {"svg.hashsalt": "compare", "text.parse_math": False}
    with matplotlib.rc_context(settings), missing_glyphs_allowed(), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _legend(name: str) -> str:
    """The end of a long path, where the names of runs differ."""
    name = printable(name)
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def _keys(run: Run) -> dict[str, Any]:
    """The experiment as dotted keys."""
    experiment = run.experiment
    if experiment is None:
        raise ValueError(f"{run.folder} is no run folder: it has no experiment.yaml")
    return dotted(experiment)


def _compared(run: Run, experiment: dict[str, Any]) -> Compared:
    rows = read_log(run)
    if not rows:
        raise ValueError(f"{run.folder} has no completed epoch to show")
    evaluation = read_record(run, "evaluation.json")
    top1 = evaluation and evaluation["top1"]
    return Compared(str(run.folder), len(rows), top1, rows, experiment)
