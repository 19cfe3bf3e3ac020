"""The inputs of a subcommand: the run, its model, its images and its TFLite files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.arguments import at_least
from keras_resnet.cli.backend import start_keras

if TYPE_CHECKING:
    from keras_resnet.classifier import ImageClassifier
    from training.data.sources import Source
    from training.run import Run


def locate(path: Path | None) -> Run:
    """The run of a run folder or of a ``.keras`` file; the newest one by default.

    Raises:
        ValueError: There is none.
    """
    from training.run import open_run

    return open_run(path)


def open_model(
    path: Path | None, data: str | None = None, data_dir: Path | None = None
) -> tuple[Run, Source, ImageClassifier]:
    """The run, its images or others, and its model."""
    run = locate(path)
    check_images_known(run, data)
    start_keras()
    from keras_resnet.saving import load_model

    return open_images(run, load_model(run.model_file), data, data_dir)


def open_images(
    run: Run, model: ImageClassifier, data: str | None, data_dir: Path | None
) -> tuple[Run, Source, ImageClassifier]:
    """The run's own images or others.

    Raises:
        ValueError: They have other classes or channels than the model.
    """
    check_images_known(run, data)
    from training.config import DataConfig
    from training.data.sources import open_source

    experiment = run.experiment
    config = experiment.data if experiment else DataConfig()
    if data is not None:
        config = dataclasses.replace(config, source=data, test="")
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(data_dir))
    contract = model.contract
    seed = experiment.runtime.seed if experiment else 0
    source = open_source(config, seed, task=contract.task)
    if source.channels != contract.channels:
        raise ValueError(
            f"{config.source} has {source.channels} channels, the model takes {contract.channels}"
        )
    if source.labels != contract.labels:
        raise ValueError(
            f"{config.source} has the classes {_some(source.labels)}; the model knows "
            f"{_some(contract.labels)}. Give images of the same classes"
        )
    return run, source, model


def tflite_files(run: Run, kinds: tuple[str, ...] = ()) -> dict[str, Path]:
    """The TFLite files of a run by kind, in the order of the table of kinds.

    Raises:
        ValueError: There are none, or none of one of ``kinds``.
    """
    from tflite.kinds import KINDS

    files = run.tflite_files()
    if not files:
        raise ValueError(f"There are no files in {run.tflite}. Make them: keras-resnet convert")
    if missing := [kind for kind in kinds if kind not in files]:
        raise ValueError(
            f"There is no {missing[0]} file in {run.tflite}. Kinds: {', '.join(files)}"
        )
    return {kind: files[kind] for kind in KINDS if kind in files}


def test_images(
    run: Run, count: int, data: str | None = None, data_dir: Path | None = None
) -> Iterator[Any]:
    """That many test images, spread over the split and fitted to the model."""
    at_least("--images", count, 1)
    _, source, model = open_model(run.model_file, data, data_dir)
    from training.data.pipeline import images

    return (image for image, _ in images(source.test, model.contract, count))


def check_images_known(run: Run, data: str | None) -> None:
    """Raises ValueError if neither the run nor ``--data`` names images."""
    if data is None and run.experiment is None:
        raise ValueError(
            f"{run.model_file} has no experiment.yaml that names images. Name them: "
            "--data folder:PATH"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
