"""What the constructors offer beyond keras.applications: that it does what it says."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet import ResNet8, ResNet18, ResNet20, ResNet50, create_model, deployable
from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.block_config import BlockConfig, block_specs
from keras_resnet.layers import BlurPool, StochasticDepth
from keras_resnet.models import Constructor


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet50V2", "SEResNet18"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride(
    name: str, output_stride: int, reduced: Callable[[str], Constructor]
) -> None:
    build = reduced(name)
    model = build(input_shape=(64, 96, 3), include_top=False, output_stride=output_stride)
    assert model.output_shape[1:3] == (64 // output_stride, 96 // output_stride)
    plain = build(input_shape=(64, 96, 3), include_top=False)
    assert [w.shape for w in model.weights] == [w.shape for w in plain.weights]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet50V2", "ResNet20", "ResNet20V2"])
def test_a_dilated_network_sees_what_the_strided_one_sees(
    rng: np.random.Generator, name: str, reduced: Callable[[str], Constructor]
) -> None:
    """With strides on one grid, every second answer of the dilated network is the strided one's."""
    last = 2 if ARCHITECTURES[name].family == "cifar" else 16
    build, of = reduced(name), {"input_shape": (None, None, 3), "include_top": False}
    strided, dilated = build(**of), build(**of, output_stride=last)
    dilated.set_weights(strided.get_weights())
    x = normal(rng, 1, 96, 96, 3)
    expected = np.asarray(strided(x))
    np.testing.assert_allclose(
        np.asarray(dilated(x))[:, ::2, ::2], expected, atol=1e-4 * expected.max()
    )


def test_output_stride_says_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"ResNet50 must be one of 4, 8, 16, 32.*output_stride=12"):
        ResNet50(output_stride=12)
    with pytest.raises(ValueError, match=r"ResNet20 must be one of 1, 2, 4"):
        ResNet20(output_stride=8)


def test_stochastic_depth_rises_with_depth() -> None:
    rates = [
        spec.drop_rate
        for _, spec in block_specs(BlockConfig(ARCHITECTURES["ResNet20"], stochastic_depth=0.4))
    ]
    np.testing.assert_allclose(rates, np.linspace(0, 0.4, 9))
    model = ResNet20(stochastic_depth=0.4)
    drops = [layer for layer in model.layers if isinstance(layer, StochasticDepth)]
    assert [layer.rate for layer in drops] == pytest.approx(rates[1:])


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    layer = StochasticDepth(0.25, seed=1)
    x = np.ones((4000, 2, 2, 3), "float32")
    y = np.asarray(layer(x, training=True))
    kept = y[:, 0, 0, 0] > 0
    np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(y[~kept], 0)
    # Four standard deviations of a binomial of 4,000.
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)
    np.testing.assert_array_equal(layer(x, training=False), x)


def test_stochastic_depth_and_dropout_leave_inference_alone(rng: np.random.Generator) -> None:
    plain, options = ResNet20(), ResNet20(stochastic_depth=0.5, dropout_rate=0.5)
    values = {weight.path: weight for weight in plain.weights}
    for weight in options.weights:
        weight.assign(values[weight.path])
    x = normal(rng, 2, 32, 32, 3)
    np.testing.assert_allclose(options(x), plain(x), atol=1e-6)
    assert options.layers[-2].name == "dropout"
    assert not np.allclose(options(x, training=True), options(x, training=True))


@pytest.mark.parametrize("variant", ["v1.5", "v2"])
def test_zero_init_residual_makes_every_block_the_identity(
    rng: np.random.Generator, variant: Any
) -> None:
    model = ResNet20(variant=variant, zero_init_residual=True)
    deeper = create_model("ResNet32", variant=variant, zero_init_residual=True)
    ours = {w.path: w for w in deeper.weights}
    for weight in model.weights:
        if "block1_" in weight.path or "block" not in weight.path:
            ours[weight.path].assign(weight)
    x = normal(rng, 2, 32, 32, 3)
    np.testing.assert_allclose(deeper(x), model(x), atol=1e-6)


def test_plain_networks_have_no_shortcuts() -> None:
    plain = ResNet18(shortcut="none", input_shape=(32, 32, 3))
    kinds = {type(layer) for layer in plain.layers}
    assert keras.layers.Add not in kinds
    assert not any("shortcut" in layer.name for layer in plain.layers)
    for option in ({"stochastic_depth": 0.1}, {"zero_init_residual": True}):
        with pytest.raises(ValueError, match=r"needs shortcuts.*shortcut='none'"):
            ResNet18(shortcut="none", **option)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("sync_batch", keras.layers.BatchNormalization), ("group", keras.layers.GroupNormalization)],
)
def test_norms(rng: np.random.Generator, norm: Any, kind: type) -> None:
    model = ResNet20(norm=norm)
    norms = [layer for layer in model.layers if "norm" in layer.name]
    assert len(norms) == 21 and all(isinstance(layer, kind) for layer in norms)
    if norm == "sync_batch":
        assert all(layer.synchronized for layer in norms)
    x, y = normal(rng, 4, 32, 32, 3), np.eye(10)[:4]
    model.compile("sgd", "categorical_crossentropy")
    assert np.isfinite(model.train_on_batch(x, y))


def test_antialias_moves_less_when_the_image_moves(rng: np.random.Generator) -> None:
    """Zhang's measure: with blurs, a shift by one pixel changes the answer less."""
    image = np.kron(rng.normal(size=(8, 8, 3)), np.ones((16, 16, 1)))[np.newaxis].astype("float32")
    shifts = np.concatenate([image, np.roll(image, 1, axis=2)])

    def change(model: Any) -> float:
        before, after = np.asarray(model(shifts))
        return float(np.abs(before - after).mean() / np.abs(before).mean())

    build: Any = {"input_shape": (128, 128, 3), "include_top": False, "pooling": "avg"}
    sharp, blurred = ResNet18(**build), ResNet18(**build, antialias=True)
    blurred.set_weights(sharp.get_weights())
    assert change(blurred) < change(sharp)
    assert sum(isinstance(layer, BlurPool) for layer in blurred.layers) == 4


def test_blur_pool_is_the_binomial_filter_with_a_reflected_border() -> None:
    x = np.zeros((1, 5, 5, 2), "float32")
    x[0, 2, 2] = (16, 32)
    y = np.asarray(BlurPool(1)(x))[0]
    np.testing.assert_array_equal(y[1:4, 1:4, 0], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    np.testing.assert_array_equal(y[..., 1], 2 * y[..., 0])
    ramp = np.arange(4.0, dtype="float32")[np.newaxis, np.newaxis, :, np.newaxis].repeat(4, axis=1)
    # At the left the border holds 1, and at the right 2.
    np.testing.assert_allclose(np.asarray(BlurPool(1)(ramp))[0, 0, :, 0], [0.5, 1, 2, 2.5])


def test_channels_first_is_refused_where_tensorflow_cannot_run_it() -> None:
    with pytest.raises(ValueError, match=r"only on a GPU.*data_format='channels_first'"):
        ResNet8(data_format="channels_first")


# Both networks in one process, whose imports take longer than they do.
CHANNELS_FIRST = """
import numpy as np, keras, keras_resnet
for name, options in (
    ("SEResNet18", {"variant": "d"}), ("ResNet8", {"shortcut": "A", "norm": "group"})
):
    first = keras_resnet.create_model(
        name, input_shape=(3, 64, 72), data_format="channels_first", classes=7,
        include_preprocessing=True, antialias=True, **options,
    )
    last = keras_resnet.deployable(first)
    assert last.input_shape == (None, 64, 72, 3), last.input_shape
    assert first.contract == last.contract, (first.contract, last.contract)
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 72, 3)).astype("float32")
    a, b = (keras.ops.convert_to_numpy(y) for y in (first(x.transpose(0, 3, 1, 2)), last(x)))
    print(np.abs(a - b).max() < 1e-5, a.shape)
"""


@pytest.mark.slow
def test_channels_first_gives_the_same_outputs_and_is_transposed_for_devices(python: Any) -> None:
    pytest.importorskip("torch")  # as a backend it runs channels first on any machine
    assert python(CHANNELS_FIRST, backend="torch").splitlines() == ["True (2, 7)"] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"output_stride": 2, "antialias": True},
        {"variant": "v2", "stochastic_depth": 0.2, "dropout_rate": 0.1},
        {"shortcut": "none", "norm": "group"},
    ],
    ids=str,
)
def test_options_survive_saving_and_deployment(
    tmp_path: Any, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    model = ResNet20(**options)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    pixels = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    from keras_resnet import preprocess_input

    x = preprocess_input(pixels, model.contract)
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_allclose(deployable(model)(pixels), model(x), atol=1e-5)
