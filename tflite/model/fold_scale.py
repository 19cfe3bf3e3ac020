"""Normalization of pixels by one operation: the shift in front, the scale in the first kernel."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite.model.graph import (
    Graph,
    Operation,
    Tensor,
    add_tensors,
    drop_unused,
    replace_operations,
    replace_tensors,
)


def fold_scale(graph: Graph) -> Graph:
    """The same function of raw pixels, with one multiplication less in front.

    ``conv(pixels * m + a)`` becomes ``conv'(pixels + a / m)``: the kernel takes over ``m``,
    input channel by input channel. The shift stays in front of the convolution, so that zero
    padding still means the mean colour, at the borders as everywhere.

    Args:
        graph: A network with weights in float32 or float16.

    Returns:
        The graph itself if it does not begin with a normalization and a convolution.
    """
    found = _find(graph)
    if found is None:
        return graph
    multiply, add, conv = found
    kernel = _stored(graph, conv.inputs[1])
    scale, offset = (_stored(graph, op.inputs[1]) for op in (multiply, add))
    assert kernel is not None and scale is not None and offset is not None  # _find has looked
    weights = graph.tensors[kernel].values
    m, a = (
        np.broadcast_to(graph.tensors[i].values.ravel(), weights.shape[-1:]).astype("float32")
        for i in (scale, offset)
    )
    scaled = graph.tensors[kernel].with_values((weights * m).astype(weights.dtype))
    # A row of pixels at a time: three values at a time cost a small network 4 % of its time.
    width = graph.tensors[add.inputs[0]].shape[2]
    shift = Tensor("shift", (), "float32").with_values(np.tile(a / m, (1, 1, width, 1)))
    graph, (number,) = add_tensors(replace_tensors(graph, {kernel: scaled}), shift)
    shifted = dataclasses.replace(add, inputs=(multiply.inputs[0], number))
    return drop_unused(replace_operations(graph, {graph.operations.index(add): shifted}))


def _find(graph: Graph) -> tuple[Operation, Operation, Operation] | None:
    """The multiplication, the addition and the convolution, perhaps behind a PAD."""
    chain = graph.input_chain()
    names = [op.name for op in chain]
    if names not in (["MUL", "ADD", "CONV_2D"], ["MUL", "ADD", "PAD", "CONV_2D"]):
        return None
    multiply, add, conv = chain[0], chain[1], chain[-1]
    if any(_stored(graph, op.inputs[1]) is None for op in (multiply, add, conv)):
        return None
    # A kernel of groups, or one that another layer shares, is left alone.
    alone = len(graph.consumers(conv.inputs[1])) == 1 and graph.groups(conv) == 1
    plain = not any(op.activation for op in (multiply, add))
    return (multiply, add, conv) if plain and alone else None


def _stored(graph: Graph, tensor: int) -> int | None:
    """The float constant that a tensor is, or is unpacked from float16 from; None for neither."""
    producer = graph.producer(tensor)
    if producer is not None and producer.name == "DEQUANTIZE":
        tensor = producer.inputs[0]
    found = graph.tensors[tensor]
    return tensor if found.constant and found.dtype in ("float32", "float16") else None
