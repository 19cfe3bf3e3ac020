"""The PyTorch peers that other tests compare with have the published figures themselves."""

import functools
import math
from typing import Any

import keras
import pytest

from keras_resnet.architectures import ARCHITECTURES
from tests.keras_resnet.published import KERAS_APPLICATIONS, MULTIPLY_ADDS, PARAMETERS, Figure
from tests.keras_resnet.torch_peers import (
    LAYOUTS,
    peer,
    random_images,
    randomize,
    save,
    torch,
)

flop_counter = pytest.importorskip("torch.utils.flop_counter")


@functools.cache
def meta_peer(name: str, *options: tuple[str, Any]) -> Any:
    """A peer without memory for its values: enough to count with."""
    with torch.device("meta"):
        return peer(name, **dict(options))


def parameters(name: str, options: dict[str, Any]) -> int:
    return sum(values.numel() for values in meta_peer(name, *options.items()).parameters())


@functools.cache
def multiply_adds(name: str, size: int, *options: tuple[str, Any]) -> int:
    module = meta_peer(name, *options)
    with flop_counter.FlopCounterMode(display=False) as count, torch.no_grad():
        module(torch.empty(1, 3, size, size, device="meta"))
    return count.get_total_flops() // 2


@pytest.mark.parametrize("figure", PARAMETERS, ids=str)
def test_peers_have_the_published_parameters(figure: Figure) -> None:
    count = parameters(figure.name, figure.options)
    assert abs(count - figure.value) <= figure.within, figure.source


@pytest.mark.parametrize("figure", MULTIPLY_ADDS, ids=str)
@pytest.mark.slow
def test_peers_have_the_published_multiply_adds(figure: Figure) -> None:
    count = multiply_adds(figure.name, figure.size, *figure.options.items())
    assert abs(count - figure.value) <= figure.within, figure.source


@pytest.mark.parametrize("row", KERAS_APPLICATIONS[::3], ids=lambda row: row.name)
def test_keras_applications_has_the_parameters_written_down(row: Any) -> None:
    model = getattr(keras.applications, row.name)(weights=None)
    assert model.count_params() == row.total
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == row.trainable
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    biases = sum(math.prod(layer.bias.shape) for layer in convs if layer.use_bias)
    assert biases == row.conv_biases


@pytest.mark.parametrize("row", KERAS_APPLICATIONS, ids=lambda row: row.name)
def test_keras_applications_are_the_peers_and_biases(row: Any) -> None:
    name, variant = row.name.removesuffix("V2"), "v2" if row.name.endswith("V2") else "v1"
    assert parameters(name, {"variant": variant}) + row.conv_biases == row.trainable


def test_every_network_of_the_table_has_a_peer() -> None:
    without = {"ResNet8"}  # MLPerf's is compared with its own Keras file
    tower = {name for name in ARCHITECTURES if not name.endswith("V2")}  # variant="v2"
    assert tower - without <= set(LAYOUTS)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("ResNet18", "v1.5"), ("ResNet18", "v2"), ("ResNet50", "v1"), ("ResNet50", "v1.5")],
)
def test_a_dilated_network_also_gives_what_the_strided_one_gives(name: str, variant: str) -> None:
    """Dilation only fills in the places between; ``d``'s pools, as timm has them, are not so."""
    strided = randomize(peer(name, variant=variant), seed=0, size=32)
    dilated = peer(name, variant=variant, output_stride=8)
    dilated.load_state_dict(strided.state_dict())
    x = random_images(1, 65, 49, torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, wider = strided.features(x), dilated.features(x)
    for level, step in ((1, 1), (2, 2), (3, 4)):
        assert wider[level].shape[2:] == wider[1].shape[2:]
        same_places = wider[level][:, :, ::step, ::step]
        torch.testing.assert_close(same_places, expected[level], rtol=1e-3, atol=1e-4)


def test_random_weights_leave_no_statistic_at_its_default(tmp_path: Any) -> None:
    module = randomize(peer("ResNet20", variant="v1.5", shortcut="A"), seed=0, size=32)
    for name, values in module.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bn1.weight", "bn1.bias")):
            assert (values - float(name.endswith(("var", "weight")))).abs().max() > 0.1, name
    with torch.no_grad():
        logits = module(random_images(2, 32, 32, torch.Generator().manual_seed(1)))
    assert 0.1 < logits.std() < 10

    save(module, tmp_path / "peer.safetensors")
    save(module, tmp_path / "peer.pth", format="pth")
    from safetensors.torch import load_file

    for loaded in (
        load_file(tmp_path / "peer.safetensors"),
        torch.load(tmp_path / "peer.pth", weights_only=True),
    ):
        assert all(torch.equal(loaded[name], v) for name, v in module.state_dict().items())
