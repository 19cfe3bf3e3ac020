"""What a run keeps while it goes: the last epoch's model and the best one's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras


class KeepLastAndBest(keras.callbacks.Callback):
    """Saves ``last.keras`` after every epoch, and ``best.keras`` whenever there is a better one.

    Args:
        folder: Where to.
        monitor: ``"val_accuracy"`` or ``"val_loss"``.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__()
        self.folder = folder
        self.monitor = monitor
        self.best = float("-inf")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        save_atomically(self.model, self.folder / "last.keras")
        value = (logs or {})[self.monitor]
        score = -value if self.monitor == "val_loss" else value
        if score > self.best:
            self.best = score
            save_atomically(self.model, self.folder / "best.keras")


def save_atomically(model: keras.Model, path: Path) -> None:
    """Writes beside and renames, so that a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.keras")
    try:
        model.save(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
