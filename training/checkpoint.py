"""Exact resume: everything that a run is, in one file that is whole or not there.

A checkpoint is a safetensors file (https://github.com/huggingface/safetensors: numbers and text,
nothing that could run). Its metadata hold a header in JSON and the SHA-256 of header and arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_resnet.files import atomic_write

FORMAT = 1
KEPT = 2
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: all of its state that no variable holds.

    Attributes:
        epoch: Whole epochs done.
        step: Steps done of the epoch under way; all of them where only validation is left.
        rows: A row of the log for each epoch done.
        timings: A row of wall-clock figures for each epoch done.
        best_epoch: The epoch, from 1, whose model is in ``best.keras``; 0 before there is one.
        seconds: Time spent on the epoch under way.
        waited: Part of it spent waiting for data.
    """

    epoch: int = 0
    step: int = 0
    rows: tuple[dict[str, float], ...] = ()
    timings: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        progress: How far the run had come.
        facts: What must hold for the run to go on: the data, the versions.
        arrays: Every variable's value, by ``<group>/<number>/<name>``.
    """

    progress: Progress
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Damaged(ValueError):
    """A checkpoint file that is torn, corrupted or of another format."""


def write_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Writes ``step-<step>.safetensors``, and then removes all but the last two.

    Args:
        folder: Where to; it must be there.
        step: Steps done since the run began: its name, so that names sort by time.
        checkpoint: What to write.

    Raises:
        OSError: It could not be written; what was there is untouched.
    """
    header = _header(checkpoint)
    metadata = {"header": header, "sha256": _digest(header, checkpoint.arrays)}
    path = folder / f"step-{step:09d}{SUFFIX}"
    with atomic_write(path) as beside:
        beside.write_bytes(safetensors.numpy.save(checkpoint.arrays, metadata))
    for old in _files(folder)[:-KEPT]:
        old.unlink()
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks one file.

    Raises:
        Damaged: It is not what was written.
        OSError: It cannot be read.
    """
    path.stat()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise Damaged(f"{path} is damaged: {error}") from None
    if _digest(metadata.get("header", ""), arrays) != metadata.get("sha256"):
        raise Damaged(f"{path} is damaged: its checksum does not match")
    header = json.loads(metadata["header"])
    if header.pop("format") != FORMAT:
        raise Damaged(f"{path} was written by another version of keras-resnet")
    progress = header["progress"]
    progress |= {key: tuple(progress[key]) for key in ("rows", "timings")}
    return Checkpoint(Progress(**progress), header["facts"], arrays)


def latest_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, or ``None`` where there is none at all.

    A damaged one is set aside under another name, and said.

    Raises:
        ValueError: There are some, and all are damaged.
    """
    files = _files(folder)
    damaged: list[Path] = []
    for path in reversed(files):
        try:
            checkpoint = read_checkpoint(path)
        except Damaged as error:
            say(f"{error}. Looking at the one before it")
            damaged.append(path)
            continue
        for bad in damaged:
            bad.rename(bad.with_suffix(".damaged"))
        return checkpoint
    if files:
        raise ValueError(
            f"Every checkpoint in {folder} is damaged, and nothing was changed. Delete "
            f"{folder.parent} to begin again, or give another folder: --out FOLDER"
        )
    return None


Variables = Mapping[str, Iterable[Any]]


def values_of(groups: Variables) -> dict[str, np.ndarray]:
    """A copy of every variable's value, by ``<group>/<number>/<name>``."""
    return {
        f"{group}/{number:05d}/{_leaf(variable)}": np.array(keras.ops.convert_to_numpy(variable))
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }


def assign(groups: Variables, arrays: dict[str, np.ndarray]) -> None:
    """Gives every variable the value that ``values_of`` took.

    Variables are matched by group and number: Keras counts some of their names through the
    process, so that a second model in it has others.

    Raises:
        ValueError: They are not the same variables.
    """
    values = {name.rpartition("/")[0]: array for name, array in arrays.items()}
    wanted = {
        f"{group}/{number:05d}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }
    for key in wanted.keys() | values.keys():
        here, there = wanted.get(key), values.get(key)
        if here is None or there is None or tuple(here.shape) != there.shape:
            raise ValueError(
                f"The checkpoint was written by another version: {key} is "
                f"{None if there is None else there.shape} in it and "
                f"{None if here is None else tuple(here.shape)} here. Install the version that "
                "events.jsonl names, or begin again in another folder: --out FOLDER"
            )
    for key, variable in wanted.items():
        variable.assign(values[key])


def not_finite(arrays: dict[str, np.ndarray]) -> str | None:
    """The name of an array with a NaN or an infinity in it, if there is one."""
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            return name
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def _leaf(variable: Any) -> str:
    return variable.name.rpartition("/")[2]


def _header(checkpoint: Checkpoint) -> str:
    tree = {
        "format": FORMAT,
        "progress": vars(checkpoint.progress),
        "facts": checkpoint.facts,
    }
    return json.dumps(tree)


def _digest(header: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
