"""The optimizer: what decays, and how the learning rate moves."""

from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
from training.config import from_dict
from training.optim import make_loss, make_optimizer, make_schedule, update_ema


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


def test_step_decay_falls_to_a_tenth_after_each_of_the_epochs() -> None:
    schedule = {"epochs": 9, "warmup_epochs": 1, "decay": "step", "step_epochs": [3, 6]}
    rate = make_schedule(from_dict({"schedule": schedule}), steps_per_epoch=10)
    rates = [float(rate(step)) for step in range(90)]
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(10) / 10, atol=1e-7)
    expected = np.repeat([0.1, 0.01, 0.001], [20, 30, 30])
    np.testing.assert_allclose(rates[10:], expected, rtol=1e-5)


def test_one_cycle_is_a_line_up_and_a_line_down() -> None:
    schedule = {"epochs": 10, "warmup_epochs": 2, "decay": "one_cycle"}
    rate = make_schedule(from_dict({"schedule": schedule}), steps_per_epoch=10)
    rates = [float(rate(step)) for step in range(101)]
    expected = np.interp(np.arange(101), [0, 20, 100], [0, 0.1, 0])
    np.testing.assert_allclose(rates, expected, atol=1e-7)


def optimizer_of(
    first_epochs: dict[str, int] | None = None, **config: Any
) -> keras.optimizers.Optimizer:
    config = {"learning_rate": 0.1, "weight_decay": 0.0} | config
    schedule = {"warmup_epochs": 0, "decay": "step", "step_epochs": [1000]}
    return make_optimizer(
        from_dict({"optimizer": config, "schedule": schedule}), 10, first_epochs or {}
    )


def kernel(value: Any) -> keras.Variable:
    return keras.Variable(np.asarray(value, "float32"), name="kernel")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_optimizers_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    start, rng = np.array([1.0, -2.0, 0.5], "float32"), np.random.default_rng(0)
    ours, theirs = kernel(start), torch.tensor(start, requires_grad=True)
    optimizer = optimizer_of(name=name, weight_decay=0.05 if name == "adamw" else 0.0)
    peers = {
        "sgd": lambda: torch.optim.SGD([theirs], 0.1, momentum=0.9, nesterov=True),
        "adamw": lambda: torch.optim.AdamW([theirs], 0.1, weight_decay=0.05),
    }
    peer = peers[name]()
    for _ in range(5):
        gradient = rng.normal(size=3).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
        theirs.grad = torch.tensor(gradient)
        peer.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5)


def test_lamb_is_the_papers() -> None:
    start, rng = np.array([1.0, -2.0, 0.5]), np.random.default_rng(0)
    variable, w = kernel(start), start.copy()
    m, v = np.zeros(3), np.zeros(3)
    optimizer = optimizer_of(name="lamb", weight_decay=0.3)
    for t in range(1, 6):
        g = rng.normal(size=3)
        optimizer.apply([keras.ops.convert_to_tensor(g.astype("float32"))], [variable])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.3 * w
        w = w - 0.1 * np.linalg.norm(w) / np.linalg.norm(r) * r
        np.testing.assert_allclose(variable, w, rtol=1e-4)


def test_lamb_moves_what_is_zero_and_stays_where_nothing_pulls() -> None:
    variables = [kernel([0.0, 0.0]), kernel([3.0, 4.0])]
    optimizer = optimizer_of(name="lamb", weight_decay=1e-9)
    pull = [keras.ops.ones(2), keras.ops.zeros(2)]
    optimizer.apply(pull, variables)
    np.testing.assert_allclose(variables[0], [-0.1, -0.1], rtol=1e-4)
    assert np.isfinite(np.asarray(variables[1])).all()


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_what_is_trained_later_begins_as_if_the_run_began(name: str) -> None:
    """Its moments and its count of updates are its own, whatever others have had before."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 2)).astype("float32")
    first, late, fresh = (keras.Variable([3.0, 4.0], name="kernel") for _ in range(3))
    optimizer = optimizer_of(name=name, first_epochs={late.path: 2}, weight_decay=0.1)
    optimizer.build([first, late])
    for _ in range(20):  # two epochs of ten steps
        optimizer.apply([keras.ops.convert_to_tensor(gradients[0])], [first])
    np.testing.assert_array_equal(late, [3.0, 4.0])
    peer = optimizer_of(name=name, weight_decay=0.1)
    for gradient in gradients:
        gradient = keras.ops.convert_to_tensor(gradient)
        optimizer.apply([gradient, gradient], [first, late])
        peer.apply([gradient], [fresh])
        np.testing.assert_allclose(late, fresh, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_layer_decay_scales_the_whole_step_of_each_stage(name: str) -> None:
    model = keras_resnet.ResNet8()
    before = [np.asarray(variable) for variable in model.trainable_variables]
    rng = np.random.default_rng(0)
    gradients = [
        keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32"))
        for v in model.trainable_variables
    ]
    moved = {}
    for decay in (1.0, 0.5):
        for variable, value in zip(model.trainable_variables, before):
            variable.assign(value)
        optimizer = optimizer_of(name=name, weight_decay=0.1, layer_decay=decay)
        optimizer.apply(gradients, model.trainable_variables)
        moved[decay] = [
            np.asarray(v) - value for v, value in zip(model.trainable_variables, before)
        ]
    parts = {"stem": 4, "stage1": 3, "stage2": 2, "stage3": 1, "predictions": 0}
    for variable, whole, scaled in zip(model.trainable_variables, moved[1.0], moved[0.5]):
        below = parts[variable.path.split("/")[-2].split("_")[0]]
        np.testing.assert_allclose(
            scaled, whole * 0.5**below, rtol=1e-2, atol=1e-6, err_msg=variable.path
        )


def test_gradients_are_cut_to_a_length_all_together() -> None:
    variables = [kernel([0.0]), kernel([0.0])]
    optimizer = optimizer_of(momentum=0.0, nesterov=False, clip_norm=1.0)
    optimizer.apply([keras.ops.ones(1) * 3, keras.ops.ones(1) * 4], variables)
    np.testing.assert_allclose([v[0] for v in variables], [-0.06, -0.08], rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_batches_accumulated_are_one_batch_of_them_all(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 5)).astype("float32"), np.eye(3)[rng.integers(0, 3, 24)]
    ends = []
    for every in (1, 4):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, "softmax")])
        weights = np.random.default_rng(1)
        model.set_weights([weights.normal(size=w.shape) for w in model.weights])
        config = {"name": name, "clip_norm": 0.1, "weight_decay": 0.01}
        optimizer = optimizer_of(**config, gradient_accumulation_steps=every)
        model.compile(optimizer, make_loss(from_dict({}).optimizer))
        for _ in range(3):
            for part in np.split(np.arange(24), every):
                model.train_on_batch(x[part], y[part])
        ends.append(model.get_weights())
    for whole, accumulated in zip(*ends):
        np.testing.assert_allclose(accumulated, whole, rtol=1e-5, atol=1e-6)


def test_the_binary_loss_asks_of_each_class_whether_it_is_there() -> None:
    loss = make_loss(from_dict({"optimizer": {"loss": "binary"}}).optimizer)
    probabilities = keras.ops.convert_to_tensor([[0.9, 0.2, 0.4]])
    mixed = keras.ops.convert_to_tensor([[0.7, 0.3, 0.0]])
    expected = -np.mean(np.log([0.9, 0.2, 0.6]))
    np.testing.assert_allclose(loss(mixed, probabilities), expected, rtol=1e-5)


@pytest.mark.parametrize("accumulated", [1, 4])
def test_the_average_keeps_its_share_at_each_update(accumulated: int) -> None:
    model, average = (
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]) for _ in range(2)
    )
    optimizer = optimizer_of(gradient_accumulation_steps=accumulated)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    model.set_weights([np.ones(w.shape) for w in model.weights])
    average.set_weights([np.zeros(w.shape) for w in average.weights])
    for _ in range(accumulated):
        update_ema(average, model, 0.05, accumulated)
    np.testing.assert_allclose(average.get_weights()[0], 0.95, rtol=1e-5)
