"""Checkpoints for exact resume: the complete state of a run in one file, written atomically.

A checkpoint is a safetensors file (https://github.com/huggingface/safetensors), which holds no
code. Its metadata hold a header in JSON and the SHA-256 of header and arrays.
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
from training.shapes import array, count, mapping, number, record

FORMAT = 1
KEPT = 2
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: all of its state that is not in variables.

    Attributes:
        epoch: Completed epochs.
        step: Completed steps of the current epoch; all of them if only validation is left.
        rows: One row of the log per completed epoch.
        timings: One row of wall-clock figures per completed epoch.
        best_epoch: The epoch, from 1, whose model is in ``best.keras``; 0 before there is one.
        seconds: Time spent on the current epoch.
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
        facts: The data and environment that it belongs to; see ``check_facts``.
        arrays: Every variable's value, by ``<group>/<number>/<name>``.
    """

    progress: Progress
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def _real(value: Any, where: str) -> None:
    """Any float, NaN included: a validation loss may become infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} must be a number. Received: {value!r:.80}")


def _any(value: Any, where: str) -> None:
    """Compared with the present facts and not computed with."""


ROWS = array(mapping(_real))
HEADER = record(
    {
        "format": count(FORMAT, FORMAT),
        "progress": record(
            {"epoch": count(), "step": count(), "rows": ROWS, "timings": ROWS},
            {"best_epoch": count(), "seconds": number(0), "waited": number(0)},
        ),
        "facts": record({}, {"data": mapping(_any), "machine": mapping(_any)}),
    }
)


class OtherVersion(ValueError):
    """A sound checkpoint file that this version does not read."""


class Damaged(ValueError):
    """A checkpoint file that is torn, corrupted or of another format."""


def write_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Writes ``step-<step>.safetensors``, then removes all but the last two checkpoints.

    Args:
        folder: An existing folder.
        step: Steps since the run began; part of the name, so that names sort by time.
        checkpoint: The state.

    Raises:
        OSError: It could not be written; existing checkpoints are untouched.
    """
    header = _header(checkpoint)
    metadata = {"header": header, "sha256": _digest(header, checkpoint.arrays)}
    path = folder / f"step-{step:09d}{SUFFIX}"
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(checkpoint.arrays, metadata))
    for old in _files(folder)[:-KEPT]:
        old.unlink()
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks one file.

    Raises:
        Damaged: The file is torn or corrupted.
        OtherVersion: Another version wrote it.
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
    try:
        HEADER(header, "")
        progress = header["progress"]
        progress |= {key: tuple(progress[key]) for key in ("rows", "timings")}
        return Checkpoint(Progress(**progress), header["facts"], arrays)
    except (ValueError, TypeError) as error:
        raise OtherVersion(
            f"{path} was written by another version of keras-resnet ({error}). Install the version "
            "that events.jsonl names, or start over in another folder: --out FOLDER"
        ) from None


def latest_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint; ``None`` if there are no checkpoints.

    Args:
        folder: The checkpoints.
        say: Called with each damaged file, which is renamed to ``.damaged``.

    Raises:
        ValueError: All checkpoints are damaged, or another version wrote the newest.
    """
    files = _files(folder)
    damaged: list[Path] = []
    for path in reversed(files):
        try:
            checkpoint = read_checkpoint(path)
        except Damaged as error:
            say(f"{error}. Trying the one before it")
            damaged.append(path)
            continue
        for bad in damaged:
            bad.rename(bad.with_suffix(".damaged"))
        return checkpoint
    if files:
        raise ValueError(
            f"Every checkpoint in {folder} is damaged, and nothing was changed. Delete "
            f"{folder.parent} to start over, or give another folder: --out FOLDER"
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
    """Assigns values from ``values_of`` to variables.

    Variables are matched by group and number: Keras numbers some of their names through the
    process, so a second model in it has other names.

    Raises:
        ValueError: Number or shapes of the variables differ.
    """
    values = {name.rpartition("/")[0]: array for name, array in arrays.items()}
    wanted = {
        f"{group}/{number:05d}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }
    for key in wanted.keys() | values.keys():
        current, saved = wanted.get(key), values.get(key)
        if current is None or saved is None or tuple(current.shape) != saved.shape:
            raise ValueError(
                f"The checkpoint was written by another version: {key} is "
                f"{None if saved is None else saved.shape} in it and "
                f"{None if current is None else tuple(current.shape)} here. Install the version "
                "that events.jsonl names, or start over in another folder: --out FOLDER"
            )
    for key, variable in wanted.items():
        variable.assign(values[key])


def check_facts(
    saved: dict[str, Any], current: dict[str, Any], folder: Path, warn: Callable[[str], None]
) -> None:
    """Compares a checkpoint's facts with those of the run that would resume from it.

    Args:
        saved: The checkpoint's facts.
        current: Those of this run.
        folder: The run folder, for messages.
        warn: Called with each change of the environment, which may change the last bits.

    Raises:
        ValueError: The data have changed.
    """
    for name, before in saved.get("data", {}).items():
        now = current["data"].get(name)
        if now != before:
            raise ValueError(
                f"The data of {folder} have changed: {name} were {_short(before)} and are "
                f"{_short(now)}. Restore them, or give another folder: --out FOLDER"
            )
    for name, before in saved.get("machine", {}).items():
        now = current["machine"].get(name)
        if now != before:
            warn(f"{name} was {before} and is {now}: results may differ in their last bits")


def not_finite(arrays: dict[str, np.ndarray]) -> str | None:
    """Name of an array that contains a NaN or an infinity; ``None`` if all are finite."""
    for name, values in arrays.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            return name
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}…"


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
