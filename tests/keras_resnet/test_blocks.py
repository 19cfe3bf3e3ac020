"""The blocks as arithmetic: identity at the start, and a textbook block in PyTorch."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.block_config import BlockConfig, BlockSpec
from keras_resnet.blocks import BLOCKS, basic_block

WIDTH = {"basic": 8, "bottleneck": 2}  # both put out 8 channels


def block_model(kind: str, channels: int, stride: int, config: BlockConfig) -> keras.Model:
    x = keras.Input((9, 10, channels))
    y = BLOCKS[kind, False](x, WIDTH[kind], BlockSpec(stride=stride), config)
    return keras.Model(x, y)


def shuffle(model: keras.Model, rng: np.random.Generator) -> None:
    """Random weights everywhere but where a gamma is zero."""
    for weight in model.weights:
        if weight.name != "gamma" or np.any(keras.ops.convert_to_numpy(weight)):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", WIDTH)
def test_zero_init_block_is_the_relu(rng: np.random.Generator, kind: str, training: bool) -> None:
    model = block_model(kind, 8, 1, BlockConfig(zero_init_residual=True))
    x = rng.normal(size=(2, 9, 10, 8)).astype("float32")
    np.testing.assert_array_equal(model(x, training=training), np.maximum(x, 0))


@pytest.mark.parametrize("kind", WIDTH)
def test_zero_init_projection_is_the_relu_of_the_shortcut(
    rng: np.random.Generator, kind: str
) -> None:
    model = block_model(kind, 4, 2, BlockConfig(zero_init_residual=True))
    shuffle(model, rng)
    shortcut = keras.Model(model.input, model.get_layer("block_shortcut_norm").output)
    # Shuffling moved the last beta off zero, and with it the branch.
    last = "block_norm2" if kind == "basic" else "block_norm3"
    model.get_layer(last).beta.assign(np.zeros(8))
    x = rng.normal(size=(2, 9, 10, 4)).astype("float32")
    expected = np.maximum(keras.ops.convert_to_numpy(shortcut(x)), 0)
    assert expected.any()
    np.testing.assert_array_equal(model(x), expected)


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet20"])
def test_zero_init_residual_reaches_exactly_the_last_norm_of_each_block(name: str) -> None:
    from keras_resnet.models import create_model

    model = create_model(name, input_shape=(32, 32, 3), zero_init_residual=True)
    last = "norm3" if name == "ResNet50" else "norm2"
    for layer in model.layers:
        if "norm" in layer.name:
            zero = layer.name.startswith("stage") and layer.name.endswith(f"_{last}")
            assert np.all(np.asarray(layer.gamma) == (0 if zero else 1)), layer.name


def test_option_a_takes_every_second_pixel_and_pads_channels(rng: np.random.Generator) -> None:
    model = block_model("basic", 4, 2, BlockConfig(shortcut="A", zero_init_residual=True))
    x = rng.normal(size=(1, 9, 10, 4)).astype("float32")
    expected = np.pad(np.maximum(x[:, ::2, ::2], 0), [(0, 0), (0, 0), (0, 0), (2, 2)])
    np.testing.assert_array_equal(model(x), expected)


def textbook_block(channels: int, filters: int, stride: int) -> Any:
    """Two 3×3 convolutions with bias, each batch normalized, beside a shortcut."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1)
            self.norm1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, padding=1)
            self.norm2 = nn.BatchNorm2d(filters)
            if stride != 1 or channels != filters:
                self.shortcut_conv = nn.Conv2d(channels, filters, 1, stride)
                self.shortcut_norm = nn.BatchNorm2d(filters)

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm1(self.conv1(x)))
            y = self.norm2(self.conv2(y))
            if hasattr(self, "shortcut_conv"):
                x = self.shortcut_norm(self.shortcut_conv(x))
            return torch.relu(x + y)

    return Block().eval()


def randomize(norm: Any, rng: np.random.Generator) -> None:
    import torch

    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        values.copy_(torch.tensor(rng.uniform(0.2, 2, len(values))))


def copy_weights(theirs: Any, ours: keras.Model, rng: np.random.Generator) -> None:
    for name, module in theirs.named_children():
        if "norm" in name:
            randomize(module, rng)
            values = [module.weight, module.bias, module.running_mean, module.running_var]
        else:
            values = [module.weight.permute(2, 3, 1, 0), module.bias]
        ours.get_layer(f"block_{name}").set_weights([v.detach().numpy() for v in values])


@pytest.mark.parametrize(("channels", "stride"), [(6, 1), (4, 2), (4, 1), (6, 2)])
def test_is_pytorchs_textbook_block(rng: np.random.Generator, channels: int, stride: int) -> None:
    torch = pytest.importorskip("torch")
    theirs = textbook_block(channels, 6, stride)
    biased = dataclasses.replace(ARCHITECTURES["ResNet18"], conv_bias=True)
    x = keras.Input((9, 10, channels))
    ours = keras.Model(x, basic_block(x, 6, BlockSpec(stride=stride), BlockConfig(biased)))
    copy_weights(theirs, ours, rng)
    images = rng.normal(size=(2, 9, 10, channels)).astype("float32")
    with torch.no_grad():
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert len(ours.weights) == len([n for n in theirs.state_dict() if "tracked" not in n])
    np.testing.assert_allclose(ours(images), expected, atol=1e-5)
