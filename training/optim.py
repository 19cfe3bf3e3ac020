"""Optimizer, loss, learning-rate schedule and weight averaging."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from keras_resnet.fine_tuning import part
from training.config import Experiment, OptimizerConfig, Task

# The only variables with weight decay: decaying norm scales or biases costs accuracy and gains
# nothing (He et al. 2018, arXiv:1812.01187, section 3.1).
DECAYED = ("kernel",)
# Those of PyTorch and timm, for which learning rates are published.
ADAM_EPSILON, LAMB_EPSILON = 1e-8, 1e-6


def make_optimizer(
    experiment: Experiment,
    steps_per_epoch: int,
    first_epochs: Mapping[str, int] = MappingProxyType({}),
) -> keras.optimizers.Optimizer:
    """The optimizer, with decoupled weight decay and a learning rate for each stage.

    Args:
        experiment: ``optimizer``, ``schedule`` and ``runtime.batch_size``.
        steps_per_epoch: Batches per epoch.
        first_epochs: The first epoch in which each variable is trained, by its path; 0 if missing.
    """
    config = experiment.optimizer
    every = config.gradient_accumulation_steps
    updates = {path: epoch * steps_per_epoch // every for path, epoch in first_epochs.items()}
    common: dict[str, Any] = {
        "learning_rate": make_schedule(experiment, steps_per_epoch),
        "global_clipnorm": config.clip_norm or None,
        "gradient_accumulation_steps": every if every > 1 else None,
        "weight_decay_of_kernels": config.weight_decay,
        "layer_decay": config.layer_decay,
        "first_updates": updates,
    }
    if config.name == "sgd":
        return SGD(momentum=config.momentum, nesterov=config.nesterov, **common)
    if config.name == "adamw":
        return AdamW(beta_1=config.momentum, epsilon=ADAM_EPSILON, **common)
    return Lamb(beta_1=config.momentum, epsilon=LAMB_EPSILON, **common)


class _PerVariable(keras.optimizers.Optimizer):
    """Learning rate and weight decay per variable; common to all optimizers here.

    The step is scaled, not the gradient: Adam and LAMB divide by the gradient's magnitude, so a
    factor in the gradient would cancel.
    """

    def __init__(
        self,
        weight_decay_of_kernels: float,
        layer_decay: float,
        first_updates: Mapping[str, int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._decay, self._layer_decay = weight_decay_of_kernels, layer_decay
        self._first_updates = first_updates
        self._scales_and_decays: list[tuple[float, float]] = []
        self._first: list[int] = []

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            parts = [part(variable.path) for variable in variables]
            # The classifier comes after the last stage.
            last = 1 + max(parts)
            below = [last - number if number >= 0 else 0 for number in parts]
            decays = [self._decay if variable.name in DECAYED else 0.0 for variable in variables]
            self._scales_and_decays = [
                (self._layer_decay**n, decay) for n, decay in zip(below, decays)
            ]
            self._first = [self._first_updates.get(variable.path, 0) for variable in variables]
        super().build(variables)

    def rate_and_decay(self, variable: Any, learning_rate: Any) -> tuple[Any, float]:
        """Learning rate and weight decay of a variable."""
        scale, decay = self._scales_and_decays[self._get_variable_index(variable)]
        return ops.cast(learning_rate, variable.dtype) * scale, decay

    def updates_of(self, variable: Any) -> Any:
        """Number of updates of the variable, the current one included."""
        updates = self.iterations + 1 - self._first[self._get_variable_index(variable)]
        # In float16 steps with overflowing gradients are skipped and not counted.
        return ops.cast(ops.maximum(updates, 1), variable.dtype)


class SGD(_PerVariable, keras.optimizers.SGD):
    """Stochastic gradient descent with momentum.

    Weight decay is applied before the step and is not part of the momentum (arXiv:1711.05101).
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.rate_and_decay(variable, learning_rate)
        if decay:
            self.assign_sub(variable, ops.multiply(variable, rate * decay))
        super().update_step(gradient, variable, rate)


class _WithMoments(_PerVariable):
    """Adam's step: the gradient's mean over its deviation, plus weight decay.

    Bias correction counts the updates of each variable. Keras counts those of the optimizer, so
    layers unfrozen later would get uncorrected moments, and first steps three times too long.
    """

    def step(self, gradient: Any, variable: Any, decay: float) -> Any:
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        updates = self.updates_of(variable)
        mean = m / (1 - ops.power(self.beta_1, updates))
        deviation = ops.sqrt(v / (1 - ops.power(self.beta_2, updates)))
        step = mean / (deviation + self.epsilon)
        return step + decay * ops.convert_to_tensor(variable) if decay else step


class AdamW(_WithMoments, keras.optimizers.Adam):
    """Adam with decoupled weight decay (arXiv:1711.05101, algorithm 2)."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.rate_and_decay(variable, learning_rate)
        self.assign_sub(variable, rate * self.step(gradient, variable, decay))


class Lamb(_WithMoments, keras.optimizers.Lamb):
    """LAMB (arXiv:1904.00962, algorithm 2).

    Keras's own excludes the decay from the trust ratio. As in timm, whose recipes are used here,
    variables without decay take Adam's step.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.rate_and_decay(variable, learning_rate)
        step = self.step(gradient, variable, decay)
        if decay:
            step = step * _trust(variable, step)
        self.assign_sub(variable, rate * step)


def _trust(variable: Any, update: Any) -> Any:
    """The ratio of the norms of variable and update; 1 if one of them is zero."""
    norm, step = (ops.sqrt(ops.sum(ops.square(x))) for x in (variable, update))
    positive = ops.logical_and(norm > 0, step > 0)
    return ops.where(positive, norm / ops.where(positive, step, 1.0), 1.0)


def peak_learning_rate(experiment: Experiment) -> float:
    """The configured learning rate, scaled from ``reference_batch`` to the images per update.

    SGD's is scaled linearly (Goyal et al. 2017, arXiv:1706.02677, section 2.1), AdamW's and LAMB's
    with the square root (You et al. 2019, arXiv:1904.00962, section 4).
    """
    config, images = experiment.optimizer, images_per_update(experiment)
    times = images / (config.reference_batch or images)
    return config.learning_rate * (times if config.name == "sgd" else math.sqrt(times))


def learning_rate_note(experiment: Experiment) -> str:
    """A line on the peak learning rate and how it was scaled."""
    config, images = experiment.optimizer, images_per_update(experiment)
    rate = f"learning rate {peak_learning_rate(experiment):g}"
    if not config.reference_batch:
        return f"{rate}, not scaled with the batch size (no optimizer.reference_batch)"
    if config.reference_batch == images:
        return f"{rate} for {images} images per update"
    rule = "linearly" if config.name == "sgd" else "with the square root"
    return (
        f"{rate} for {images} images per update, scaled {rule} from {config.learning_rate:g} for "
        f"{config.reference_batch}"
    )


def images_per_update(experiment: Experiment) -> int:
    """Images of all batches that are accumulated for one update."""
    return experiment.runtime.batch_size * experiment.optimizer.gradient_accumulation_steps


def make_schedule(
    experiment: Experiment, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the number of batches."""
    peak, config = peak_learning_rate(experiment), experiment.schedule
    total = config.epochs * steps_per_epoch
    # In a run shorter than its warm-up the rate would never reach its peak.
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 2)
    schedules = keras.optimizers.schedules
    if config.decay == "cosine":
        if warmup == 0:
            return schedules.CosineDecay(peak, decay_steps=total)
        return schedules.CosineDecay(
            0.0, decay_steps=total - warmup, warmup_target=peak, warmup_steps=warmup
        )
    if config.decay == "one_cycle":
        decay = schedules.PolynomialDecay(peak, total - warmup, end_learning_rate=0.0)
        return WarmUp(peak, warmup, decay)
    # Keras keeps a value through the step of the boundary.
    bounds = [round(epoch * steps_per_epoch) - warmup - 1 for epoch in config.step_epochs]
    values = [peak * 0.1**n for n in range(len(bounds) + 1)]
    return WarmUp(peak, warmup, schedules.PiecewiseConstantDecay(bounds, values))


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from zero to the peak, followed by another schedule from its beginning."""

    def __init__(
        self, peak: float, steps: int, then: keras.optimizers.schedules.LearningRateSchedule
    ) -> None:
        self.peak, self.steps, self.then = peak, steps, then

    def __call__(self, step: Any) -> Any:
        after = self.then(ops.maximum(step - self.steps, 0))
        if self.steps == 0:
            return after
        rising = self.peak * ops.cast(step, "float32") / self.steps
        return ops.where(step < self.steps, rising, after)


def make_loss(config: OptimizerConfig, task: Task = "single") -> keras.losses.Loss:
    """Mean loss of a batch from labels (see ``training.data.pipeline.target``) and probabilities.

    That of sigmoids is averaged over the outputs of an image.
    """
    if config.loss == "binary":
        return PresentClasses()
    if task == "single":
        return keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    return keras.losses.BinaryCrossentropy(label_smoothing=config.label_smoothing)


def make_accuracy(task: Task = "single") -> keras.Metric:
    """The training metric ``accuracy``: for a mixed image, of the larger share.

    For the task ``binary`` the share of images on the right side of 0.5, for ``multi`` the share
    of label decisions that are.
    """
    if task == "single":
        return keras.metrics.CategoricalAccuracy(name="accuracy")
    return keras.metrics.MeanMetricWrapper(_right_decisions, name="accuracy")


def _right_decisions(labels: Any, outputs: Any) -> Any:
    right = ops.equal(ops.cast(labels, outputs.dtype) >= 0.5, outputs >= 0.5)
    return ops.mean(ops.cast(right, "float32"), axis=-1)


def batch_loss(
    model: keras.Model, labels: Any, outputs: Any, class_weights: tuple[float, ...]
) -> Any:
    """Mean loss of a batch, weighted by class.

    Args:
        model: A compiled model.
        labels: ``(batch, outputs)``: see ``training.data.pipeline.target``.
        outputs: Probabilities, ``(batch, outputs)``.
        class_weights: One weight per class; all are 1 if empty.
    """
    if not class_weights:
        return model.loss(labels, outputs)
    # For the task binary a label is the share of the second class.
    binary = labels.shape[-1] == 1
    shares = ops.concatenate([1 - labels, labels], axis=-1) if binary else labels
    weights = ops.matmul(shares, ops.convert_to_tensor(class_weights))
    return model.loss(labels, outputs, weights)


class PresentClasses(keras.losses.BinaryCrossentropy):
    """Binary cross-entropy in which every class of a mixed image counts as present."""

    def call(self, labels: Any, probabilities: Any) -> Any:
        return super().call(ops.cast(labels > 0, probabilities.dtype), probabilities)


def update_ema(
    ema_model: keras.Model, model: keras.Model, momentum: float, accumulated: int = 1
) -> None:
    """Updates the exponential moving average of all weights, batch-norm statistics included.

    In the first steps the momentum is ``(1 + step) / (10 + step)``, so that the average soon
    forgets the random weights that it started from (as ``tf.train.ExponentialMovingAverage``
    does with ``num_updates``). Keras's own average excludes the statistics, and so combines
    averaged weights with statistics of other weights.

    Args:
        ema_model: The average.
        model: The model that is averaged.
        momentum: Share of the average that is kept per update.
        accumulated: Batches per update; to be called after each batch.
    """
    # In float16 Keras wraps the optimizer in a LossScaleOptimizer, whose own counter stays 0.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    step = keras.ops.cast(optimizer.iterations, "float32")
    kept = keras.ops.minimum(momentum, (1.0 + step) / (10.0 + step)) ** (1 / accumulated)
    for mean, value in zip(ema_model.weights, model.weights):
        mean.assign(mean + (value - mean) * keras.ops.cast(1.0 - kept, mean.dtype))
