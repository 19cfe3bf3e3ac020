"""Weights to a file that PyTorch libraries read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save

from keras_resnet.block_config import BlockConfig
from keras_resnet.classifier import ImageClassifier
from keras_resnet.contract import Contract
from keras_resnet.files import atomic_write
from keras_resnet.weights.formats.readers import BLOCK_CONFIG, CONTRACT
from keras_resnet.weights.mapping import EPSILON, full_name, layer_names, to_torch


def save_weights(model: ImageClassifier, path: str | os.PathLike[str]) -> Path:
    """Writes the weights as safetensors with the names of torchvision and timm.

    ``load_state_dict(safetensors.torch.load_file(path), strict=False)`` of the same network in
    PyTorch accepts them; what it then calls missing are its ``num_batches_tracked``, counters
    that inference does not use. The contract travels in the file's metadata, and ``weights=``
    reads it back.

    Args:
        model: A network of this package.
        path: A file named ``.safetensors``; written beside and renamed.

    Returns:
        The path.

    Raises:
        ValueError: The path has another suffix, the folder is not there, or the model is not
            as the constructors build it.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"The path must end in .safetensors. Received: {path}")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent}")
    names = layer_names(model, "torch", ())
    arrays = {
        full_name(names[layer.name][0], variable.name, "torch"): _as_torch_has_it(layer, variable)
        for layer in model.layers
        for variable in layer.weights
    }
    metadata = {"format": "pt", CONTRACT: _json(model.contract)}
    if model.block_config:
        # The variances in the file are for PyTorch's epsilon, whatever this network's is.
        epsilon = EPSILON["torch"]
        metadata[BLOCK_CONFIG] = _json(replace(model.block_config, batch_norm_epsilon=epsilon))
    content = save(arrays, metadata=metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return path


def _json(record: Contract | BlockConfig) -> str:
    return json.dumps(record.to_dict(), ensure_ascii=False)


def _as_torch_has_it(layer: Any, variable: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable).astype("float32")
    if variable.name == "moving_variance":
        array = array + np.float32(layer.epsilon - EPSILON["torch"])
    return np.ascontiguousarray(to_torch(array))
