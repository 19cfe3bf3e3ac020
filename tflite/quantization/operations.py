"""What each operation computes, on a batch of images, in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite.model.graph import Operation

Values = Any  # a tf.Tensor or a numpy array

RELU, RELU6 = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6
# Operations with a kernel and a bias.
WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")
# Operations that move values and compute none: TFLite's kernels require that their output has
# the quantization parameters of their input.
MOVES = ("PAD", "MAX_POOL_2D", "RESHAPE", "CONCATENATION")


def function(op: Operation, constants: Mapping[int, np.ndarray]) -> Callable[..., Values]:
    """One operation as a function of its computed inputs, its fused activation included.

    Args:
        op: The operation.
        constants: Values of each of its constant inputs, by tensor number.

    Raises:
        ValueError: Residual networks have no such operation.
    """
    if op.name not in _OPERATIONS:
        raise ValueError(f"{op.name} cannot be quantized here. Known: {', '.join(_OPERATIONS)}")
    if op.name == "CONV_2D":
        # Once, and not for each batch: transposing a kernel takes as long as a small layer.
        constants = {**constants, op.inputs[1]: _filters(constants[op.inputs[1]])}

    def compute(*computed: Values) -> Values:
        rest = iter(computed)
        inputs = [constants[t] if t in constants else next(rest) for t in op.inputs]
        return _activate(_OPERATIONS[op.name](op.options, *inputs), op.activation)

    return compute


def _filters(kernel: np.ndarray) -> Values:
    """TFLite's kernel (out, height, width, in) as TensorFlow's (height, width, in, out)."""
    import tensorflow as tf

    return tf.constant(np.ascontiguousarray(kernel.transpose(1, 2, 3, 0)))


def _activate(x: Values, activation: int) -> Values:
    import tensorflow as tf

    if activation == RELU:
        return tf.nn.relu(x)
    if activation == RELU6:
        return tf.nn.relu6(x)
    if activation:
        raise ValueError(f"Activation {activation} of the TFLite schema cannot be quantized here.")
    return x


def _padding(options: Any) -> str:
    return ("SAME", "VALID")[options.padding]


def _conv(options: Any, x: Values, filters: Values, bias: np.ndarray) -> Values:
    import tensorflow as tf

    groups = x.shape[-1] // filters.shape[2]
    parts = [
        tf.nn.conv2d(
            part,
            some,
            strides=(options.strideH, options.strideW),
            padding=_padding(options),
            dilations=(options.dilationHFactor, options.dilationWFactor),
        )
        for part, some in zip(tf.split(x, groups, axis=-1), tf.split(filters, groups, axis=-1))
    ]
    return tf.concat(parts, axis=-1) + bias


def _fully_connected(options: Any, x: Values, kernel: np.ndarray, bias: np.ndarray) -> Values:
    import tensorflow as tf

    return tf.matmul(x, kernel.T) + bias


def _pool(function: str) -> Callable[..., Values]:
    def pool(options: Any, x: Values) -> Values:
        import tensorflow as tf

        size = (options.filterHeight, options.filterWidth)
        strides = (options.strideH, options.strideW)
        return getattr(tf.nn, function)(x, size, strides, _padding(options))

    return pool


def _mean(options: Any, x: Values, axes: np.ndarray) -> Values:
    import tensorflow as tf

    return tf.reduce_mean(x, axis=axes.tolist(), keepdims=options.keepDims)


def _concatenate(options: Any, x: Values, constant: np.ndarray) -> Values:
    import tensorflow as tf

    return tf.concat([x, tf.repeat(constant, x.shape[0], axis=0)], axis=options.axis)


def _softmax(options: Any, x: Values) -> Values:
    import tensorflow as tf

    return tf.nn.softmax(options.beta * x)


def _pad(options: Any, x: Values, paddings: np.ndarray) -> Values:
    import tensorflow as tf

    return tf.pad(x, paddings)


def _reshape(options: Any, x: Values, shape: np.ndarray) -> Values:
    import tensorflow as tf

    return tf.reshape(x, (x.shape[0], *shape[1:]))


def _elementwise(function: str) -> Callable[..., Values]:
    def call(options: Any, *inputs: Values) -> Values:
        import tensorflow as tf

        return getattr(tf, function)(*inputs)

    return call


_OPERATIONS: dict[str, Callable[..., Values]] = {
    "CONV_2D": _conv,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _elementwise("add"),
    "MUL": _elementwise("multiply"),
    "RELU": lambda options, x: _activate(x, RELU),
    "LOGISTIC": _elementwise("sigmoid"),
    "SOFTMAX": _softmax,
    "MEAN": _mean,
    "MAX_POOL_2D": _pool("max_pool2d"),
    "AVERAGE_POOL_2D": _pool("avg_pool2d"),
    "PAD": _pad,
    "RESHAPE": _reshape,
    "CONCATENATION": _concatenate,
}
