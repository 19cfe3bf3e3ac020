"""The few layers that Keras lacks, each registered so that models load without custom_objects."""

from __future__ import annotations

import sys
from typing import Any

import keras

PACKAGE = "keras_resnet"


@keras.saving.register_keras_serializable(package=PACKAGE)
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalization, on TensorFlow computed by the fused kernel.

    Same arguments, weights and results as ``keras.layers.BatchNormalization``. Keras 3's own
    layer is a chain of separate operations, which slow a ResNet-50 training step down
    (``benchmarks/train_step.py``). Other backends, and the cases that the kernel does not
    cover (masks, renormalization, synchronized statistics, axes other than the last, ranks
    other than 4), run Keras's own path.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        # Keras has imported TensorFlow where it is the backend; this package never does.
        fused_batch_norm = sys.modules["tensorflow"].compat.v1.nn.fused_batch_norm
        learning = bool(training and self.trainable)
        outputs, mean, variance = fused_batch_norm(
            inputs,
            scale=self._or_constant(self.gamma, 1.0),
            offset=self._or_constant(self.beta, 0.0),
            mean=None if learning else keras.ops.convert_to_tensor(self.moving_mean),
            variance=None if learning else keras.ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            # The kernel returns the unbiased variance (n / (n - 1)); Keras's moving variance
            # is the biased one, and a model must not depend on where it was trained.
            count = keras.ops.cast(keras.ops.size(inputs) / keras.ops.shape(inputs)[-1], "float32")
            variance = variance * (keras.ops.maximum(count - 1.0, 1.0) / count)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        return outputs

    def _fusable(self, inputs: Any, mask: Any) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and mask is None
            and not self.renorm
            and not self.synchronized
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float16", "bfloat16", "float32")
            and self.variable_dtype == "float32"
        )

    def _or_constant(self, variable: Any, value: float) -> Any:
        if variable is not None:
            return keras.ops.convert_to_tensor(variable)
        return keras.ops.full(self.moving_mean.shape, value, dtype="float32")

    def _move(self, average: Any, value: Any) -> None:
        average.assign(average * self.momentum + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package=PACKAGE)
class PadChannels(keras.layers.Layer):
    """Adds channels of zeros, before and after the existing ones.

    Half of the parameter-free shortcut, "option A" of He et al. 2015, section 3.3.
    Input ``(batch, height, width, c)``, output ``(batch, height, width, before + c + after)``.

    Args:
        before: Number of zero channels in front.
        after: Number of zero channels behind.
    """

    def __init__(self, before: int, after: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.before = before
        self.after = after

    def call(self, inputs: Any) -> Any:
        return keras.ops.pad(inputs, [(0, 0), (0, 0), (0, 0), (self.before, self.after)])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        *batch_and_space, channels = input_shape
        return (*batch_and_space, self.before + (channels or 0) + self.after)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "before": self.before, "after": self.after}
