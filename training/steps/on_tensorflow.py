"""Steps on TensorFlow: one device, or several devices of one host through ``MirroredStrategy``.

Gradients are summed over the devices before the optimizer, so that clipping and loss scaling apply
to the gradient of the global batch; Keras would clip the gradient of each device's share. Variables
that a forward pass changes, such as batch-norm statistics, are averaged over the devices at every
step, so that a checkpoint holds the complete state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from training.optim import batch_loss, update_ema

if TYPE_CHECKING:
    from training.task import Task

Batch = tuple[tf.Tensor, tf.Tensor]
# New values of variables that a forward pass changes (statistics and seeds), by their index among
# the model's non-trainable variables.
Updates = dict[int, tf.Tensor]


def train_step(task: Task, spec: tuple) -> Callable[..., dict[str, tf.Tensor]]:
    """A compiled update on a global batch.

    Args:
        task: Its variables are updated in place.
        spec: Signature of a batch.

    Returns:
        A function from images and one-hot labels to the running metrics of the epoch.
    """
    strategy = task.runtime.distribution or tf.distribute.get_strategy()
    model, config = task.model, task.experiment.optimizer
    if strategy.num_replicas_in_sync > 1:
        _take_summed_gradients(model.optimizer)

    def replica(images: tf.Tensor, labels: tf.Tensor) -> Any:
        share = _share((images, labels))
        gradients, updates, outputs, loss = _gradients(task, share)
        gradients, updates = _reduce(gradients, updates)
        model.optimizer.apply(gradients, model.trainable_variables)
        return updates, (share[1], outputs, loss)

    def step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        updates, results = strategy.run(replica, args=(images, labels))
        for number, value in updates.items():
            variable = model.non_trainable_variables[number]
            strategy.extended.update(variable.value, lambda v, new: v.assign(new), (value,))
        truths, outputs, losses = map(strategy.experimental_local_results, results)
        task.metrics["accuracy"].update_state(tf.concat(truths, 0), tf.concat(outputs, 0))
        task.metrics["loss"].update_state(tf.add_n(losses))
        if task.ema_model:
            accumulated = config.gradient_accumulation_steps
            update_ema(task.ema_model, model, config.ema_momentum, accumulated)
        return {name: metric.result() for name, metric in task.metrics.items()}

    return _compiled(step, spec, task)


def test_step(
    task: Task, model: keras.Model, spec: tuple
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """A compiled evaluation of a batch.

    Args:
        task: Its loss is computed.
        model: The weights to evaluate.
        spec: Signature of a batch.

    Returns:
        A function from images and targets to the sum of losses, and the predicted class of each
        image; for the tasks ``binary`` and ``multi`` its outputs.
    """
    strategy = task.runtime.distribution or tf.distribute.get_strategy()
    one_class = task.contract.task == "single"

    def replica(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _share((images, labels))
        outputs = tf.cast(model(images, training=False), "float32")
        predicted = tf.argmax(outputs, axis=-1, output_type="int32") if one_class else outputs
        return tf.reduce_sum(task.model.loss.call(labels, outputs)), predicted

    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        results = strategy.run(replica, args=(images, labels))
        losses, predicted = map(strategy.experimental_local_results, results)
        return tf.add_n(losses), tf.concat(predicted, 0)

    return _compiled(step, spec, task)


def _compiled(step: Callable, spec: tuple, task: Task) -> Callable:
    # With a fixed signature: a step that is retraced for another batch shape may be optimized
    # differently, and a resumed run sees its batches in another order.
    jit = task.runtime.jit_compile
    return tf.function(step, input_signature=spec, jit_compile=jit, autograph=False)


def _share(batch: Batch) -> Batch:
    """This device's share of a batch."""
    context = tf.distribute.get_replica_context()
    rank, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
    if count == 1:
        return batch
    with tf.device("CPU"):  # or the whole batch would go to every device
        size = tf.shape(batch[0])[0]
        begin, end = size * rank // count, size * (rank + 1) // count
        return batch[0][begin:end], batch[1][begin:end]


def _gradients(task: Task, share: Batch) -> tuple[list[tf.Tensor], Updates, tf.Tensor, tf.Tensor]:
    """Gradients of a share, updates of other variables, outputs and loss.

    Keras divides losses by the number of devices, so that their sums over devices are means.
    """
    model, (images, labels) = task.model, share
    with tf.GradientTape() as tape, keras.StatelessScope() as scope:
        outputs = model(images, training=True)
        loss = batch_loss(model, labels, outputs, task.class_weights)
        scaled = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, [v.value for v in model.trainable_variables])
    values = map(scope.get_current_value, model.non_trainable_variables)
    updates = {number: value for number, value in enumerate(values) if value is not None}
    return gradients, updates, outputs, loss


def _reduce(gradients: list[tf.Tensor], updates: Updates) -> tuple[list[tf.Tensor], Updates]:
    """Sums gradients and averages values over devices; seeds are the same on all of them."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients, updates
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    floating = {number: value for number, value in updates.items() if value.dtype.is_floating}
    if floating:
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, list(floating.values()))
        updates = updates | dict(zip(floating, means))
    return summed, updates


def _take_summed_gradients(optimizer: keras.Optimizer) -> None:
    """Makes a Keras optimizer accept gradients that are already summed over the devices.

    There is no public API for it; tests/training/test_devices.py fails if the private one changes.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer._all_reduce_sum_gradients = list
    if optimizer.gradient_accumulation_steps:
        # Keras branches on each device, and devices cannot communicate inside a branch.
        optimizer._backend_apply_gradients = functools.partial(_accumulate, optimizer)


def _accumulate(optimizer: Any, gradients: list[tf.Tensor], variables: list[Any]) -> None:
    """Adds gradients to those of earlier batches; applies their mean after ``every`` batches."""
    every = optimizer.gradient_accumulation_steps
    indices = [optimizer._get_variable_index(variable) for variable in variables]
    sums = [optimizer._accumulated_gradients[index].value for index in indices]

    def update() -> None:
        mean = optimizer._clip_gradients([tf.convert_to_tensor(s) / every for s in sums])
        optimizer._backend_update_step(mean, variables, optimizer.learning_rate)

    def accumulate(strategy: tf.distribute.Strategy, gradients: list[Any]) -> None:
        def apply() -> None:
            strategy.extended.call_for_each_replica(update)
            for total in sums:
                strategy.extended.update(total, lambda v: v.assign(tf.zeros_like(v)))

        for total, gradient in zip(sums, gradients):
            strategy.extended.update(total, lambda v, g: v.assign_add(g), (gradient,))
        keras.ops.cond((optimizer._iterations + 1) % every == 0, apply, lambda: None)

    tf.distribute.get_replica_context().merge_call(accumulate, args=(gradients,))
