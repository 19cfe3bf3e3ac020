"""The run folder: what each command leaves there for the next."""

from __future__ import annotations

import contextlib
import csv
import datetime
import fcntl
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet.contract import Contract
from keras_resnet.files import atomic_write
from training.config import Experiment, load_experiment


@dataclass(frozen=True)
class Run:
    """A folder that a training run wrote, or one that holds a model from elsewhere.

    Attributes:
        folder: Where it is.
        model_name: The model's file in it.
    """

    folder: Path
    model_name: str = "model.keras"

    @property
    def experiment(self) -> Experiment | None:
        """The resolved experiment, unless the model comes from elsewhere.

        Running this file again is the same run.
        """
        return load_experiment(self.experiment_file) if self.experiment_file.is_file() else None

    @property
    def contract(self) -> Contract | None:
        """How pictures are prepared for the model; not there where it comes from elsewhere."""
        known = self.read("contract.json")
        return Contract.from_dict(known) if known else None

    @property
    def has_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("step-*.safetensors"))

    @property
    def experiment_file(self) -> Path:
        return self.folder / "experiment.yaml"

    @property
    def model_file(self) -> Path:
        return self.folder / self.model_name

    @property
    def log_file(self) -> Path:
        """CSV: epoch, accuracy, loss, val_accuracy, val_loss, learning_rate.

        Nothing in it depends on the clock: the same run gives the same bytes, however often it
        was stopped. ``log.jsonl`` holds the same rows, ``timing.csv`` what the clock says.
        """
        return self.folder / "log.csv"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def saved_model(self) -> Path:
        return self.folder / "saved_model"

    @property
    def tflite(self) -> Path:
        return self.folder / "tflite"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    def tflite_files(self) -> dict[str, Path]:
        """The converted files that are there, by kind."""
        prefix = "model_"
        return {
            p.stem.removeprefix(prefix): p for p in sorted(self.tflite.glob(f"{prefix}*.tflite"))
        }

    def write(self, name: str, data: Any) -> Path:
        """Writes JSON, as ``write_text`` does; returns the path."""
        return self.write_text(name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Writes beside and renames, so that the file is whole or not there; returns the path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as beside:
            beside.write_text(text, "utf-8")
        return path

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Writes CSV, as ``write_text`` does; the first row's keys are the columns."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write_text(name, text.getvalue())

    def log_event(self, event: str, **facts: Any) -> None:
        """Adds a line to ``events.jsonl``: what happened to the run, and when."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, "event": event, **facts}) + "\n")

    def read(self, name: str) -> Any:
        """JSON that ``write`` wrote, or ``None`` where it is not there.

        Raises:
            ValueError: The file is damaged.
        """
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            return parse_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged: {error}. Delete it, and run the command again that writes it"
            ) from None


def parse_json(content: bytes) -> Any:
    """JSON whose numbers are all finite, from UTF-8.

    Raises:
        ValueError: It is anything else; the message is the reason.
    """
    try:
        return json.loads(
            content.decode(), parse_constant=_finite, parse_float=_finite, parse_int=_whole
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number[:40]} is not a finite number")
    return value


def _whole(number: str) -> int:
    if len(number) > 40:
        raise ValueError(f"{number[:40]}… is too large a number")
    return int(number)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it against other processes; the system lets go if this one dies.

    A folder that was made for nothing is removed again.

    Raises:
        ValueError: Another process holds it, or it cannot be written.
    """
    lock = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by process {file.read() or '(unknown)'}. Wait for it, or give "
                "another folder: --out FOLDER"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.listdir(folder) == [lock.name]:
                    lock.unlink()
                    folder.rmdir()


def open_run(path: str | Path | None = None) -> Run:
    """Opens a run folder, or a ``.keras`` file and the folder that it lies in.

    Args:
        path: Without it, the newest run under ``runs``.

    Raises:
        ValueError: There is no trained model there.
    """
    if path is None:
        runs = [path.parent for path in Path("runs").glob("*/model.keras")]
        if not runs:
            raise ValueError("There is no run under runs/. Train one first: keras-resnet train")
        return Run(max(runs, key=lambda path: (path / "model.keras").stat().st_mtime))
    path = Path(path)
    run = Run(path.parent, path.name) if path.suffix == ".keras" else Run(path)
    if not run.model_file.is_file():
        raise ValueError(
            f"There is no model {run.model_file}. Give a run folder or a .keras file, or train "
            "one: keras-resnet train"
        )
    return run


def new_folder(name: str) -> Path:
    """A folder under ``runs`` that is not there yet: ``name``, ``name-2`` …"""
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder
