"""Subcommands that need both wings: ``predict``, ``report`` and ``quickstart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from keras_resnet.cli import pipeline, show
from keras_resnet.cli.app import command
from keras_resnet.cli.arguments import JsonOption, RunArgument, at_least
from keras_resnet.cli.inputs import locate
from keras_resnet.console import show as show_line
from keras_resnet.console import show_json, show_path


@command
def predict(
    model: Positional[Annotated[Path, arg(metavar="MODEL")]],
    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE ...")]],
    /,
    top: Annotated[int, arg(metavar="N")] = 5,
    json: JsonOption = False,
) -> None:
    """Classify images.

    Args:
        model: A .keras or .tflite file, a SavedModel folder, or a run folder.
        images: Image files.
        top: Number of classes to print for each image.
    """
    at_least("--top", top, 1)
    if not images:
        raise ValueError("There are no images to predict. Name at least one image file")
    predictions = pipeline.run_prediction(model, images, top)
    if json:
        show_json(
            [
                {"image": str(path), "top": [{"label": n, "probability": p} for n, p in prediction]}
                for path, prediction in zip(images, predictions)
            ]
        )
        return
    for path, prediction in zip(images, predictions):
        show_line(f"{path}: " + ", ".join(f"{label} {100 * p:.2f} %" for label, p in prediction))


@command
def report(run: Positional[RunArgument] = None, /) -> None:
    """Write the HTML report of a run."""
    show_path(pipeline.run_report(locate(run)))


@command
def quickstart(
    *,
    out: Annotated[Path, arg(metavar="DIR")] = Path("quickstart"),
    json: Annotated[
        bool, arg(help="Print JSON: accuracy, seconds, and a record for each TFLite kind.")
    ] = False,
) -> None:
    """Run every step on handwritten digits: train, export, convert, verify, time, report.

    Args:
        out: The run folder.
    """
    evaluation, result = pipeline.run_quickstart(out)
    if json:
        show_json(result)
        return
    show.show_quickstart(evaluation, result["kinds"])
    show_path(Path(result["report"]))
