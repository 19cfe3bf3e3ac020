"""Our batch normalization against Keras's own, and the padding of channels."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet.layers import BatchNormalization, PadChannels

KERAS, OURS = keras.layers.BatchNormalization, BatchNormalization
ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"epsilon": 1e-7, "momentum": 0.5},
    {"scale": False},
    {"center": False},
    {"axis": 1},  # not the fused kernel's: Keras's own path
]


def batch(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape or (4, 5, 6, 3)) * 2 + 1).astype("float32")


def network(layer: Any, **arguments: Any) -> keras.Model:
    x = keras.Input((5, 6, 3))
    model = keras.Model(x, layer(name="norm", **arguments)(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def runs_fused(model: keras.Model) -> bool:
    return model.get_layer("norm")._fusable(model.inputs[0], None)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_training_is_kerass(rng: np.random.Generator, arguments: dict[str, Any]) -> None:
    ours, theirs = network(OURS, **arguments), network(KERAS, **arguments)
    assert runs_fused(ours) is ("axis" not in arguments)
    assert len(ours.weights) == len(theirs.weights)
    x, y = batch(rng, 12, 5, 6, 3), batch(rng, 12, 5, 6, 3)
    for model in (ours, theirs):
        # After the first step the weights hold the gradients of all the steps before.
        model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for our, their in zip(ours.weights, theirs.weights):
        assert our.name == their.name
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-5, err_msg=our.name)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)


def gradients(layer: Any, x: np.ndarray, training: bool) -> list[np.ndarray]:
    import tensorflow as tf

    layer.build(x.shape)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs, training=training) ** 3)
    variables = [variable.value for variable in layer.trainable_variables]
    return [np.asarray(g) for g in tape.gradient(loss, [inputs, *variables])]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the fused kernel is TensorFlow's"
)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_kerass(rng: np.random.Generator, training: bool) -> None:
    x = batch(rng)
    pairs = zip(gradients(OURS(), x, training), gradients(KERAS(), x, training))
    for our, their in pairs:
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-3)


def test_moving_variance_is_the_biased_one_for_two_pixels() -> None:
    layer = OURS(momentum=0.0)
    layer(np.array([1.0, 3.0], "float32").reshape(2, 1, 1, 1), training=True)
    np.testing.assert_allclose(layer.moving_mean, [2])
    np.testing.assert_allclose(layer.moving_variance, [1])  # unbiased, it would be 2


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_statistics_in_float32(rng: np.random.Generator, name: str) -> None:
    x = batch(rng, 32, 8, 8, 3) + 50  # 2^8 is where bfloat16 stops counting by ones
    mixed, exact = OURS(momentum=0.0, dtype=name), OURS(momentum=0.0)
    outputs = mixed(x, training=True)
    expected = exact(x, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == name.removeprefix("mixed_")
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    np.testing.assert_allclose(mixed.moving_mean, exact.moving_mean, rtol=1e-3)
    np.testing.assert_allclose(mixed.moving_variance, exact.moving_variance, rtol=0.02)
    np.testing.assert_allclose(keras.ops.cast(outputs, "float32"), expected, atol=0.15)


def test_float16_variance_does_not_overflow() -> None:
    x = np.array([-400.0, 400.0], "float32").reshape(2, 1, 1, 1)  # squared, above 65,504
    layer = OURS(momentum=0.0, dtype="mixed_float16")
    np.testing.assert_allclose(np.ravel(layer(x, training=True)), [-1, 1], atol=1e-2)
    np.testing.assert_allclose(layer.moving_variance, [160_000])


def test_frozen_layer_infers_and_stands_still(rng: np.random.Generator) -> None:
    x = batch(rng)
    layer = OURS()
    layer(x, training=True)
    layer.trainable = False
    before = layer.get_weights()
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    for now, then in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(now, then)


def test_config_round_trip() -> None:
    layer = OURS(momentum=0.8, epsilon=1e-4, center=False, gamma_initializer="zeros", name="bn")
    config = keras.layers.serialize(layer)
    copied = keras.layers.deserialize(config)
    assert type(copied) is BatchNormalization
    assert copied.get_config() == layer.get_config()
    assert set(layer.get_config()) == set(KERAS().get_config())


def test_weights_are_interchangeable_with_kerass(rng: np.random.Generator) -> None:
    x = batch(rng)
    theirs, ours = KERAS(), OURS()
    theirs.build(x.shape)
    ours.build(x.shape)
    theirs.set_weights([rng.uniform(0.5, 2, 3) for _ in range(4)])
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_pad_channels_adds_zeros_on_both_sides(rng: np.random.Generator) -> None:
    x = batch(rng)
    layer = PadChannels(1, 2)
    padded = np.asarray(layer(x))
    assert padded.shape == layer.compute_output_shape(x.shape) == (4, 5, 6, 6)
    np.testing.assert_array_equal(padded[..., 1:4], x)
    assert not padded[..., [0, 4, 5]].any()
    assert PadChannels.from_config(layer.get_config()).get_config() == layer.get_config()
