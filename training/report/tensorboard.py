"""TensorBoard of a run: metrics, the first batch, the confusion matrix, a profile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

IMAGES = 16
SIDE = 320  # pixels: the least size of the confusion matrix
RIGHT, WRONG = (37, 99, 235), (214, 93, 14)


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    """Turns TensorFlow's errors for a folder that cannot be written into OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(first_line(error)) from error


def first_line(error: tf.errors.OpError) -> str:
    """TensorFlow's message, without the names of nodes."""
    return error.message.rpartition("}} ")[2].strip().splitlines()[0].partition(" [[")[0][:300]


class TensorBoardWriter:
    """TensorBoard's event files in a run folder, one for training and one for validation.

    Raises:
        OSError: The folder cannot be written, now or later.
    """

    def __init__(self, folder: Path) -> None:
        with _on_disk():
            self._writers = {
                name: tf.summary.create_file_writer(str(folder / name))
                for name in ("train", "validation")
            }

    def first_batch(self, images: Any, labels: Any, names: tuple[str, ...]) -> None:
        """Shows training images as the network sees them, with their labels.

        Args:
            images: Pixels 0–255, ``(batch, height, width, channels)``.
            labels: One-hot or mixed, ``(batch, classes)``.
            names: Class names.
        """
        pixels = np.asarray(images)[:IMAGES]
        rows = [_shares(row, names) for row in np.asarray(labels)[:IMAGES]]
        with self._writing("train", 0):
            tf.summary.image("first_batch", pixels.astype("float32") / 255, max_outputs=IMAGES)
            tf.summary.text("first_batch_labels", "\n\n".join(rows))

    def epoch(self, row: Mapping[str, float], confusion: np.ndarray | None) -> None:
        """Shows the metrics of an epoch, under Keras's names.

        Args:
            row: The epoch's row of the log.
            confusion: ``confusion[i][j]`` test images of class i were predicted as class j; no
                picture if ``None``.
        """
        epoch = int(row["epoch"]) - 1
        for name in self._writers:
            mine = {k: v for k, v in row.items() if k.startswith("val_") == (name == "validation")}
            with self._writing(name, epoch):
                for key, value in mine.items():
                    tf.summary.scalar(f"epoch_{key.removeprefix('val_')}", value)
        if confusion is None:
            return
        with self._writing("validation", epoch):
            tf.summary.image("confusion", confusion_picture(confusion)[np.newaxis])

    @contextlib.contextmanager
    def _writing(self, name: str, step: int) -> Iterator[None]:
        with _on_disk():
            with self._writers[name].as_default(step=step):
                yield
            self._writers[name].flush()


def confusion_picture(confusion: np.ndarray) -> np.ndarray:
    """True classes by row, predicted ones by column: uint8 ``(side, side, 3)``.

    The larger a cell's share of its row, the darker it is: blue if correct, orange if wrong. The
    report shows it with names and counts.
    """
    count = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # Single errors stay visible.
    depth = np.where(confusion > 0, 0.15 + 0.85 * shares**0.6, 0)[..., np.newaxis]
    colours = np.where(np.eye(count, dtype=bool)[..., np.newaxis], RIGHT, WRONG)
    cells = np.rint(255 * (1 - depth) + colours * depth).astype("uint8")
    side = max(1, -(-SIDE // count))
    return cells.repeat(side, axis=0).repeat(side, axis=1)


def _shares(row: np.ndarray, names: tuple[str, ...]) -> str:
    """The classes in a mixed image, the largest share first."""
    present = [i for i in np.argsort(-row, kind="stable") if row[i] > 0]
    return " + ".join(f"{row[i]:.2g} {names[i]}" if row[i] < 1 else names[i] for i in present)


class Profile:
    """TensorBoard's profile of some steps of this process.

    Args:
        folder: Of the event files.
        steps: The first and the last step, counted from 1; ``None`` for no profile.

    Raises:
        ValueError: The steps are out of order or below 1.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None) -> None:
        if steps and not 1 <= steps[0] <= steps[1]:
            raise ValueError(
                "A profile needs a first step of at least 1 and a last step not before it. "
                f"Received: {steps[0]} {steps[1]}"
            )
        self._folder, self._steps = folder, steps or (0, 0)
        self._step, self._running = 0, False

    def before_step(self) -> None:
        self._step += 1
        if self._step == self._steps[0]:
            _start(self._folder)
            self._running = True

    def after_step(self, result: Any) -> None:
        """Ends the profile after its last step; waits for ``result``, an output of the step."""
        if self._running and self._step == self._steps[1]:
            keras.ops.convert_to_numpy(result)
            self.end()

    def end(self) -> None:
        """Writes the profile, if it has begun."""
        if self._running:
            self._running = False
            _stop()


def _start(folder: Path) -> None:
    if keras.backend.backend() == "jax":
        import jax

        jax.profiler.start_trace(str(folder))
    else:
        tf.profiler.experimental.start(str(folder))


def _stop() -> None:
    if keras.backend.backend() == "jax":
        import jax

        jax.profiler.stop_trace()
    else:
        tf.profiler.experimental.stop()
