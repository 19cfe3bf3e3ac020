"""The symbolic input of a network, and checks of its shape and format."""

from __future__ import annotations

import sys
from typing import Any

import keras

from keras_resnet.architectures import Architecture
from keras_resnet.block_config import DataFormat
from keras_resnet.contract import MAX_CHANNELS, MAX_SIZE, one_of

MIN_SIZE = 32


def checked_data_format(data_format: str | None) -> DataFormat:
    """The data format of images; Keras's global setting by default.

    Raises:
        ValueError: The format is unknown, or not supported by the backend on this machine.
    """
    one_of("data_format", data_format, (None, "channels_last", "channels_first"))
    data_format = data_format or keras.config.image_data_format()
    first_on_tensorflow = (data_format, keras.backend.backend()) == ("channels_first", "tensorflow")
    # If TensorFlow is the backend, Keras has imported it; this package never does.
    if first_on_tensorflow and not sys.modules["tensorflow"].config.list_physical_devices("GPU"):
        raise ValueError(
            "TensorFlow convolves channels_first only on a GPU, and there is none. Use "
            "data_format='channels_last', which is also what TFLite takes. "
            "Received: data_format='channels_first'"
        )
    return data_format  # type: ignore[return-value]


def input_size(inputs: Any, data_format: str) -> tuple[Any, Any, Any]:
    """Height, width and channels of a tensor."""
    _, height, width, channels = _channels_last(tuple(inputs.shape), data_format)
    return height, width, channels


def _channels_last(shape: tuple[Any, ...], data_format: str) -> tuple[Any, ...]:
    """A shape in channels-last order, with or without the batch axis."""
    if data_format == "channels_last":
        return shape
    *batch, channels, height, width = shape
    return (*batch, height, width, channels)


def make_input(
    architecture: Architecture,
    input_tensor: Any,
    input_shape: tuple[int | None, ...] | None,
    data_format: str,
) -> Any:
    """The symbolic tensor that a network is built on.

    Raises:
        ValueError: The shape is out of range, or ``input_tensor`` is not a symbolic tensor of
            ``input_shape``.
    """
    if input_tensor is None:
        if input_shape is None:
            height, width, channels = architecture.input_shape
            first = data_format == "channels_first"
            input_shape = (channels, height, width) if first else (height, width, channels)
        return keras.Input(_checked_shape(input_shape, data_format), name="image")
    if not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            "input_tensor must be a symbolic Keras tensor, such as keras.Input((224, 224, 3)). "
            f"Received: {type(input_tensor).__name__}"
        )
    shape = _checked_shape(tuple(input_tensor.shape[1:]), data_format)
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            "input_shape and input_tensor must agree; pass one of them. "
            f"Received: input_shape={tuple(input_shape)}, input_tensor of shape {shape}"
        )
    return input_tensor


def _checked_shape(shape: tuple[int | None, ...], data_format: str) -> tuple[int | None, ...]:
    received = f"Received: input_shape={shape!r}"
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(
            f"input_shape must be (height, width, channels), such as (224, 224, 3). {received}"
        )
    height, width, channels = _channels_last(tuple(shape), data_format)
    for size in (height, width):
        if size is not None and (not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE):
            raise ValueError(
                f"Height and width must be integers from {MIN_SIZE} to {MAX_SIZE}, or None for "
                f"any. {received}"
            )
    if not isinstance(channels, int) or not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(
            f"The number of channels must be an integer from 1 to {MAX_CHANNELS}. {received}"
        )
    return tuple(shape)
