"""One update and one test of a batch, on each backend: all of the loop that knows the backend.

``train_step(task)`` gives a function that takes a batch, changes every variable of the task by one
step, and returns the figures of the epoch so far. ``test_step(task, model)`` gives one that returns
the sum of the losses of a batch and its confusion matrix, and changes nothing.
"""

from __future__ import annotations

from types import ModuleType

import keras


def backend_steps() -> ModuleType:
    """The module for Keras's backend."""
    if keras.backend.backend() == "jax":
        from training.steps import on_jax

        return on_jax
    from training.steps import on_tensorflow

    return on_tensorflow
