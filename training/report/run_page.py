"""The report of a run: a single HTML file that needs neither network nor script."""

from __future__ import annotations

import base64
import datetime
import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from keras_resnet.console import file_size, say
from keras_resnet.contract import Contract
from keras_resnet.text import printable, shorten
from training.config import Experiment, to_dict
from training.report.charts import (
    BLUE,
    INK,
    LINE,
    MUTED,
    ORANGE,
    duration,
    milliseconds,
    new_figure,
    percent,
    points,
    significant,
    thread_word,
    to_svg,
)
from training.report.records import Records, run_argument
from training.report.tflite_section import tflite
from training.run import Run

# Cells of the confusion matrix are translucent, for both themes.
RIGHT_CELL, WRONG_CELL = (37, 99, 235), (214, 93, 14)

BESIDE = 12  # classes: above, the matrix of named classes takes the full width
MOST_NUMBERED = 20  # classes: above, the matrix has no counts
MOST_NAMED = 40  # classes: above, it has no names
MOST_LISTED = 20  # classes: above, all but the hardest are collapsed
CHART_NAME = 18  # letters of a class name in a chart
TABLE_NAME = 40  # letters of a name in a table
EMPTY = "(empty)"  # a name without letters
TINY = 96  # pixels: images up to here are shown with their pixels visible


def write_report(run: Run, say: Callable[[str], None] = say) -> Path:
    """Writes ``report.html``: training, evaluation, and the TFLite files with their evidence.

    A part whose file is missing or damaged is left out, and the page names the command that
    writes the file.

    Args:
        run: A run folder; it may be empty.
        say: Called with a line for each damaged file.

    Returns:
        The path of the page, written whole or not at all.

    Raises:
        ValueError: ``experiment.yaml`` is damaged.
    """
    records = Records(run)
    page = environment().get_template("report.html.j2").render(_contents(records))
    for line in records.damaged:
        say(f"left out of the report: {line}")
    return run.write_text(run.report_file.name, page)


def environment() -> jinja2.Environment:
    """The templates of the run's and the search's report, and their filters."""
    # Class names and paths are foreign text: all of it is escaped, and made printable.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "bytes": file_size,
        "threads": thread_word,
        "duration": duration,
        "milliseconds": milliseconds,
        "significant": significant,
        "name": lambda text: shorten(text, TABLE_NAME) or EMPTY,
    }
    return environment


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _contents(records: Records) -> dict[str, Any]:
    run = records.run
    experiment = run.experiment
    contents = {
        "name": run.folder.resolve().name,
        "written": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "experiment": experiment and to_dict(experiment),
        "experiment_yaml": experiment and run.experiment_file.read_text("utf-8").splitlines(),
        "experiment_file": shlex.quote(str(run.experiment_file)),
        "run": run_argument(run),
        "training": _training(records.read("metrics.json")),
        "evaluation": _evaluation(records, experiment),
        "tflite": tflite(records),
        "environment": _environment(records.read("run.json")),
    }
    return contents | {"damaged": records.damaged}


def _environment(recorded: dict[str, Any] | None) -> dict[str, str] | None:
    """Versions and hardware that trained the model, by name."""
    facts = (recorded or {}).get("environment")
    if not facts:
        return None
    versions = facts.get("versions", {})
    lines = {
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Processor": facts.get("cpu"),
        "GPUs": ", ".join(map(str, facts.get("gpus") or [])) or "none",
        "System": facts.get("platform"),
        "Code": (facts.get("git") or {}).get("commit"),
    }
    return {name: str(line) for name, line in lines.items() if line}


# Training


def _training(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    if not metrics or not metrics["history"]:
        return None
    history = metrics["history"]
    return {
        "epochs": metrics["epochs"],
        "seconds": sum(row["seconds"] for row in history),
        "charts": {panel[0]: _curves(history, *panel) for panel in CURVES},
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
    figure, axes = new_figure(3, 2)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 5 else ""
    for key, color in ((train, BLUE), (test, ORANGE)):
        values = np.array([row.get(key, np.nan) for row in history] if key else [], "float64")
        if np.isfinite(values).any():
            axes.plot(epochs, values * factor, color=color, marker=marker, markersize=4)
    axes.set_xlabel("epoch", color=MUTED)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))
    if len(epochs) < 8:  # a tick for each
        axes.set_xticks(epochs)
    axes.margins(x=0.02)
    return to_svg(figure, f"{title} by epoch")


# Evaluation


def _evaluation(records: Records, experiment: Experiment | None) -> dict[str, Any] | None:
    evaluation, contract = records.read("evaluation.json"), records.read("contract.json")
    if not evaluation:
        return None
    labels = [c["label"] for c in evaluation["classes"]]
    confusion = np.array(evaluation["confusion"])
    hardest = sorted(evaluation["classes"], key=_recall)
    contract = contract and Contract.from_dict(contract)
    pictures, note = _pictures(evaluation, experiment, contract)
    return {
        "top1": evaluation["top1"],
        "top5": evaluation["top5"] if len(labels) > 10 else None,
        "matrix": _confusion_chart(confusion, labels),
        "class_count": len(labels),
        "named": len(labels) <= MOST_NAMED,
        "broad": BESIDE < len(labels) <= MOST_NAMED,
        "confused": _most_confused(confusion, labels),
        "hardest": hardest[:MOST_LISTED] if len(labels) > MOST_LISTED else hardest,
        "others": hardest[MOST_LISTED:],
        "predictions": [
            {**prediction, "picture": picture}
            for prediction, picture in zip(evaluation["hardest"], pictures)
        ],
        "note": note,
    }


def _recall(row: dict[str, Any]) -> float:
    return row["recall"]["value"] if row["recall"]["images"] else 2.0


def _most_confused(confusion: np.ndarray, labels: list[str], most: int = 8) -> list[dict[str, Any]]:
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

    cell = 0.38 if count <= MOST_NUMBERED else 0.24
    side = max(2.4, cell * count) if count <= MOST_NAMED else 4.5
    figure, axes = new_figure(side, side)
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
    return to_svg(figure, "Confusion matrix: true classes by row, predicted classes by column")


def _name_ticks(axes: Axes, labels: list[str]) -> None:
    if len(labels) > MOST_NAMED:
        return  # matplotlib numbers some of them
    names = [shorten(label, CHART_NAME) or EMPTY for label in labels]
    upright = max(map(len, names)) > 3
    positions = range(len(names))
    axes.set_yticks(positions, names, parse_math=False)
    axes.set_xticks(positions, names, parse_math=False, rotation=90 if upright else 0)


# The pictures of the predictions


def _pictures(
    evaluation: dict[str, Any], experiment: Experiment | None, contract: Contract | None
) -> tuple[list[dict[str, Any] | None], str]:
    """The image of each prediction as the model saw it; or none, and the reason."""
    import tensorflow as tf

    hardest = evaluation["hardest"]
    if not hardest:
        return [], ""
    if not experiment:
        return [None] * len(hardest), "there is no experiment.yaml that names the images"
    try:
        found = _fetch(evaluation, experiment, contract)
    except (ValueError, OSError, tf.errors.OpError) as error:
        return [None] * len(hardest), " ".join(str(error).split())[:300]
    return [_picture(found[prediction["index"]]) for prediction in hardest], ""


def _fetch(
    evaluation: dict[str, Any], experiment: Experiment, contract: Contract | None
) -> dict[int, np.ndarray]:
    """Fitted pixels of the test images with the hardest predictions, by index."""
    import tensorflow as tf

    from training.data.decode import fit_image
    from training.data.sources import open_source
    from training.task import make_contract

    source = open_source(experiment.data, experiment.runtime.seed, task=experiment.task)
    contract = contract or make_contract(experiment, source, None)
    if contract.height is None or contract.width is None:
        raise ValueError("the model takes images of any size")
    expected = {row["index"]: row["label"] for row in evaluation["hardest"]}
    wanted = tf.constant(list(expected), "int64")
    examples = (
        source.test.examples.enumerate()
        .filter(lambda index, _: tf.reduce_any(index == wanted))
        .take(len(expected))
        .map(lambda index, example: (index, fit_image(example[0], contract), example[1]))
    )
    found = {int(i): (image, int(label)) for i, image, label in examples.as_numpy_iterator()}
    labels = {index: source.labels[label] for index, (_, label) in found.items()}
    if labels != expected or source.test.count != evaluation["top1"]["images"]:
        raise ValueError(f"{experiment.data.source} no longer holds the evaluated images")
    return {index: image for index, (image, _) in found.items()}


def _picture(image: np.ndarray) -> dict[str, Any]:
    """A data URL: PNG for tiny images, JPEG for photographs."""
    from PIL import Image

    tiny = max(image.shape[:2]) <= TINY
    pixels = image[..., 0] if image.shape[-1] < 3 else image[..., :3]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if tiny else "JPEG", quality=90)
    data = base64.b64encode(file.getvalue()).decode()
    return {"url": f"data:image/{'png' if tiny else 'jpeg'};base64,{data}", "tiny": tiny}
