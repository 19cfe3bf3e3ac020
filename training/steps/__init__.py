"""Training and test steps, for each backend: the only backend-specific part of the loop.

``train_step(task, spec)`` returns a function that takes a batch, updates every variable of the
task, and returns the running metrics of the epoch. ``test_step(task, model, spec)`` returns a
function that takes a batch and returns the sum of its losses and a prediction for each image.
"""

from __future__ import annotations

from types import ModuleType

import keras


def backend_steps() -> ModuleType:
    """The module for the current Keras backend."""
    if keras.backend.backend() == "jax":
        from training.steps import on_jax

        return on_jax
    from training.steps import on_tensorflow

    return on_tensorflow
