"""A float32 .tflite file and calibration images to an int8 one: the story of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tflite.quantization.calibrate import Tuning, calibrate, channel_maxima
from tflite.quantization.equalize import equalize
from tflite.quantization.fold_normalization import fold_normalization
from tflite.quantization.network import Network, read_network
from tflite.quantization.write import write_network

HEAD = ("SOFTMAX", "FULLY_CONNECTED", "RESHAPE", "MEAN")


def quantize_int8(
    float32: bytes,
    images: Sequence[np.ndarray],
    tuning: Tuning = Tuning(),
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Weights in int8 with a scale a channel, activations in int8 with a scale a tensor.

    Args:
        float32: A .tflite file from raw pixels 0–255 to the answer.
        images: Calibration images, uint8 ``(height, width, channels)`` 0–255.
        tuning: What is done to lose little.
        progress: Called with ``(steps done, steps in all)``.

    Returns:
        A .tflite file of the same signature; its input and output are float32. The same
        arguments give the same bytes.

    Raises:
        ValueError: The file has operations that residual networks do not have.
    """
    network = prepared(float32, tuning)
    total = len(network.operations) * (1 + tuning.equalize)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    if tuning.equalize:
        network = equalize(network, channel_maxima(network, images, step))
    in_float = head(network) if tuning.float_head else frozenset()
    quantized = calibrate(network, images, in_float, tuning, step)
    return write_network(network, quantized, in_float)


def prepared(float32: bytes, tuning: Tuning) -> Network:
    """The float network in the form that is quantized."""
    network = read_network(float32)
    return fold_normalization(network) if tuning.exact_pixels else network


def head(network: Network) -> frozenset[int]:
    """The tensors from the global pooling to the answer.

    They take next to no time, and rounding them to 256 values costs what nothing can mend:
    two classes whose logits are close become equal.
    """
    makers = {op.output: op for op in network.operations}
    tensors = []
    tensor = network.output
    while tensor in makers and makers[tensor].name in HEAD:
        tensors.append(tensor)
        tensor = makers[tensor].inputs[0]
    return frozenset(tensors)
