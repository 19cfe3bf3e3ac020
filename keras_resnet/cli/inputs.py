"""The inputs of a subcommand: the run, its model, its images and its TFLite files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.arguments import at_least
from keras_resnet.cli.backend import start_keras
from keras_resnet.console import say

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
    path: Path | None, data: str | None = None, data_dir: Path | None = None, labelled: bool = True
) -> tuple[Run, Source, ImageClassifier]:
    """The run, its images or others, and its model."""
    run = locate(path)
    check_images_known(run, data)
    start_keras()
    from keras_resnet.saving import load_model

    return open_images(run, load_model(run.model_file), data, data_dir, labelled)


def open_images(
    run: Run,
    model: ImageClassifier,
    data: str | None,
    data_dir: Path | None,
    labelled: bool = True,
) -> tuple[Run, Source, ImageClassifier]:
    """The run's own images or others, with the model's class numbers.

    Args:
        run: The run.
        model: Its model.
        data: Spec of other images.
        data_dir: Data folder of tensorflow-datasets.
        labelled: Whether the labels are needed; otherwise images of other classes are used too.

    Raises:
        ValueError: They have other classes or channels than the model.
    """
    check_images_known(run, data)
    from training.config import DataConfig
    from training.data.sources import open_source
    from training.paths import relative_path

    experiment = run.experiment
    config = experiment.data if experiment else DataConfig()
    if data is not None:
        config = dataclasses.replace(config, source=data, test="")
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(data_dir))
    contract = model.contract
    seed = experiment.runtime.seed if experiment else 0
    try:
        source = open_source(config, seed, task=contract.task)
    except ValueError as error:
        path = relative_path(config) if data is None else None
        if path is None:
            raise
        raise ValueError(
            f"{error}. {run.experiment_file} names {path} relative to the folder in which the "
            "training was started: run the command there, or name the images: --data folder:PATH"
        ) from None
    if source.channels != contract.channels:
        raise ValueError(
            f"{config.source} has {source.channels} channels, the model takes {contract.channels}"
        )
    try:
        return run, _with_model_labels(source, model, config.source), model
    except ValueError as error:
        if labelled:
            raise
        say(f"{error}. The labels are not needed here: the images are used without them")
        return run, source, model


def _with_model_labels(source: Source, model: ImageClassifier, spec: str) -> Source:
    """The images with the model's class numbers, matched by name, or else by number."""
    from training.data.labels import with_labels_of
    from training.data.split import some

    if labels := model.contract.labels:
        try:
            source, note = with_labels_of(source, labels)
        except ValueError as error:
            raise ValueError(
                f"{spec} has the classes {some(source.labels)}: {error}. Give images of the "
                "model's classes"
            ) from None
        if note:
            say(f"{spec}: {note}")
        return source
    if len(model.output_shape) != 2:
        raise ValueError("The model has no classifier, so that there are no classes to evaluate")
    outputs, count = model.output_shape[-1], len(source.labels)
    if count != (2 if model.contract.task == "binary" else outputs):
        raise ValueError(
            f"{spec} has {count:,} classes ({some(source.labels)}), and the model has {outputs:,} "
            "outputs without names. Give images of as many classes, or name the outputs: "
            "model.contract = model.contract.replace(labels=[...])"
        )
    say(f"the model names no classes; its outputs are matched in order: {some(source.labels)}")
    return source


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
    _, source, model = open_model(run.model_file, data, data_dir, labelled=False)
    from training.data.pipeline import images

    return (image for image, _ in images(source.test, model.contract, count))


def check_images_known(run: Run, data: str | None) -> None:
    """Raises ValueError if neither the run nor ``--data`` names images."""
    if data is None and run.experiment is None:
        raise ValueError(
            f"{run.model_file} has no experiment.yaml that names images. Name them: "
            "--data folder:PATH"
        )
