"""The options of a network: one record from the constructor to the blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from keras_resnet.architectures import ARCHITECTURES, VARIANTS, Architecture, Variant, find
from keras_resnet.contract import one_of

DataFormat = Literal["channels_last", "channels_first"]

# A batch of 256 and torch's momentum of 0.1: the setting every published recipe assumes.
BATCH_NORM_MOMENTUM = 0.9


@dataclass(frozen=True)
class BlockConfig:
    """The options that all blocks of one network share.

    The record is saved with the model (``ImageModel.block_config``), because networks cannot be
    distinguished by the shapes of their weights: weights of v1 fit into v1.5 and give wrong
    predictions there.

    Attributes:
        architecture: The network, in the selected variant and width.
        shortcut: If shapes differ, ``"B"`` projects by a 1×1 convolution and ``"A"`` subsamples
            and pads with zero channels (section 3.3). ``"none"`` builds a plain network without
            shortcuts, the paper's control.
        output_stride: Largest stride of the output relative to the input; further strides are
            replaced by dilation (Yu et al. 2017, arXiv:1705.09914). ``None`` for no limit.
        antialias: Whether strided convolutions and pools run at full resolution, followed by a
            blur that subsamples (Zhang 2019, arXiv:1904.11486; arranged as in timm).
        stochastic_depth: Probability in training that the last block's residual branch is
            dropped, at least 0 and below 1; for earlier blocks it is proportional to their
            depth (Huang et al. 2016, arXiv:1603.09382, equation 4).
        zero_init_residual: Whether the last gamma of each block starts at zero (the last kernel
            if no norm follows it), so that each block starts as the identity (Goyal et al.
            2017, arXiv:1706.02677, section 5.1).
        norm: ``"batch"``, ``"sync_batch"`` (statistics over all devices) or ``"group"``.
        batch_norm_momentum: Keras's momentum, 1 − PyTorch's.
        batch_norm_epsilon: Added to the variance; ``None`` for the architecture's own.
        data_format: ``"channels_last"`` or ``"channels_first"``.

    Raises:
        ValueError: A value is out of range.
    """

    architecture: Architecture = ARCHITECTURES["ResNet50"]
    shortcut: Literal["A", "B", "none"] = "B"
    output_stride: int | None = None
    antialias: bool = False
    stochastic_depth: float = 0.0
    zero_init_residual: bool = False
    norm: Literal["batch", "sync_batch", "group"] = "batch"
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    batch_norm_epsilon: float | None = None
    data_format: DataFormat = "channels_last"

    def __post_init__(self) -> None:
        one_of("shortcut", self.shortcut, ("A", "B", "none"))
        one_of("norm", self.norm, ("batch", "sync_batch", "group"))
        one_of("data_format", self.data_format, ("channels_last", "channels_first"))
        strides = self.architecture.output_strides
        if self.output_stride is not None and self.output_stride not in strides:
            raise ValueError(
                f"output_stride of {self.architecture.name} must be one of "
                f"{', '.join(map(str, strides))}, or None. "
                f"Received: output_stride={self.output_stride!r}"
            )
        share("batch_norm_momentum", self.batch_norm_momentum)
        share("stochastic_depth", self.stochastic_depth)
        epsilon = self.batch_norm_epsilon
        if epsilon is not None and (not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1):
            raise ValueError(
                "batch_norm_epsilon must be above 0 and below 1, or None for the architecture's "
                f"own. Received: batch_norm_epsilon={epsilon!r}"
            )
        for argument in ("stochastic_depth", "zero_init_residual"):
            if self.shortcut == "none" and getattr(self, argument):
                raise ValueError(
                    f"{argument} needs shortcuts: without them no signal would reach the output. "
                    f"Received: shortcut='none', {argument}={getattr(self, argument)!r}"
                )

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.architecture.variant]

    @property
    def epsilon(self) -> float:
        own = self.batch_norm_epsilon
        return self.architecture.batch_norm_epsilon if own is None else own

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def inner(self, filters: int) -> int:
        """Filters of the 3×3 convolution of a bottleneck block."""
        return filters * self.architecture.width_per_group // 64 * self.architecture.groups

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the architecture as its name, variant and width."""
        row = self.architecture
        choices = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)[1:]}
        return {"name": row.name, "variant": row.variant, "width": row.width, **choices}

    @classmethod
    def from_dict(cls, data: Any) -> BlockConfig:
        """The reverse of ``to_dict``.

        Raises:
            ValueError: The keys are not those of ``to_dict``, or a value is out of range.
        """
        known = {"name", "variant", "width", *(f.name for f in dataclasses.fields(cls)[1:])}
        if not isinstance(data, dict) or set(data) != known:
            raise ValueError(f"A network is described by {sorted(known)}. Received: {data!r:.200}")
        choices = dict(data)
        row = find(choices.pop("name")).with_variant(choices.pop("variant"))
        for name in ("antialias", "zero_init_residual"):
            one_of(name, choices[name], (True, False))
        return cls(row.of_width(choices.pop("width")), **choices)


@dataclass(frozen=True)
class BlockSpec:
    """One block of a network.

    Attributes:
        name: Prefix of the layers' names.
        stride: Stride of the block in height and width.
        dilation: Dilation of the convolution that has the stride, and of the 3×3 convolutions
            after it in the same block. They differ if the stride was replaced by dilation.
        drop_rate: Probability in training that the residual branch is dropped.
    """

    name: str = "block"
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    drop_rate: float = 0.0

    @property
    def transition(self) -> bool:
        """Whether the block has a stride, or had one that was replaced by dilation."""
        return self.stride > 1 or self.dilation[0] != self.dilation[1]


def block_specs(config: BlockConfig) -> Iterator[tuple[int, BlockSpec]]:
    """The width and the spec of each block, from the first to the last.

    Strides beyond ``output_stride`` are replaced by dilation.
    """
    row, limit = config.architecture, config.output_stride
    last = sum(row.depths) - 1
    shrunk, dilation = row.stem_stride, 1
    for i, (name, width, stride) in enumerate(_strided_blocks(config)):
        before = dilation
        if limit is not None and shrunk * stride > limit:
            dilation, stride = dilation * stride, 1
        shrunk *= stride
        drop_rate = config.stochastic_depth * i / max(last, 1)
        yield width, BlockSpec(name, stride, (before, dilation), drop_rate)


def _strided_blocks(config: BlockConfig) -> Iterator[tuple[str, int, int]]:
    row = config.architecture
    stages = len(row.depths)
    for stage, (depth, width) in enumerate(zip(row.depths, row.widths), start=1):
        for number in range(1, depth + 1):
            if row.strides_last:
                strides = number == depth and stage < stages
            else:
                strides = number == 1 and stage > 1
            yield f"stage{stage}_block{number}", width, 2 if strides else 1


def share(argument: str, value: Any) -> None:
    """Raises ValueError unless a value is at least 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(
            f"{argument} must be at least 0 and below 1. Received: {argument}={value!r}"
        )
