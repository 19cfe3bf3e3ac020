"""Normalization folded into the first convolution, so that raw pixels are its exact input.

Quantizing normalized pixels costs more than any other rounding of a small residual network:
on ResNet-20 it makes 37 % of the error in the answers (``docs/quantization.md``).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.quantization.network import Network, Operation

WHITE = np.float32(255)


def fold_normalization(network: Network) -> Network:
    """The same function of raw pixels, without arithmetic on them in front.

    ``conv(pixels * m + a)`` becomes ``conv'(pixels, 255)``: the kernel takes over ``m``, where
    it has not done so (see ``tflite.model.fold_scale``), and a fourth input channel, which is
    constant, takes over ``a``. A bias could not: where the convolution pads with zeros, ``a``
    must not be added.

    Returns:
        The network itself where it does not begin with a normalization and a convolution.
    """
    found = _find(network)
    if found is None:
        return network
    multiply, add, conv = found
    kernel = network.constants[conv.inputs[1]]
    channels = kernel.shape[-1]
    scale = network.constants[multiply.inputs[1]] if multiply else np.ones(1, "float32")
    m, a = (_by_channel(x, channels)[0] for x in (scale, network.constants[add.inputs[1]]))
    offset = (kernel * (a / WHITE)).sum(axis=-1, keepdims=True)

    white, joined = add.inputs[1], add.output
    shape = network.shapes[network.input]
    join = Operation(
        "CONCATENATION", (network.input, white), joined, _concatenation_options(len(shape) - 1)
    )
    operations = tuple(join if op is add else op for op in network.operations if op is not multiply)
    wider = {t: (*network.shapes[t][:-1], channels + 1) for t in {joined, conv.inputs[0]}}
    return dataclasses.replace(
        network,
        operations=operations,
        constants={
            **network.constants,
            white: np.full((*shape[:-1], 1), WHITE),
            conv.inputs[1]: np.concatenate([kernel * m, offset], axis=-1).astype("float32"),
        },
        shapes={**network.shapes, **wider, white: (*shape[:-1], 1)},
        names={**network.names, white: "white", joined: "pixels_and_white"},
    )


def _find(network: Network) -> tuple[Operation | None, Operation, Operation] | None:
    """The multiplication, if any, the addition, and the convolution, perhaps behind a PAD."""
    chain: list[Operation] = []
    tensor = network.input
    while len(users := network.users(tensor)) == 1 and len(chain) < 4:
        chain.append(users[0])
        tensor = users[0].output
        if users[0].name == "CONV_2D":
            break
    names = [op.name for op in chain if op.name != "PAD"]
    if names not in (["MUL", "ADD", "CONV_2D"], ["ADD", "CONV_2D"]):
        return None
    *multiply, add = [op for op in chain if op.name in ("MUL", "ADD")]
    channels = network.shapes[network.input][-1]
    constants = [network.constants.get(op.inputs[1]) for op in (*multiply, add)]
    constant = all(
        x is not None and not np.ptp(_by_channel(x, channels), 0).any() for x in constants
    )
    plain = not any(op.activation for op in (*multiply, add)) and network.groups(chain[-1]) == 1
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
