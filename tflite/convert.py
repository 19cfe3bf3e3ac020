"""A Keras model to .tflite files."""

from __future__ import annotations

import errno
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_resnet.classifier import ImageClassifier, require_probabilities
from keras_resnet.contract import Contract, Task
from keras_resnet.deployment import deployable
from keras_resnet.files import atomic_write
from keras_resnet.native_stderr import suppressed_native_stderr
from keras_resnet.saving import load_model
from tflite.kinds import KINDS, Artifact, ConversionSource
from tflite.model.flatbuffer import unpack
from tflite.model.graph import Graph
from tflite.model.io_spec import UNIVERSAL, IOSpec
from tflite.model.metadata import attach_contract
from tflite.model.rewrite_io import check_task, rewrite_io
from tflite.model.sandbox import trust
from tflite.quantization.budget import Budget

USUAL_KINDS = tuple(kind for kind, row in KINDS.items() if row.usual)


def convert(
    model: ImageClassifier | str | os.PathLike[str],
    out: str | os.PathLike[str],
    kinds: Sequence[str] = USUAL_KINDS,
    calibration: Iterable[np.ndarray] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    budget: Budget = Budget(),
    io_spec: IOSpec = UNIVERSAL,
) -> dict[str, Path]:
    """Writes ``out/model_<kind>.tflite`` for each kind.

    Each file takes float32 ``(1, height, width, channels)`` raw pixels 0–255 and gives float32
    ``(1, outputs)`` probabilities unless ``io_spec`` says otherwise, with the contract and the
    labels inside. Mixed precision models are rebuilt in float32 first. Files are written
    atomically: each is complete or does not exist.

    Args:
        model: A model with a contract of fixed height and width, or its ``.keras`` file.
        out: Folder; created if it is missing.
        kinds: Any of ``KINDS``. ``int16x8`` warns that it is slow.
        calibration: Representative images for int8, int16x8 and mixed, uint8 ``(height,
            width, channels)`` 0–255, already fitted to the model; a hundred of the training
            images suffice.
        progress: Called with ``(kind, steps done, steps in all)``: with 0 steps done before
            work on a kind begins, then after each step, such as an operation quantized. While
            TensorFlow's converter runs, which is all of float32 and float16, the beginning of
            the first kind and the end of int16x8, there are no calls.
        budget: The limits of the mixed kind. Beside it, ``model_mixed.png`` and ``.json`` show
            what could have been chosen.
        io_spec: Input and outputs of the files. Accuracy does not depend on it.

    Returns:
        The path of each kind.

    Raises:
        ValueError: A kind is unknown, int8 has no calibration images, images do not fit, the
            model takes any size, the model file is not readable, TFLite cannot express
            the model, its outputs are no probabilities, or it cannot have that io_spec.
        OSError: A file cannot be written, for example because the disk is full.
    """
    _check_kinds(kinds)
    images = [] if calibration is None else list(calibration)
    if not images and (calibrated := [kind for kind in kinds if KINDS[kind].calibrated]):
        raise ValueError(
            f"{', '.join(calibrated)} needs calibration images and none were given. Pass a "
            "hundred images from the training data, or leave this kind out."
        )
    model = model if isinstance(model, ImageClassifier) else load_model(model)
    require_probabilities(model)
    check_task(io_spec, model.contract.task)
    _check_fits(model.contract, images)

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = {}
    with tempfile.TemporaryDirectory() as folder:
        contract = save_for_device(model, Path(folder))
        source = ConversionSource(Path(folder), images, budget, contract)
        if io_spec != UNIVERSAL:  # an impossible io_spec is refused before anything takes time
            plain = _make("float32", source, _no_progress).model
            _rewritten("float32", plain, io_spec, contract.task)
        for kind in kinds:
            report = partial(progress, kind) if progress else _no_progress
            report(0, 1)
            paths[kind] = out / f"model_{kind}.tflite"
            artifact = _make(kind, source, report)
            graph = _rewritten(kind, artifact.model, io_spec, contract.task)
            for suffix, content in artifact.beside.items():
                _write(paths[kind].with_suffix(suffix), content)
            file = attach_contract(graph, contract, io_spec)
            _write(paths[kind], file)
            trust(file)
            report(1, 1)
    return paths


def save_for_device(model: ImageClassifier, folder: Path) -> Contract:
    """Writes a SavedModel of what the device runs; returns its contract.

    Raises:
        OSError: The folder cannot be written to, for example because the disk is full.
    """
    import tensorflow as tf

    device_model = deployable(model)
    contract = device_model.contract
    shape = (1, contract.height, contract.width, contract.channels)
    archive = keras.export.ExportArchive()
    archive.track(device_model)
    archive.add_endpoint(
        "serve",
        lambda image: device_model(image, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32, name="image")],
    )
    with suppressed_native_stderr():
        try:
            archive.write_out(str(folder), verbose=False)
        except tf.errors.OpError as error:
            raise _os_error(error, folder) or error from error
    return contract


def _check_kinds(kinds: Sequence[str]) -> None:
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds must be a list of {', '.join(KINDS)}. Received: {kinds!r}")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Only TensorFlow converts to TFLite; a model trained on any backend loads in it. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )


def _check_fits(contract: Contract, images: Sequence[np.ndarray]) -> None:
    shape = (contract.height, contract.width, contract.channels)
    if None in shape:
        raise ValueError(
            f"A .tflite file has a fixed input size, and the model takes {shape}. "
            "Build it with a fixed input_shape, such as (224, 224, 3)."
        )
    for image in images:
        if image.dtype != np.uint8 or image.shape != shape:
            raise ValueError(
                f"Calibration images must be uint8 {shape}, raw pixels 0–255; fit them with "
                f"keras_resnet.load_image. Received: {image.dtype} {image.shape}"
            )


def _no_progress(done: int, total: int) -> None:
    """No-op."""


def _make(kind: str, source: ConversionSource, report: Callable[[int, int], None]) -> Artifact:
    if KINDS[kind].warning:
        warnings.warn(KINDS[kind].warning, stacklevel=3)
    try:
        with suppressed_native_stderr():
            return KINDS[kind].make(source, report)
    except (OSError, MemoryError):
        raise  # of the machine, not of the model
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0].replace("_", "-")
        raise ValueError(f"{package} is not installed: pip install {package}") from error
    except Exception as error:  # the converter raises its own types and bare Exception
        raise ValueError(f"TFLite cannot make {kind} of this model: {_reason(error)}") from error


def _rewritten(kind: str, model: bytes, io_spec: IOSpec, task: Task) -> Graph:
    try:
        with suppressed_native_stderr():
            return rewrite_io(unpack(model), io_spec, task)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"The {kind} file cannot be made: {_reason(error)}") from error


def _os_error(error: Exception, folder: Path) -> OSError | None:
    """The error of the system that TensorFlow reports by a type of its own."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
    reported = [code for code in codes if os.strerror(code) in str(error)]
    return OSError(reported[0], os.strerror(reported[0]), str(folder)) if reported else None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
