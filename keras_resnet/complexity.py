"""Cost of a model, counted from its layers."""

from __future__ import annotations

import math

import keras

from keras_resnet.layers import BlurPool


def multiply_adds(model: keras.Model) -> int:
    """Multiplications with addition for one image, in convolutions and dense layers.

    Norms, activations and pooling are not counted, as in published figures.

    Args:
        model: A functional model of fixed input size.

    Raises:
        ValueError: The input has no fixed height and width.
    """
    return sum(_of_layer(layer) for layer in model.layers)


def activation_bytes(layer: keras.Layer) -> float:
    """Bytes of a layer's output for one image; infinite if its size is not fixed."""
    if isinstance(layer, keras.Model):
        return max(activation_bytes(inner) for inner in layer.layers)
    shape = layer.output.shape[1:]
    if None in shape:
        return math.inf
    width = 2 if layer.compute_dtype in ("float16", "bfloat16") else 4
    return width * math.prod(shape)


def _of_layer(layer: keras.Layer) -> int:
    if isinstance(layer, keras.Model):
        return multiply_adds(layer)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Conv2D):
        # The kernel's shape is (height, width, input channels per group, output channels).
        return math.prod(layer.kernel.shape) * _pixels(layer)
    if isinstance(layer, BlurPool):  # a depthwise 3×3 convolution
        return 9 * layer.channels(layer.output.shape) * _pixels(layer)
    return 0


def _pixels(layer: keras.Layer) -> int:
    shape = layer.output.shape
    height, width = shape[1:3] if layer.data_format == "channels_last" else shape[2:4]
    if height is None or width is None:
        raise ValueError(
            f"{layer.name} has no fixed output size, so its cost is unknown. Build the model with "
            "a fixed input_shape, such as (224, 224, 3)."
        )
    return height * width
