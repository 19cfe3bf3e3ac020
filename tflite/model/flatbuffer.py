"""A .tflite file's bytes: added to without packing them anew, or unpacked and packed again.

A flatbuffer's offsets are relative, and all but those to a table's layout point forward. So a
new root table can stand before the old file and point into it, and a new name can stand behind
it. Not a byte of the weights moves against its alignment, and a file of 100 MB costs a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from tflite.model.graph import OPERATIONS

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of every buffer: "force_align: 16" in TFLite's schema.fbs
# The fields of the table Model there, by slot; all but the first are offsets.
VERSION, BUFFERS, METADATA, FIELDS = 0, 4, 6, 10
OFFSET = 1  # a field of the table Buffer, by slot


class AlignedBuffer(schema.BufferT):
    """Aligned as kernels and memory maps demand, which the generated class does not do."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.data is None:
            return super().Pack(builder)
        vector = _bytes_vector(builder, np.frombuffer(self.data, "uint8").tobytes())
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def unpack(model: bytes) -> Any:
    """The file as the schema's own plain objects, every weight in its buffer: a ``ModelT``."""
    file = schema.ModelT.InitFromPackedBuf(model, 0)
    buffers = []
    for old in file.buffers:
        buffer = AlignedBuffer()
        buffer.data = old.data
        if old.offset > 1:  # behind the flatbuffer: see _with_moved_places
            buffer.data = np.frombuffer(model, "uint8", old.size, old.offset)
        buffers.append(buffer)
    file.buffers = buffers
    return file


def pack(file: Any) -> bytes:
    """The reverse of ``unpack``; the same objects give the same bytes."""
    size = sum(0 if buffer.data is None else len(buffer.data) for buffer in file.buffers)
    builder = flatbuffers.Builder(size + 65536)
    builder.Finish(file.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def operation_code(file: Any, name: str, version: int) -> int:
    """The place of an operation among a ``ModelT``'s codes, where it is put if need be."""
    builtin = getattr(schema.BuiltinOperator, name)
    for i, code in enumerate(file.operatorCodes):
        if code.builtinCode == builtin:
            code.version = max(code.version, version)
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    # Runtimes from before there were 128 operations read this field.
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = version
    file.operatorCodes.append(code)
    return len(file.operatorCodes) - 1


def operation_name(file: Any, op: Any) -> str:
    """Such as ``"CONV_2D"``; empty where this package does not know it."""
    code = file.operatorCodes[op.opcodeIndex]
    return OPERATIONS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "")


def is_constant(file: Any, tensor: int) -> bool:
    """Whether a tensor's values stand in the file."""
    data = file.buffers[file.subgraphs[0].tensors[int(tensor)].buffer].data
    return data is not None and len(data) > 0


def add_tensor(file: Any, name: str, shape: Sequence[int], dtype: str) -> int:
    """A new tensor without values; returns its number."""
    tensor = schema.TensorT()
    tensor.name = name
    tensor.shape = np.array(shape, "int32")
    tensor.type = getattr(schema.TensorType, dtype.upper())
    tensor.buffer = 0  # by convention the empty one
    file.subgraphs[0].tensors.append(tensor)
    return len(file.subgraphs[0].tensors) - 1


def add_constant(file: Any, name: str, values: np.ndarray) -> int:
    """A new tensor with values; returns its number."""
    tensor = add_tensor(file, name, values.shape, str(values.dtype))
    set_constant(file, tensor, values)
    return tensor


def set_constant(file: Any, tensor: int, values: np.ndarray) -> None:
    """Other values of the same shape and type, in a buffer of its own: several may share one."""
    buffer = AlignedBuffer()
    buffer.data = values.tobytes()
    file.buffers.append(buffer)
    file.subgraphs[0].tensors[tensor].buffer = len(file.buffers) - 1


def drop_unused(file: Any) -> None:
    """Takes out operations whose answers nobody takes, and tensors and values likewise."""
    graph = file.subgraphs[0]
    count = 0
    while count != len(graph.operators):
        count = len(graph.operators)
        taken = {int(i) for op in graph.operators for i in op.inputs} | set(map(int, graph.outputs))
        graph.operators = [op for op in graph.operators if taken & set(map(int, op.outputs))]
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    kept = sorted(used | set(map(int, (*graph.inputs, *graph.outputs))))
    number = {old: new for new, old in enumerate(kept)} | {-1: -1}
    for part in (graph, *graph.operators):
        part.inputs = [number[int(i)] for i in part.inputs]
        part.outputs = [number[int(i)] for i in part.outputs]
    graph.tensors = [graph.tensors[i] for i in kept]
    for signature in file.signatureDefs:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = number[entry.tensorIndex]
    filled = {tensor.buffer for subgraph in file.subgraphs for tensor in subgraph.tensors}
    filled |= {entry.buffer for entry in file.metadata or ()}
    for i, buffer in enumerate(file.buffers):
        if i not in filled:
            buffer.data = None


def with_metadata(model: bytes, name: str, content: bytes) -> bytes:
    """The model with an entry in ``Model.metadata``; an older one of that name is replaced.

    Raises:
        ValueError: The model has fields that this package does not know.
    """
    old = schema.Model.GetRootAs(model, 0)
    root = old._tab
    if _fields(root) > FIELDS:
        raise ValueError("The model is of a newer schema than this package knows")
    builder, length = _in_front_of(model)
    kept = [
        _item(root, METADATA, i)
        for i in range(old.MetadataLength())
        if old.Metadata(i).Name() != name.encode()
    ]
    buffers = [_item(root, BUFFERS, i) for i in range(old.BuffersLength())]

    data = _bytes_vector(builder, content)
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(0, data, 0)
    buffer = builder.EndObject()
    text = builder.CreateString(name)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUint32Slot(1, len(buffers), 0)
    entry = builder.EndObject()
    vectors = {
        BUFFERS: offset_vector(builder, [*(length - place for place in buffers), buffer]),
        METADATA: offset_vector(builder, [*(length - place for place in kept), entry]),
    }
    builder.StartObject(FIELDS)
    builder.PrependUint32Slot(VERSION, old.Version(), 0)
    for slot in range(1, FIELDS):
        if field := root.Offset(4 + 2 * slot):
            here = length - root.Indirect(root.Pos + field)
            builder.PrependUOffsetTRelativeSlot(slot, vectors.pop(slot, here), 0)
        elif slot in vectors:
            builder.PrependUOffsetTRelativeSlot(slot, vectors[slot], 0)
    builder.Prep(ALIGNMENT, 0)
    builder.Finish(builder.EndObject(), file_identifier=IDENTIFIER)
    return _with_moved_places(bytearray(builder.Output()), by=len(builder.Output()) - length)


def _with_moved_places(model: bytearray, by: int) -> bytes:
    """Weights that stand behind the flatbuffer are told by their place in the file.

    Field ``offset`` of a ``Buffer`` in schema.fbs, as ai-edge-quantizer writes it for all but
    small models; 0 and 1 stand for none.
    """
    root = schema.Model.GetRootAs(model, 0)
    for i in range(root.BuffersLength()):
        buffer = root.Buffers(i)
        if buffer.Offset() > 1:
            place = buffer._tab.Pos + buffer._tab.Offset(4 + 2 * OFFSET)
            struct.pack_into("<Q", model, place, buffer.Offset() + by)
    return bytes(model)


def with_names(model: bytes, inputs: Mapping[int, str], outputs: Mapping[int, str]) -> bytes:
    """The model with other names for its input and output tensors, in the signatures too.

    Args:
        model: A TFLite flatbuffer.
        inputs: The name of each input to rename, by its place among the inputs.
        outputs: The same of the outputs.
    """
    renamed = bytearray(model)
    old = schema.Model.GetRootAs(model, 0)
    graph = old.Subgraphs(0)
    tensors = {graph.Inputs(i): name for i, name in inputs.items()}
    tensors |= {graph.Outputs(i): name for i, name in outputs.items()}
    places = [(graph.Tensors(i)._tab, 3, name) for i, name in tensors.items()]
    for i in range(old.SignatureDefsLength()):
        signature = old.SignatureDefs(i)
        maps = [signature.Inputs(k) for k in range(signature.InputsLength())]
        maps += [signature.Outputs(k) for k in range(signature.OutputsLength())]
        places += [
            (m._tab, 0, tensors[m.TensorIndex()]) for m in maps if m.TensorIndex() in tensors
        ]
    for table, slot, name in places:
        if field := table.Offset(4 + 2 * slot):
            _point(renamed, table.Pos + field, name)
    return bytes(renamed)


def offset_vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    """A vector of tables or strings."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _in_front_of(model: bytes) -> tuple[flatbuffers.Builder, int]:
    """A builder, which builds from the end to the front, as if it had just built the model."""
    padded = model + bytes(-len(model) % ALIGNMENT)
    builder = flatbuffers.Builder(len(padded) + 65536)
    builder.head -= len(padded)
    builder.Bytes[builder.head :] = padded
    return builder, len(padded)


def _bytes_vector(builder: flatbuffers.Builder, data: bytes) -> int:
    builder.StartVector(1, len(data), ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return builder.EndVector()


def _point(data: bytearray, place: int, name: str) -> None:
    """Lets the offset at ``place`` point to a new string at the end."""
    data += bytes(-len(data) % 4)
    struct.pack_into("<I", data, place, len(data) - place)
    text = name.encode()
    data += struct.pack("<I", len(text)) + text + b"\0"


def _fields(table: Table) -> int:
    vtable = table.Pos - struct.unpack_from("<i", table.Bytes, table.Pos)[0]
    return struct.unpack_from("<H", table.Bytes, vtable)[0] // 2 - 2


def _item(table: Table, slot: int, index: int) -> int:
    return table.Indirect(table.Vector(table.Offset(4 + 2 * slot)) + 4 * index)
