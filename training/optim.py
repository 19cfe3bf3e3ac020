"""Optimizer, loss and learning rate schedule, from the experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from keras_resnet.fine_tuning import part
from training.config import Experiment, OptimizerConfig

# The only variables that weight decay shrinks: decaying a norm's scale or a bias costs accuracy
# and gains nothing (He et al. 2018, arXiv:1812.01187, section 3.1).
DECAYED = ("kernel",)
# PyTorch's and timm's, which published learning rates go with.
ADAM_EPSILON, LAMB_EPSILON = 1e-8, 1e-6


def make_optimizer(
    experiment: Experiment,
    steps_per_epoch: int,
    first_epochs: Mapping[str, int] = MappingProxyType({}),
) -> keras.optimizers.Optimizer:
    """The optimizer, with decoupled weight decay and a learning rate for each stage.

    Args:
        experiment: What is trained, and how.
        steps_per_epoch: Batches in an epoch.
        first_epochs: The epoch from which each variable is trained, by its path; 0 for others.
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


class _ByVariable(keras.optimizers.Optimizer):
    """What the optimizers share: each variable has a learning rate and a decay of its own.

    The step is scaled, not the gradient: Adam and LAMB divide by the gradient's own size, so
    that a factor of it would cancel.
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
        self._own: list[tuple[float, float]] = []
        self._first: list[int] = []

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            parts = [part(variable.path) for variable in variables]
            # The classifier comes after the last stage.
            last = 1 + max(parts)
            below = [last - number if number >= 0 else 0 for number in parts]
            decays = [self._decay if variable.name in DECAYED else 0.0 for variable in variables]
            self._own = [(self._layer_decay**n, decay) for n, decay in zip(below, decays)]
            self._first = [self._first_updates.get(variable.path, 0) for variable in variables]
        super().build(variables)

    def own(self, variable: Any, learning_rate: Any) -> tuple[Any, float]:
        """The variable's learning rate, and its decay."""
        scale, decay = self._own[self._get_variable_index(variable)]
        return ops.cast(learning_rate, variable.dtype) * scale, decay

    def updates_of(self, variable: Any) -> Any:
        """How often the variable has been updated, with the one under way."""
        updates = self.iterations + 1 - self._first[self._get_variable_index(variable)]
        # In float16 a step whose gradients overflow is none, so that fewer are counted.
        return ops.cast(ops.maximum(updates, 1), variable.dtype)


class SGD(_ByVariable, keras.optimizers.SGD):
    """Stochastic gradient descent with momentum.

    The decay comes before the step, and is no part of it (arXiv:1711.05101).
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.own(variable, learning_rate)
        if decay:
            self.assign_sub(variable, ops.multiply(variable, rate * decay))
        super().update_step(gradient, variable, rate)


class _ByMoments(_ByVariable):
    """Adam's step: the mean of the gradient over its deviation, and the decay.

    Keras counts the updates of all variables together, so that the moments of one that is set
    free later would be taken for whole ones, and its first steps be three times too long.
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


class AdamW(_ByMoments, keras.optimizers.Adam):
    """Adam with decoupled weight decay (arXiv:1711.05101, algorithm 2)."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.own(variable, learning_rate)
        self.assign_sub(variable, rate * self.step(gradient, variable, decay))


class Lamb(_ByMoments, keras.optimizers.Lamb):
    """LAMB (arXiv:1904.00962, algorithm 2).

    Keras's own leaves the decay out of the trust ratio. As in timm, whose recipes go with it,
    what is not decayed takes Adam's step.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, decay = self.own(variable, learning_rate)
        step = self.step(gradient, variable, decay)
        if decay:
            step = step * _trust(variable, step)
        self.assign_sub(variable, rate * step)


def _trust(variable: Any, update: Any) -> Any:
    """The ratio of lengths, 1 where one of them is zero."""
    ours, theirs = (ops.sqrt(ops.sum(ops.square(x))) for x in (variable, update))
    both = ops.logical_and(ours > 0, theirs > 0)
    return ops.where(both, ours / ops.where(both, theirs, 1.0), 1.0)


def peak_learning_rate(experiment: Experiment) -> float:
    """The experiment's learning rate, scaled to the images of an update.

    SGD's goes with them (Goyal et al. 2017, arXiv:1706.02677, section 2.1), AdamW's and LAMB's
    with their square root (You et al. 2019, arXiv:1904.00962, section 4).
    """
    config, images = experiment.optimizer, images_an_update(experiment)
    times = images / (config.reference_batch or images)
    return config.learning_rate * (times if config.name == "sgd" else math.sqrt(times))


def learning_rate_note(experiment: Experiment) -> str:
    """The rate and why, for people."""
    config, images = experiment.optimizer, images_an_update(experiment)
    if not config.reference_batch:
        return f"learning rate {config.learning_rate:g}, whatever the batch: no reference_batch"
    if config.reference_batch == images:
        return f"learning rate {config.learning_rate:g}, which is for {images} images an update"
    rule = "in proportion" if config.name == "sgd" else "with the square root"
    return (
        f"learning rate {peak_learning_rate(experiment):g}: {config.learning_rate:g} is for "
        f"{config.reference_batch} images an update, and an update has {images}; scaled {rule}"
    )


def images_an_update(experiment: Experiment) -> int:
    """Those of all batches whose gradients make one update."""
    return experiment.runtime.batch_size * experiment.optimizer.gradient_accumulation_steps


def make_schedule(
    experiment: Experiment, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate by the number of batches seen."""
    peak, config = peak_learning_rate(experiment), experiment.schedule
    total = config.epochs * steps_per_epoch
    # A run shorter than its warm-up would end before it learns.
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 2)
    schedules = keras.optimizers.schedules
    if config.decay == "cosine":
        if warmup == 0:
            return schedules.CosineDecay(peak, decay_steps=total)
        return schedules.CosineDecay(
            0.0, decay_steps=total - warmup, warmup_target=peak, warmup_steps=warmup
        )
    if config.decay == "one_cycle":
        fall = schedules.PolynomialDecay(peak, total - warmup, end_learning_rate=0.0)
        return WarmUp(peak, warmup, fall)
    # Keras holds a value through the step of the boundary.
    bounds = [round(epoch * steps_per_epoch) - warmup - 1 for epoch in config.step_epochs]
    values = [peak * 0.1**n for n in range(len(bounds) + 1)]
    return WarmUp(peak, warmup, schedules.PiecewiseConstantDecay(bounds, values))


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A line from zero to the peak, and then another schedule from its beginning."""

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


def make_loss(config: OptimizerConfig) -> keras.losses.Loss:
    """The mean loss of a batch, from one-hot or mixed labels and probabilities."""
    if config.loss == "binary":
        return PresentClasses()
    return keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)


def batch_loss(
    model: keras.Model, labels: Any, answers: Any, class_weights: tuple[float, ...]
) -> Any:
    """The model's mean loss of a batch in which an image of each class counts its weight.

    Args:
        model: A compiled one.
        labels: One-hot or mixed, ``(batch, classes)``.
        answers: Of the model, ``(batch, classes)``.
        class_weights: One a class; all of them 1 if empty.
    """
    if not class_weights:
        return model.loss(labels, answers)
    return model.loss(labels, answers, ops.matmul(labels, ops.convert_to_tensor(class_weights)))


class PresentClasses(keras.losses.BinaryCrossentropy):
    """Each class by itself: is it in the image, by however small a share?"""

    def call(self, labels: Any, probabilities: Any) -> Any:
        return super().call(ops.cast(labels > 0, probabilities.dtype), probabilities)


def move_average(
    average: keras.Model, model: keras.Model, momentum: float, accumulated: int = 1
) -> None:
    """Moves each weight of ``average`` towards that of ``model``, batch-norm statistics included.

    In the first steps less is kept, ``(1 + step) / (10 + step)``, so that the average soon
    forgets the random weights that it began with (as ``tf.train.ExponentialMovingAverage``
    does with ``num_updates``). Keras's own average leaves the statistics out, so that its
    weights stand beside statistics of others.

    Args:
        average: The average.
        model: What is averaged.
        momentum: Share that is kept at each update.
        accumulated: Batches an update; after each of them this is called.
    """
    # In float16 Keras wraps the optimizer in one that scales the loss, and that one never counts.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    step = keras.ops.cast(optimizer.iterations, "float32")
    kept = keras.ops.minimum(momentum, (1.0 + step) / (10.0 + step)) ** (1 / accumulated)
    for mean, value in zip(average.weights, model.weights):
        mean.assign(mean + (value - mean) * keras.ops.cast(1.0 - kept, mean.dtype))
