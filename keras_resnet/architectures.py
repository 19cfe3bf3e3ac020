"""What each ResNet is: one record a network, and one table of them all.

This table is the only place that knows depths and widths. A new network is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HE_2015 = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
MLPERF_TINY = "Banbury et al. 2021, MLPerf Tiny Benchmark, arXiv:2106.07597"


@dataclass(frozen=True)
class Architecture:
    """One residual network, as data.

    Attributes:
        name: Name of the constructor.
        family: ``"imagenet"`` (stem strides by 4), ``"cifar"`` or ``"tiny"`` (3×3 stem).
        block: Kind of residual block.
        depths: Blocks in each stage.
        widths: Filters of the 3×3 convolutions in each stage; a bottleneck block puts out
            four times as many channels.
        parameters: Trainable parameters with the default input shape, classes and options.
        paper: Where the network was published.
        input_shape: Default ``(height, width, channels)``.
        classes: Default number of classes.
        conv_bias: Whether convolutions carry a bias although a batch norm follows.
        shortcut_norm: Whether a batch norm follows a projection shortcut.
        padding: How strided convolutions are padded: ``"symmetric"`` as in PyTorch, or
            ``"same"`` as in TensorFlow, which at stride 2 pads one side only.
        batch_norm_epsilon: Default epsilon of every batch norm.
    """

    name: str
    family: Literal["imagenet", "cifar", "tiny"]
    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    parameters: int
    paper: str
    input_shape: tuple[int, int, int]
    classes: int
    conv_bias: bool = False
    shortcut_norm: bool = True
    padding: Literal["symmetric", "same"] = "symmetric"
    batch_norm_epsilon: float = 1e-5


def _imagenet(
    name: str, block: Literal["basic", "bottleneck"], depths: tuple[int, ...], parameters: int
) -> Architecture:
    return Architecture(
        name=name,
        family="imagenet",
        block=block,
        depths=depths,
        widths=(64, 128, 256, 512),
        parameters=parameters,
        paper=HE_2015 + ", table 1",
        input_shape=(224, 224, 3),
        classes=1000,
    )


def _cifar(depth: int, parameters: int) -> Architecture:
    return Architecture(
        name=f"ResNet{depth}",
        family="cifar",
        block="basic",
        depths=((depth - 2) // 6,) * 3,
        widths=(16, 32, 64),
        parameters=parameters,
        paper=HE_2015 + ", section 4.2",
        input_shape=(32, 32, 3),
        classes=10,
    )


ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        _imagenet("ResNet18", "basic", (2, 2, 2, 2), 11_689_512),
        _imagenet("ResNet34", "basic", (3, 4, 6, 3), 21_797_672),
        _imagenet("ResNet50", "bottleneck", (3, 4, 6, 3), 25_557_032),
        _imagenet("ResNet101", "bottleneck", (3, 4, 23, 3), 44_549_160),
        _imagenet("ResNet152", "bottleneck", (3, 8, 36, 3), 60_192_808),
        _cifar(20, 272_474),
        _cifar(32, 466_906),
        _cifar(44, 661_338),
        _cifar(56, 855_770),
        _cifar(110, 1_730_714),
        _cifar(1202, 19_424_026),
        Architecture(
            name="ResNet8",
            family="tiny",
            block="basic",
            depths=(1, 1, 1),
            widths=(16, 32, 64),
            parameters=78_186,
            paper=MLPERF_TINY + ", image classification reference",
            input_shape=(32, 32, 3),
            classes=10,
            conv_bias=True,
            shortcut_norm=False,
            padding="same",
            batch_norm_epsilon=1e-3,
        ),
    )
}


def find(name: str) -> Architecture:
    """The row of that name; upper and lower case do not matter.

    Raises:
        ValueError: There is no such row; the message suggests the nearest.
    """
    import difflib

    by_lower = {row.lower(): row for row in ARCHITECTURES}
    if name.lower() in by_lower:
        return ARCHITECTURES[by_lower[name.lower()]]
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.3)
    hint = f"Did you mean {by_lower[near[0]]}? " if near else ""
    raise ValueError(f"No architecture is called {name!r}. {hint}Known: {', '.join(ARCHITECTURES)}")
