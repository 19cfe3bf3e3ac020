"""Steps on TensorFlow: one device, or several of one machine through ``MirroredStrategy``.

Gradients are summed over the devices before the optimizer sees them, so that clipping and loss
scaling work on the gradient of the whole batch. Keras sums them after clipping, so that its norm
is that of a device's share. What batches change besides weights, the statistics of batch norm
above all, is averaged over the devices at every step: a checkpoint then holds all there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from training.optim import batch_loss, move_average

if TYPE_CHECKING:
    from training.train import Task

Batch = tuple[tf.Tensor, tf.Tensor]
# New values of what a forward pass changes, statistics and seeds, by their number among the
# model's variables that are not trained.
Moved = dict[int, tf.Tensor]


def train_step(task: Task, spec: tuple) -> Callable[..., dict[str, tf.Tensor]]:
    """One update of a global batch with signature ``spec``; returns the epoch's figures."""
    strategy = task.runtime.distribution or tf.distribute.get_strategy()
    model, config = task.model, task.experiment.optimizer
    if strategy.num_replicas_in_sync > 1:
        _works_across_devices(model.optimizer)

    def replica(images: tf.Tensor, labels: tf.Tensor) -> Any:
        share = _share((images, labels))
        gradients, moved, answers, loss = _gradients(task, share)
        gradients, moved = _over_replicas(gradients, moved)
        model.optimizer.apply(gradients, model.trainable_variables)
        return moved, (share[1], answers, loss)

    def step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        moved, results = strategy.run(replica, args=(images, labels))
        for number, value in moved.items():
            variable = model.non_trainable_variables[number]
            strategy.extended.update(variable.value, lambda v, new: v.assign(new), (value,))
        truths, answers, losses = map(strategy.experimental_local_results, results)
        task.figures["accuracy"].update_state(tf.concat(truths, 0), tf.concat(answers, 0))
        task.figures["loss"].update_state(tf.add_n(losses))
        if task.average:
            accumulated = config.gradient_accumulation_steps
            move_average(task.average, model, config.ema_momentum, accumulated)
        return {name: figure.result() for name, figure in task.figures.items()}

    return _compiled(step, spec, task)


def test_step(
    task: Task, model: keras.Model, spec: tuple
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Sum of losses of a batch, and how often each class, by row, was taken for each."""
    strategy = task.runtime.distribution or tf.distribute.get_strategy()

    def replica(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _share((images, labels))
        answers = model(images, training=False)
        answered = tf.one_hot(tf.argmax(answers, axis=-1), labels.shape[-1])
        confusion = tf.matmul(labels, answered, transpose_a=True)
        return tf.reduce_sum(task.model.loss.call(labels, answers)), confusion

    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        sums = strategy.run(replica, args=(images, labels))
        return tuple(tf.add_n(strategy.experimental_local_results(value)) for value in sums)

    return _compiled(step, spec, task)


def _compiled(step: Callable, spec: tuple, task: Task) -> Callable:
    # The signature is given, because a step that is traced anew for another batch may be
    # optimized otherwise, and a resumed run meets its batches in another order.
    jit = task.runtime.jit_compile
    return tf.function(step, input_signature=spec, jit_compile=jit, autograph=False)


def _share(batch: Batch) -> Batch:
    """This device's images of a batch."""
    context = tf.distribute.get_replica_context()
    rank, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
    if count == 1:
        return batch
    with tf.device("CPU"):  # or the whole batch would go to every device
        size = tf.shape(batch[0])[0]
        begin, end = size * rank // count, size * (rank + 1) // count
        return batch[0][begin:end], batch[1][begin:end]


def _gradients(task: Task, share: Batch) -> tuple[list[tf.Tensor], Moved, tf.Tensor, tf.Tensor]:
    """Gradients of a share, what it changed, its answers and its loss.

    Keras's losses are divided by the number of devices, so that sums over them are means.
    """
    model, (images, labels) = task.model, share
    with tf.GradientTape() as tape, keras.StatelessScope() as scope:
        answers = model(images, training=True)
        loss = batch_loss(model, labels, answers, task.class_weights)
        scaled = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, [v.value for v in model.trainable_variables])
    now = map(scope.get_current_value, model.non_trainable_variables)
    moved = {number: value for number, value in enumerate(now) if value is not None}
    return gradients, moved, answers, loss


def _over_replicas(gradients: list[tf.Tensor], moved: Moved) -> tuple[list[tf.Tensor], Moved]:
    """The sum of gradients and the mean of values; seeds are the same on all devices."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients, moved
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    floating = {number: value for number, value in moved.items() if value.dtype.is_floating}
    if floating:
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, list(floating.values()))
        moved = moved | dict(zip(floating, means))
    return summed, moved


def _works_across_devices(optimizer: keras.Optimizer) -> None:
    """Makes Keras's optimizer take gradients that are summed over the devices already.

    There is no public way to do it; tests/training/test_devices.py would notice.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer._all_reduce_sum_gradients = list
    if optimizer.gradient_accumulation_steps:
        # Keras branches on each device, and in a branch they could not exchange anything.
        optimizer._backend_apply_gradients = functools.partial(_accumulate, optimizer)


def _accumulate(optimizer: Any, gradients: list[tf.Tensor], variables: list[Any]) -> None:
    """Adds to the gradients of the batches before; makes the update where they are complete."""
    every = optimizer.gradient_accumulation_steps
    indices = [optimizer._get_variable_index(variable) for variable in variables]
    sums = [optimizer._accumulated_gradients[index].value for index in indices]

    def update() -> None:
        mean = optimizer._clip_gradients([tf.convert_to_tensor(s) / every for s in sums])
        optimizer._backend_update_step(mean, variables, optimizer.learning_rate)

    def across(strategy: tf.distribute.Strategy, gradients: list[Any]) -> None:
        def complete() -> None:
            strategy.extended.call_for_each_replica(update)
            for total in sums:
                strategy.extended.update(total, lambda v: v.assign(tf.zeros_like(v)))

        for total, gradient in zip(sums, gradients):
            strategy.extended.update(total, lambda v, g: v.assign_add(g), (gradient,))
        keras.ops.cond((optimizer._iterations + 1) % every == 0, complete, lambda: None)

    tf.distribute.get_replica_context().merge_call(across, args=(gradients,))
