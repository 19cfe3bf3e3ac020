"""Paths in an experiment, absolute, so that a run folder is usable from any directory."""

from __future__ import annotations

import dataclasses
import os

from keras_resnet.weights.load import SUFFIXES
from training.config import DataConfig, Experiment

# Kinds of sources whose specs name files.
PATH_KINDS = ("folder", "csv", "tfrecord")


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The experiment with the paths of its images and weights made absolute.

    ``~`` is the home directory, symbolic links stay. Addresses (``gs://…``, ``hf://…``), names of
    datasets and tags of weights are unchanged.
    """
    data, weights = experiment.data, experiment.model.weights
    kind, colon, rest = data.source.partition(":")
    source = f"{kind}:{_absolute(rest)}" if colon and kind in PATH_KINDS else data.source
    data = dataclasses.replace(
        data, source=source, test=_absolute(data.test), data_dir=_absolute(data.data_dir)
    )
    if _is_file_name(weights):
        weights = _absolute(weights)
    model = dataclasses.replace(experiment.model, weights=weights)
    return dataclasses.replace(experiment, data=data, model=model)


def relative_path(data: DataConfig) -> str | None:
    """The first relative path that names images, as in run folders of earlier versions."""
    kind, _, rest = data.source.partition(":")
    named = (rest if kind in PATH_KINDS else "", data.test, data.data_dir)
    return next((path for path in named if path and not _is_absolute(path)), None)


def _absolute(path: str) -> str:
    if not path or "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))


def _is_absolute(path: str) -> bool:
    return "://" in path or os.path.isabs(os.path.expanduser(path))


def _is_file_name(weights: str) -> bool:
    """As ``weights.load.locate`` decides, which is not asked: the file may be gone by now."""
    return weights.endswith(SUFFIXES) or bool({"/", os.sep} & set(weights))
