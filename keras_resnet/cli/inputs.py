"""What a subcommand is about: the run, its model, its images and its TFLite files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_resnet.classifier import ImageClassifier
    from training.data.sources import Source
    from training.run import Run


def locate(path: Path | None) -> Run:
    """The run that a run folder or a .keras file stands for; the newest one by default."""
    from training.run import open_run

    return open_run(path)


def open_model(
    path: Path | None, data: str | None = None, data_dir: Path | None = None
) -> tuple[Run, Source, ImageClassifier]:
    from keras_resnet.saving import load_model

    run = locate(path)
    return open_images(run, load_model(run.model_file), data, data_dir)


def open_images(
    run: Run, model: ImageClassifier, data: str | None, data_dir: Path | None
) -> tuple[Run, Source, ImageClassifier]:
    """The run's own images or others, once it is certain that they are of the same classes."""
    from training.config import DataConfig
    from training.data.sources import open_source

    experiment = run.experiment
    if experiment is None and data is None:
        raise ValueError(f"{run.model_file} tells of no images. Name them: --data folder:PATH")
    config = experiment.data if experiment else DataConfig()
    if data is not None:
        config = dataclasses.replace(config, source=data)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(data_dir))
    source = open_source(config, experiment.runtime.seed if experiment else 0)
    contract = model.contract
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


def tflite_files(run: Run) -> dict[str, Path]:
    from tflite.kinds import KINDS

    files = run.tflite_files()
    if not files:
        raise ValueError(f"There are no files in {run.tflite}. Make them: keras-resnet convert")
    return {kind: files[kind] for kind in KINDS if kind in files}


def test_images(
    path: Path | None,
    count: int,
    kinds: tuple[str, ...],
    data: str | None = None,
    data_dir: Path | None = None,
) -> tuple[Iterator[Any], dict[str, Path]]:
    """Test images, fitted to the model, and the files of the run."""
    from training.data.pipeline import images

    if count < 1:
        raise ValueError(f"--images must be at least 1. Received: {count}")
    run, source, model = open_model(path, data, data_dir)
    files = tflite_files(run)
    if missing := [kind for kind in kinds if kind not in files]:
        raise ValueError(
            f"There is no {missing[0]} file in {run.tflite}. Kinds: {', '.join(files)}"
        )
    return (image for image, _ in images(source.test, model.contract, count)), files


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
