"""Steps on JAX: any number of devices, of one machine or of several.

The step is one program over the global batch, whose images are spread over the devices
(``keras.distribution.DataParallel``). What it computes does not depend on their number but for the
order of its sums: the statistics of batch norm too are those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np

from training.optim import batch_loss, move_average

if TYPE_CHECKING:
    from training.train import Task

State = dict[str, list[jax.Array]]


def train_step(task: Task, spec: tuple) -> Callable[..., dict[str, jax.Array]]:
    """One update of a global batch, of which this machine gives its part."""
    model, config = task.model, task.experiment.optimizer
    groups = _groups(task)

    def step(state: State, images: jax.Array, labels: jax.Array) -> tuple[dict, State]:
        gradients, other, loss, answers = _gradients(task, state, images, labels)
        state = state | {"other": other}
        with keras.StatelessScope(state_mapping=_pairs(groups, state)) as scope:
            # Not stateless_apply, which wants all that are ever trained: some may be frozen.
            model.optimizer.apply(gradients, model.trainable_variables)
            task.figures["accuracy"].update_state(labels, answers)
            task.figures["loss"].update_state(loss)
            if task.average:
                accumulated = config.gradient_accumulation_steps
                move_average(task.average, model, config.ema_momentum, accumulated)
            figures = {name: figure.result() for name, figure in task.figures.items()}
        return figures, {
            name: [_current(scope, v, value) for v, value in zip(groups[name], state[name])]
            for name in groups
        }

    everywhere = _everywhere(task)
    compiled = jax.jit(step, donate_argnums=0, out_shardings=everywhere)

    def stepped(images: Any, labels: Any) -> dict[str, jax.Array]:
        state = {name: [v.value for v in group] for name, group in groups.items()}
        figures, state = compiled(state, *_spread(task, images, labels))
        for variable, value in _pairs(groups, state):
            variable.assign(value)
        return figures

    return stepped


def test_step(
    task: Task, model: keras.Model, spec: tuple
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Sum of losses of a global batch, and how often each class, by row, was taken for each."""

    def step(
        trainable: list, other: list, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        answers, _ = model.stateless_call(trainable, other, images, training=False)
        real = labels.sum(axis=-1)  # a filled-up row has no label
        confusion = labels.T @ jax.nn.one_hot(answers.argmax(axis=-1), labels.shape[-1])
        return (task.model.loss.call(labels, answers) * real).sum(), confusion

    compiled = jax.jit(step, out_shardings=_everywhere(task))
    here = task.runtime.machines
    size = task.experiment.runtime.batch_size // here.count
    mine = slice(here.rank * size, (here.rank + 1) * size)

    def tested(images: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
        # One shape for all batches: the last one would be compiled again.
        batch = _spread(task, *(_filled(np.asarray(x)[mine], size) for x in (images, labels)))
        trainable = [v.value for v in model.trainable_variables]
        return compiled(trainable, [v.value for v in model.non_trainable_variables], *batch)

    return tested


def _gradients(
    task: Task, state: State, images: jax.Array, labels: jax.Array
) -> tuple[list[jax.Array], list[jax.Array], jax.Array, jax.Array]:
    """Gradients of the batch, and what else comes out of it."""
    model = task.model

    def loss_of(trainable: list) -> Any:
        answers, other = model.stateless_call(trainable, state["other"], images, training=True)
        loss = batch_loss(model, labels, answers, task.class_weights)
        pairs = list(zip(model.optimizer.variables, state["optimizer"]))
        with keras.StatelessScope(state_mapping=pairs):
            scaled = model.optimizer.scale_loss(loss)
        return scaled, (other, loss, answers)

    gradients, results = jax.grad(loss_of, has_aux=True)(state["trainable"])
    return gradients, *results


def _groups(task: Task) -> dict[str, list[Any]]:
    return {
        "trainable": task.model.trainable_variables,
        "other": task.model.non_trainable_variables,
        "optimizer": task.model.optimizer.variables,
        "average": task.average.variables if task.average else [],
        "figures": [v for figure in task.figures.values() for v in figure.variables],
    }


def _pairs(groups: dict[str, list[Any]], state: State) -> list[tuple[Any, jax.Array]]:
    return [pair for name, group in groups.items() for pair in zip(group, state[name])]


def _current(scope: keras.StatelessScope, variable: Any, value: jax.Array) -> jax.Array:
    new = scope.get_current_value(variable)
    return value if new is None else new


def _everywhere(task: Task) -> Any:
    """The layout of what every device holds whole; ``None`` where there is one device."""
    distribution = task.runtime.distribution
    if distribution is None:
        return None
    mesh = distribution.device_mesh.backend_mesh
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _spread(task: Task, *batch: Any) -> tuple[Any, ...]:
    """This machine's part of the batch, spread over its devices."""
    arrays = tuple(np.asarray(value) for value in batch)
    distribution = task.runtime.distribution
    if distribution is None:
        return arrays
    mesh = distribution.device_mesh.backend_mesh
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names[0]))
    return tuple(jax.make_array_from_process_local_data(layout, array) for array in arrays)


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]), values.dtype)])
