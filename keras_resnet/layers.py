"""Layers that Keras lacks, registered so that models load without custom_objects."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

PACKAGE = "keras_resnet"


@keras.saving.register_keras_serializable(package=PACKAGE)
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization by TensorFlow's fused kernel.

    Arguments, weights and results are those of ``keras.layers.BatchNormalization``. Keras 3's own
    layer is a chain of separate operations, which slows a ResNet-50 training step down
    (``benchmarks/train_step.py``). Other backends, and cases that the kernel does not support
    (masks, renormalization, synchronized statistics, axes other than the last, ranks other than
    4), use Keras's implementation.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        # If TensorFlow is the backend, Keras has imported it; this package never does.
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
            # The kernel returns the unbiased variance (n / (n - 1)), Keras's moving variance is
            # the biased one, and a model must not depend on the backend that trained it.
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
    """Adds channels of zeros before and after the existing ones.

    Part of the parameter-free shortcut, "option A" of He et al. 2015, section 3.3.
    Input ``(batch, height, width, c)``, output ``(batch, height, width, before + c + after)``.

    Args:
        before: Number of zero channels before the existing ones.
        after: Number of zero channels after them.
        data_format: ``"channels_last"``, or ``"channels_first"`` for ``(batch, c, height,
            width)``.
    """

    def __init__(
        self, before: int, after: int, data_format: str = "channels_last", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.before = before
        self.after = after
        self.data_format = data_format

    def call(self, inputs: Any) -> Any:
        widths = [(0, 0)] * 4
        widths[self._axis] = (self.before, self.after)
        return keras.ops.pad(inputs, widths)

    @property
    def _axis(self) -> int:
        return 3 if self.data_format == "channels_last" else 1

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape = list(input_shape)
        shape[self._axis] = self.before + (shape[self._axis] or 0) + self.after
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        own = {"before": self.before, "after": self.after, "data_format": self.data_format}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package=PACKAGE)
class BlurPool(keras.layers.Layer):
    """Blurs with the binomial filter 1 2 1 and keeps every ``strides``-th pixel.

    Zhang 2019, Making Convolutional Networks Shift-Invariant Again, arXiv:1904.11486, section
    3.2. The border is reflected, as in the author's code and in timm.
    Input ``(batch, height, width, channels)``, output ``(batch, ceil(height / strides),
    ceil(width / strides), channels)``.

    Args:
        strides: Stride in height and width.
        data_format: ``"channels_last"``, or ``"channels_first"``.
    """

    def __init__(self, strides: int = 2, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strides = strides
        self.data_format = data_format

    def call(self, inputs: Any) -> Any:
        last = self.data_format == "channels_last"
        around = [(0, 0), (1, 1), (1, 1), (0, 0)] if last else [(0, 0), (0, 0), (1, 1), (1, 1)]
        binomial = np.outer((1, 2, 1), (1, 2, 1)) / 16
        kernel = np.repeat(
            binomial[:, :, np.newaxis, np.newaxis], self.channels(inputs.shape), axis=2
        )
        return keras.ops.depthwise_conv(
            keras.ops.pad(inputs, around, mode="reflect"),
            keras.ops.cast(kernel, inputs.dtype),
            strides=self.strides,
            padding="valid",
            data_format=self.data_format,
        )

    def channels(self, shape: tuple[int | None, ...]) -> int:
        """The number of channels of a tensor of that shape."""
        return shape[3 if self.data_format == "channels_last" else 1] or 0

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(
            -(-size // self.strides) if size and i in (first, first + 1) else size
            for i, size in enumerate(input_shape)
        )

    def get_config(self) -> dict[str, Any]:
        own = {"strides": self.strides, "data_format": self.data_format}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package=PACKAGE)
class StochasticDepth(keras.layers.Layer):
    """Drops the whole residual branch of a random part of the images of a batch, in training.

    Huang et al. 2016, Deep Networks with Stochastic Depth, arXiv:1603.09382. The other branches
    are divided by ``1 - rate``, so that inference needs no correction. The input may have any
    shape; the output has the same.

    Args:
        rate: Probability that an image's branch is dropped, at least 0 and below 1.
        seed: Seed of the random numbers.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        shape = (keras.ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        # In float32: half precision would round the rate.
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        kept = keras.ops.cast(draw >= self.rate, inputs.dtype)
        return inputs * kept / (1 - self.rate)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
