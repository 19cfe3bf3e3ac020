"""From a weights file of any format to named arrays. Nothing in the file is ever run."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import safetensors

from keras_resnet.block_config import BlockConfig
from keras_resnet.contract import Contract
from keras_resnet.weights.formats.archive import KERAS_WEIGHTS, check_archive
from keras_resnet.weights.formats.limits import check_count, check_length, check_size, reason
from keras_resnet.weights.formats.pytorch import read_torch
from keras_resnet.weights.formats.sandbox import read_hdf5_sandboxed

Record = TypeVar("Record", Contract, BlockConfig)

KERAS_CONFIG = "config.json"
CONTRACT, BLOCK_CONFIG = "contract", "block_config"
# The number with which torch.save began before it wrote archives, as pickled.
LEGACY_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
CONTENT = {
    "safetensors": "a safetensors file",
    "torch": "a PyTorch file",
    "hdf5": "an HDF5 file",
    "keras": "a Keras archive",
}
SUFFIXES = {
    ".safetensors": "safetensors",
    ".pth": "torch",
    ".th": "torch",
    ".pt": "torch",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".keras": "keras",
}


@dataclass(frozen=True)
class Tensors:
    """What a weights file holds: named arrays, and which convention the names follow.

    Attributes:
        format: Where the arrays come from, which decides what their names are:

            - ``"safetensors"`` and ``"torch"``: as in the file, such as
              ``layer1.0.conv1.weight``, without the ``module.`` that ``DataParallel`` puts
              before all of them, and without the counters ``num_batches_tracked``.
            - ``"keras-h5"`` (``model.save("x.h5")``, ``save_weights`` of Keras 2,
              keras.applications): ``layer/variable``, such as ``conv1_conv/kernel``. Within
              a nested model, and from Keras before 2, ``variable`` is whatever the file says.
            - ``"keras-weights-h5"`` and ``"keras"`` (Keras 3): ``layer/variable`` as well,
              ``model/layer/variable`` for nested models. Files of early versions do not name
              the layers; there ``layer`` is the class and a counter, ``conv2d_12``. The
              variables are numbers in the file; they are translated for convolutions, dense
              layers, and normalizations with scale and offset, and stay numbers elsewhere.

            Kernels keep the layout of their library. Optimizer state is left out.
        arrays: Finite numbers. The order is that of the file: legacy Keras and PyTorch give
            the order of the layers in the model, Keras 3 that of the layers of each class,
            class by class, safetensors none that means anything. ``bfloat16`` is widened to
            ``float32``; every other type is as in the file.
        contract: That of the model which was saved, where a ``.keras`` file or safetensors
            written by this package holds it.
        block_config: What was chosen for the network, where such a file holds it.
    """

    format: Literal["safetensors", "torch", "keras-h5", "keras-weights-h5", "keras"]
    arrays: dict[str, np.ndarray]
    contract: Contract | None = None
    block_config: BlockConfig | None = None


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Reads a weights file; its format is recognised by its content.

    Nothing is loaded unless all of it is sound, and no more than 8 GiB. The file is not
    executed, and no other file is opened on its behalf.

    Raises:
        ValueError: One line: the file is missing, damaged, named after another format, or
            holds anything but finite numbers.
    """
    try:
        tensors = _read(Path(path))
        _check_numbers(tensors.arrays)
        return tensors
    except Exception as error:  # the libraries raise a dozen types for damaged files
        line = f"Cannot read weights from {path}: {reason(error)}"
        raise ValueError(" ".join(line.splitlines())) from error


def _read(path: Path) -> Tensors:
    kind = _kind(path)
    if kind == "safetensors":
        arrays, metadata = _read_safetensors(path)
        records = (
            _record(metadata, CONTRACT, Contract),
            _record(metadata, BLOCK_CONFIG, BlockConfig),
        )
        return Tensors("safetensors", _with_torch_names(arrays), *records)
    if kind == "torch":
        return Tensors("torch", _with_torch_names(read_torch(path)))
    if kind == "hdf5":
        (form, config), arrays = read_hdf5_sandboxed(path)
        # A whole model of ours says which network it is; a file of weights alone cannot.
        model = json_object(config, "model_config").get("config") if config else None
        holder = model if isinstance(model, dict) else {}
        records = _record(holder, CONTRACT, Contract), _record(holder, BLOCK_CONFIG, BlockConfig)
        return Tensors(form, arrays, *records)
    check_archive(path)
    configuration = _configuration(path)
    arrays = read_hdf5_sandboxed(path, KERAS_WEIGHTS)[1]
    contract = _record(configuration, CONTRACT, Contract)
    return Tensors("keras", arrays, contract, _record(configuration, BLOCK_CONFIG, BlockConfig))


def _kind(path: Path) -> str:
    """The format by content; the name must not contradict it."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size == 0:
        raise ValueError("it is empty")
    check_size(status.st_size, status.st_size)
    kind = _content(path)
    if kind is None:
        raise ValueError(f"it is damaged, or none of these: {', '.join(CONTENT.values())}")
    named = SUFFIXES.get(path.suffix.lower(), kind)
    if kind != named:
        raise ValueError(
            f"it is {CONTENT[kind]}, while {path.suffix} means {CONTENT[named]}; rename it"
        )
    return kind


def _content(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(64)
    # The length that a safetensors file begins with may look like any other format's start.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if start.startswith(b"PK\x03\x04"):
        return _content_of_archive(path)
    if start.startswith(b"\x80"):
        if LEGACY_TORCH not in start:
            raise ValueError("it is a Python pickle, which could run code; it is not opened")
        return "torch"
    return None


def _content_of_archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if KERAS_WEIGHTS in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise ValueError(f"it is a zip archive with neither {KERAS_WEIGHTS} nor PyTorch's data.pkl")


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    _check_header(path)
    with safetensors.safe_open(path, framework="np") as file:
        arrays = {name: _widened(file.get_tensor(name)) for name in file.offset_keys()}
        return arrays, file.metadata() or {}


def _check_header(path: Path) -> None:
    """Refuses what the library accepts: a second entry of a name, and any number of entries."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        check_length(length)
        header = file.read(length)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("two entries of its header have the same name")
        return dict(pairs)

    try:
        entries = json.loads(header, object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return  # for the library to refuse
    if isinstance(entries, dict):
        check_count(len(entries))


def json_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object out of a file: a dictionary of plain data, all of its numbers finite.

    Raises:
        ValueError: It is something else; names it by ``name``.
    """

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError
        return value

    try:
        value = json.loads(text, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError):
        raise ValueError(f"its {name!r} is not valid JSON with finite numbers") from None
    if not isinstance(value, dict):
        raise ValueError(f"its {name!r} is a {type(value).__name__}, not a JSON object")
    return value


def _configuration(path: Path) -> dict[str, Any]:
    """A model's configuration as plain data; nothing is built from it."""
    try:
        with zipfile.ZipFile(path) as archive:
            configuration = json.loads(archive.read(KERAS_CONFIG))["config"]
    except (KeyError, TypeError, ValueError, RecursionError):
        configuration = None
    if not isinstance(configuration, dict):
        raise ValueError(f"its {KERAS_CONFIG} is damaged, or not that of a model")
    return configuration


def _record(holder: dict[str, Any], key: str, kind: type[Record]) -> Record | None:
    """A record of a model's configuration, or as JSON text in a file's metadata."""
    data = holder.get(key)
    if data is None:
        return None
    text = data if isinstance(data, str) else json.dumps(data)
    return kind.from_dict(json_object(text, key))


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _with_torch_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = "module." if all(name.startswith("module.") for name in arrays) else ""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.rpartition(".")[2] != "num_batches_tracked"
    }


def _check_numbers(arrays: dict[str, np.ndarray]) -> None:
    if not arrays:
        raise ValueError("it holds no weights")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name!r} holds {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} holds NaN or infinite values")
