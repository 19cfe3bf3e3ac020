"""Normalization of pixels by one operation: a shift in front, the scale in the first kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.flatbuffer import (
    add_constant,
    drop_unused,
    is_constant,
    operation_name,
    pack,
    set_constant,
    unpack,
)

_TYPES = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}


def fold_scale(model: bytes) -> bytes:
    """The same function of raw pixels, with a multiplication less in front.

    ``conv(pixels * m + a)`` becomes ``conv'(pixels + a / m)``: the kernel takes over ``m``,
    input channel by input channel. The shift stays in front of the convolution, so that zero
    padding still means the mean colour, at the borders as everywhere.

    Args:
        model: A .tflite file with weights in float32 or float16.

    Returns:
        The file itself where it does not begin with a normalization and a convolution.
    """
    file = unpack(model)
    found = _find(file)
    if found is None:
        return model
    multiply, add, conv = found
    number, kernel = _constant(file, conv.inputs[1])
    m, a = (
        np.broadcast_to(_constant(file, op.inputs[1])[1].ravel(), kernel.shape[-1:])
        for op in (multiply, add)
    )
    m, a = m.astype("float32"), a.astype("float32")
    set_constant(file, number, (kernel * m).astype(kernel.dtype))
    # A row of pixels at a time: three values at a time cost a small network 4 % of its time.
    width = int(file.subgraphs[0].tensors[int(add.inputs[0])].shape[2])
    shift = np.tile(a / m, (1, 1, width, 1))
    add.inputs = [int(multiply.inputs[0]), add_constant(file, "shift", shift)]
    drop_unused(file)
    return pack(file)


def _find(file: Any) -> tuple[Any, Any, Any] | None:
    """The multiplication, the addition and the convolution, perhaps behind a PAD."""
    graph = file.subgraphs[0]
    chain: list[Any] = []
    tensor = int(graph.inputs[0])
    while len(takers := [op for op in graph.operators if tensor in op.inputs]) == 1:
        chain.append(takers[0])
        tensor = int(takers[0].outputs[0])
        if operation_name(file, takers[0]) == "CONV_2D" or len(chain) == 4:
            break
    names = [operation_name(file, op) for op in chain]
    if names not in (["MUL", "ADD", "CONV_2D"], ["MUL", "ADD", "PAD", "CONV_2D"]):
        return None
    multiply, add, conv = chain[0], chain[1], chain[-1]
    if any(_stored(file, op.inputs[1]) is None for op in (multiply, add, conv)):
        return None
    # A kernel of groups, or one that another layer shares, is left alone.
    kernel, channels = (int(graph.tensors[int(conv.inputs[i])].shape[-1]) for i in (1, 0))
    alone = sum(int(conv.inputs[1]) in map(int, op.inputs) for op in graph.operators) == 1
    plain = not any(op.builtinOptions.fusedActivationFunction for op in (multiply, add))
    return (multiply, add, conv) if plain and alone and kernel == channels else None


def _stored(file: Any, tensor: int) -> int | None:
    """The constant that a tensor is, or is unpacked from float16 from; ``None`` for neither."""
    if is_constant(file, tensor):
        return int(tensor)
    for op in file.subgraphs[0].operators:
        if tensor in op.outputs and operation_name(file, op) == "DEQUANTIZE":
            source = int(op.inputs[0])
            known = file.subgraphs[0].tensors[source].type in _TYPES
            return source if known and is_constant(file, source) else None
    return None


def _constant(file: Any, tensor: int) -> tuple[int, np.ndarray]:
    """Its number, and its values as they are stored."""
    number = _stored(file, tensor)
    assert number is not None  # _find has looked
    stored = file.subgraphs[0].tensors[number]
    data = bytes(file.buffers[stored.buffer].data)
    return number, np.frombuffer(data, _TYPES[stored.type]).reshape(stored.shape)
