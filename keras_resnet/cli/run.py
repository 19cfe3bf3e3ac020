"""Subcommands that span the wings: ``predict``, ``report`` and ``quickstart``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from keras_resnet.cli.app import command
from keras_resnet.cli.arguments import CALIBRATION, RunArgument
from keras_resnet.cli.inputs import locate, open_model
from keras_resnet.cli.tflite import (
    LAYER_IMAGES,
    run_benchmark,
    run_conversion,
    run_inspection,
    run_layers,
    run_verification,
)
from keras_resnet.cli.training import run_evaluation, run_export, run_training
from keras_resnet.console import file_size, show_json, show_table

QUICKSTART_RECIPE = "digits-resnet8"


@command
def predict(
    model: Positional[Annotated[Path, arg(metavar="MODEL")]],
    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE ...")]],
    /,
    top: Annotated[int, arg(metavar="N")] = 5,
    json: bool = False,
) -> None:
    """Name what is in pictures.

    Args:
        model: A .keras or .tflite file, a SavedModel folder, or a run folder.
        images: Picture files.
        top: How many names for each picture.
        json: Print JSON.
    """
    answers = _predict(model, images, top)
    if json:
        show_json(
            [
                {"image": str(path), "top": [{"label": n, "probability": p} for n, p in answer]}
                for path, answer in zip(images, answers)
            ]
        )
        return
    for path, answer in zip(images, answers):
        print(f"{path}: " + ", ".join(f"{label} {100 * p:.2f} %" for label, p in answer))


@command
def report(run: Positional[RunArgument] = None, /) -> None:
    """Write one HTML file with all that is known about a run.

    Args:
        run: A run folder; the newest run by default.
    """
    from training.report.run_page import write_report

    opened = locate(run)
    run_inspection(opened)
    print(write_report(opened))


@command
def quickstart(
    *, out: Annotated[Path, arg(metavar="DIR")] = Path("quickstart"), json: bool = False
) -> None:
    """Do everything once, on handwritten digits: train, export, convert, verify, time, report.

    Args:
        out: The run folder.
        json: Print one JSON object: accuracy, seconds, and a record for each TFLite kind.
    """
    from training.experiment_file import load_experiment
    from training.report.run_page import write_report

    began = time.monotonic()
    run = run_training(load_experiment(QUICKSTART_RECIPE), out)
    opened = open_model(run.folder)
    evaluation = run_evaluation(*opened)
    run_export(run)
    run_conversion(run, (), CALIBRATION)
    verification = run_verification(*opened)
    latencies = {
        row["kind"]: row["median_ms"]
        for row in run_benchmark(run, (1, 2), 50, 1)
        if row["threads"] == 1
    }
    run_inspection(run)
    run_layers(run, "int8", LAYER_IMAGES)
    page = write_report(run)
    kinds = {
        row["kind"]: {
            "top1": row["file_top1"] / 100,
            "agreement": row["agreement"] / 100,
            "bytes": row["bytes"],
            "latency_ms": round(latencies[row["kind"]], 3),
        }
        for row in verification["kinds"]
    }
    seconds = round(time.monotonic() - began, 1)
    result = {"accuracy": evaluation.top1.value, "seconds": seconds, "kinds": kinds}
    if json:
        show_json(result | {"report": str(page)})
        return
    show_table(
        ("kind", "size", "top-1", "agreement", "one thread"),
        [
            (
                kind,
                file_size(row["bytes"]),
                f"{row['top1']:.2%}",
                f"{row['agreement']:.2%}",
                f"{row['latency_ms']:.2f} ms",
            )
            for kind, row in kinds.items()
        ],
        title=f"Keras: {evaluation.top1}",
    )
    print(page)


def _predict(model: Path, images: tuple[Path, ...], top: int) -> list[list[tuple[str, float]]]:
    if top < 1:
        raise ValueError(f"--top must be at least 1. Received: {top}")
    if not images:
        raise ValueError("There are no images to predict. Name at least one picture file")
    if model.suffix == ".tflite":
        from tflite.classifier import Classifier

        return Classifier(model).predict(images, top)

    import numpy as np

    from keras_resnet.preprocessing import decode_predictions, load_image
    from training.predict import keras_predictor, saved_model_predictor

    if (model / "saved_model.pb").is_file():
        contract, predictor = saved_model_predictor(model)
    else:
        contract, predictor = keras_predictor(locate(model).model_file)
    pixels = np.stack([load_image(path, contract) for path in images])
    return decode_predictions(predictor(pixels), contract, top)
