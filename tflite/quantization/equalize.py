"""Channels rescaled so that each uses as much of its tensor's int8 range as the others.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.1, turned round: weights have a scale a channel here and need no
help, activations have one a tensor. A channel multiplied by s > 0 in front of a ReLU and
divided by s in the next kernel changes nothing but the ranges. Residual connections tie the
channels of a whole stage together; these get one common s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tflite.quantization.network import RELU, WEIGHTED, Network, Operation

# Channels that hardly ever speak are not blown up without end.
MAX_FACTOR = 64.0


def equalize(network: Network, maxima: Mapping[int, np.ndarray]) -> Network:
    """The same function with other ranges inside.

    Args:
        network: What to rescale.
        maxima: Largest magnitude of each channel of each tensor, on calibration images.
    """
    channels = _Channels(network)
    factors = channels.factors(maxima)
    constants = dict(network.constants)
    for op in network.operations:
        if op.name not in WEIGHTED:
            continue
        kernel, bias = (network.constants[i] for i in op.inputs[1:3])
        out = factors[op.output]
        per_group = np.split(factors[op.inputs[0]], network.groups(op))
        into = np.repeat(per_group, len(out) // len(per_group), axis=0)  # (out, in)
        into = into.reshape(len(out), *[1] * (kernel.ndim - 2), -1)
        constants[op.inputs[1]] = kernel * out.reshape(-1, *[1] * (kernel.ndim - 1)) / into
        constants[op.inputs[2]] = bias * out
    return dataclasses.replace(network, constants=constants)


class _Channels:
    """Which channels of which tensors have to be scaled alike, as a union-find forest."""

    def __init__(self, network: Network) -> None:
        self.network = network
        tensors = [network.input, *(op.output for op in network.operations)]
        starts = np.cumsum([0, *(network.shapes[t][-1] for t in tensors)])
        self.numbers = {t: np.arange(a, b) for t, a, b in zip(tensors, starts, starts[1:])}
        self.parent = np.arange(starts[-1])
        self.fixed = [*self.numbers[network.input], *self.numbers[network.output]]
        for op in network.operations:
            self._tie(op)

    def factors(self, maxima: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """What to multiply each channel of each tensor by."""
        roots = np.array([self._root(i) for i in range(len(self.parent))])
        share = np.zeros(len(roots))
        for op in self.network.operations:
            if op.name in ("CONV_2D", "ADD", "MUL", "RELU"):
                largest = max(float(maxima[op.output].max()), 1e-8)
                np.maximum.at(share, roots[self.numbers[op.output]], maxima[op.output] / largest)
        factor = np.where(share > 0, 1 / np.maximum(share, 1 / MAX_FACTOR), 1.0)
        factor[roots[self.fixed]] = 1.0
        return {t: factor[roots[n]].astype("float32") for t, n in self.numbers.items()}

    def _tie(self, op: Operation) -> None:
        out = self.numbers[op.output]
        into = [self.numbers[t] for t in self.network.variables(op)]
        linear = op.activation in (0, RELU)
        if op.name in WEIGHTED:
            if not linear:
                self.fixed += [*out]
        elif op.name in ("ADD", "RELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD") and (
            linear and len(into) == len([i for i in op.inputs if self._is_values(i)])
        ):
            for numbers in into:
                first = self._channels_in_front(op)
                self._join(numbers, out[first : first + len(numbers)])
        else:
            for numbers in (out, *into):
                self.fixed += [*numbers]

    def _is_values(self, tensor: int) -> bool:
        """Whether a tensor is added or multiplied, and not axes or paddings."""
        constant = self.network.constants.get(tensor)
        return constant is None or constant.dtype == np.float32

    def _channels_in_front(self, op: Operation) -> int:
        return int(self.network.constants[op.inputs[1]][-1][0]) if op.name == "PAD" else 0

    def _join(self, some: np.ndarray, others: np.ndarray) -> None:
        for a, b in zip(some, others):
            self.parent[self._root(a)] = self._root(b)

    def _root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number
