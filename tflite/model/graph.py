"""The graph of a .tflite file as plain data, and the steps from which rewriting is made.

This is the only representation of a model in ``tflite``: ``flatbuffer.unpack`` reads it from
bytes, functions such as ``fold_scale`` and ``rewrite_io`` map a graph to another graph, and
``flatbuffer.pack`` writes it. Tensors are referred to by their number, the index in
``Graph.tensors``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

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
# Types whose values NumPy can view.
NUMPY_TYPES = frozenset(BITS) - {"bfloat16", "int4", "int2"}


@dataclass(frozen=True)
class Quantization:
    """How integers stand for real values: ``real = scale * (integer - zero_point)``.

    Attributes:
        scales: One for the whole tensor, or one for each slice along ``axis``.
        zero_points: As many as there are scales.
        axis: The axis of the scales, where there are several.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        name: As in the file.
        shape: Its size along each axis.
        dtype: Such as ``"float32"`` or ``"int8"``.
        quantized: Its quantization; ``None`` if it has none.
        data: The bytes of a constant, as a uint8 array, which may be a view into the file;
            ``None`` if the tensor is computed.
        dynamic: Whether the size along an axis may change between runs.
        buffer: The number of its buffer in the file it was read from; ``None`` if it needs a
            new one.
        source: What the file says beyond the fields above (a ``TensorT`` of TFLite's schema).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantized: Quantization | None = None
    data: np.ndarray | None = field(default=None, compare=False, repr=False)
    dynamic: bool = False
    buffer: int | None = None
    source: Any = field(default=None, compare=False, repr=False)

    @property
    def constant(self) -> bool:
        """Whether its values are in the file."""
        return self.data is not None

    @property
    def values(self) -> np.ndarray:
        """The values of a constant, as stored, in its shape; read-only.

        Raises:
            ValueError: The tensor is not constant, or NumPy has no such type.
        """
        if self.data is None or self.dtype not in NUMPY_TYPES:
            raise ValueError(f"The values of {self.name} ({self.dtype}) cannot be read")
        values = self.data.view(self.dtype).reshape(self.shape)
        values.flags.writeable = False
        return values

    def with_values(self, values: np.ndarray) -> Tensor:
        """The tensor with other values, of any shape, in a buffer of its own."""
        data = np.ascontiguousarray(values).reshape(-1).view("uint8")
        dtype = str(values.dtype)
        return dataclasses.replace(self, shape=values.shape, dtype=dtype, data=data, buffer=None)

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return prod(self.shape) * BITS.get(self.dtype, 0) // 8

    @property
    def scales(self) -> int:
        """Number of scales: 0 not quantized, 1 per tensor, more per channel."""
        return len(self.quantized.scales) if self.quantized else 0

    @property
    def quantization(self) -> str:
        """``"none"``, ``"per tensor"`` or ``"per channel"``."""
        return ("none", "per tensor", "per channel")[min(self.scales, 2)]


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: As in TFLite's schema, such as ``"CONV_2D"``; of a custom operation its own name.
        inputs: Numbers of its input tensors, without optional ones that are absent.
        outputs: Numbers of its output tensors.
        options: The options object of TFLite's schema for this operation, or ``None``.
        version: Of the operation, as TFLite counts them.
        custom: Whether it is not one of TFLite's own operations.
        layer: The Keras layer that it came from, as far as the names of tensors tell.
        source: What the file says beyond the fields above (an ``OperatorT`` of the schema).
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = field(default=None, compare=False)
    version: int = 1
    custom: bool = False
    layer: str = ""
    source: Any = field(default=None, compare=False, repr=False)

    @property
    def output(self) -> int:
        """Number of its first output tensor."""
        return self.outputs[0]

    @property
    def activation(self) -> int:
        """The fused activation function, as numbered in the schema; 0 for none."""
        return getattr(self.options, "fusedActivationFunction", 0) or 0


@dataclass(frozen=True)
class Signature:
    """A named entry point: names of its inputs and outputs, and the numbers of their tensors."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class Graph:
    """A model of one subgraph.

    Attributes:
        tensors: All tensors.
        operations: In the order in which they run.
        inputs: Numbers of the model's input tensors.
        outputs: Numbers of the model's output tensors.
        signatures: Its named entry points.
        metadata: Content of each entry of ``Model.metadata``, by name.
        subgraphs: How many subgraphs the file has; only the first one is read.
        source: What the file says beyond the fields above (a ``ModelT`` of the schema).
    """

    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signatures: tuple[Signature, ...] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    subgraphs: int = 1
    source: Any = field(default=None, compare=False, repr=False)

    def producer(self, tensor: int) -> Operation | None:
        """The operation that computes this tensor."""
        return next((op for op in self.operations if tensor in op.outputs), None)

    def consumers(self, tensor: int) -> list[Operation]:
        """The operations that have this tensor as an input."""
        return [op for op in self.operations if tensor in op.inputs]

    def input_chain(self) -> list[Operation]:
        """The operations from the input to the first convolution, each the only consumer.

        At most four; it ends early where a tensor has several consumers or none.
        """
        chain: list[Operation] = []
        tensor = self.inputs[0]
        while len(consumers := self.consumers(tensor)) == 1 and len(chain) < 4:
            chain.append(consumers[0])
            tensor = consumers[0].output
            if consumers[0].name == "CONV_2D":
                break
        return chain

    def data_inputs(self, operation: Operation) -> list[int]:
        """The inputs of an operation that are computed, not constant."""
        return [i for i in operation.inputs if not self.tensors[i].constant]

    def groups(self, operation: Operation) -> int:
        """The number of groups into which a convolution divides its input channels."""
        channels, kernel = (self.tensors[i].shape[-1] for i in operation.inputs[:2])
        return channels // kernel

    @property
    def multiply_adds(self) -> int:
        """Of the convolutions and fully connected layers, for one run."""
        return sum(self._multiply_adds(op) for op in self.operations)

    def _multiply_adds(self, op: Operation) -> int:
        if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            return 0
        weights = self.tensors[op.inputs[1]].shape
        outputs = prod(self.tensors[op.output].shape)
        return outputs * prod(weights[1:3] if op.name.startswith("DEPTHWISE") else weights[1:])

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


def add_tensors(graph: Graph, *tensors: Tensor) -> tuple[Graph, list[int]]:
    """The graph with more tensors, and their numbers."""
    first = len(graph.tensors)
    numbers = list(range(first, first + len(tensors)))
    return dataclasses.replace(graph, tensors=(*graph.tensors, *tensors)), numbers


def replace_tensors(graph: Graph, tensors: Mapping[int, Tensor]) -> Graph:
    """The graph with other tensors under the same numbers."""
    return dataclasses.replace(
        graph, tensors=tuple(tensors.get(i, tensor) for i, tensor in enumerate(graph.tensors))
    )


def replace_operations(graph: Graph, operations: Mapping[int, Operation | None]) -> Graph:
    """The graph with other operations in the place of those at these indices; None removes one."""
    kept = (operations.get(i, op) for i, op in enumerate(graph.operations))
    return dataclasses.replace(graph, operations=tuple(op for op in kept if op is not None))


def redirect(graph: Graph, numbers: Mapping[int, int]) -> Graph:
    """The graph in which what reads a tensor of ``numbers`` reads the one it maps to instead.

    That includes the model's inputs and outputs and its signatures. What operations compute is
    unchanged.
    """

    def new(tensors: Sequence[int]) -> tuple[int, ...]:
        return tuple(numbers.get(i, i) for i in tensors)

    def renamed(entries: Mapping[str, int]) -> dict[str, int]:
        return dict(zip(entries, new(tuple(entries.values()))))

    return dataclasses.replace(
        graph,
        operations=tuple(dataclasses.replace(op, inputs=new(op.inputs)) for op in graph.operations),
        inputs=new(graph.inputs),
        outputs=new(graph.outputs),
        signatures=tuple(
            Signature(s.key, renamed(s.inputs), renamed(s.outputs)) for s in graph.signatures
        ),
    )


def drop_unused(graph: Graph) -> Graph:
    """Removes operations whose outputs nothing reads, and the tensors that only they used."""
    operations = graph.operations
    while True:
        read = {i for op in operations for i in op.inputs} | set(graph.outputs)
        kept = tuple(op for op in operations if read & set(op.outputs))
        if len(kept) == len(operations):
            break
        operations = kept
    used = {i for op in operations for i in (*op.inputs, *op.outputs)}
    used |= {*graph.inputs, *graph.outputs}
    numbers = {old: new for new, old in enumerate(sorted(used))}
    renumbered = tuple(
        dataclasses.replace(op, outputs=tuple(numbers[i] for i in op.outputs)) for op in operations
    )
    tensors = tuple(graph.tensors[i] for i in numbers)
    return dataclasses.replace(
        redirect(dataclasses.replace(graph, operations=renumbered), numbers), tensors=tensors
    )
