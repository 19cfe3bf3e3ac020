"""Steps on JAX, on any number of devices of one or several hosts.

The step is one program over the global batch, which is sharded over the devices
(``keras.distribution.DataParallel``). Its results do not depend on the number of devices, except
for the order of sums: batch-norm statistics, too, are those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np

from training.optim import batch_loss, update_ema

if TYPE_CHECKING:
    from training.task import Task

State = dict[str, list[jax.Array]]


def train_step(task: Task, spec: tuple) -> Callable[..., dict[str, jax.Array]]:
    """A compiled update on a global batch, of which this host passes its share.

    Args:
        task: Its variables are updated in place.
        spec: Signature of a batch; JAX does not need it.

    Returns:
        A function from images and one-hot labels to the running metrics of the epoch.
    """
    model, config = task.model, task.experiment.optimizer
    groups = _groups(task)

    def step(state: State, images: jax.Array, labels: jax.Array) -> tuple[dict, State]:
        gradients, other, loss, outputs = _gradients(task, state, images, labels)
        state = state | {"other": other}
        with keras.StatelessScope(state_mapping=_pairs(groups, state)) as scope:
            # Not stateless_apply, which takes all variables ever trained: some may be frozen now.
            model.optimizer.apply(gradients, model.trainable_variables)
            task.metrics["accuracy"].update_state(labels, outputs)
            task.metrics["loss"].update_state(loss)
            if task.ema_model:
                accumulated = config.gradient_accumulation_steps
                update_ema(task.ema_model, model, config.ema_momentum, accumulated)
            figures = {name: metric.result() for name, metric in task.metrics.items()}
        return figures, {
            name: [_current(scope, v, value) for v, value in zip(groups[name], state[name])]
            for name in groups
        }

    compiled = jax.jit(step, donate_argnums=0, out_shardings=_replicated(task))

    def train_step(images: Any, labels: Any) -> dict[str, jax.Array]:
        state = {name: [v.value for v in group] for name, group in groups.items()}
        figures, state = compiled(state, *_shard(task, images, labels))
        for variable, value in _pairs(groups, state):
            variable.assign(value)
        return figures

    return train_step


def test_step(
    task: Task, model: keras.Model, spec: tuple
) -> Callable[..., tuple[jax.Array, np.ndarray]]:
    """A compiled evaluation of a global batch, which is passed whole on every host.

    Args:
        task: Its loss is computed.
        model: The weights to evaluate.
        spec: Signature of a batch; JAX does not need it.

    Returns:
        A function from images and targets to the sum of losses, and the predicted class of each
        image; for the tasks ``binary`` and ``multi`` its outputs.
    """
    one_class = task.contract.task == "single"

    def step(
        trainable: list, other: list, count: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        outputs, _ = model.stateless_call(trainable, other, images, training=False)
        outputs = outputs.astype("float32")
        losses = task.model.loss.call(labels, outputs)
        is_image = jax.numpy.arange(len(losses)) < count  # false for padding, which is at the end
        loss = jax.numpy.where(is_image, losses, 0).sum()
        return loss, outputs.argmax(axis=-1) if one_class else outputs

    compiled = jax.jit(step, out_shardings=_replicated(task))
    host = task.runtime.host
    size = task.experiment.runtime.batch_size // host.count
    share = slice(host.rank * size, (host.rank + 1) * size)

    def test_step(images: Any, labels: Any) -> tuple[jax.Array, np.ndarray]:
        # Pad the last batch, whose shape would be compiled again.
        batch = _shard(task, *(_padded(np.asarray(x)[share], size) for x in (images, labels)))
        trainable = [v.value for v in model.trainable_variables]
        other = [v.value for v in model.non_trainable_variables]
        count = len(images)
        loss, predicted = compiled(trainable, other, np.int32(count), *batch)
        return loss, np.asarray(predicted)[:count]

    return test_step


def _gradients(
    task: Task, state: State, images: jax.Array, labels: jax.Array
) -> tuple[list[jax.Array], list[jax.Array], jax.Array, jax.Array]:
    """Gradients, new values of the other variables, loss and outputs."""
    model = task.model

    def loss_of(trainable: list) -> Any:
        outputs, other = model.stateless_call(trainable, state["other"], images, training=True)
        loss = batch_loss(model, labels, outputs, task.class_weights)
        pairs = list(zip(model.optimizer.variables, state["optimizer"]))
        with keras.StatelessScope(state_mapping=pairs):
            scaled = model.optimizer.scale_loss(loss)
        return scaled, (other, loss, outputs)

    gradients, results = jax.grad(loss_of, has_aux=True)(state["trainable"])
    return gradients, *results


def _groups(task: Task) -> dict[str, list[Any]]:
    return {
        "trainable": task.model.trainable_variables,
        "other": task.model.non_trainable_variables,
        "optimizer": task.model.optimizer.variables,
        "ema": task.ema_model.variables if task.ema_model else [],
        "metrics": [v for metric in task.metrics.values() for v in metric.variables],
    }


def _pairs(groups: dict[str, list[Any]], state: State) -> list[tuple[Any, jax.Array]]:
    return [pair for name, group in groups.items() for pair in zip(group, state[name])]


def _current(scope: keras.StatelessScope, variable: Any, value: jax.Array) -> jax.Array:
    new = scope.get_current_value(variable)
    return value if new is None else new


def _replicated(task: Task) -> Any:
    """Sharding of arrays that every device holds in full; ``None`` on a single device."""
    distribution = task.runtime.distribution
    if distribution is None:
        return None
    mesh = distribution.device_mesh.backend_mesh
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _shard(task: Task, *batch: Any) -> tuple[Any, ...]:
    """The global batch from this host's share, sharded over the devices."""
    arrays = tuple(np.asarray(value) for value in batch)
    distribution = task.runtime.distribution
    if distribution is None:
        return arrays
    mesh = distribution.device_mesh.backend_mesh
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names[0]))
    return tuple(jax.make_array_from_process_local_data(layout, array) for array in arrays)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]), values.dtype)])
