"""PyTorch checkpoints, through ``torch.load(weights_only=True)`` and no other way."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.weights.formats.archive import check_archive
from keras_resnet.weights.formats.limits import check_count, check_size

ZIP = b"PK\3\4"
# Where training scripts put the state dict among other things.
WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a state dict, alone or in a checkpoint, in its order.

    Raises:
        ValueError: torch is not installed, or the file holds anything but a state dict.
        RuntimeError, pickle.UnpicklingError, EOFError: The file is damaged.
    """
    with Path(path).open("rb") as file:
        zipped = file.read(4) == ZIP
    records = _record_sizes(path) if zipped else None
    tensors = _state_dict(_load(path, zipped))
    for name, tensor in tensors.items():
        if records is not None and tensor.untyped_storage().nbytes() not in records:
            raise ValueError(f"{name!r} claims a storage that the archive does not hold")
    check_size(
        sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        os.path.getsize(path),
    )
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _record_sizes(path: str | os.PathLike[str]) -> set[int]:
    members = check_archive(path)
    if any("/code/" in member.filename for member in members):
        raise ValueError("it is a TorchScript program; save its state_dict() instead")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its archive is compressed, as torch.save never does")
    return {member.file_size for member in members if "/data/" in member.filename}


def _load(path: str | os.PathLike[str], zipped: bool) -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError(
            "PyTorch files are read by torch, which is not installed: pip install "
            "'keras-resnet[torch]', or take the .safetensors file, which needs no torch"
        ) from None
    try:
        # Mapped, each tensor is a slice of the file, with its bounds checked; read record by
        # record, not every torch checks the size that the pickle claims, and reads what lies
        # behind it in memory. Legacy files cannot be mapped.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch makes of damaged files
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # torch's own message recommends weights_only=False.
        raise ValueError(
            "it is damaged, or holds Python objects that could run code; save only the "
            "state_dict() of the model, as safetensors at best"
        ) from error


def _state_dict(content: Any) -> dict[str, Any]:
    import torch

    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    check_count(len(content))
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{name!r} in it is a {type(value).__name__}, not a named tensor")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError(f"{name!r} is not an ordinary dense tensor")
    return content


def _array(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    # A copy: the file may go, and a mapped tensor would go with it.
    return np.array(tensor.resolve_conj().resolve_neg().numpy())
