"""Converts a trained model to the graph that runs on a device."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np

from keras_resnet.build import normalize
from keras_resnet.classifier import ImageClassifier


def deployable(model: ImageClassifier) -> ImageClassifier:
    """The model in its deployed form: float32, raw RGB pixels 0–255 as input, normalization inside.

    Returns:
        A new model with its own copy of the weights, channels last. Mixed-precision layers are
        rebuilt in float32, the type of their variables.
    """
    # Through JSON, as in a saved file: tuples and Keras objects become plain data.
    config = json.loads(json.dumps(model.get_config()))
    float32 = ImageClassifier.from_config(_channels_last(_in_float32(config)))
    float32.set_weights(model.get_weights())
    contract = model.contract
    if contract.normalization == "inside":
        return float32

    if contract.order == "bgr":
        _reverse_input_channels(float32)
    pixels = keras.Input((contract.height, contract.width, contract.channels), name="image")
    outputs = float32(normalize(pixels, contract))
    wrapped = ImageClassifier(pixels, outputs, name=model.name)
    wrapped.contract = contract.replace(normalization="inside", order="rgb")
    return wrapped


def _reverse_input_channels(model: ImageClassifier) -> None:
    """Makes a BGR model take RGB, at no cost: flips the first kernel."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    first.kernel.assign(keras.ops.flip(first.kernel, axis=2))


def _in_float32(config: Any) -> Any:
    if isinstance(config, list):
        return [_in_float32(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {key: _in_float32(item) for key, item in config.items()}


def _channels_last(model: dict[str, Any]) -> dict[str, Any]:
    """The configuration with all layers changed to channels last."""
    layers = model["layers"]
    if not any(layer["config"].get("data_format") == "channels_first" for layer in layers):
        return model
    # "build_config" holds shapes in the old format.
    changed = [{**layer, "config": _with_channels_last(layer["config"])} for layer in layers]
    changed = [{**layer, "build_config": None} for layer in changed]
    chosen = {**model["block_config"], "data_format": "channels_last"}
    return {**model, "layers": changed, "block_config": chosen}


def _with_channels_last(layer: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if layer.get("data_format") == "channels_first":
        changes["data_format"] = "channels_last"
    if layer.get("axis") == 1:  # of a norm
        changes["axis"] = -1
    if "batch_shape" in layer:
        batch, channels, height, width = layer["batch_shape"]
        changes["batch_shape"] = [batch, height, width, channels]
    for key in ("scale", "offset"):  # of the normalization, one [[value]] per channel
        if isinstance(layer.get(key), list):
            changes[key] = np.ravel(layer[key]).tolist()
    return {**layer, **changes}
