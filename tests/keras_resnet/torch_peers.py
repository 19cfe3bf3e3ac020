"""The same networks in PyTorch, with the parameter names that public checkpoints carry.

One configurable module, written from the papers, is the reference for every family; tests save
its random weights and compare outputs. Names follow torchvision (``layer1.0.conv1``,
``downsample.0``), timm for what torchvision lacks (deep stem ``conv1.0``, ``se.fc1``), and
akamaster's pytorch_resnet_cifar10 for CIFAR (``shortcut.0``, ``linear``).

Without PyTorch, importing this module skips the test that imports it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


@dataclass(frozen=True)
class Layout:
    """One network, as data.

    Attributes:
        block: ``"basic"`` (3×3, 3×3) or ``"bottleneck"`` (1×1, 3×3, 1×1; He et al. 2015).
        depths: Blocks in each stage.
        widths: Channels of each stage before a bottleneck's expansion by 4.
        stem: ``"7x7"``, ``"deep"`` (three 3×3; He et al. 2018, arXiv:1812.01187), ``"rs"`` (deep,
            and a strided convolution in place of the max-pool; Bello et al. 2021,
            arXiv:2103.07579) or ``"3x3"`` (CIFAR: keeps the size).
        stem_width: Channels the stem puts out; a deep stem has half as many inside.
        stride_on: Which convolution of a bottleneck strides, ``"1x1"`` (v1) or ``"3x3"`` (v1.5).
        groups: Groups of a bottleneck's 3×3 (ResNeXt, arXiv:1611.05431).
        base_width: Of 64 channels of width, how many each group's 3×3 has.
        se_ratio: Squeeze-excite channels over block channels (arXiv:1709.01507); 0 for none.
        avg_down: Whether shortcuts average-pool and then project at stride 1 (ResNet-D).
        antialias: Whether strided max-pool and 3×3 are followed by a blur that strides instead
            (Zhang 2019, arXiv:1904.11486).
        shortcut: Where shapes differ, ``"B"`` projects, ``"A"`` subsamples and zero-pads;
            ``"none"`` leaves out every shortcut, identities too: a plain network.
        preact: Whether norm and activation stand before each convolution (He et al. 2016,
            arXiv:1603.05027); projections then have no norm and take the activated input.
        norm: ``"batch"``, or ``"group"`` for 32 groups.
        output_stride: Later stages dilate instead of striding beyond this.
        classes: Logits put out.
        cifar_names: Whether shortcut and head are called ``shortcut`` and ``linear``.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Literal["7x7", "deep", "rs", "3x3"] = "7x7"
    stem_width: int = 64
    stride_on: Literal["1x1", "3x3"] = "3x3"
    groups: int = 1
    base_width: int = 64
    se_ratio: float = 0.0
    avg_down: bool = False
    antialias: bool = False
    shortcut: Literal["A", "B", "none"] = "B"
    preact: bool = False
    norm: Literal["batch", "group"] = "batch"
    output_stride: int = 32
    classes: int = 1000
    cifar_names: bool = False


class ResNet(nn.Module):
    """``(batch, 3, height, width)`` normalized images to ``(batch, classes)`` logits."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.conv1 = _stem_conv(layout)
        if not layout.preact:
            self.bn1 = _norm(layout.stem_width, layout)
        self.maxpool = _stem_pool(layout)

        channels, stride_so_far, dilation = layout.stem_width, 1 if layout.stem == "3x3" else 4, 1
        for stage, (depth, width) in enumerate(zip(layout.depths, layout.widths), start=1):
            stride, before = (1 if stage == 1 else 2), dilation
            if stride_so_far * stride > layout.output_stride:
                stride, dilation = 1, dilation * stride
            stride_so_far *= stride
            blocks = [Block(layout, channels, width, stride, before, dilation)]
            channels = _expanded(layout, width)
            for _ in range(1, depth):
                blocks.append(Block(layout, channels, width, 1, dilation, dilation))
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

        if layout.preact:
            self.norm = _norm(channels, layout)
        self.add_module(_head_name(layout), nn.Linear(channels, layout.classes))

    def forward(self, x: Any) -> Any:
        x = self.features(x)[-1].mean((2, 3))
        return self.get_submodule(_head_name(self.layout))(x)

    def features(self, x: Any) -> list[Any]:
        """What each stage puts out; a pre-activation network's last one after its norm."""
        x = self.conv1(x)
        if not self.layout.preact:
            x = F.relu(self.bn1(x))
        x = self.maxpool(x)
        levels = []
        for stage in range(1, len(self.layout.depths) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            levels.append(x)
        if self.layout.preact:
            levels[-1] = F.relu(self.norm(x))
        return levels


class Block(nn.Module):
    """One residual block.

    Args:
        layout: The network's.
        channels: Channels that come in.
        width: Of the stage.
        stride: Of the block.
        before: Dilation of what comes in.
        after: Dilation of what goes out. Where it differs, the block would have strided but for
            the output stride: convolutions after that place see the wider grid, others do not,
            so that every second output is what the strided block would give.
    """

    def __init__(
        self, layout: Layout, channels: int, width: int, stride: int, before: int, after: int
    ) -> None:
        super().__init__()
        self.preact = layout.preact
        out = _expanded(layout, width)
        inner = int(width * layout.base_width / 64) * layout.groups
        if layout.block == "basic":
            kernels, widths, groups, self.strided = (3, 3), (width, width), (1, 1), 1
        else:
            kernels, widths, groups = (1, 3, 1), (inner, inner, out), (1, layout.groups, 1)
            self.strided = 1 if layout.stride_on == "1x1" else 2
        self.convs = len(kernels)

        blurred = layout.antialias and (stride > 1 or before != after)
        inputs = channels
        for i, (kernel, outputs, group) in enumerate(zip(kernels, widths, groups), start=1):
            conv_stride = stride if i == self.strided and not blurred else 1
            dilation = before if i <= self.strided else after
            conv = _conv(inputs, outputs, kernel, conv_stride, dilation, group)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", _norm(inputs if layout.preact else outputs, layout))
            inputs = outputs
        self.blur = Blur(stride) if blurred else nn.Identity()
        self.se = SqueezeExcite(out, layout.se_ratio) if layout.se_ratio else nn.Identity()

        self.reshapes = stride > 1 or channels != out
        self.shortcut_name = "shortcut" if layout.cifar_names else "downsample"
        shortcut = _shortcut(layout, channels, out, stride, after) if self.reshapes else None
        if layout.shortcut != "none":
            self.add_module(self.shortcut_name, shortcut or nn.Identity())

    def forward(self, x: Any) -> Any:
        return self._preactivated(x) if self.preact else self._activated_after(x)

    def _activated_after(self, x: Any) -> Any:
        y = x
        for i in range(1, self.convs + 1):
            y = self._norm(i)(self._conv(i)(y))
            if i < self.convs:
                y = F.relu(y)
            if i == self.strided:
                y = self.blur(y)
        return F.relu(self._add(self.se(y), x))

    def _preactivated(self, x: Any) -> Any:
        y = F.relu(self.bn1(x))
        into_shortcut = y if self.reshapes else x
        y = self.conv1(y)
        for i in range(2, self.convs + 1):
            y = F.relu(self._norm(i)(y))
            if i == self.strided + 1:
                y = self.blur(y)
            y = self._conv(i)(y)
        return self._add(self.se(y), into_shortcut)

    def last_norm(self) -> Any:
        """The norm whose output is added to the shortcut, if there is one."""
        ends_in_norm = not self.preact and hasattr(self, self.shortcut_name)
        return self._norm(self.convs) if ends_in_norm else None

    def _add(self, y: Any, x: Any) -> Any:
        return y + getattr(self, self.shortcut_name)(x) if hasattr(self, self.shortcut_name) else y

    def _conv(self, i: int) -> Any:
        return self.get_submodule(f"conv{i}")

    def _norm(self, i: int) -> Any:
        return self.get_submodule(f"bn{i}")


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means (arXiv:1709.01507)."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        # The nearest multiple of 8, as timm has it.
        inner = max(8, int(channels * ratio + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Any) -> Any:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Blur(nn.Module):
    """A depthwise 3×3 binomial filter, padded by reflection (arXiv:1904.11486)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Any) -> Any:
        row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
        kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(x, kernel, stride=self.stride, groups=x.shape[1])


class SubsampleAndPad(nn.Module):
    """Option A: every stride-th pixel, zero channels on both sides (He et al. 2015, §3.3)."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Any) -> Any:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class SamePool(nn.Module):
    """2×2 average at stride 1, a row of zeros below and a column on the right.

    The zeros count: what timm's ResNet-D does in dilated stages.
    """

    def forward(self, x: Any) -> Any:
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)


def _stem_conv(layout: Layout) -> Any:
    out, half = layout.stem_width, layout.stem_width // 2
    if layout.stem == "7x7":
        return nn.Conv2d(3, out, 7, stride=2, padding=3, bias=False)
    if layout.stem == "3x3":
        return _conv(3, out, 3)
    return nn.Sequential(
        _conv(3, half, 3, stride=2),
        _norm(half, layout),
        nn.ReLU(),
        _conv(half, half, 3),
        _norm(half, layout),
        nn.ReLU(),
        _conv(half, out, 3),
    )


def _stem_pool(layout: Layout) -> Any:
    if layout.stem == "3x3":
        return nn.Identity()
    if layout.stem == "rs":
        width = layout.stem_width
        conv = [_conv(width, width, 3, stride=1 if layout.antialias else 2)]
        blur = [Blur(2)] if layout.antialias else []
        return nn.Sequential(*conv, *blur, _norm(width, layout), nn.ReLU())
    if layout.antialias:
        return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Blur(2))
    return nn.MaxPool2d(3, stride=2, padding=1)


def _shortcut(layout: Layout, channels: int, out: int, stride: int, dilation: int) -> Any:
    if layout.shortcut == "A":
        return SubsampleAndPad(out - channels, stride)
    norm = [] if layout.preact else [_norm(out, layout)]
    if not layout.avg_down:
        return nn.Sequential(_conv(channels, out, 1, stride), *norm)
    pool: Any = nn.Identity()
    if dilation > 1:
        pool = SamePool()
    elif stride > 1:
        pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, _conv(channels, out, 1), *norm)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> Any:
    dilation = dilation if kernel > 1 else 1
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    )


def _norm(channels: int, layout: Layout) -> Any:
    return nn.BatchNorm2d(channels) if layout.norm == "batch" else nn.GroupNorm(32, channels)


def _expanded(layout: Layout, width: int) -> int:
    return width if layout.block == "basic" else 4 * width


def _head_name(layout: Layout) -> str:
    return "linear" if layout.cifar_names else "fc"


def _imagenet() -> dict[str, Layout]:
    basic = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
    bottleneck = {
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
    }
    rs = {270: (4, 29, 53, 4), 350: (4, 36, 72, 4), 420: (4, 44, 87, 4)}
    rows = {f"ResNet{n}": Layout("basic", depths) for n, depths in basic.items()}
    rows |= {f"ResNet{n}": Layout("bottleneck", depths) for n, depths in bottleneck.items()}
    rows |= {f"SE{name}": replace(row, se_ratio=1 / 16) for name, row in rows.items()}
    for depth, groups, base_width in ((50, 32, 4), (101, 32, 8), (101, 64, 4)):
        row = replace(rows[f"ResNet{depth}"], groups=groups, base_width=base_width)
        rows[f"ResNeXt{depth}_{groups}x{base_width}d"] = row
    for depth in (50, 101):
        rows[f"WideResNet{depth}_2"] = replace(rows[f"ResNet{depth}"], base_width=128)
    for depth, depths in (bottleneck | rs).items():
        row = Layout("bottleneck", depths, stem="rs", se_ratio=1 / 4, avg_down=True)
        rows[f"ResNetRS{depth}"] = row
    return rows


def _cifar() -> dict[str, Layout]:
    rows = {}
    for depth in (20, 32, 44, 56, 110, 1202):
        depths, widths = ((depth - 2) // 6,) * 3, (16, 32, 64)
        row = Layout("basic", depths, widths, stem="3x3", stem_width=16, classes=10)
        rows[f"ResNet{depth}"] = replace(row, cifar_names=True)
    # The stages of ImageNet's ResNet-18 under CIFAR's stem.
    rows["CifarResNet18"] = Layout("basic", (2, 2, 2, 2), stem="3x3", classes=10)
    # Zagoruyko & Komodakis 2016 (arXiv:1605.07146), table 1.
    for depth, widen in ((28, 10), (40, 2), (16, 8)):
        depths, widths = ((depth - 4) // 6,) * 3, (16 * widen, 32 * widen, 64 * widen)
        row = Layout("basic", depths, widths, stem="3x3", stem_width=16, classes=10)
        rows[f"WideResNet{depth}_{widen}"] = replace(row, preact=True)
    return rows


LAYOUTS = _imagenet() | _cifar()
VARIANTS: dict[str, dict[str, Any]] = {
    "v1": {"stride_on": "1x1"},
    "v1.5": {},
    "v2": {"preact": True, "cifar_names": False},
    "c": {"stem": "deep", "stem_width": 64},
    "s": {"stem": "deep", "stem_width": 128},
    "d": {"stem": "deep", "stem_width": 64, "avg_down": True},
}


def peer(name: str, *, variant: str = "v1.5", **changes: Any) -> ResNet:
    """The network that ``keras_resnet`` calls ``name``, in evaluation mode.

    Args:
        name: Such as ``"ResNet50"``, ``"ResNeXt50_32x4d"``, ``"WideResNet28_10"``.
        variant: One of ``VARIANTS``.
        **changes: Fields of ``Layout``, such as ``output_stride=8``, ``shortcut="A"``,
            ``classes=5``.
    """
    return ResNet(replace(LAYOUTS[name], **VARIANTS[variant], **changes)).eval()


def randomize(module: Any, seed: int, size: int = 64) -> Any:
    """Random parameters and batch-norm statistics, with outputs of order 1; in evaluation mode.

    Statistics are those of one forward pass over random images of ``size`` pixels: no mean is 0
    and no variance 1, and activations keep their order of magnitude at any depth, so that a
    relative difference of outputs says something about every layer.

    Returns:
        ``module``.
    """
    random = torch.Generator().manual_seed(seed)
    batch_norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    group_norms = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm)]
    added = [block.last_norm() for block in module.modules() if isinstance(block, Block)]
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=random)
            scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.2
            parameter.copy_(scale * values)
        for layer in batch_norms + group_norms:
            layer.weight.copy_(torch.rand(layer.weight.shape, generator=random) + 0.5)
            # Most of what ReLUs see is positive: otherwise rounding errors grow with every layer,
            # to 36 % in ResNetRS420. What is added to a shortcut would pile up instead.
            layer.bias.add_(0.0 if layer in added else 1.0)
        for layer in batch_norms:
            layer.reset_running_stats()
            layer.momentum = None  # the average over all passes: here, one
        module.train()(random_images(8, size, size, random))
        for layer in batch_norms:
            layer.momentum = 0.1
    return module.eval()


def random_images(count: int, height: int, width: int, random: Any) -> Any:
    """Normalized images with detail at every scale: ``(count, 3, height, width)``, variance 1."""
    images = torch.zeros(count, 3, height, width)
    for cells in (2, 4, 8, 16):
        coarse = torch.randn(count, 3, cells, cells, generator=random)
        images += F.interpolate(coarse, size=(height, width), mode="bilinear")
    images += torch.randn(images.shape, generator=random)
    return images / images.std()


def save(
    module: Any, path: str | os.PathLike[str], format: Literal["safetensors", "pth"] = "safetensors"
) -> None:
    """Writes the ``state_dict`` as the public files have it."""
    if format == "pth":
        torch.save(module.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(module.state_dict(), path)
