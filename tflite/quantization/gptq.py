"""Weights to int8, each rounding error compensated by the weights that are not rounded yet."""

from __future__ import annotations

import numpy as np

BLOCK = 64
# Share of the mean diagonal that is added to it, as in Frantar et al.'s implementation.
DAMPING = 0.01


def channel_scales(weights: np.ndarray) -> np.ndarray:
    """One scale a row: the largest weight of each becomes ±127."""
    return np.maximum(np.abs(weights).max(axis=1), 1e-8) / np.float32(127)


def round_to_nearest(weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 ``(out, in)``, each weight on its own."""
    return np.clip(np.rint(weights / scales[:, None]), -127, 127).astype("int8")


def round_by_least_squares(
    weights: np.ndarray, scales: np.ndarray, inputs: np.ndarray
) -> np.ndarray:
    """int8 weights whose outputs, on inputs as these, differ least from the float weights'.

    One input after the other is rounded, and what that changes is compensated by those that
    are not rounded yet, as far as the inputs correlate: Frantar et al. 2022, "GPTQ",
    arXiv:2210.17323, section 3, which is Hassibi and Stork's optimal brain surgeon.

    Args:
        weights: ``(out, in)``.
        scales: ``(out,)``, from ``channel_scales``.
        inputs: ``(samples, in)``, centred: bias correction takes care of their mean.

    Returns:
        int8 ``(out, in)``.
    """
    order = np.argsort(-np.square(inputs).sum(axis=0), kind="stable")  # the strongest first
    inputs = inputs[:, order]
    second_moment = inputs.T @ inputs
    damping = DAMPING * second_moment.trace() / len(order)
    if damping == 0:
        return round_to_nearest(weights, scales)
    second_moment[np.diag_indices_from(second_moment)] += damping

    factor = _inverse_factor(second_moment)
    rest = np.ascontiguousarray(weights.T[order], "float32")  # rows lie together in memory
    rounded = np.empty_like(rest)
    count = len(order)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        errors = np.empty((stop - start, len(weights)), "float32")
        for i in range(start, stop):
            rounded[i] = np.clip(np.rint(rest[i] / scales), -127, 127)
            error = (rest[i] - rounded[i] * scales) / factor[i, i]
            errors[i - start] = error
            rest[i:stop] -= np.outer(factor[i, i:stop], error)
        rest[stop:] -= factor[start:stop, stop:].T @ errors
    result = np.empty(weights.shape, "int8")
    result[:, order] = rounded.T
    return result


def _inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """Upper triangular U with UᵀU the inverse of a positive definite matrix.

    With the order of rows and columns reversed, the inverse of the Cholesky factor is U
    itself: no explicit inverse, half the work and twice the precision.
    """
    # TensorFlow's: SciPy's took ten times as long on the same processor.
    import tensorflow as tf

    reversed_factor = tf.linalg.cholesky(np.ascontiguousarray(matrix[::-1, ::-1]))
    identity = tf.eye(len(matrix), dtype=matrix.dtype)
    return tf.linalg.triangular_solve(reversed_factor, identity).numpy()[::-1, ::-1]
