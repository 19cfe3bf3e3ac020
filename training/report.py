"""The run as one page: a single HTML file that needs nothing else, neither network nor script."""

from __future__ import annotations

import base64
import datetime
import io
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from training.config import Experiment, to_dict
from training.run import Run

# Charts are drawn in these colours, which the page then replaces by its own: those of the
# light or of the dark theme, whichever the reader's device asks for.
INK, MUTED, LINE, BLUE, ORANGE, PALE = (f"#00000{i}" for i in range(1, 7))
THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    PALE: "var(--pale)",
}
# Cells of the confusion matrix lie translucent on either theme.
RIGHT_CELL, WRONG_CELL = (37, 99, 235), (214, 93, 14)

MOST_NUMBERED = 20  # classes: above, the matrix goes without counts
MOST_NAMED = 40  # classes: above, it goes without names
MOST_LISTED = 20  # classes: above, all but the hardest are folded away
SHORT = 18  # letters of a class name in a chart
TINY = 96  # pixels: images up to here are shown with their pixels visible


def write_report(run: Run) -> Path:
    """Writes ``report.html``: what the run did, how good the model is, what TFLite made of it.

    Parts whose files are not there yet are left out, and the page says which command makes
    them.

    Args:
        run: A run folder; only ``experiment.yaml`` has to be there.

    Returns:
        The path of the page, written whole or not at all.

    Raises:
        ValueError: The experiment cannot be read.
    """
    page = _environment().get_template("report.html.j2").render(_contents(run))
    path = run.report_file
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(page, "utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _environment() -> jinja2.Environment:
    # Class names and paths come from strangers' folders, so everything is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "points": _points,
        "number": _number,
        "duration": _duration,
    }
    return environment


def _contents(run: Run) -> dict[str, Any]:
    experiment = run.experiment
    metrics, evaluation = run.read("metrics.json"), run.read("evaluation.json")
    folder = shlex.quote(str(run.folder))
    return {
        "name": run.folder.resolve().name,
        "written": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "experiment": to_dict(experiment),
        "experiment_yaml": run.experiment_file.read_text("utf-8"),
        "experiment_file": shlex.quote(str(run.experiment_file)),
        "folder": folder,
        "training": _training(metrics),
        "evaluation": _evaluation(evaluation, experiment),
        "tflite": _tflite(run.read("tflite/verify.json"), run.read("tflite/benchmark.json")),
    }


# Training


def _training(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    if not metrics or not metrics["history"]:
        return None
    history = metrics["history"]
    return {
        "epochs": metrics["epochs"],
        "seconds": sum(row["seconds"] for row in history),
        "charts": [_curves(history, *panel) for panel in CURVES],
    }


# Title, training figure, test figure, the factor that brings them to the axis.
CURVES = (
    ("Loss", "loss", "val_loss", 1),
    ("Accuracy, %", "accuracy", "val_accuracy", 100),
    ("Learning rate", "learning_rate", None, 1),
)


def _curves(
    history: list[dict[str, float]], title: str, train: str, test: str | None, factor: float
) -> Markup:
    figure, axes = _figure(4.2, 2.5 if test else 1.4)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 5 else ""
    for key, color, name in ((train, BLUE, "train"), (test, ORANGE, "test")):
        values = [row.get(key, np.nan) * factor for row in history] if key else []
        if np.isfinite(values).any():
            axes.plot(epochs, values, color=color, marker=marker, markersize=4, label=name)
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel("epoch", color=MUTED)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.02)
    if test:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=2,
            frameon=False,
            labelcolor=MUTED,
            borderaxespad=0.2,
            handlelength=1.2,
        )
    return _svg(figure, f"{title} by epoch")


# Evaluation


def _evaluation(evaluation: dict[str, Any] | None, experiment: Experiment) -> dict[str, Any] | None:
    if not evaluation:
        return None
    labels = [c["label"] for c in evaluation["classes"]]
    confusion = np.array(evaluation["confusion"])
    hardest = sorted(evaluation["classes"], key=_recall)
    pictures, note = _pictures(evaluation["mistakes"], experiment)
    return {
        "top1": evaluation["top1"],
        "top5": evaluation["top5"] if len(labels) > 5 else None,
        "matrix": _confusion_chart(confusion, labels),
        "named": len(labels) <= MOST_NAMED,
        "mixed_up": _mixed_up(confusion, labels),
        "hardest": hardest[:MOST_LISTED] if len(labels) > MOST_LISTED else hardest,
        "others": hardest[MOST_LISTED:],
        "mistakes": [
            {**mistake, "picture": picture}
            for mistake, picture in zip(evaluation["mistakes"], pictures)
        ],
        "note": note,
    }


def _recall(row: dict[str, Any]) -> float:
    return row["recall"]["value"] if row["recall"]["images"] else 2.0


def _mixed_up(confusion: np.ndarray, labels: list[str], most: int = 8) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often: true, predicted, images, share."""
    wrong = confusion * (1 - np.eye(len(labels), dtype=int))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = ((int(i), int(j)) for i, j in zip(*np.unravel_index(worst, wrong.shape)))
    return [
        {
            "label": labels[i],
            "predicted": labels[j],
            "images": int(wrong[i, j]),
            "of": int(confusion[i].sum()),
        }
        for i, j in pairs
        if wrong[i, j]
    ]


def _confusion_chart(confusion: np.ndarray, labels: list[str]) -> Markup:
    count = len(labels)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    opacity = np.where(confusion > 0, 0.1 + 0.9 * shares**0.6, 0)
    cells = np.empty((count, count, 4))
    cells[..., :3] = np.array(WRONG_CELL) / 255
    cells[np.eye(count, dtype=bool), :3] = np.array(RIGHT_CELL) / 255
    cells[..., 3] = opacity

    side = max(2.4, count * (0.38 if count <= MOST_NUMBERED else 0.2))
    figure, axes = _figure(*(min(side, 7.5),) * 2)
    axes.imshow(cells, interpolation="none")
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    _name_ticks(axes, labels)
    if count <= MOST_NUMBERED:
        for i, j in zip(*np.nonzero(confusion)):
            ink = "#ffffff" if opacity[i, j] > 0.6 else INK
            axes.text(j, i, f"{confusion[i, j]}", ha="center", va="center", color=ink, fontsize=8)
    return _svg(figure, "Confusion matrix: true classes by row, predicted classes by column")


def _name_ticks(axes: Axes, labels: list[str]) -> None:
    if len(labels) > MOST_NAMED:
        return  # numbered every so many, as matplotlib does by itself
    names = [_short(label) for label in labels]
    upright = max(map(len, names)) > 3
    places = range(len(names))
    axes.set_yticks(places, names, parse_math=False)
    axes.set_xticks(places, names, parse_math=False, rotation=90 if upright else 0)


def _short(text: str, most: int = SHORT) -> str:
    text = " ".join(text.split()) or "(empty)"
    return text if len(text) <= most else text[: most - 1] + "…"


# The pictures behind the mistakes


def _pictures(
    mistakes: list[dict[str, Any]], experiment: Experiment
) -> tuple[Sequence[dict[str, Any] | None], str]:
    """The images that were taken for something else, fitted; or none, and why not."""
    if not mistakes:
        return [], ""
    import tensorflow as tf

    try:
        found = {i: (image, label) for i, image, label in _fetch(mistakes, experiment)}
    except (ValueError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        return [None] * len(mistakes), f"The pictures could not be read: {reason}"
    if any(found.get(m["index"], (None, None))[1] != m["label"] for m in mistakes):
        changed = f"{experiment.data.source} has changed since the evaluation"
        return [None] * len(mistakes), f"The pictures are left out: {changed}"
    return [_picture(found[m["index"]][0]) for m in mistakes], ""


def _fetch(
    mistakes: list[dict[str, Any]], experiment: Experiment
) -> Iterator[tuple[int, np.ndarray, str]]:
    """Index, fitted pixels and true label of the test images that the mistakes name."""
    import tensorflow as tf

    from training.data.pipeline import fit_image
    from training.data.sources import open_source
    from training.train import make_contract

    source = open_source(experiment.data, experiment.runtime.seed)
    contract = make_contract(experiment, source)
    wanted = tf.constant(sorted({m["index"] for m in mistakes}), "int64")
    examples = (
        source.test.examples.enumerate()
        .filter(lambda index, _: tf.reduce_any(index == wanted))
        .take(len(wanted))
        .map(lambda index, example: (index, fit_image(example[0], contract), example[1]))
    )
    for index, image, label in examples.as_numpy_iterator():
        yield int(index), image, source.labels[int(label)]


def _picture(image: np.ndarray) -> dict[str, Any]:
    """A data URL: PNG for tiny images, JPEG for photographs."""
    from PIL import Image

    tiny = max(image.shape[:2]) <= TINY
    pixels = image[..., 0] if image.shape[-1] < 3 else image[..., :3]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if tiny else "JPEG", quality=90)
    data = base64.b64encode(file.getvalue()).decode()
    return {"url": f"data:image/{'png' if tiny else 'jpeg'};base64,{data}", "tiny": tiny}
