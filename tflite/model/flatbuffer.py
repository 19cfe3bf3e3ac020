"""Unpacks the bytes of a .tflite file into a ``Graph``, and packs a ``Graph`` into bytes.

Other modules use only the option classes and enumerations of TFLite's schema.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.graph import Graph, Operation, Quantization, Signature, Tensor
from tflite.model.layer_names import LayerNames

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of every buffer: "force_align: 16" in TFLite's schema.fbs
OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if name[0] != "_"}
_OPERATION_CODES = {name: code for code, name in OPERATIONS.items()}
_TYPE_CODES = {name: code for code, name in TYPES.items()}


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Reads a file that a runtime has found to be sound (see ``tflite.model.sandbox``).

    Raises:
        ValueError: It is damaged nevertheless.
    """
    try:
        return unpack(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def unpack(model: bytes) -> Graph:
    """The graph of a .tflite file. Constants are views into its bytes.

    Args:
        model: The whole file; what is appended to the flatbuffer is ignored, but for weights.

    Raises:
        ValueError: The flatbuffer is damaged.
    """
    try:
        return _graph(model)
    except Exception as error:  # flatbuffers checks nothing and fails in a dozen ways
        raise ValueError(f"{type(error).__name__} while reading the flatbuffer") from error


def pack(graph: Graph) -> bytes:
    """The bytes of a .tflite file; equal graphs give equal bytes.

    Raises:
        ValueError: The graph is of a file with several subgraphs, of which it holds only one.
    """
    if graph.subgraphs != 1:
        raise ValueError(f"A file of {graph.subgraphs} subgraphs can only be read, not written")
    model = _model(graph)
    data = sum(buffer.size_in_bytes for buffer in model.buffers)
    builder = flatbuffers.Builder(data + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


class AlignedBuffer(schema.BufferT):
    """Aligned as kernels and memory maps require, which the generated class does not do."""

    @property
    def size_in_bytes(self) -> int:
        return 0 if self.data is None else len(self.data)

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.data is None:
            return super().Pack(builder)
        builder.StartVector(1, len(self.data), ALIGNMENT)
        builder.head -= len(self.data)
        memoryview(builder.Bytes)[builder.head :][: len(self.data)] = self.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _graph(data: bytes) -> Graph:
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    subgraph = model.subgraphs[0]
    contents = [_content(data, buffer) for buffer in model.buffers]
    tensors = tuple(_tensor(tensor, contents[tensor.buffer]) for tensor in subgraph.tensors)
    signatures = tuple(
        Signature(_text(s.signatureKey), _entries(s.inputs), _entries(s.outputs))
        for s in model.signatureDefs or ()
    )
    metadata = {
        _text(entry.name): b"" if (found := contents[entry.buffer]) is None else found.tobytes()
        for entry in model.metadata or ()
    }
    operations = _named(
        [_operation(model, operator) for operator in subgraph.operators or ()], tensors
    )
    for buffer in model.buffers:  # their content is with the tensors and the metadata
        buffer.data, buffer.offset, buffer.size = None, 0, 0
    return Graph(
        tensors,
        operations,
        _numbers(subgraph.inputs),
        _numbers(subgraph.outputs),
        signatures,
        metadata,
        len(model.subgraphs),
        model,
    )


def _content(data: bytes, buffer: Any) -> np.ndarray | None:
    # Weights may follow the flatbuffer: field ``offset`` of a ``Buffer`` in schema.fbs, as
    # litert-quantizer writes it for all but small models. 0 and 1 stand for none.
    if buffer.offset > 1:
        return np.frombuffer(data, "uint8", buffer.size, buffer.offset)
    return None if buffer.data is None or not len(buffer.data) else np.asarray(buffer.data, "uint8")


def _tensor(tensor: Any, data: np.ndarray | None) -> Tensor:
    signature = tensor.shapeSignature
    return Tensor(
        name=_text(tensor.name),
        shape=_shape(tensor),
        dtype=TYPES.get(tensor.type, str(tensor.type)),
        quantized=_quantization(tensor),
        data=data,
        dynamic=signature is not None and any(size < 0 for size in signature),
        buffer=tensor.buffer,
        source=tensor,
    )


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))


def _quantization(tensor: Any) -> Quantization | None:
    found = tensor.quantization
    if found is None or found.scale is None or not len(found.scale):
        return None
    points = np.zeros(len(found.scale), int) if found.zeroPoint is None else found.zeroPoint
    return Quantization(
        tuple(map(float, found.scale)), tuple(map(int, points)), int(found.quantizedDimension)
    )


def _operation(model: Any, operator: Any) -> Operation:
    code = model.operatorCodes[operator.opcodeIndex]
    name, custom = _code_name(code)
    return Operation(
        name=name,
        inputs=_numbers(operator.inputs),
        outputs=_numbers(operator.outputs),
        options=operator.builtinOptions,
        version=code.version,
        custom=custom,
        source=operator,
    )


def _named(operations: list[Operation], tensors: Sequence[Tensor]) -> tuple[Operation, ...]:
    """The same operations, each with the Keras layer that it came from."""
    layers = LayerNames([
        tensors[number].name
        for op in operations
        # One that reads constants alone unpacks float16 weights, which are named otherwise.
        if not all(tensors[i].constant for i in op.inputs)
        for number in op.outputs
    ])  # fmt: skip
    return tuple(
        dataclasses.replace(op, layer=layers.of(tensors[op.output].name, op.name))
        if op.outputs
        else op
        for op in operations
    )


def _code_name(code: Any) -> tuple[str, bool]:
    """The name of an operation, and whether it is a custom one."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    custom = number == schema.BuiltinOperator.CUSTOM
    name = _text(code.customCode) if custom else ""
    return name or OPERATIONS.get(number, f"operation {number}"), custom


def _numbers(tensors: Any) -> tuple[int, ...]:
    # TFLite writes -1 for an optional input that is absent.
    return () if tensors is None else tuple(int(i) for i in tensors if i >= 0)


def _entries(maps: Any) -> dict[str, int]:
    return {_text(entry.name): int(entry.tensorIndex) for entry in maps or ()}


def _text(name: bytes | str | None) -> str:
    return name if isinstance(name, str) else (name or b"").decode(errors="replace")


def _model(graph: Graph) -> Any:
    """The graph in the schema's own objects; those of ``graph.source`` are copied first."""
    model = copy.copy(graph.source) if graph.source else _empty_model()
    model.operatorCodes = [copy.copy(code) for code in model.operatorCodes]
    model.buffers = [AlignedBuffer() for _ in model.buffers]
    subgraph = copy.copy(model.subgraphs[0])
    subgraph.tensors = [_packed_tensor(model, tensor) for tensor in graph.tensors]
    subgraph.operators = [_packed_operation(model, op) for op in graph.operations]
    subgraph.inputs, subgraph.outputs = list(graph.inputs), list(graph.outputs)
    model.subgraphs = [subgraph]
    if graph.signatures:
        model.signatureDefs = [_packed_signature(signature) for signature in graph.signatures]
    if graph.metadata:
        model.metadata = _packed_metadata(model, graph)
    return model


def _empty_model() -> Any:
    model = schema.ModelT()
    model.version = 3
    model.description = "keras-resnet"
    model.operatorCodes, model.metadata = [], []
    model.buffers = [AlignedBuffer()]  # by convention the first one is empty
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    model.subgraphs = [subgraph]
    return model


def _packed_tensor(model: Any, tensor: Tensor) -> Any:
    packed = copy.copy(tensor.source) if tensor.source else schema.TensorT()
    packed.name = tensor.name
    if not tensor.source or _shape(packed) != tensor.shape:
        packed.shape = np.array(tensor.shape, "int32")
        packed.shapeSignature = None
    packed.type = _TYPE_CODES.get(tensor.dtype, packed.type)
    packed.buffer = _buffer(model, tensor.data, tensor.buffer)
    if _quantization(packed) != tensor.quantized:
        packed.quantization = _packed_quantization(tensor.quantized)
    return packed


def _buffer(model: Any, data: Any, number: int | None) -> int:
    """Puts data into the buffer of that number, or into a new one; returns the number."""
    if data is None:
        return number or 0
    if number is None:
        model.buffers.append(AlignedBuffer())
        number = len(model.buffers) - 1
    model.buffers[number].data = data
    return number


def _packed_quantization(quantized: Quantization | None) -> Any:
    if quantized is None:
        return None
    packed = schema.QuantizationParametersT()
    packed.scale = np.array(quantized.scales, "float32")
    packed.zeroPoint = np.array(quantized.zero_points, "int64")
    packed.quantizedDimension = quantized.axis
    return packed


def _packed_operation(model: Any, op: Operation) -> Any:
    packed = copy.copy(op.source) if op.source else schema.OperatorT()
    packed.opcodeIndex = _operation_code(model, op)
    packed.inputs, packed.outputs = _with_absent(op.inputs, packed.inputs), list(op.outputs)
    if op.options is not packed.builtinOptions:
        packed.builtinOptions = op.options
        kind = type(op.options).__name__.removesuffix("T")
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    return packed


def _with_absent(inputs: tuple[int, ...], before: Any) -> list[int]:
    """The inputs, with -1 where an optional one was absent before."""
    if before is None or sum(i >= 0 for i in before) != len(inputs):
        return list(inputs)
    present = iter(inputs)
    return [next(present) if i >= 0 else -1 for i in before]


def _operation_code(model: Any, op: Operation) -> int:
    """The index of an operation among the model's codes, to which it is added if need be."""
    for i, code in enumerate(model.operatorCodes):
        if _code_name(code) == (op.name, op.custom):
            code.version = max(code.version, op.version)
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = _OPERATION_CODES["CUSTOM" if op.custom else op.name]
    code.customCode = op.name if op.custom else None
    # Runtimes from before there were 128 operations read this field.
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = op.version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _packed_signature(signature: Signature) -> Any:
    packed = schema.SignatureDefT()
    packed.signatureKey, packed.subgraphIndex = signature.key, 0
    packed.inputs = [_packed_entry(*entry) for entry in signature.inputs.items()]
    packed.outputs = [_packed_entry(*entry) for entry in signature.outputs.items()]
    return packed


def _packed_entry(name: str, tensor: int) -> Any:
    packed = schema.TensorMapT()
    packed.name, packed.tensorIndex = name, tensor
    return packed


def _packed_metadata(model: Any, graph: Graph) -> list[Any]:
    """Each entry in the buffer that it had, or in a new one."""
    buffers = {_text(entry.name): entry.buffer for entry in model.metadata or ()}
    packed = []
    for name, content in graph.metadata.items():
        entry = schema.MetadataT()
        entry.name = name
        entry.buffer = _buffer(model, content or None, buffers.get(name))
        packed.append(entry)
    return packed
