"""A float32 graph and calibration images to an int8 one: the sequence of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tflite.model.graph import Graph, Tensor, add_tensors
from tflite.quantization.calibrate import calibrate
from tflite.quantization.fold_normalization import fold_normalization
from tflite.quantization.operations import WEIGHTED
from tflite.quantization.write import quantized_graph

HEAD = ("SOFTMAX", "LOGISTIC", "FULLY_CONNECTED", "RESHAPE", "MEAN")


def quantize_int8(
    float32: Graph,
    images: Sequence[np.ndarray],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Graph:
    """Weights in int8 with a scale a channel, activations in int8 with a scale a tensor.

    Args:
        float32: From raw pixels 0–255 to one output.
        images: Calibration images, uint8 ``(height, width, channels)`` 0–255.
        progress: Called with ``(operations done, operations in all)`` after each operation.

    Returns:
        A graph of the same signature; its input and output are float32. The same arguments
        give the same graph.

    Raises:
        ValueError: The graph has several inputs or outputs, or operations that residual
            networks do not have.
    """
    graph = prepare(float32)
    in_float = head(graph)
    total = len(graph.operations)
    done = iter(range(1, total + 1))
    quantized = calibrate(graph, images, in_float, step=lambda: progress(next(done), total))
    return quantized_graph(graph, quantized, in_float)


def prepare(float32: Graph) -> Graph:
    """The float graph in the form that is quantized: with biases, on raw pixels.

    Raises:
        ValueError: It has several inputs, outputs or signatures.
    """
    return fold_normalization(with_biases(float32))


def with_biases(graph: Graph) -> Graph:
    """The graph with a bias in every layer: the converter leaves out those that are all zero.

    Raises:
        ValueError: It has several inputs, outputs or signatures.
    """
    counts = [len(part) for part in (graph.inputs, graph.outputs, graph.signatures)]
    if counts != [1, 1, 1] or graph.subgraphs != 1:
        raise ValueError(
            "Only a model of one input, one output and one signature can be quantized. Received: "
            "{} inputs, {} outputs, {} signatures".format(*counts)
        )
    operations = []
    for op in graph.operations:
        if op.name in WEIGHTED and len(op.inputs) == 2:
            kernel = graph.tensors[op.inputs[1]]
            zeros = np.zeros(kernel.shape[0], "float32")
            bias = Tensor(f"{kernel.name}/bias", (), "float32").with_values(zeros)
            graph, numbers = add_tensors(graph, bias)
            op = dataclasses.replace(op, inputs=(*op.inputs, *numbers))
        operations.append(op)
    return dataclasses.replace(graph, operations=tuple(operations))


def head(graph: Graph) -> frozenset[int]:
    """The tensors from the global pooling to the output.

    They take next to no time, and rounding them to 256 values costs what nothing can restore:
    two classes whose logits are close become equal.
    """
    tensors = []
    producer = graph.producer(graph.outputs[0])
    while producer is not None and producer.name in HEAD:
        tensors.append(producer.output)
        producer = graph.producer(producer.inputs[0])
    return frozenset(tensors)
