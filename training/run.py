"""The run folder: the files through which commands pass results to each other."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from keras_resnet.contract import Contract
from keras_resnet.files import atomic_write
from training.config import Experiment
from training.experiment_file import load_experiment


@dataclass(frozen=True)
class Run:
    """The folder of a training run, or one that holds a model from elsewhere.

    Attributes:
        folder: Its path.
        model_name: Name of the model file in it.
    """

    folder: Path
    model_name: str = "model.keras"

    @property
    def experiment(self) -> Experiment | None:
        """The resolved experiment; ``None`` if the model comes from elsewhere."""
        return load_experiment(self.experiment_file) if self.experiment_file.is_file() else None

    @property
    def contract(self) -> Contract | None:
        """The model's contract; ``None`` if the model comes from elsewhere."""
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

        Nothing in it depends on the clock: the same run writes the same bytes, however often it
        is stopped. ``log.jsonl`` has the same rows, ``timing.csv`` the durations.
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
        """The converted files, by kind."""
        prefix = "model_"
        return {
            p.stem.removeprefix(prefix): p for p in sorted(self.tflite.glob(f"{prefix}*.tflite"))
        }

    def write(self, name: str, data: Any) -> Path:
        """Writes JSON atomically; returns the path. Numbers must be finite."""
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        return self.write_text(name, text + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Writes text atomically; returns the path.

        A character that UTF-8 cannot encode, a byte of a file name that is not UTF-8, is escaped
        as in JSON.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        return path

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Writes CSV atomically; the keys of the first row are the columns."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write_text(name, text.getvalue())

    def log_event(self, event: str, **facts: Any) -> None:
        """Appends a line to ``events.jsonl`` with the time, the event and its details."""
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
    """Creates the folder and locks it against other processes until the end of the block.

    The operating system releases the lock of a process that dies. A folder that is empty in the
    end is removed.

    Raises:
        ValueError: Another process holds the lock, or the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}") from None
    with file:
        if not lock_file(file):
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by process {file.read() or '(unknown)'}. Wait for it, or give "
                "another folder: --out FOLDER"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.listdir(folder) == [path.name]:
                    path.unlink()
                    folder.rmdir()


def lock_file(file: IO[Any], wait: bool = False) -> bool:
    """Locks an open file; its closing releases the lock.

    Args:
        file: Open for writing.
        wait: Wait until another process releases its lock.

    Returns:
        Whether the file is locked now. Always true on platforms without ``fcntl`` (Windows), where
        nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_run(path: str | Path | None = None) -> Run:
    """Opens a run folder, or a ``.keras`` file and its folder.

    Args:
        path: The newest run under ``runs`` by default.

    Raises:
        ValueError: There is no trained model.
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
    """A folder under ``runs`` that does not exist yet: ``name``, ``name-2`` …"""
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder
