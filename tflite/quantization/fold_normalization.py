"""Normalization folded into the first convolution, so that raw pixels are its exact input.

Quantizing normalized pixels costs more than any other rounding of a small residual network:
on ResNet-20 it makes 37 % of the error in the outputs (``docs/quantization.md``).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.graph import Graph, Operation, replace_operations, replace_tensors

WHITE = np.float32(255)


def fold_normalization(graph: Graph) -> Graph:
    """The same function of raw pixels, without arithmetic on them in front.

    ``conv(pixels * m + a)`` becomes ``conv'(pixels, 255)``: the kernel takes over ``m``, where
    it has not done so (see ``tflite.model.fold_scale``), and a fourth input channel, which is
    constant, takes over ``a``. A bias could not: where the convolution pads with zeros, ``a``
    must not be added.

    Returns:
        The graph itself if it does not begin with a normalization and a convolution.
    """
    found = _find(graph)
    if found is None:
        return graph
    multiply, add, conv = found
    tensors = graph.tensors
    kernel = tensors[conv.inputs[1]]
    channels = kernel.shape[-1]
    scale = tensors[multiply.inputs[1]].values if multiply else np.ones(1, "float32")
    m, a = (_by_channel(x, channels)[0] for x in (scale, tensors[add.inputs[1]].values))
    offset = (kernel.values * (a / WHITE)).sum(axis=-1, keepdims=True)
    weights = np.concatenate([kernel.values * m, offset], axis=-1).astype("float32")

    image, white, joined = graph.inputs[0], add.inputs[1], add.output
    shape = tensors[image].shape
    new = {
        number: dataclasses.replace(
            tensors[number], shape=(*tensors[number].shape[:-1], channels + 1)
        )
        for number in {joined, conv.inputs[0]}
    }
    new[joined] = dataclasses.replace(new[joined], name="pixels_and_white")
    new[white] = dataclasses.replace(tensors[white], name="white").with_values(
        np.full((*shape[:-1], 1), WHITE)
    )
    new[conv.inputs[1]] = kernel.with_values(weights)
    join = Operation(
        "CONCATENATION", (image, white), (joined,), _concatenation_options(len(shape) - 1)
    )
    operations: dict[int, Operation | None] = {graph.operations.index(add): join}
    if multiply:
        operations[graph.operations.index(multiply)] = None
    return replace_operations(replace_tensors(graph, new), operations)


def _find(graph: Graph) -> tuple[Operation | None, Operation, Operation] | None:
    """The multiplication, if any, the addition, and the convolution, perhaps behind a PAD."""
    chain = graph.input_chain()
    names = [op.name for op in chain if op.name != "PAD"]
    if names not in (["MUL", "ADD", "CONV_2D"], ["ADD", "CONV_2D"]):
        return None
    *multiply, add = [op for op in chain if op.name in ("MUL", "ADD")]
    operands = [graph.tensors[op.inputs[1]] for op in (*multiply, add)]
    channels = graph.tensors[graph.inputs[0]].shape[-1]
    constant = all(
        t.constant and not np.ptp(_by_channel(t.values, channels), 0).any() for t in operands
    )
    plain = not any(op.activation for op in (*multiply, add)) and graph.groups(chain[-1]) == 1
    return (multiply[0] if multiply else None, add, chain[-1]) if constant and plain else None


def _by_channel(values: np.ndarray, channels: int) -> np.ndarray:
    """``(positions, channels)``, whether there is one value, one a channel or one a pixel."""
    return np.broadcast_to(values, np.broadcast_shapes(values.shape, (channels,))).reshape(
        -1, channels
    )


def _concatenation_options(axis: int) -> schema.ConcatenationOptionsT:
    options = schema.ConcatenationOptionsT()
    options.axis = axis
    return options
