"""``predict``: pictures named by files, folders and lists, through a model in any format.

Pictures are decoded in threads and predicted in batches while the results are written, so memory
does not grow with their number. A picture that cannot be read is reported, and the others are
predicted all the same.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from keras_resnet.cli.backend import start_keras
from keras_resnet.cli.inputs import locate
from keras_resnet.console import QUIET_SECONDS, say
from keras_resnet.files import SAVED_MODEL_FILE
from keras_resnet.picture_names import has_picture_suffix, is_hidden

if TYPE_CHECKING:
    import numpy as np

    from keras_resnet.contract import Contract

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The result for one picture.

    Attributes:
        path: The picture, as it was named.
        top: The most probable labels and their probabilities; empty if there was an error.
        labels: The labels that the model gives by its thresholds, for the tasks ``binary`` and
            ``multi``; ``None`` for ``single``.
        error: One line on why there is no result; empty if there is one.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``labels`` and ``error`` are only there if they are set."""
        data: dict[str, Any] = {
            "image": self.path,
            "top": [{"label": label, "probability": p} for label, p in self.top],
        }
        if self.labels is not None:
            data["labels"] = list(self.labels)
        return data | ({"error": self.error} if self.error else {})

    def __str__(self) -> str:
        probabilities = ", ".join(f"{label} {100 * p:.2f} %" for label, p in self.top)
        if self.labels is None:
            return f"{self.path}: {probabilities}"
        return f"{self.path}: {', '.join(self.labels) or 'no label'} ({probabilities})"


@dataclass(frozen=True)
class Named:
    """A file to predict; if ``found`` in a folder, it is passed over unless it is a picture."""

    path: Path
    found: bool = False


# --- What to predict ------------------------------------------------------------------------


def named_files(names: Iterable[Path]) -> Iterator[Named]:
    """The files that are named, in order; those of a folder, at any depth, sorted by name.

    Hidden files and folders in a folder, and links to folders, are passed over.

    Raises:
        ValueError: A folder cannot be read.
    """
    for name in names:
        if name.is_dir():
            yield from _files_in(name)
        else:
            yield Named(name)


def read_list(list_file: Path) -> list[Path]:
    """The paths in a file, or on stdin for ``-``: one a line, or separated by NUL bytes.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        content = sys.stdin.buffer.read() if str(list_file) == "-" else list_file.read_bytes()
    except OSError as error:
        raise ValueError(f"The list {list_file} cannot be read: {error.strerror}") from None
    if b"\0" in content:  # of find -print0
        lines = content.split(b"\0")
    else:
        lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return [Path(os.fsdecode(line)) for line in lines if line]


def _files_in(folder: Path) -> Iterator[Named]:
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if not is_hidden(name):
                yield Named(Path(parent, name), found=True)


def _unreadable(error: OSError) -> None:
    raise ValueError(f"The folder {error.filename} cannot be read: {error.strerror}") from None


# --- Model ----------------------------------------------------------------------------------

# From uint8 images (images, height, width, channels) to a result for each, without its path.
Predictor = Callable[["np.ndarray"], list[Prediction]]


def check_model(model: Path) -> None:
    """Raises ValueError if there is no model; needs no Keras."""
    if model.suffix == ".tflite":
        if not model.is_file():
            raise ValueError(f"There is no model file {model}")
    elif not _is_saved_model(model):
        locate(model)


def _is_saved_model(model: Path) -> bool:
    return (model / SAVED_MODEL_FILE).is_file()


def open_predictor(model: Path, top: int) -> tuple[Contract, Predictor]:
    """A model in any format, and what it expects of images."""
    start_keras()
    if model.suffix == ".tflite":
        return _open_tflite(model, top)
    from training.predict import keras_predictor, saved_model_predictor

    if _is_saved_model(model):
        contract, probabilities = saved_model_predictor(model)
    else:
        contract, probabilities = keras_predictor(locate(model).model_file)
    return contract, lambda pixels: _decoded(probabilities(pixels), contract, top)


def _open_tflite(model: Path, top: int) -> tuple[Contract, Predictor]:
    from tflite.classifier import Classifier

    classifier = Classifier(model)
    contract, known = classifier.contract, classifier.io_spec.top_k
    if known is None:
        return contract, lambda pixels: _decoded(classifier.probabilities(pixels), contract, top)
    if known < top:
        say(f"{model} outputs the {known} likeliest classes only: --top {top} shows {known}")

    def likeliest(pixels: np.ndarray) -> list[Prediction]:
        return [_finite(tuple(row)) for row in classifier.predict_fitted(pixels, top)]

    return contract, likeliest


NOT_FINITE = "the model outputs NaN or infinity for it"


def _decoded(outputs: np.ndarray, contract: Contract, top: int) -> list[Prediction]:
    import numpy as np

    from keras_resnet.preprocessing import decide, decode_predictions

    if outputs.ndim != 2:
        raise ValueError(f"The model is no classifier. Its outputs are {outputs.shape[1:]}")
    finite = np.isfinite(outputs).all(axis=1)
    good = outputs[finite]
    several = contract.task != "single"
    tops = iter(decode_predictions(good, contract, top))
    labels = iter(decide(good, contract) if several else [])
    return [
        Prediction("", tuple(next(tops)), tuple(next(labels)) if several else None)
        if is_finite
        else Prediction("", error=NOT_FINITE)
        for is_finite in finite
    ]


def _finite(top: tuple[tuple[str, float], ...]) -> Prediction:
    import math

    if all(math.isfinite(p) for _, p in top):
        return Prediction("", top)
    return Prediction("", error=NOT_FINITE)


# --- Predicting -----------------------------------------------------------------------------


def predictions(
    files: Iterable[Named],
    contract: Contract,
    predictor: Predictor,
    skipped: Callable[[Path], None] = lambda _: None,
) -> Iterator[Prediction]:
    """The result of each file, in order; at most a few batches of pictures are in memory.

    Args:
        files: The files.
        contract: The model's.
        predictor: The model.
        skipped: Called with each file in a folder that is no picture.
    """
    loaded = _loaded(files, contract)
    while some := list(islice(loaded, BATCH)):
        yield from _predicted(some, predictor, skipped)


# A file and its pixels, or why it has none; an empty reason for a file that is no picture.
Loaded = tuple[Named, "np.ndarray | str"]


def _predicted(
    batch: list[Loaded], predictor: Predictor, skipped: Callable[[Path], None]
) -> Iterator[Prediction]:
    import numpy as np

    pixels = [image for _, image in batch if not isinstance(image, str)]
    results = iter(predictor(np.stack(pixels)) if pixels else [])
    for file, image in batch:
        if not isinstance(image, str):
            result = next(results)
            yield Prediction(str(file.path), result.top, result.labels, result.error)
        elif image:
            yield Prediction(str(file.path), error=image)
        else:
            skipped(file.path)


def _loaded(files: Iterable[Named], contract: Contract) -> Iterator[Loaded]:
    """Each file with its pixels, in order, decoded in threads a batch ahead."""
    waiting: deque[tuple[Named, Future[np.ndarray | str]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for file in files:
                waiting.append((file, pool.submit(_load, file, contract)))
                if len(waiting) >= BATCH:
                    first, pixels = waiting.popleft()
                    yield first, pixels.result()
            while waiting:
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _load(file: Named, contract: Contract) -> np.ndarray | str:
    from keras_resnet.pictures import is_picture
    from keras_resnet.preprocessing import load_image

    try:
        # In a folder, a file whose name claims to be a picture is an error if it is none.
        if file.found and not (has_picture_suffix(file.path.name) or is_picture(file.path)):
            return ""
        return load_image(file.path, contract)
    except ValueError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return f"{file.path} cannot be read: {error.strerror}"


@dataclass(frozen=True)
class Summary:
    """How many pictures were predicted, and how many could not be."""

    images: int
    failed: int


def predict_all(
    files: Iterable[Named],
    contract: Contract,
    predictor: Predictor,
    write: Callable[[Prediction], None],
    step: Callable[[], None] = lambda: None,
) -> Summary:
    """Writes the result of each file, and a line on stderr for each without a prediction.

    Args:
        files: The files.
        contract: The model's.
        predictor: The model.
        write: Called with each result.
        step: Called after each result.
    """
    images, failed = 0, 0
    skipped: list[Path] = []
    for result in predictions(files, contract, predictor, skipped.append):
        write(result)
        images += 1
        if result.error:
            failed += 1
            named = result.path in result.error
            say(result.error if named else f"{result.path}: {result.error}")
        step()
    if skipped:
        several = f"{len(skipped):,} files that are no pictures, such as"
        say(
            f"passed over {several if len(skipped) > 1 else 'a file that is no picture:'} "
            f"{skipped[0]}"
        )
    return Summary(images - failed, failed)


def check_input(contract: Contract) -> None:
    """Raises ValueError if picture files cannot be the input of a model."""
    from keras_resnet.contract import crop_box

    crop_box(1, 1, contract)  # it needs a fixed size
    if contract.color == "raw":
        raise ValueError(
            f"The model takes {contract.channels} channels, which no picture file has. Use "
            "keras_resnet.load_model in Python, with arrays (height, width, channels)"
        )


# --- Results --------------------------------------------------------------------------------


def csv_writer(file: TextIO, top: int) -> Callable[[Prediction], None]:
    """Writes CSV: image, labels, then label and probability of each of the likeliest, and error.

    ``labels`` are those that the model gives, separated by ``|``: for the task ``single`` the
    most probable one.
    """
    ranks = [name for n in range(1, top + 1) for name in (f"label_{n}", f"probability_{n}")]
    table = csv.DictWriter(file, ["image", "labels", *ranks, "error"], lineterminator="\n")
    table.writeheader()

    def write(result: Prediction) -> None:
        labels = [label for label, _ in result.top[:1]]
        if result.labels is not None:
            labels = list(result.labels)
        row = {"image": result.path, "labels": "|".join(labels), "error": result.error}
        for n, (label, p) in enumerate(result.top, 1):
            row |= {f"label_{n}": label, f"probability_{n}": f"{p:.6g}"}
        table.writerow(row)

    return write


def jsonl_writer(file: TextIO) -> Callable[[Prediction], None]:
    """Writes JSON Lines: a line for each picture, as in the list that ``--json`` prints."""

    def write(result: Prediction) -> None:
        text = json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False)
        if any("\ud800" <= character <= "\udfff" for character in text):  # a name not in UTF-8
            text = json.dumps(result.to_dict(), allow_nan=False)
        file.write(text + "\n")

    return write


@contextlib.contextmanager
def open_results(path: Path, top: int) -> Iterator[Callable[[Prediction], None]]:
    """Yields a function that writes a result to a .csv or .jsonl file.

    The file is there once the block is left without an exception, never incomplete.
    """
    from keras_resnet.files import atomic_write

    with (
        atomic_write(path) as temporary,
        # Names that are not UTF-8 keep their bytes in CSV.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield csv_writer(file, top) if path.suffix == ".csv" else jsonl_writer(file)


# --- Progress -------------------------------------------------------------------------------


@contextlib.contextmanager
def image_rate(
    draw: bool, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], None]]:
    """Images and images/s on stderr, of what takes more than two seconds.

    Yields a function to call after each image. On a terminal a line is redrawn; at the end a
    message says how many images it were.

    Args:
        draw: Whether the line may be drawn, which it may not among results on the same terminal.
        clock: Seconds.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from keras_resnet.native_stderr import terminal_stderr

    began, done = clock(), 0
    console = Console(file=terminal_stderr())
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    # stdout may be a pipe: only what is written to stderr appears above the line.
    bar = Progress(*columns, console=console, redirect_stdout=False, transient=True)
    task = bar.add_task("predicting", total=None)

    def step() -> None:
        nonlocal done
        done += 1
        seconds = clock() - began
        if draw and console.is_terminal and seconds > QUIET_SECONDS:
            bar.start()
            bar.update(task, description=_rate(done, seconds))

    try:
        yield step
    finally:
        if bar.live.is_started:
            bar.stop()
        if (seconds := clock() - began) > QUIET_SECONDS and done:
            say(f"{_rate(done, seconds)}, {seconds:.0f} s")


def _rate(images: int, seconds: float) -> str:
    return f"{images:,} images, {images / seconds:,.1f} images/s"
