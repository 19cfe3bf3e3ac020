"""From a float graph and images to the integers and quantization parameters of a quantized one.

One pass through the graph, operation by operation, with two sets of activations: those of the
float network, and those of the quantized network up to this operation. Each layer is rounded on
the activations that it will really receive, and its bias compensates the mean shift that the
rounding so far has caused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.graph import Graph, Operation
from tflite.quantization.gptq import (
    channel_scales,
    round_by_least_squares,
    round_to_nearest,
)
from tflite.quantization.operations import MOVES, WEIGHTED, function
from tflite.quantization.quant_params import (
    PIXELS,
    PROBABILITIES,
    RANGES,
    QuantParams,
    by_min_max,
)

# Images computed at a time: at least so many, and more where feature maps are small.
CHUNK = 4
CHUNK_VALUES = 2_000_000
# Positions of a feature map that a layer's weights are rounded on; the time is proportional.
SAMPLES = 4_000
# The largest number in float16.
HALF = float(np.finfo("float16").max)
# A classifier of less than this share of all weights costs next to nothing in float32.
SMALL_CLASSIFIER = 0.02


@dataclass(frozen=True)
class QuantizationConfig:
    """How to quantize. The defaults won in ``benchmarks/quantization.py``.

    Attributes:
        ranges: How the range of an activation is chosen from its values.
        rounding: Each weight to its nearest integer, or all by least squares.
        correct_bias: Whether biases compensate the mean error of each channel (Nagel et al.
            2019, arXiv:1906.04721, section 4.2, with calibration images).
    """

    ranges: Literal["min-max", "percentile", "squared-error"] = "squared-error"
    rounding: Literal["nearest", "least-squares"] = "least-squares"
    correct_bias: bool = True


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
    """Everything that a quantized graph needs beyond the float one.

    Attributes:
        quant_params: Of each tensor that is int8; a tensor without them is float32.
        kernels: Kernel of each quantized layer, by the number of its output tensor.
    """

    quant_params: Mapping[int, QuantParams]
    kernels: Mapping[int, Kernel]


def calibrate(
    graph: Graph,
    images: Sequence[np.ndarray],
    in_float: frozenset[int] = frozenset(),
    config: QuantizationConfig = QuantizationConfig(),
    step: Callable[[], None] = lambda: None,
) -> Quantized:
    """Chooses quantization parameters, rounds weights and corrects biases.

    Args:
        graph: The float network, on raw pixels, in which every layer has a bias.
        images: uint8 ``(height, width, channels)``, all of one shape.
        in_float: Output tensors of the operations that compute in float32.
        config: How.
        step: Called after each operation.
    """
    pixels = _Activations(np.stack(images))
    live = {graph.inputs[0]: _Pair(pixels, pixels)}
    quant_params = {graph.inputs[0]: PIXELS}
    kernels = {}
    for op, dead in _with_dead_tensors(graph):
        variables = graph.data_inputs(op)
        pairs = [live[t] for t in variables]
        inexact = [pair.quantized for pair in pairs]
        constants = {t: graph.tensors[t].values for t in op.inputs if graph.tensors[t].constant}
        exact = _compute(graph, op, [pair.exact for pair in pairs], constants)

        if op.output not in in_float:
            inexact = [x.rounded(quant_params[t]) for x, t in zip(inexact, variables)]
            if op.name not in WEIGHTED:
                for tensor in _operands(graph, op):
                    params = _constant_params(op, constants[tensor], quant_params)
                    quant_params[tensor] = params
                    constants[tensor] = params.dequantize(params.quantize(constants[tensor]))
        if op.name in WEIGHTED and not keeps_float_weights(graph, op, in_float):
            kernels[op.output] = kernel = _kernel(graph, op, pairs[0].exact, inexact[0], config)
            constants |= dict(zip(op.inputs[1:], (kernel.dequantized, kernel.bias)))
        if (
            not {op.output, *(consumer.output for consumer in graph.consumers(op.output))}
            <= in_float
        ):
            quant_params[op.output] = _output_params(op, exact, quant_params, config)

        wanted = None if op.output in in_float else quant_params[op.output]
        live[op.output] = _Pair(exact, _compute(graph, op, inexact, constants, wanted))
        for tensor in dead:
            del live[tensor]
        step()
    return Quantized(quant_params, kernels)


def keeps_float_weights(graph: Graph, op: Operation, in_float: frozenset[int]) -> bool:
    """Whether a layer's weights stay in float32.

    They do where it computes in float. A large classifier is the exception: TFLite multiplies
    float32 inputs by int8 weights nearly as exactly, and the file is smaller by half of that
    classifier and more.
    """
    if op.name not in WEIGHTED or op.output not in in_float:
        return False

    def weights(layer: Operation) -> int:
        return math.prod(graph.tensors[layer.inputs[1]].shape)

    everything = sum(weights(o) for o in graph.operations if o.name in WEIGHTED)
    return op.name != "FULLY_CONNECTED" or weights(op) < SMALL_CLASSIFIER * everything


@dataclass(frozen=True)
class _Activations:
    """One tensor for all images, kept in as few bytes as it needs.

    Attributes:
        values: uint8 pixels, int8, or floats.
        quant_params: Of int8 values.
    """

    values: np.ndarray
    quant_params: QuantParams | None = None

    def at(self, index: Any) -> np.ndarray:
        """Some of them, in float32."""
        values = self.values[index]
        if self.quant_params:
            return self.quant_params.dequantize(values)
        return _cast(values, "float32")

    def rounded(self, quant_params: QuantParams) -> _Activations:
        """The same in int8."""
        if self.quant_params == quant_params:
            return self
        return _Activations(quant_params.quantize(self.at(slice(None))), quant_params)


@dataclass(frozen=True)
class _Pair:
    """One tensor as the float network computes it, and as the quantized one does."""

    exact: _Activations
    quantized: _Activations


def _with_dead_tensors(graph: Graph) -> Iterator[tuple[Operation, list[int]]]:
    """Each operation, and the tensors that no operation reads after it."""
    last = {tensor: op for op in graph.operations for tensor in graph.data_inputs(op)}
    for op in graph.operations:
        yield op, [tensor for tensor, consumer in last.items() if consumer is op]


def _compute(
    graph: Graph,
    op: Operation,
    inputs: Sequence[_Activations],
    constants: Mapping[int, np.ndarray],
    quant_params: QuantParams | None = None,
) -> _Activations:
    """The output of an operation for all images, in int8 if there are parameters for it."""
    count = len(inputs[0].values)
    shape = (count, *graph.tensors[op.output].shape[1:])
    # Eleven bits are enough to choose eight, and take half of the memory.
    dtype = "int8" if quant_params else "float16" if len(shape) > 2 else "float32"
    output = np.empty(shape, dtype)
    compute = function(op, constants)
    largest = max(math.prod(x.values.shape[1:]) for x in (*inputs, _Activations(output)))
    size = max(CHUNK, CHUNK_VALUES // largest)
    for start in range(0, count, size):
        chunk = slice(start, start + size)
        computed = np.asarray(compute(*[x.at(chunk) for x in inputs]))
        if output.dtype == np.float16 and max(computed.max(), -computed.min()) > HALF:
            output = output.astype("float32")
        rounded = quant_params.quantize(computed) if quant_params else _cast(computed, output.dtype)
        output[chunk] = rounded
    return _Activations(output, quant_params)


def _cast(values: np.ndarray, dtype: str | np.dtype) -> np.ndarray:
    """The same in another type. TensorFlow's cast: NumPy's float16 is five times as slow."""
    import tensorflow as tf

    return np.asarray(tf.cast(values, dtype))


def _output_params(
    op: Operation,
    exact: _Activations,
    quant_params: Mapping[int, QuantParams],
    config: QuantizationConfig,
) -> QuantParams:
    if op.name in MOVES:
        return quant_params[op.inputs[0]]
    if op.name in ("LOGISTIC", "SOFTMAX"):
        return PROBABILITIES
    return RANGES[config.ranges](exact.at(slice(None)))


def _operands(graph: Graph, op: Operation) -> list[int]:
    """The constants that an operation computes with, and not its axes or paddings."""
    found = ((t, graph.tensors[t]) for t in op.inputs)
    return [t for t, tensor in found if tensor.constant and tensor.dtype == "float32"]


def _constant_params(
    op: Operation, values: np.ndarray, quant_params: Mapping[int, QuantParams]
) -> QuantParams:
    return quant_params[op.inputs[0]] if op.name in MOVES else by_min_max(values)


def _kernel(
    graph: Graph,
    op: Operation,
    exact: _Activations,
    quantized: _Activations,
    config: QuantizationConfig,
) -> Kernel:
    weights, bias = (graph.tensors[t].values for t in op.inputs[1:3])
    groups = graph.groups(op)
    positions = _positions(graph, op, len(exact.values))
    values, shifts = [], []
    scales = channel_scales(weights.reshape(len(weights), -1))
    for group, (w, s) in enumerate(zip(np.split(weights, groups), np.split(scales, groups))):
        right = _patches(graph, op, exact, positions, group)
        wrong = _patches(graph, op, quantized, positions, group)
        flat = w.reshape(len(w), -1)
        mean = wrong.mean(axis=0)
        if config.rounding == "least-squares":
            q = round_by_least_squares(flat, s, wrong - mean)
        else:
            q = round_to_nearest(flat, s)
        shifts.append(flat @ right.mean(axis=0) - (q * s[:, None]) @ mean)
        values.append(q.reshape(w.shape))
    if config.correct_bias:
        bias = bias + np.concatenate(shifts)
    return Kernel(np.concatenate(values), scales, bias.astype("float32"))


def _positions(graph: Graph, op: Operation, images: int) -> tuple[np.ndarray, ...] | None:
    """Image, row and column of the outputs that are sampled; ``None`` for a matrix."""
    if op.name == "FULLY_CONNECTED":
        return None
    _, height, width, _ = graph.tensors[op.output].shape
    each = min(math.ceil(SAMPLES / images), height * width)
    random = np.random.default_rng(0)
    chosen = [random.choice(height * width, each, replace=False) for _ in range(images)]
    rows, columns = np.divmod(np.concatenate(chosen), width)
    return np.repeat(np.arange(images), each), rows, columns


def _patches(
    graph: Graph,
    op: Operation,
    activations: _Activations,
    positions: tuple[np.ndarray, ...] | None,
    group: int,
) -> np.ndarray:
    """What a layer multiplies its weights by: ``(positions, inputs of one filter)``."""
    if positions is None:
        return activations.at(slice(None))
    images, rows, columns = positions
    _, kernel_height, kernel_width, channels = graph.tensors[op.inputs[1]].shape
    options = op.options
    _, height, width, _ = graph.tensors[op.inputs[0]].shape

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
