"""All that a run left behind, in a form that can be compared bit by bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

import keras_resnet
from training.checkpoint import read_checkpoint

# What the clock says can never be the same twice.
WALL_CLOCK = ("timings", "seconds", "waited")


def left_by(folder: Path) -> dict[str, Any]:
    """Weights, optimizer, average, figures, best score and log, as hashes and texts."""
    *_, newest = sorted((folder / "checkpoints").glob("step-*.safetensors"))
    checkpoint = read_checkpoint(newest)
    progress = {k: v for k, v in vars(checkpoint.progress).items() if k not in WALL_CLOCK}
    metrics = json.loads((folder / "metrics.json").read_text())
    for row in metrics["history"]:
        del row["seconds"]
    return {
        "checkpoint": newest.name,
        "progress": progress,
        **{f"array {name}": _hash(array) for name, array in checkpoint.arrays.items()},
        "model.keras": _weights(folder / "model.keras"),
        "best.keras": _weights(folder / "checkpoints" / "best.keras"),
        "log.csv": (folder / "log.csv").read_bytes(),
        "log.jsonl": (folder / "log.jsonl").read_bytes(),
        "metrics.json": metrics,
    }


def _weights(path: Path) -> list[str]:
    return [_hash(array) for array in keras_resnet.load_model(path).get_weights()]


def _hash(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
