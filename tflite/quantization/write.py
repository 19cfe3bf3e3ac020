"""A float graph and its quantization parameters to a quantized graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.graph import Graph, Operation, Quantization, Signature, Tensor
from tflite.quantization.calibrate import Quantized, keeps_float_weights
from tflite.quantization.operations import WEIGHTED
from tflite.quantization.quant_params import QuantParams

# The version of each operation that takes int8, and what a file may ask for at most of an
# old runtime, are listed in TensorFlow's tensorflow/lite/tools/versioning/op_version.cc.
INT8_VERSIONS = {"CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 2, "QUANTIZE": 1}
DEFAULT_INT8_VERSION = 2
HYBRID_PER_CHANNEL_VERSION = 12


def quantized_graph(graph: Graph, quantized: Quantized, in_float: frozenset[int]) -> Graph:
    """The quantized graph, with the signature of the float one and none of its metadata.

    Operations whose output is in ``in_float`` compute in float32, all others in int8; QUANTIZE
    and DEQUANTIZE connect the two.
    """
    writer = _Writer(graph, quantized)
    for op in graph.operations:
        if op.output in in_float:
            writer.float_operation(op, keeps_float_weights(graph, op, in_float))
        else:
            writer.int8_operation(op)
    return writer.finish()


class _Writer:
    """Collects tensors and operations, each tensor in the types in which it is needed."""

    def __init__(self, graph: Graph, quantized: Quantized) -> None:
        self.graph = graph
        self.quantized = quantized
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        # The new number of a tensor of the float graph, in float32 and in int8.
        self.floats: dict[int, int] = {}
        self.int8s: dict[int, int] = {}
        self.floats[graph.inputs[0]] = self._computed(graph.inputs[0], "float32")

    def float_operation(self, op: Operation, float_weights: bool) -> None:
        version = 1
        if op.name in WEIGHTED and not float_weights:
            kernel = self.quantized.kernels[op.output]
            inputs = [
                self._float(op.inputs[0]),
                self._constant(op.inputs[1], kernel.values, _per_channel(kernel.scales)),
                self._constant(op.inputs[2], kernel.bias),
            ]
            version = HYBRID_PER_CHANNEL_VERSION
        else:
            inputs = [self._float(t) for t in op.inputs]
        self.floats[op.output] = self._computed(op.output, "float32")
        self._add(op.name, version, inputs, self.floats[op.output], op.options)

    def int8_operation(self, op: Operation) -> None:
        inputs = [self._int8(t) for t in (op.inputs[:1] if op.name in WEIGHTED else op.inputs)]
        quant_params = self.quantized.quant_params
        if op.name in WEIGHTED:
            kernel = self.quantized.kernels[op.output]
            scales = kernel.scales * np.float32(quant_params[op.inputs[0]].scale)
            limits = np.iinfo("int32")
            bias = np.clip(np.rint(kernel.bias / scales.astype("float64")), limits.min, limits.max)
            inputs += [
                self._constant(op.inputs[1], kernel.values, _per_channel(kernel.scales)),
                self._constant(op.inputs[2], bias.astype("int32"), _per_channel(scales)),
            ]
        self.int8s[op.output] = self._computed(op.output, "int8", quant_params[op.output])
        version = INT8_VERSIONS.get(op.name, DEFAULT_INT8_VERSION)
        self._add(op.name, version, inputs, self.int8s[op.output], op.options)

    def finish(self) -> Graph:
        inputs = (self.floats[self.graph.inputs[0]],)
        outputs = (self._float(self.graph.outputs[0]),)
        signatures = tuple(
            Signature(s.key, dict(zip(s.inputs, inputs)), dict(zip(s.outputs, outputs)))
            for s in self.graph.signatures
        )
        return Graph(tuple(self.tensors), tuple(self.operations), inputs, outputs, signatures)

    def _float(self, tensor: int) -> int:
        """The tensor in float32 (or, for axes and paddings, as it is), created if need be."""
        if tensor not in self.floats:
            if self.graph.tensors[tensor].constant:
                self.floats[tensor] = self._constant(tensor, self.graph.tensors[tensor].values)
            else:
                self.floats[tensor] = self._computed(tensor, "float32")
                self._add(
                    "DEQUANTIZE",
                    INT8_VERSIONS["DEQUANTIZE"],
                    [self.int8s[tensor]],
                    self.floats[tensor],
                    schema.DequantizeOptionsT(),
                )
        return self.floats[tensor]

    def _int8(self, tensor: int) -> int:
        """The tensor in int8 (or, for axes and paddings, as it is), created if need be."""
        source = self.graph.tensors[tensor]
        quant_params = self.quantized.quant_params.get(tensor)
        if quant_params is None:
            return self._float(tensor)
        if tensor not in self.int8s:
            if source.constant:
                values = quant_params.quantize(source.values)
                self.int8s[tensor] = self._constant(tensor, values, _per_tensor(quant_params))
            else:
                self.int8s[tensor] = self._computed(tensor, "int8", quant_params)
                self._add(
                    "QUANTIZE",
                    INT8_VERSIONS["QUANTIZE"],
                    [self.floats[tensor]],
                    self.int8s[tensor],
                    schema.QuantizeOptionsT(),
                )
        return self.int8s[tensor]

    def _constant(
        self, tensor: int, values: np.ndarray, quantized: Quantization | None = None
    ) -> int:
        # The converter's names of constants list every layer that was folded into them.
        name = self.graph.tensors[tensor].name.split(";")[-1]
        self.tensors.append(
            dataclasses.replace(Tensor(name, (), "").with_values(values), quantized=quantized)
        )
        return len(self.tensors) - 1

    def _computed(self, tensor: int, dtype: str, quant_params: QuantParams | None = None) -> int:
        source = self.graph.tensors[tensor]
        quantized = _per_tensor(quant_params) if quant_params else None
        self.tensors.append(Tensor(source.name, source.shape, dtype, quantized))
        return len(self.tensors) - 1

    def _add(self, name: str, version: int, inputs: list[int], output: int, options: Any) -> None:
        self.operations.append(Operation(name, tuple(inputs), (output,), options, version))


def _per_tensor(quant_params: QuantParams) -> Quantization:
    return Quantization((quant_params.scale,), (quant_params.zero_point,))


def _per_channel(scales: np.ndarray) -> Quantization:
    return Quantization(tuple(map(float, scales)), (0,) * len(scales))
