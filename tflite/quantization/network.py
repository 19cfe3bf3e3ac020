"""A float32 .tflite file as plain data: operations in order, and their constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
RELU, RELU6 = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6
# Operations with a kernel and a bias.
WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")

_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: As in the TFLite schema, such as ``CONV_2D``.
        inputs: Numbers of the tensors that it takes.
        output: Number of the tensor that it makes.
        options: The schema's options object of this operation, or ``None``.
    """

    name: str
    inputs: tuple[int, ...]
    output: int
    options: Any

    @property
    def activation(self) -> int:
        """The fused activation function, as in the schema; 0 for none."""
        return getattr(self.options, "fusedActivationFunction", 0) or 0


@dataclass(frozen=True)
class Network:
    """A graph of one input and one output.

    Attributes:
        operations: In the order in which they run.
        constants: Value of each constant tensor, by its number.
        shapes: Shape of every tensor at batch 1, by its number.
        names: Name of every tensor, by its number.
        input: Number of the tensor that takes raw pixels.
        output: Number of the tensor with the answer.
        signature: Name of the signature, and in it those of the input and the output.
    """

    operations: tuple[Operation, ...]
    constants: Mapping[int, np.ndarray]
    shapes: Mapping[int, tuple[int, ...]]
    names: Mapping[int, str]
    input: int
    output: int
    signature: tuple[str, str, str]

    def users(self, tensor: int) -> list[Operation]:
        """The operations that take this tensor."""
        return [op for op in self.operations if tensor in op.inputs]

    def variables(self, op: Operation) -> tuple[int, ...]:
        """The inputs of an operation that are computed, not constant."""
        return tuple(tensor for tensor in op.inputs if tensor not in self.constants)

    def groups(self, op: Operation) -> int:
        """Into how many groups a convolution divides its input channels."""
        return self.shapes[op.inputs[0]][-1] // self.constants[op.inputs[1]].shape[-1]


def read_network(model: bytes) -> Network:
    """Reads a float32 .tflite file of one subgraph, one signature, one input and one output."""
    file = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = file.subgraphs
    (signature,) = file.signatureDefs
    constants = {}
    for number, tensor in enumerate(graph.tensors):
        data = file.buffers[tensor.buffer].data
        if data is not None and len(data):
            constants[number] = np.frombuffer(bytes(data), _DTYPES[tensor.type]).reshape(
                _shape(tensor)
            )
    network = Network(
        operations=tuple(
            Operation(
                NAMES[file.operatorCodes[op.opcodeIndex].builtinCode],
                tuple(int(i) for i in op.inputs if i >= 0),
                int(op.outputs[0]),
                op.builtinOptions,
            )
            for op in graph.operators
        ),
        constants=constants,
        shapes={number: _shape(tensor) for number, tensor in enumerate(graph.tensors)},
        names={number: tensor.name.decode() for number, tensor in enumerate(graph.tensors)},
        input=int(graph.inputs[0]),
        output=int(graph.outputs[0]),
        signature=(
            signature.signatureKey.decode(),
            signature.inputs[0].name.decode(),
            signature.outputs[0].name.decode(),
        ),
    )
    return _with_biases(network)


def _shape(tensor: schema.TensorT) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))


def _with_biases(network: Network) -> Network:
    """The converter leaves biases out that are all zero; quantization needs them."""
    operations = []
    constants, shapes, names = (
        dict(network.constants),
        dict(network.shapes),
        dict(network.names),
    )
    for op in network.operations:
        if op.name in WEIGHTED and len(op.inputs) == 2:
            bias, kernel = len(shapes), op.inputs[1]
            constants[bias] = np.zeros(len(constants[kernel]), "float32")
            shapes[bias], names[bias] = constants[bias].shape, f"{names[kernel]}/bias"
            op = dataclasses.replace(op, inputs=(*op.inputs, bias))
        operations.append(op)
    return dataclasses.replace(
        network, operations=tuple(operations), constants=constants, shapes=shapes, names=names
    )
