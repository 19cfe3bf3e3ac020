"""Steps on TensorFlow: one device, or several of one machine through ``MirroredStrategy``.

Gradients are summed over the devices before the optimizer sees them, so that clipping and loss
scaling work on the gradient of the whole batch. Keras sums them after clipping, so that its norm
is that of a device's share. What batches change besides weights, the statistics of batch norm
above all, is averaged over the devices at every step: a checkpoint then holds all there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from training.optim import move_average

if TYPE_CHECKING:
    from training.train import Task

Batch = tuple[tf.Tensor, tf.Tensor]


def train_step(task: Task, spec: tuple) -> Callable[..., dict[str, tf.Tensor]]:
    """One update of a global batch with signature ``spec``; returns the epoch's figures."""
    strategy = task.runtime.distribution or tf.distribute.get_strategy()
    parts = task.experiment.runtime.accumulate
    model = task.model
    _sums_no_more(model.optimizer, strategy)

    def replica(images: tf.Tensor, labels: tf.Tensor) -> Any:
        # The label and answer of each image in this device's share, part by part.
        changed: list[tuple[Any, tf.Tensor]] = []
        gradients: list[tf.Tensor] = []
        results = []
        for part in range(parts):
            # One part after another: all at once would need the memory that is to be saved.
            with tf.control_dependencies(gradients):
                share = _share((images, labels), part, parts)
                grown, changed, result = _gradients(model, share, changed, parts)
            gradients = [a + b for a, b in zip(gradients, grown)] if gradients else grown
            results.append((share[1], *result))
        optimizer_gradients, values = _over_replicas(gradients, [value for _, value in changed])
        model.optimizer.apply(optimizer_gradients, model.trainable_variables)
        return values, results

    def step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        values, results = strategy.run(replica, args=(images, labels))
        for variable, value in zip(_moved(model), values):
            strategy.extended.update(variable.value, lambda v, new: v.assign(new), (value,))
        local = [strategy.experimental_local_results(r) for part in results for r in part]
        truths, answers, losses = (sum(local[i::3], ()) for i in range(3))
        task.figures["accuracy"].update_state(tf.concat(truths, 0), tf.concat(answers, 0))
        task.figures["loss"].update_state(tf.add_n(losses))
        if task.average:
            move_average(task.average, model, task.experiment.optimizer.ema_momentum)
        return {name: figure.result() for name, figure in task.figures.items()}

    return _compiled(step, spec, task)


def test_step(
    task: Task, model: keras.Model, spec: tuple
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Sum of losses and number of right answers of a batch."""
    strategy = task.runtime.distribution or tf.distribute.get_strategy()

    def replica(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _share((images, labels), 0, 1)
        answers = model(images, training=False)
        right = tf.argmax(answers, axis=-1) == tf.argmax(labels, axis=-1)
        return tf.reduce_sum(task.model.loss.call(labels, answers)), tf.math.count_nonzero(right)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        sums = strategy.run(replica, args=(images, labels))
        return tuple(tf.add_n(strategy.experimental_local_results(value)) for value in sums)

    return _compiled(step, spec, task)


def _compiled(step: Callable, spec: tuple, task: Task) -> Callable:
    # The signature is given, because a step that is traced anew for another batch may be
    # optimized otherwise, and a resumed run meets its batches in another order.
    jit = task.runtime.jit_compile
    return tf.function(step, input_signature=spec, jit_compile=jit, autograph=False)


def _share(batch: Batch, part: int, parts: int) -> Batch:
    """This device's images of a part of the batch: the parts are the same on any devices."""
    context = tf.distribute.get_replica_context()
    rank, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
    if parts * count == 1:
        return batch
    with tf.device("CPU"):  # or the whole batch would go to every device
        size = tf.shape(batch[0])[0]
        number = part * count + rank
        begin, end = size * number // (parts * count), size * (number + 1) // (parts * count)
        return batch[0][begin:end], batch[1][begin:end]


def _gradients(
    model: keras.Model, share: Batch, changed: list[tuple[Any, tf.Tensor]], parts: int
) -> tuple[list[tf.Tensor], list[tuple[Any, tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]:
    """Gradients of a share, what it changed, and its answers and loss.

    Keras's losses are divided by the number of devices, so that sums over them are means.
    """
    images, labels = share
    with tf.GradientTape() as tape, keras.StatelessScope(state_mapping=changed) as scope:
        answers = model(images, training=True)
        loss = model.loss(labels, answers) / parts
        scaled = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, [v.value for v in model.trainable_variables])
    moved = [(v, scope.get_current_value(v)) for v in _moved(model)]
    return gradients, [(v, v.value if new is None else new) for v, new in moved], (answers, loss)


def _moved(model: keras.Model) -> list[Any]:
    """What a forward pass changes: statistics and seeds."""
    return model.non_trainable_variables


def _over_replicas(
    gradients: list[tf.Tensor], values: list[tf.Tensor]
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The sum of gradients and the mean of values; seeds are the same on all devices."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients, values
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    floating = [i for i, value in enumerate(values) if value.dtype.is_floating]
    if floating:
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, [values[i] for i in floating])
        values = [means[floating.index(i)] if i in floating else v for i, v in enumerate(values)]
    return summed, values


def _sums_no_more(optimizer: keras.Optimizer, strategy: tf.distribute.Strategy) -> None:
    """Keeps the optimizer from summing gradients over the devices a second time."""
    if strategy.num_replicas_in_sync > 1:
        # Keras has no public switch for it; tests/training/test_devices.py would notice.
        getattr(optimizer, "inner_optimizer", optimizer)._all_reduce_sum_gradients = list
