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
from training.data.balance import baseline
from training.evaluate import label_names
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
MOST_COLLAPSED = 100  # classes: above, the others are in evaluation.json only
TOP = 5
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
        "file": lambda path: "/".join(Path(path).parts[-2:]),
        "figure": lambda value: "–" if value is None else f"{value:.3f}",
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


# Of a class: not in the files of earlier versions.
OPTIONAL = dict.fromkeys(("training_images", "f1", "average_precision", "threshold"))
HEADLINES = {"single": "Top-1 accuracy", "binary": "Accuracy", "multi": "All labels right"}


def _evaluation(records: Records, experiment: Experiment | None) -> dict[str, Any] | None:
    evaluation, contract = records.read("evaluation.json"), records.read("contract.json")
    if not evaluation:
        return None
    classes = [OPTIONAL | row for row in evaluation["classes"]]
    labels = [c["label"] for c in classes]
    ranked = sorted(classes, key=_recall_then_images)
    others = ranked[MOST_LISTED:]
    contract = contract and Contract.from_dict(contract)
    pictures, note = _pictures(evaluation, experiment, contract)
    task, confusion = evaluation.get("task", "single"), evaluation["confusion"]
    return {
        "task": task,
        "headline": HEADLINES[task],
        "top1": evaluation["top1"],
        "baseline": None if task == "multi" else _baseline(classes),
        "top5": evaluation["top5"] if len(labels) > TOP else None,
        "without_duplicates": evaluation.get("without_duplicates"),
        "cross_fitted": evaluation.get("cross_fitted", False),
        "binary": evaluation.get("binary"),
        "multi": evaluation.get("multi"),
        "curves": _threshold_curves(evaluation),
        "matrix": _confusion_chart(np.array(confusion), labels) if confusion else None,
        "class_count": len(labels),
        "training_count": _total([c["training_images"] for c in classes]),
        "named": len(labels) <= MOST_NAMED,
        "broad": BESIDE < len(labels) <= MOST_NAMED,
        "confused": _most_confused(evaluation, labels),
        "hardest": ranked[:MOST_LISTED],
        "others": others if len(labels) <= MOST_COLLAPSED else [],
        "unlisted": len(others) if len(labels) > MOST_COLLAPSED else 0,
        "predictions": [
            {"file": None, **prediction, "picture": picture}
            for prediction, picture in zip(evaluation["hardest"], pictures)
        ],
        "note": note,
    }


def _baseline(classes: list[dict[str, Any]]) -> str | None:
    trained = [row["training_images"] for row in classes]
    return baseline(
        [row["label"] for row in classes],
        None if None in trained else np.array(trained),
        np.array([row["recall"]["images"] for row in classes]),
    )


def _recall_then_images(row: dict[str, Any]) -> tuple[float, int]:
    """The lowest recall first; of equal ones that of most images; without images last."""
    images = row["recall"]["images"]
    return (row["recall"]["value"] if images else 2.0, -images)


def _total(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _most_confused(
    evaluation: dict[str, Any], labels: list[str], most: int = 8
) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often: true, predicted, images, share."""
    mistakes = evaluation.get("mistakes")
    if mistakes is None:
        mistakes = _mistakes(np.array(evaluation["confusion"]))
    return [
        {
            "label": labels[true],
            "predicted": labels[predicted],
            "images": images,
            "of": evaluation["classes"][true]["recall"]["images"],
        }
        for true, predicted, images in sorted(mistakes, key=lambda row: -row[2])[:most]
    ]


def _mistakes(confusion: np.ndarray) -> list[tuple[int, int, int]]:
    """True and predicted class, and images, from a file of an earlier version."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=int))
    return [(int(i), int(j), int(wrong[i, j])) for i, j in zip(*np.nonzero(wrong))]


def _threshold_curves(evaluation: dict[str, Any]) -> dict[str, Markup]:
    """ROC and precision-recall curve of a binary task, with the model's threshold."""
    binary = evaluation.get("binary")
    if not binary or not binary["roc"] or not binary["precision_recall"]:
        return {}
    negative, positive = evaluation["classes"]
    found, precise = _value(positive["recall"]), _value(positive["precision"])
    axes = ("share of false positives", "share of true positives")
    at = (1 - _value(negative["recall"]), found)
    charts = {"ROC curve": _square_chart("ROC curve", axes, binary["roc"], at, True)}
    axes, at = ("recall", "precision"), (found, precise)
    name = "Precision-recall curve"
    return charts | {name: _square_chart(name, axes, binary["precision_recall"], at, False)}


def _value(estimate: dict[str, Any]) -> float:
    """NaN, which is not drawn, without images."""
    return estimate["value"] if estimate["images"] else np.nan


def _square_chart(
    title: str,
    names: tuple[str, str],
    curve: list[tuple[float, float]],
    at: tuple[float, float],
    diagonal: bool,
) -> Markup:
    """A curve between shares, in percent, with the point ``at`` of the threshold."""
    figure, axes = new_figure(3, 3)
    if diagonal:  # of a model that guesses
        axes.plot((0, 100), (0, 100), color=LINE, linewidth=1, linestyle="--")
    x, y = 100 * np.array(curve).T
    axes.plot(x, y, color=BLUE)
    axes.plot(100 * at[0], 100 * at[1], "o", color=ORANGE, markersize=6, clip_on=False)
    axes.set(xlim=(0, 100), ylim=(0, 101))
    axes.set_xlabel(f"{names[0]}, %", color=MUTED)
    axes.set_ylabel(f"{names[1]}, %", color=MUTED)
    axes.grid(color=LINE, linewidth=0.8)
    return to_svg(figure, title)


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
    if source.test.count != evaluation["top1"]["images"]:
        raise ValueError(f"{experiment.data.source} no longer holds the evaluated images")
    indices = tf.data.Dataset.from_tensor_slices(tf.constant(list(expected), "int64"))
    examples = indices.map(source.test.at).map(lambda x, y: (fit_image(x, contract), y))
    found = dict(zip(expected, examples.as_numpy_iterator()))
    labels = {index: _label(label, source.labels) for index, (_, label) in found.items()}
    if labels != expected:
        raise ValueError(f"{experiment.data.source} no longer holds the evaluated images")
    return {index: image for index, (image, _) in found.items()}


def _label(label: Any, names: tuple[str, ...]) -> str:
    """The name of a class, or the names of several labels."""
    return label_names(label, names) if np.ndim(label) else names[int(label)]


def _picture(image: np.ndarray) -> dict[str, Any]:
    """A data URL: PNG for tiny images, JPEG for photographs."""
    from PIL import Image

    tiny = max(image.shape[:2]) <= TINY
    pixels = image[..., 0] if image.shape[-1] < 3 else image[..., :3]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if tiny else "JPEG", quality=90)
    data = base64.b64encode(file.getvalue()).decode()
    return {"url": f"data:image/{'png' if tiny else 'jpeg'};base64,{data}", "tiny": tiny}
