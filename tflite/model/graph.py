"""What is in a .tflite file, as plain data."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
TYPES = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")
}
BITS = {
    "float64": 64,
    "int64": 64,
    "uint64": 64,
    "float32": 32,
    "int32": 32,
    "uint32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "int4": 4,
    "int2": 2,
}


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        name: As in the file.
        shape: Its size along each axis.
        dynamic: Whether an axis may have another size.
        dtype: Such as ``"float32"`` or ``"int8"``.
        scales: Number of scales: 0 not quantized, 1 per tensor, more per channel.
        constant: Whether its values stand in the file.
    """

    name: str
    shape: tuple[int, ...]
    dynamic: bool
    dtype: str
    scales: int
    constant: bool

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return prod(self.shape) * BITS.get(self.dtype, 0) // 8

    @property
    def quantization(self) -> str:
        """``"none"``, ``"per tensor"`` or ``"per channel"``."""
        return ("none", "per tensor", "per channel")[min(self.scales, 2)]


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: TFLite's, such as ``"CONV_2D"``; of a custom one its own name.
        custom: Whether it is none of TFLite's own.
        inputs: Numbers of the tensors it takes.
        outputs: Numbers of the tensors it answers.
        layer: The Keras layer it came from, as far as the tensors' names tell.
    """

    name: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: str


@dataclass(frozen=True)
class Graph:
    """A model of one subgraph."""

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int
    metadata: tuple[str, ...]

    def maker(self, tensor: int) -> Operation | None:
        """The operation that answers this tensor."""
        return next((op for op in self.operations if tensor in op.outputs), None)

    def takers(self, tensor: int) -> list[Operation]:
        """The operations that take this tensor."""
        return [op for op in self.operations if tensor in op.inputs]

    def data_inputs(self, operation: Operation) -> list[int]:
        """What an operation takes that is not constant."""
        return [i for i in operation.inputs if not self.tensors[i].constant]

    @property
    def multiply_adds(self) -> int:
        """Of the convolutions and fully connected layers, for one run."""
        return sum(self._multiply_adds(op) for op in self.operations)

    def _multiply_adds(self, op: Operation) -> int:
        if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            return 0
        weights = self.tensors[op.inputs[1]].shape
        answered = prod(self.tensors[op.outputs[0]].shape)
        return answered * prod(weights[1:3] if op.name.startswith("DEPTHWISE") else weights[1:])

    @property
    def arena_bytes(self) -> int:
        """The least memory for activations: the most that is alive at once, in file order."""
        last = {i: len(self.operations) for i in self.outputs}
        for step, op in reversed(list(enumerate(self.operations))):
            for i in op.inputs:
                last.setdefault(i, step)
        alive = sum(self.tensors[i].bytes for i in self.inputs)
        most = alive
        for step, op in enumerate(self.operations):
            alive += sum(self.tensors[i].bytes for i in op.outputs)
            most = max(most, alive)
            done = {i for i in (*op.inputs, *op.outputs) if last.get(i, step) == step}
            alive -= sum(self.tensors[i].bytes for i in done if not self.tensors[i].constant)
        return most

    @property
    def weight_bytes(self) -> int:
        """Size of all constants."""
        return sum(tensor.bytes for tensor in self.tensors if tensor.constant)


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Reads a file that a runtime has found to be sound (see ``tflite.model.sandbox``).

    Raises:
        ValueError: It is damaged nevertheless.
    """
    data = Path(path).read_bytes()
    try:
        return _graph(schema.Model.GetRootAs(data, 0))
    except Exception as error:  # flatbuffers checks nothing and stumbles in a dozen ways
        raise ValueError(f"{path} is damaged: {type(error).__name__} while reading it") from error


def _graph(model: schema.Model) -> Graph:
    subgraph = model.Subgraphs(0)
    tensors = tuple(_tensor(model, subgraph.Tensors(i)) for i in range(subgraph.TensorsLength()))
    answered = [
        number
        for operator in (subgraph.Operators(i) for i in range(subgraph.OperatorsLength()))
        # One that takes constants alone unpacks float16 weights, which are named otherwise.
        if not all(tensors[number].constant for number in _numbers(operator.InputsAsNumpy()))
        for number in _numbers(operator.OutputsAsNumpy())
    ]
    layers = Layers([tensors[number].name for number in answered])
    operations = []
    for i in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = (code.CustomCode() or b"").decode(errors="replace")
        outputs = _numbers(operator.OutputsAsNumpy())
        name = OPERATIONS.get(number, f"operation {number}")
        operations.append(
            Operation(
                name=custom or name,
                custom=number == schema.BuiltinOperator.CUSTOM,
                inputs=_numbers(operator.InputsAsNumpy()),
                outputs=outputs,
                layer=layers.of(tensors[outputs[0]].name, name) if outputs else "",
            )
        )
    names = (model.Metadata(i).Name() for i in range(model.MetadataLength()))
    return Graph(
        tensors,
        tuple(operations),
        _numbers(subgraph.InputsAsNumpy()),
        _numbers(subgraph.OutputsAsNumpy()),
        model.SubgraphsLength(),
        tuple((name or b"").decode(errors="replace") for name in names),
    )


def _tensor(model: schema.Model, tensor: schema.Tensor) -> Tensor:
    quantization = tensor.Quantization()
    signature = tensor.ShapeSignatureAsNumpy()
    return Tensor(
        name=(tensor.Name() or b"").decode(errors="replace"),
        shape=() if tensor.ShapeIsNone() else tuple(map(int, tensor.ShapeAsNumpy())),
        dynamic=bool(np.any(np.asarray(signature) < 0)) if tensor.ShapeSignatureLength() else False,
        dtype=TYPES.get(tensor.Type(), str(tensor.Type())),
        scales=quantization.ScaleLength() if quantization else 0,
        constant=model.Buffers(tensor.Buffer()).DataLength() > 0,
    )


def _numbers(array: np.ndarray | int) -> tuple[int, ...]:
    # flatbuffers answers 0 for a vector that is not there; TFLite writes -1 for no tensor.
    return tuple(int(i) for i in array if i >= 0) if isinstance(array, np.ndarray) else ()


# What the converter calls the operations that a layer becomes.
ENDINGS = {
    "CONV_2D": ("convolution", "Conv2D"),
    "DEPTHWISE_CONV_2D": ("depthwise",),
    "FULLY_CONNECTED": ("MatMul",),
    "ADD": ("Add", "add"),
    "MEAN": ("Mean",),
    "SOFTMAX": ("Softmax",),
    "MUL": ("mul", "Mul"),
}


class Layers:
    """Keras layers in the names of tensors: ``net/conv1_1/convolution;net/norm1_1/…``.

    The export numbers every layer of a model that it calls anew, ``conv1`` as ``conv1_1``; only
    where all carry such a number is it none of the layer's own.
    """

    def __init__(self, names: list[str]) -> None:
        found = [part[1] for name in names for part in _parts(name)]
        self._numbered = bool(found) and all(re.search(r"_\d+$", layer) for layer in found)

    def of(self, name: str, operation: str) -> str:
        """The layer that an operation with an output of this name came from, or ``""``."""
        parts = _parts(name)
        endings = ENDINGS.get(operation, ())
        fitting = (
            [layer for ending, layer in parts if ending.startswith(endings)] if endings else []
        )
        if not parts:
            return ""
        layer = (fitting or [parts[0][1]])[0]
        return re.sub(r"_\d+$", "", layer) if self._numbered else layer


def _parts(name: str) -> list[tuple[str, str]]:
    """Pairs of what the layer does and the layer, for each part of a fused name."""
    paths = (part.split("/") for part in name.split(";"))
    # Of a path such as net/norm/batchnorm/mul the last two are the operation's.
    kept = (
        [p for p in path if p not in ("batchnorm", "Reshape", "reduction_indices")]
        for path in paths
    )
    return [(path[-1], path[-2]) for path in kept if len(path) > 1]
