"""From a float network and images to the integers and grids of a quantized one.

One walk through the network, operation by operation, with two sets of activations: those of
the float network, and those of the quantized one as far as it is made. Each layer is rounded
on what it will really receive, and its bias takes back what the rounding so far has shifted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.quantization.gptq import (
    channel_scales,
    round_by_least_squares,
    round_to_nearest,
)
from tflite.quantization.network import WEIGHTED, Network, Operation
from tflite.quantization.operations import MOVES, function
from tflite.quantization.quant_params import PIXELS, PROBABILITIES, RANGES, QuantParams, by_min_max

# Images computed at a time: at least so many, and more where the numbers of one image are few.
CHUNK = 4
CHUNK_VALUES = 2_000_000
# Positions of a feature map that a layer's weights are rounded on; the time is proportional.
SAMPLES = 4_000
# The largest number in float16.
HALF = float(np.finfo("float16").max)
# A classifier of less than this share of all weights costs next to nothing in float32.
SMALL_CLASSIFIER = 0.02


@dataclass(frozen=True)
class Tuning:
    """How to quantize. The defaults won in ``benchmarks/quantization.py``.

    Attributes:
        ranges: What decides how much of an activation's range is kept.
        rounding: Each weight to its nearest integer, or all by least squares.
        correct_bias: Whether biases take back the mean error of each channel (Nagel et al.
            2019, arXiv:1906.04721, section 4.2, with calibration images).
        equalize: Whether channels are rescaled to equal ranges first.
        exact_pixels: Whether normalization is folded into the first convolution.
        float_head: Whether everything from the global pooling on computes in float.
    """

    ranges: Literal["min-max", "percentile", "squared-error"] = "squared-error"
    rounding: Literal["nearest", "least-squares"] = "least-squares"
    correct_bias: bool = True
    equalize: bool = False
    exact_pixels: bool = True
    float_head: bool = True


@dataclass(frozen=True)
class Kernel:
    """The weights of one layer.

    Attributes:
        values: int8, in the shape of the float kernel.
        scales: One for each output channel.
        bias: float32, one for each output channel.
    """

    values: np.ndarray
    scales: np.ndarray
    bias: np.ndarray

    @property
    def dequantized(self) -> np.ndarray:
        scales = self.scales.reshape(-1, *[1] * (self.values.ndim - 1))
        return self.values * scales.astype("float32")


@dataclass(frozen=True)
class Quantized:
    """Everything that a file needs beyond the float network.

    Attributes:
        grids: QuantParams of each tensor that is int8; a tensor without one is float32.
        kernels: Kernel of each quantized layer, by the number of its output tensor.
    """

    grids: Mapping[int, QuantParams]
    kernels: Mapping[int, Kernel]


def calibrate(
    network: Network,
    images: Sequence[np.ndarray],
    in_float: frozenset[int] = frozenset(),
    tuning: Tuning = Tuning(),
    step: Callable[[], None] = lambda: None,
) -> Quantized:
    """Chooses grids, rounds weights and corrects biases.

    Args:
        network: The float network, on raw pixels.
        images: uint8 ``(height, width, channels)``, all of one shape.
        in_float: Output tensors of the operations that compute in float32.
        tuning: How.
        step: Called after each operation.
    """
    pixels = _Activations(np.stack(images))
    live = {network.input: _Pair(pixels, pixels)}
    grids = {network.input: PIXELS}
    kernels = {}
    for op, dead in _with_dead_tensors(network):
        pairs = [live[t] for t in network.variables(op)]
        inexact = [pair.quantized for pair in pairs]
        constants = {t: network.constants[t] for t in op.inputs if t in network.constants}
        exact = _compute(network, op, [pair.exact for pair in pairs], constants)

        if op.output not in in_float:
            inexact = [x.on(grids[t]) for x, t in zip(inexact, network.variables(op))]
            if op.name not in WEIGHTED:
                for tensor in _operands(network, op):
                    grids[tensor] = _constant_grid(op, constants[tensor], grids)
                    constants[tensor] = _rounded(constants[tensor], grids[tensor])
        if op.name in WEIGHTED and not keeps_float_weights(network, op, in_float):
            kernels[op.output] = kernel = _kernel(network, op, pairs[0].exact, inexact[0], tuning)
            constants |= dict(zip(op.inputs[1:], (kernel.dequantized, kernel.bias)))
        if not {op.output, *(user.output for user in network.users(op.output))} <= in_float:
            grids[op.output] = _grid(op, exact, grids, tuning)

        quantized = _compute(
            network, op, inexact, constants, None if op.output in in_float else grids[op.output]
        )
        live[op.output] = _Pair(exact, quantized)
        for tensor in dead:
            del live[tensor]
        step()
    return Quantized(grids, kernels)


def channel_maxima(
    network: Network, images: Sequence[np.ndarray], step: Callable[[], None] = lambda: None
) -> dict[int, np.ndarray]:
    """Largest magnitude of each channel of each computed tensor, on calibration images."""
    live = {network.input: _Activations(np.stack(images))}
    maxima = {}
    for op, dead in _with_dead_tensors(network):
        constants = {t: network.constants[t] for t in op.inputs if t in network.constants}
        live[op.output] = _compute(network, op, [live[t] for t in network.variables(op)], constants)
        values = live[op.output].at(slice(None))
        axes = tuple(range(values.ndim - 1))
        maxima[op.output] = np.maximum(values.max(axes), -values.min(axes)).astype("float32")
        for tensor in dead:
            del live[tensor]
        step()
    return maxima


def keeps_float_weights(network: Network, op: Operation, in_float: frozenset[int]) -> bool:
    """Whether a layer's weights stay in float32.

    They do where it computes in float. A large classifier is the exception: TFLite multiplies
    float32 inputs by int8 weights nearly as exactly, and the file is smaller by half of that
    classifier and more.
    """
    if op.name not in WEIGHTED or op.output not in in_float:
        return False
    sizes = [network.constants[o.inputs[1]].size for o in network.operations if o.name in WEIGHTED]
    small = network.constants[op.inputs[1]].size < SMALL_CLASSIFIER * sum(sizes)
    return op.name != "FULLY_CONNECTED" or small


@dataclass(frozen=True)
class _Activations:
    """One tensor for all images, kept in as few bytes as it needs.

    Attributes:
        values: uint8 pixels, int8 on a grid, or floats.
        grid: That of int8 values.
    """

    values: np.ndarray
    grid: QuantParams | None = None

    def at(self, index: Any) -> np.ndarray:
        """Some of them, in float32."""
        values = self.values[index]
        return self.grid.dequantize(values) if self.grid else _cast(values, "float32")

    def on(self, grid: QuantParams) -> _Activations:
        """The same, rounded to a grid."""
        if self.grid == grid:
            return self
        return _Activations(grid.quantize(self.at(slice(None))), grid)


@dataclass(frozen=True)
class _Pair:
    """One tensor as the float network computes it, and as the quantized one does."""

    exact: _Activations
    quantized: _Activations


def _with_dead_tensors(network: Network) -> Iterator[tuple[Operation, list[int]]]:
    """Each operation, and the tensors that nobody needs after it."""
    last = {tensor: op for op in network.operations for tensor in network.variables(op)}
    for op in network.operations:
        yield op, [tensor for tensor, user in last.items() if user is op]


def _compute(
    network: Network,
    op: Operation,
    inputs: Sequence[_Activations],
    constants: Mapping[int, np.ndarray],
    grid: QuantParams | None = None,
) -> _Activations:
    """The output of an operation for all images; on a grid where one is given."""
    count = len(inputs[0].values)
    shape = (count, *network.shapes[op.output][1:])
    # Eleven bits are enough to choose eight, and take half of the memory.
    output = np.empty(shape, "int8" if grid else "float16" if len(shape) > 2 else "float32")
    compute = function(op, constants)
    largest = max(math.prod(x.values.shape[1:]) for x in (*inputs, _Activations(output)))
    size = max(CHUNK, CHUNK_VALUES // largest)
    for start in range(0, count, size):
        chunk = slice(start, start + size)
        computed = np.asarray(compute(*[x.at(chunk) for x in inputs]))
        if output.dtype == np.float16 and max(computed.max(), -computed.min()) > HALF:
            output = output.astype("float32")
        output[chunk] = grid.quantize(computed) if grid else _cast(computed, output.dtype)
    return _Activations(output, grid)


def _cast(values: np.ndarray, dtype: str | np.dtype) -> np.ndarray:
    """The same in another type. TensorFlow's cast: NumPy's float16 is five times as slow."""
    import tensorflow as tf

    return np.asarray(tf.cast(values, dtype))


def _grid(
    op: Operation, exact: _Activations, grids: Mapping[int, QuantParams], tuning: Tuning
) -> QuantParams:
    if op.name in MOVES:
        return grids[op.inputs[0]]
    if op.name in ("LOGISTIC", "SOFTMAX"):
        return PROBABILITIES
    return RANGES[tuning.ranges](exact.at(slice(None)))


def _operands(network: Network, op: Operation) -> list[int]:
    """The constants that an operation computes with, and not its axes or paddings."""
    constants = network.constants
    return [t for t in op.inputs if t in constants and constants[t].dtype == np.float32]


def _constant_grid(
    op: Operation, values: np.ndarray, grids: Mapping[int, QuantParams]
) -> QuantParams:
    return grids[op.inputs[0]] if op.name in MOVES else by_min_max(values)


def _rounded(values: np.ndarray, grid: QuantParams) -> np.ndarray:
    return grid.dequantize(grid.quantize(values))


def _kernel(
    network: Network, op: Operation, exact: _Activations, quantized: _Activations, tuning: Tuning
) -> Kernel:
    weights, bias = (network.constants[t] for t in op.inputs[1:3])
    groups = network.groups(op)
    positions = _positions(network, op, len(exact.values))
    values, shifts = [], []
    scales = channel_scales(weights.reshape(len(weights), -1))
    for group, (w, s) in enumerate(zip(np.split(weights, groups), np.split(scales, groups))):
        right = _patches(network, op, exact, positions, group)
        wrong = _patches(network, op, quantized, positions, group)
        flat = w.reshape(len(w), -1)
        mean = wrong.mean(axis=0)
        if tuning.rounding == "least-squares":
            q = round_by_least_squares(flat, s, wrong - mean)
        else:
            q = round_to_nearest(flat, s)
        shifts.append(flat @ right.mean(axis=0) - (q * s[:, None]) @ mean)
        values.append(q.reshape(w.shape))
    if tuning.correct_bias:
        bias = bias + np.concatenate(shifts)
    return Kernel(np.concatenate(values), scales, bias.astype("float32"))


def _positions(network: Network, op: Operation, images: int) -> tuple[np.ndarray, ...] | None:
    """Image, row and column of the outputs that are looked at; ``None`` for a matrix."""
    if op.name == "FULLY_CONNECTED":
        return None
    _, height, width, _ = network.shapes[op.output]
    each = min(math.ceil(SAMPLES / images), height * width)
    random = np.random.default_rng(0)
    chosen = [random.choice(height * width, each, replace=False) for _ in range(images)]
    rows, columns = np.divmod(np.concatenate(chosen), width)
    return np.repeat(np.arange(images), each), rows, columns


def _patches(
    network: Network,
    op: Operation,
    activations: _Activations,
    positions: tuple[np.ndarray, ...] | None,
    group: int,
) -> np.ndarray:
    """What a layer multiplies its weights by: ``(positions, inputs of one filter)``."""
    if positions is None:
        return activations.at(slice(None))
    images, rows, columns = positions
    _, kernel_height, kernel_width, channels = network.constants[op.inputs[1]].shape
    options = op.options
    _, height, width, _ = network.shapes[op.inputs[0]]

    def taps(starts: np.ndarray, stride: int, dilation: int, kernel: int, size: int) -> np.ndarray:
        reach = (kernel - 1) * dilation + 1
        before = 0
        if options.padding == schema.Padding.SAME:
            before = max((math.ceil(size / stride) - 1) * stride + reach - size, 0) // 2
        return starts[:, None] * stride - before + dilation * np.arange(kernel)

    y = taps(rows, options.strideH, options.dilationHFactor, kernel_height, height)[:, :, None]
    x = taps(columns, options.strideW, options.dilationWFactor, kernel_width, width)[:, None, :]
    outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
    values = activations.at(
        (
            images[:, None, None],
            np.clip(y, 0, height - 1),
            np.clip(x, 0, width - 1),
            slice(group * channels, (group + 1) * channels),
        )
    )
    return np.where(outside[..., None], np.float32(0), values).reshape(len(values), -1)
