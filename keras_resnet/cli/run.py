"""Subcommands that need both wings: ``predict``, ``report`` and ``quickstart``."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from keras_resnet.cli import pipeline, show
from keras_resnet.cli.app import Failed, command
from keras_resnet.cli.arguments import JsonOption, RunArgument, at_least, check_output
from keras_resnet.cli.inputs import locate
from keras_resnet.cli.prediction import Prediction, read_list
from keras_resnet.console import show as show_line
from keras_resnet.console import show_json, show_path


@command
def predict(
    model: Positional[Annotated[Path, arg(metavar="MODEL")]],
    pictures: Positional[Annotated[tuple[Path, ...], arg(metavar="PICTURE ...")]],
    /,
    list: Annotated[Path | None, arg(metavar="FILE|-")] = None,
    out: Annotated[Path | None, arg(metavar="FILE.csv|jsonl")] = None,
    top: Annotated[int, arg(metavar="N")] = 5,
    json: JsonOption = False,
) -> None:
    """Classify pictures; exits with 1 if one of them cannot be read.

    A picture that cannot be read is named on stderr, and the others are predicted. For the tasks
    binary and multi the labels that reach their thresholds come first.

    Args:
        model: A .keras or .tflite file, a SavedModel folder, or a run folder.
        pictures: Picture files, and folders, in which hidden files and files that are no pictures
            are passed over.
        list: A file of more paths, one a line or separated by NUL bytes; - reads them from stdin,
            as from find.
        out: Write the results to this .csv or .jsonl file instead, with a column or key error.
        top: Number of classes to print for each picture.
    """
    at_least("--top", top, 1)
    check_output("--out", out, (".csv", ".jsonl"))
    if out and json:
        raise ValueError("--json prints, and --out writes. Give one of them")
    if not pictures and list is None:
        raise ValueError("There are no images to predict. Name files, folders or a --list")
    names = (*pictures, *(read_list(list) if list else ()))
    results: builtins.list[Prediction] = []
    summary = pipeline.run_prediction(model, names, top, out, results.append if json else _show)
    if json:
        show_json([result.to_dict() for result in results])
    elif out:
        show_path(out)
    if summary.failed:
        total = summary.images + summary.failed
        raise Failed(f"{summary.failed:,} of {total:,} pictures have no prediction")
    if not summary.images:
        raise Failed("there are no pictures in what was named")


def _show(result: Prediction) -> None:
    if not result.error:  # which is on stderr
        show_line(str(result))
        sys.stdout.flush()


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
