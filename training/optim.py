"""Optimizer and learning rate schedule, from the experiment."""

from __future__ import annotations

import keras

from training.config import Experiment

# Names of the variables that weight decay leaves alone: decaying a batch norm's scale or a
# bias costs accuracy and gains nothing (He et al. 2018, arXiv:1812.01187, section 3.1).
NOT_DECAYED = ["bias", "gamma", "beta"]


def make_optimizer(experiment: Experiment, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """SGD with momentum, decoupled weight decay, warm-up and cosine."""
    config = experiment.optimizer
    optimizer = keras.optimizers.SGD(
        learning_rate=make_schedule(experiment, steps_per_epoch),
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay or None,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def peak_learning_rate(experiment: Experiment) -> float:
    """The experiment's learning rate, scaled to its batch size."""
    config = experiment.optimizer
    scale = experiment.runtime.batch_size / (
        config.reference_batch or experiment.runtime.batch_size
    )
    return config.learning_rate * scale


def make_schedule(
    experiment: Experiment, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up from zero, then half a cosine to zero (arXiv:1608.03983)."""
    peak = peak_learning_rate(experiment)
    total = experiment.schedule.epochs * steps_per_epoch
    # A run shorter than its warm-up would end before it learns.
    warmup = min(round(experiment.schedule.warmup_epochs * steps_per_epoch), total // 2)
    if warmup == 0:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps=total)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=total - warmup, warmup_target=peak, warmup_steps=warmup
    )


def move_average(average: keras.Model, model: keras.Model, momentum: float) -> None:
    """Moves each weight of ``average`` towards that of ``model``, batch-norm statistics included.

    In the first steps less is kept, ``(1 + step) / (10 + step)``, so that the average soon
    forgets the random weights that it began with (as ``tf.train.ExponentialMovingAverage``
    does with ``num_updates``). Keras's own average leaves the statistics out, so that its
    weights stand beside statistics of others.
    """
    # In float16 Keras wraps the optimizer in one that scales the loss, and that one never counts.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    step = keras.ops.cast(optimizer.iterations, "float32")
    kept = keras.ops.minimum(momentum, (1.0 + step) / (10.0 + step))
    for mean, value in zip(average.weights, model.weights):
        mean.assign(mean + (value - mean) * keras.ops.cast(1.0 - kept, mean.dtype))
