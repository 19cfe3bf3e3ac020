"""Channels rescaled so that each uses as much of its tensor's int8 range as the others.

An ablation of ``benchmarks/quantization.py`` that lost: it helps one network and harms another.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.1, applied to activations: here weights have a scale a channel and
need no help, activations have one a tensor. A channel multiplied by s > 0 in front of a ReLU and
divided by s in the next kernel changes nothing but the ranges. Residual connections tie the
channels of a whole stage together; these get one common s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tflite.model.graph import Graph, Operation, replace_tensors
from tflite.quantization.operations import RELU, WEIGHTED, function

# Channels that are nearly always zero are not scaled up further.
MAX_FACTOR = 64.0
CHUNK = 20  # images computed at a time


def equalize(graph: Graph, images: Sequence[np.ndarray]) -> Graph:
    """The same function with other ranges inside.

    Args:
        graph: What to rescale, with a bias in every layer.
        images: Calibration images, uint8 ``(height, width, channels)`` 0–255.
    """
    factors = _Channels(graph).factors(channel_maxima(graph, images))
    new = {}
    for op in graph.operations:
        if op.name not in WEIGHTED:
            continue
        kernel, bias = (graph.tensors[i] for i in op.inputs[1:3])
        out = factors[op.output]
        per_group = np.split(factors[op.inputs[0]], graph.groups(op))
        into = np.repeat(per_group, len(out) // len(per_group), axis=0)  # (out, in)
        into = into.reshape(len(out), *[1] * (len(kernel.shape) - 2), -1)
        scaled = kernel.values * out.reshape(-1, *[1] * (len(kernel.shape) - 1)) / into
        new[op.inputs[1]] = kernel.with_values(scaled)
        new[op.inputs[2]] = bias.with_values(bias.values * out)
    return replace_tensors(graph, new)


def channel_maxima(graph: Graph, images: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Largest magnitude of each channel of each computed tensor."""
    maxima: dict[int, np.ndarray] = {}
    constants = {i: t.values for i, t in enumerate(graph.tensors) if t.constant}
    for start in range(0, len(images), CHUNK):
        values = {graph.inputs[0]: np.stack(images[start : start + CHUNK])}
        for op in graph.operations:
            inputs = [values[t].astype("float32") for t in graph.data_inputs(op)]
            computed = np.asarray(function(op, constants)(*inputs))
            # Feature maps in float16, as calibration keeps them.
            values[op.output] = computed.astype("float16") if computed.ndim > 2 else computed
            found = np.abs(values[op.output]).max(axis=tuple(range(computed.ndim - 1)))
            maxima[op.output] = np.maximum(maxima.get(op.output, 0), found.astype("float32"))
    return maxima


class _Channels:
    """Which channels of which tensors have to be scaled alike, as a union-find forest."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        tensors = [graph.inputs[0], *(op.output for op in graph.operations)]
        starts = np.cumsum([0, *(graph.tensors[t].shape[-1] for t in tensors)])
        self.numbers = {t: np.arange(a, b) for t, a, b in zip(tensors, starts, starts[1:])}
        self.parent = np.arange(starts[-1])
        self.fixed = [*self.numbers[graph.inputs[0]], *self.numbers[graph.outputs[0]]]
        for op in graph.operations:
            self._tie(op)

    def factors(self, maxima: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """What to multiply each channel of each tensor by."""
        roots = np.array([self._root(i) for i in range(len(self.parent))])
        share = np.zeros(len(roots))
        for op in self.graph.operations:
            if op.name in ("CONV_2D", "ADD", "MUL", "RELU"):
                largest = max(float(maxima[op.output].max()), 1e-8)
                np.maximum.at(share, roots[self.numbers[op.output]], maxima[op.output] / largest)
        factor = np.where(share > 0, 1 / np.maximum(share, 1 / MAX_FACTOR), 1.0)
        factor[roots[self.fixed]] = 1.0
        return {t: factor[roots[n]].astype("float32") for t, n in self.numbers.items()}

    def _tie(self, op: Operation) -> None:
        out = self.numbers[op.output]
        into = [self.numbers[t] for t in self.graph.data_inputs(op)]
        linear = op.activation in (0, RELU)
        if op.name in WEIGHTED:
            if not linear:
                self.fixed += [*out]
        elif op.name in ("ADD", "RELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD") and (
            linear and len(into) == len([i for i in op.inputs if self._is_operand(i)])
        ):
            for numbers in into:
                first = self._channels_in_front(op)
                self._join(numbers, out[first : first + len(numbers)])
        else:
            for numbers in (out, *into):
                self.fixed += [*numbers]

    def _is_operand(self, tensor: int) -> bool:
        """Whether a tensor is added or multiplied, and not axes or paddings."""
        found = self.graph.tensors[tensor]
        return not found.constant or found.dtype == "float32"

    def _channels_in_front(self, op: Operation) -> int:
        return int(self.graph.tensors[op.inputs[1]].values[-1][0]) if op.name == "PAD" else 0

    def _join(self, some: np.ndarray, others: np.ndarray) -> None:
        for a, b in zip(some, others):
            self.parent[self._root(a)] = self._root(b)

    def _root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number
