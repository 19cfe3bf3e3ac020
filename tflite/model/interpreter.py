"""Opening a .tflite file, with an error of one line if it is not one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_resnet.native_stderr import suppressed_native_stderr
from tflite.model.io_spec import UNIVERSAL, IOSpec, io_spec_of
from tflite.model.sandbox import ensure_sound


def open_interpreter(path: str | os.PathLike[str], threads: int) -> Interpreter:
    """An interpreter that is ready to run, with XNNPACK's kernels where they exist.

    Args:
        path: A .tflite file of one image in, one row of probabilities out, both float32, as
            ``tflite.convert`` writes by default.
        threads: Number of CPU threads.

    Raises:
        ValueError: The file is missing, damaged, no TFLite model, or has another input or output.
    """
    interpreter, io_spec = open_classifier(path, threads)
    require_universal(path, io_spec)
    return interpreter


def require_universal(path: str | os.PathLike[str], io_spec: IOSpec) -> None:
    """Raises ValueError if a file has not the input and output that every runtime supports."""
    if io_spec != UNIVERSAL:
        raise ValueError(
            f"{path} is from {io_spec}; this needs {UNIVERSAL}: "
            "convert without --io, --batch, --logits and --top-k"
        )


def open_classifier(path: str | os.PathLike[str], threads: int) -> tuple[Interpreter, IOSpec]:
    """The same for a file with any input and outputs that ``tflite.convert`` writes, and these.

    Raises:
        ValueError: The file is missing, damaged, no TFLite model, or has another kind of input
            or output.
        OSError: It could not be opened here, for a reason that says nothing about the file.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be an integer of at least 1. Received: {threads!r}")
    path = Path(path)
    check_is_tflite(path)
    check_runs(path)
    failure = None
    with suppressed_native_stderr():
        try:
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        # Kept, not raised: suppressed_native_stderr() would print once more what its message says.
        except (ValueError, RuntimeError) as error:
            failure = error
    if failure:
        reason = str(failure).strip().splitlines()[0]
        # The same runtime has accepted the file in the sandbox: the file is not at fault.
        raise OSError(f"{path} could not be opened here: {reason}") from failure
    io_spec = io_spec_of(interpreter.get_input_details(), interpreter.get_output_details())
    if io_spec is None:
        _refuse_io(path, interpreter)
    return interpreter, io_spec


def check_runs(path: Path) -> None:
    """Raises ValueError if the interpreter does not survive the file, in another process."""
    try:
        ensure_sound(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or needs another runtime: {error}") from None


def check_is_tflite(path: Path) -> None:
    """Raises ValueError if a file is missing or does not begin as a TFLite model does."""
    if not path.is_file():
        raise ValueError(f"There is no model file {path}")
    with open(path, "rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise ValueError(f"{path} is not a TFLite model: bytes 5–8 are not TFL3")


def _refuse_io(path: Path, interpreter: Interpreter) -> NoReturn:
    def described(details: list[dict]) -> str:
        return ", ".join(f"{np.dtype(d['dtype'])} {tuple(map(int, d['shape']))}" for d in details)

    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    raise ValueError(
        f"{path} must take images (batch, height, width, channels), float32 or raw pixels of 8 "
        "bits, and give float32 (batch, classes). "
        f"Received: {described(inputs)} to {described(outputs)}"
    )
