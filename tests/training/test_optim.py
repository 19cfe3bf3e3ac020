"""The optimizer: what decays, and how the learning rate moves."""

import keras
import numpy as np
import pytest

import keras_resnet
from training.config import from_dict
from training.optim import make_optimizer, make_schedule


def test_the_learning_rate_warms_up_and_then_follows_a_cosine_to_zero() -> None:
    experiment = from_dict(
        {"optimizer": {"learning_rate": 0.4}, "schedule": {"epochs": 10, "warmup_epochs": 2}}
    )
    schedule = make_schedule(experiment, steps_per_epoch=50)
    rates = np.array([float(schedule(step)) for step in range(500)])
    np.testing.assert_allclose(rates[:100], 0.4 * np.arange(100) / 100, atol=1e-6)
    cosine = 0.2 * (1 + np.cos(np.pi * np.arange(400) / 400))
    np.testing.assert_allclose(rates[100:], cosine, atol=1e-6)


def test_a_run_of_one_epoch_still_reaches_its_peak() -> None:
    experiment = from_dict({"schedule": {"epochs": 1, "warmup_epochs": 5}})
    schedule = make_schedule(experiment, steps_per_epoch=20)
    assert max(float(schedule(step)) for step in range(20)) == pytest.approx(0.1)


def test_weight_decay_shrinks_kernels_and_leaves_batch_norms_and_biases_alone() -> None:
    model = keras_resnet.ResNet8()
    experiment = from_dict({"optimizer": {"weight_decay": 0.1}, "schedule": {"warmup_epochs": 0}})
    optimizer = make_optimizer(experiment, steps_per_epoch=10)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    zeros = [keras.ops.zeros(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        expected = 1 - 0.1 * 0.1 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)
