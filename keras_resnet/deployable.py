"""From a trained model to the graph that a device runs."""

from __future__ import annotations

import json
from typing import Any

import keras

from keras_resnet.build import normalize
from keras_resnet.classifier import ImageClassifier


def deployable(model: ImageClassifier) -> ImageClassifier:
    """The same model as a device runs it: float32, raw pixels 0–255 in, normalization inside.

    Returns:
        A new model with its own copy of the weights; mixed-precision layers are rebuilt in
        float32, which is what their variables are kept in anyway.
    """
    float32 = ImageClassifier.from_config(_in_float32(model.get_config()))
    float32.set_weights(model.get_weights())
    if model.contract.normalization == "inside":
        return float32

    contract = model.contract
    pixels = keras.Input((contract.height, contract.width, contract.channels), name="image")
    outputs = float32(normalize(pixels, contract))
    wrapped = ImageClassifier(pixels, outputs, name=model.name)
    wrapped.contract = contract.replace(normalization="inside")
    return wrapped


def _in_float32(config: dict[str, Any]) -> dict[str, Any]:
    def rebuild(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("class_name") == "DTypePolicy":
                return {**value, "config": {"name": "float32"}}
            return {key: rebuild(item) for key, item in value.items()}
        return [rebuild(item) for item in value] if isinstance(value, list) else value

    # Through JSON, as in a saved file: tuples and Keras objects become plain data.
    return rebuild(json.loads(json.dumps(config)))
