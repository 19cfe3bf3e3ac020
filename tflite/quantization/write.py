"""A quantized network to the bytes of a .tflite file."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.flatbuffer import AlignedBuffer, operation_code, pack
from tflite.quantization.calibrate import Quantized, keeps_float_weights
from tflite.quantization.network import WEIGHTED, Network, Operation
from tflite.quantization.quant_params import QuantParams

# The version of each operation that takes int8, and what a file may ask for at most of an
# old runtime, are listed in TensorFlow's tensorflow/lite/tools/versioning/op_version.cc.
INT8_VERSIONS = {"CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 2, "QUANTIZE": 1}
DEFAULT_INT8_VERSION = 2
HYBRID_PER_CHANNEL_VERSION = 12

_TYPES = {
    np.dtype("float32"): schema.TensorType.FLOAT32,
    np.dtype("int8"): schema.TensorType.INT8,
    np.dtype("int32"): schema.TensorType.INT32,
    np.dtype("int64"): schema.TensorType.INT64,
}


def write_network(network: Network, quantized: Quantized, in_float: frozenset[int]) -> bytes:
    """The file. Operations of ``in_float`` compute in float32, all others in int8.

    Where one side meets the other a QUANTIZE or DEQUANTIZE stands between them.
    """
    writer = _Writer(network, quantized)
    for op in network.operations:
        if op.output in in_float:
            writer.float_operation(op, keeps_float_weights(network, op, in_float))
        else:
            writer.int8_operation(op)
    return writer.finish()


class _Writer:
    """Collects tensors and operations, each tensor in the types in which it is needed."""

    def __init__(self, network: Network, quantized: Quantized) -> None:
        self.network = network
        self.quantized = quantized
        self.file = schema.ModelT()
        self.file.version = 3
        self.file.description = "keras-resnet"
        self.file.operatorCodes = []
        self.file.buffers = [AlignedBuffer()]  # by convention the first one is empty
        self.file.metadata = []
        self.graph = schema.SubGraphT()
        self.graph.name = "main"
        self.graph.tensors = []
        self.graph.operators = []
        self.file.subgraphs = [self.graph]
        self.floats: dict[int, int] = {}
        self.int8s: dict[int, int] = {}
        self.floats[network.input] = self._tensor(network.input, "float32")

    def float_operation(self, op: Operation, float_weights: bool) -> None:
        version = 1
        if op.name in WEIGHTED and not float_weights:
            kernel = self.quantized.kernels[op.output]
            inputs = [
                self._float(op.inputs[0]),
                self._constant(op.inputs[1], kernel.values, kernel.scales),
                self._constant(op.inputs[2], kernel.bias),
            ]
            version = HYBRID_PER_CHANNEL_VERSION
        else:
            inputs = [self._float(t) for t in op.inputs]
        self.floats[op.output] = self._tensor(op.output, "float32")
        self._operation(op.name, version, inputs, self.floats[op.output], op.options)

    def int8_operation(self, op: Operation) -> None:
        inputs = [self._int8(t) for t in (op.inputs[:1] if op.name in WEIGHTED else op.inputs)]
        if op.name in WEIGHTED:
            kernel = self.quantized.kernels[op.output]
            scales = kernel.scales * np.float32(self.quantized.grids[op.inputs[0]].scale)
            limits = np.iinfo("int32")
            bias = np.clip(np.rint(kernel.bias / scales.astype("float64")), limits.min, limits.max)
            inputs += [
                self._constant(op.inputs[1], kernel.values, kernel.scales),
                self._constant(op.inputs[2], bias.astype("int32"), scales),
            ]
        self.int8s[op.output] = self._tensor(op.output, "int8", self.quantized.grids[op.output])
        version = INT8_VERSIONS.get(op.name, DEFAULT_INT8_VERSION)
        self._operation(op.name, version, inputs, self.int8s[op.output], op.options)

    def finish(self) -> bytes:
        answer = self._float(self.network.output)
        self.graph.inputs, self.graph.outputs = [self.floats[self.network.input]], [answer]
        signature = schema.SignatureDefT()
        signature.signatureKey, taken, answered = self.network.signature
        signature.inputs = [_tensor_map(taken, self.graph.inputs[0])]
        signature.outputs = [_tensor_map(answered, answer)]
        signature.subgraphIndex = 0
        self.file.signatureDefs = [signature]
        return pack(self.file)

    def _float(self, tensor: int) -> int:
        """The tensor in float32 (or, for axes and paddings, as it is), made where it is not."""
        if tensor not in self.floats:
            if tensor in self.network.constants:
                self.floats[tensor] = self._constant(tensor, self.network.constants[tensor])
            else:
                self.floats[tensor] = self._tensor(tensor, "float32")
                self._operation(
                    "DEQUANTIZE",
                    INT8_VERSIONS["DEQUANTIZE"],
                    [self.int8s[tensor]],
                    self.floats[tensor],
                    schema.DequantizeOptionsT(),
                )
        return self.floats[tensor]

    def _int8(self, tensor: int) -> int:
        """The tensor in int8 (or, for axes and paddings, as it is), made where it is not."""
        constant = self.network.constants.get(tensor)
        if constant is not None and tensor not in self.quantized.grids:
            return self._float(tensor)
        if tensor not in self.int8s:
            grid = self.quantized.grids[tensor]
            if constant is not None:
                self.int8s[tensor] = self._constant(tensor, grid.quantize(constant), grid)
            else:
                self.int8s[tensor] = self._tensor(tensor, "int8", grid)
                self._operation(
                    "QUANTIZE",
                    INT8_VERSIONS["QUANTIZE"],
                    [self.floats[tensor]],
                    self.int8s[tensor],
                    schema.QuantizeOptionsT(),
                )
        return self.int8s[tensor]

    def _constant(
        self, tensor: int, values: np.ndarray, scales: np.ndarray | QuantParams | None = None
    ) -> int:
        buffer = AlignedBuffer()
        buffer.data = np.ascontiguousarray(values).tobytes()
        self.file.buffers.append(buffer)
        number = self._tensor(tensor, str(values.dtype), scales)
        made = self.graph.tensors[number]
        made.buffer = len(self.file.buffers) - 1
        made.shape = np.array(values.shape, "int32")  # the network's may be out of date
        # The converter's names of constants list every layer that was folded into them.
        made.name = made.name.split(";")[-1]
        return number

    def _tensor(
        self, tensor: int, dtype: str, quantization: np.ndarray | QuantParams | None = None
    ) -> int:
        made = schema.TensorT()
        made.name = self.network.names[tensor]
        made.shape = np.array(self.network.shapes[tensor], "int32")
        made.type = _TYPES[np.dtype(dtype)]
        made.buffer = 0
        if quantization is not None:
            made.quantization = _quantization(quantization)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def _operation(
        self, name: str, version: int, inputs: list[int], output: int, options: Any
    ) -> None:
        made = schema.OperatorT()
        made.opcodeIndex = operation_code(self.file, name, version)
        made.inputs, made.outputs = inputs, [output]
        if options is not None:
            made.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self.graph.operators.append(made)


def _quantization(quantization: np.ndarray | QuantParams) -> schema.QuantizationParametersT:
    made = schema.QuantizationParametersT()
    if isinstance(quantization, QuantParams):
        made.scale = np.array([quantization.scale], "float32")
        made.zeroPoint = np.array([quantization.zero_point], "int64")
    else:
        made.scale = quantization.astype("float32")
        made.zeroPoint = np.zeros(len(quantization), "int64")
    made.quantizedDimension = 0
    return made


def _tensor_map(name: str, tensor: int) -> schema.TensorMapT:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, tensor
    return made
