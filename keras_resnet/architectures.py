"""The architecture of each ResNet: one record per network, and one table of all records.

Depths and widths are defined in this table only. A new network is a new row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

HE_2015 = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
HE_2016 = "He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027"
HU_2017 = "Hu et al. 2017, Squeeze-and-Excitation Networks, arXiv:1709.01507"
XIE_2016 = "Xie et al. 2016, Aggregated Residual Transformations, arXiv:1611.05431"
ZAGORUYKO_2016 = "Zagoruyko & Komodakis 2016, Wide Residual Networks, arXiv:1605.07146"
BELLO_2021 = "Bello et al. 2021, Revisiting ResNets, arXiv:2103.07579"
MLPERF_TINY = "Banbury et al. 2021, MLPerf Tiny Benchmark, arXiv:2106.07597"

VariantName = Literal["v1", "v1.5", "v2", "c", "s", "d"]
BlockName = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class Variant:
    """What a variant changes in any network.

    Attributes:
        stride_on: The convolution of a bottleneck block that has the stride.
        preactivation: Whether norm and ReLU come before each convolution instead of after
            it (He et al. 2016).
        deep_stem: Filters of the first two of three 3×3 convolutions that replace the 7×7;
            the third has twice as many. 0 for the 7×7.
        pooled_shortcut: Whether a projection with a stride averages 2×2 pixels first.
        description: One line, for ``keras-resnet models``.
    """

    description: str
    stride_on: Literal["1x1", "3x3"] = "3x3"
    preactivation: bool = False
    deep_stem: int = 0
    pooled_shortcut: bool = False


VARIANTS: dict[str, Variant] = {
    "v1": Variant("has stride 2 on the first 1×1 convolution, as in the paper", stride_on="1x1"),
    "v1.5": Variant("has stride 2 on the 3×3 convolution, which discards no activation"),
    "v2": Variant("has norm and ReLU before each convolution", preactivation=True),
    "c": Variant("has a stem of three 3×3 convolutions", deep_stem=32),
    "s": Variant("has the stem of c, twice as wide", deep_stem=64),
    "d": Variant(
        "has the stem of c, and average-pooled shortcuts", deep_stem=32, pooled_shortcut=True
    ),
}

# Bounds of ``width``, a multiple of the network's own filters.
LEAST_WIDTH, MOST_WIDTH = 0.25, 4.0


@dataclass(frozen=True)
class Architecture:
    """One residual network, as data.

    Attributes:
        name: Name of the constructor.
        family: ``"imagenet"`` (stem strides by 4), ``"cifar"`` or ``"tiny"`` (3×3 stem).
        block: Kind of residual block.
        depths: Blocks in each stage.
        widths: Filters of each stage; the output of a bottleneck block has four times as many.
        parameters: Trainable parameters with the default input shape, classes and options.
        multiply_adds: Multiplications with addition in convolutions and the classifier, for
            one image of the default input shape.
        paper: The publication of the network.
        input_shape: Default ``(height, width, channels)``.
        classes: Default number of classes.
        variant: The default, one of ``VARIANTS``.
        stem_filters: Output channels of a plain stem; those of a deep stem follow from the
            variant.
        groups: Groups of the 3×3 convolution of a bottleneck block.
        width_per_group: Filters of each group in a stage of width 64, as in ResNeXt's names.
        se_ratio: Inner channels of squeeze-and-excitation as a fraction of the block's; 0 for
            none.
        convolved_pool: Whether a 3×3 convolution of stride 2 replaces the stem's max-pool.
        conv_bias: Whether convolutions have a bias although a batch norm follows.
        shortcut_norm: Whether a batch norm follows a projection shortcut.
        padding: Padding of strided convolutions: ``"symmetric"`` as in PyTorch, or ``"same"``
            as in TensorFlow, which at stride 2 pads one side only.
        batch_norm_epsilon: Default epsilon of every batch norm.
        width: Filters as a multiple of those of the row of the same name; see ``of_width``.
    """

    name: str
    family: Literal["imagenet", "cifar", "tiny"]
    block: BlockName
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    parameters: int
    multiply_adds: int
    paper: str
    input_shape: tuple[int, int, int]
    classes: int
    variant: VariantName = "v1.5"
    stem_filters: int = 64
    groups: int = 1
    width_per_group: int = 64
    se_ratio: float = 0.0
    convolved_pool: bool = False
    conv_bias: bool = False
    shortcut_norm: bool = True
    padding: Literal["symmetric", "same"] = "symmetric"
    batch_norm_epsilon: float = 1e-5
    width: float = 1.0

    @property
    def stem_stride(self) -> int:
        """Stride of the stem's output relative to the input."""
        return 4 if self.family == "imagenet" else 1

    @property
    def output_strides(self) -> tuple[int, ...]:
        """Strides of the outputs of all stages relative to the input."""
        return tuple(self.stem_stride * 2**stage for stage in range(len(self.depths)))

    @property
    def strides_last(self) -> bool:
        """Whether the last block of a stage has the stride, instead of the first of the next.

        True of the v2 networks of keras.applications, which follow TensorFlow's earlier ones.
        """
        return VARIANTS[self.variant].preactivation and self.family == "imagenet"

    def with_variant(self, variant: str | None) -> Architecture:
        """The same network in another variant; ``None`` for its own.

        Pre-activation networks have their own rows: ``"v2"`` of ``ResNet50`` is ``ResNet50V2``.

        Raises:
            ValueError: The variant is unknown or not available for this network.
        """
        if variant is None or variant == self.variant:
            return self
        if not isinstance(variant, str) or variant not in VARIANTS:
            raise ValueError(
                f"variant must be one of {', '.join(map(repr, VARIANTS))}, or None for the "
                f"network's own. Received: variant={variant!r}"
            )
        if VARIANTS[variant].deep_stem and self.family != "imagenet":
            raise ValueError(
                f"{self.name} has a 3×3 stem already: its variants are 'v1', 'v1.5' and 'v2'. "
                f"Received: variant={variant!r}"
            )
        name = self.name.removesuffix("V2") + ("V2" if variant == "v2" else "")
        if name != self.name and name in ARCHITECTURES:
            return ARCHITECTURES[name].with_variant(variant)
        return dataclasses.replace(self, variant=variant)  # type: ignore[arg-type]

    def of_width(self, factor: float) -> Architecture:
        """The same network with ``factor`` times the filters, in multiples of 8.

        Raises:
            ValueError: The factor is out of range.
        """
        if (
            isinstance(factor, bool)
            or not isinstance(factor, (int, float))
            or not LEAST_WIDTH <= factor <= MOST_WIDTH
        ):
            raise ValueError(
                f"width must be between {LEAST_WIDTH:g} and {MOST_WIDTH:g}, times the network's "
                f"own filters. Received: width={factor!r}"
            )
        if factor == 1:
            return self
        stem, *widths = (
            max(8, 8 * round(n * factor / 8)) for n in (self.stem_filters, *self.widths)
        )
        width = float(factor)
        return dataclasses.replace(self, stem_filters=stem, widths=tuple(widths), width=width)


DEPTHS: dict[int, tuple[BlockName, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
    270: ("bottleneck", (4, 29, 53, 4)),
    350: ("bottleneck", (4, 36, 72, 4)),
    420: ("bottleneck", (4, 44, 87, 4)),
}


def _imagenet(
    name: str,
    depth: int,
    parameters: int,
    multiply_adds: int,
    paper: str,
    size: int = 224,
    **differences: Any,
) -> Architecture:
    block, depths = DEPTHS[depth]
    return Architecture(
        name=name,
        family="imagenet",
        block=block,
        depths=depths,
        widths=(64, 128, 256, 512),
        parameters=parameters,
        multiply_adds=multiply_adds,
        paper=paper,
        input_shape=(size, size, 3),
        classes=1000,
        **differences,
    )


def _grouped(
    name: str,
    depth: int,
    parameters: int,
    multiply_adds: int,
    paper: str,
    groups: int,
    width_per_group: int,
) -> Architecture:
    options = {"groups": groups, "width_per_group": width_per_group}
    return _imagenet(name, depth, parameters, multiply_adds, paper, **options)


def _rs(depth: int, size: int, parameters: int, multiply_adds: int) -> Architecture:
    name = f"ResNetRS{depth}"
    options = {"variant": "d", "se_ratio": 1 / 4, "convolved_pool": True}
    return _imagenet(name, depth, parameters, multiply_adds, BELLO_2021, size, **options)


def _cifar(
    name: str,
    blocks: int,
    parameters: int,
    multiply_adds: int,
    paper: str = HE_2015 + ", section 4.2",
    widths: tuple[int, ...] = (16, 32, 64),
    **differences: Any,
) -> Architecture:
    values: dict[str, Any] = {"family": "cifar", "stem_filters": 16, **differences}
    return Architecture(
        name=name,
        block="basic",
        depths=(blocks,) * len(widths),
        widths=widths,
        parameters=parameters,
        multiply_adds=multiply_adds,
        paper=paper,
        input_shape=(32, 32, 3),
        classes=10,
        **values,
    )


def _wide(name: str, blocks: int, factor: int, parameters: int, work: int) -> Architecture:
    widths = (16 * factor, 32 * factor, 64 * factor)
    return _cifar(name, blocks, parameters, work, ZAGORUYKO_2016, widths, variant="v2")


def _rows() -> Iterator[Architecture]:
    yield _imagenet("ResNet18", 18, 11_689_512, 1_814_073_344, HE_2015)
    yield _imagenet("ResNet34", 34, 21_797_672, 3_663_761_408, HE_2015)
    yield _imagenet("ResNet50", 50, 25_557_032, 4_089_184_256, HE_2015)
    yield _imagenet("ResNet101", 101, 44_549_160, 7_801_405_440, HE_2015)
    yield _imagenet("ResNet152", 152, 60_192_808, 11_513_626_624, HE_2015)
    yield _imagenet("ResNet200", 200, 64_673_832, 15_007_481_856, HE_2016)

    yield _imagenet("ResNet18V2", 18, 11_690_600, 1_293_848_576, HE_2016, variant="v2")
    yield _imagenet("ResNet34V2", 34, 21_800_616, 3_143_536_640, HE_2016, variant="v2")
    yield _imagenet("ResNet50V2", 50, 25_568_360, 3_482_255_360, HE_2016, variant="v2")
    yield _imagenet("ResNet101V2", 101, 44_577_896, 7_194_476_544, HE_2016, variant="v2")
    yield _imagenet("ResNet152V2", 152, 60_236_904, 10_906_697_728, HE_2016, variant="v2")
    yield _imagenet("ResNet200V2", 200, 64_726_120, 14_400_552_960, HE_2016, variant="v2")

    yield _imagenet("SEResNet18", 18, 11_779_624, 1_814_161_408, HU_2017, se_ratio=1 / 16)
    yield _imagenet("SEResNet34", 34, 21_960_416, 3_663_920_128, HU_2017, se_ratio=1 / 16)
    yield _imagenet("SEResNet50", 50, 28_088_024, 4_091_699_200, HU_2017, se_ratio=1 / 16)
    yield _imagenet("SEResNet101", 101, 49_326_872, 7_806_148_608, HU_2017, se_ratio=1 / 16)
    yield _imagenet("SEResNet152", 152, 66_821_848, 11_520_204_800, HU_2017, se_ratio=1 / 16)

    yield _grouped("ResNeXt50_32x4d", 50, 25_028_904, 4_230_479_872, XIE_2016, 32, 4)
    yield _grouped("ResNeXt101_32x8d", 101, 88_791_336, 16_414_015_488, XIE_2016, 32, 8)
    yield _grouped("ResNeXt101_64x4d", 101, 83_455_272, 15_460_270_080, XIE_2016, 64, 4)
    yield _grouped("WideResNet50_2", 50, 68_883_240, 11_398_021_120, ZAGORUYKO_2016, 1, 128)
    yield _grouped("WideResNet101_2", 101, 126_886_696, 22_753_050_624, ZAGORUYKO_2016, 1, 128)

    # The sizes are those at which the paper's table of models evaluates each depth.
    yield _rs(50, 160, 35_691_912, 2_278_629_376)
    yield _rs(101, 192, 63_618_696, 6_012_157_952)
    yield _rs(152, 256, 86_621_576, 15_527_886_848)
    yield _rs(200, 256, 93_209_992, 20_093_386_752)
    yield _rs(270, 256, 129_861_448, 26_950_189_056)
    yield _rs(350, 288, 163_956_168, 43_493_793_792)
    yield _rs(420, 320, 191_891_656, 63_942_344_704)

    yield _cifar("ResNet20", 3, 272_474, 40_813_184)
    yield _cifar("ResNet32", 5, 466_906, 69_124_736)
    yield _cifar("ResNet44", 7, 661_338, 97_436_288)
    yield _cifar("ResNet56", 9, 855_770, 125_747_840)
    yield _cifar("ResNet110", 18, 1_730_714, 253_149_824)
    yield _cifar("ResNet1202", 200, 19_424_026, 2_829_501_056)

    yield _cifar("ResNet20V2", 3, 272_282, 40_813_184, HE_2016, variant="v2")
    yield _cifar("ResNet32V2", 5, 466_714, 69_124_736, HE_2016, variant="v2")
    yield _cifar("ResNet44V2", 7, 661_146, 97_436_288, HE_2016, variant="v2")
    yield _cifar("ResNet56V2", 9, 855_578, 125_747_840, HE_2016, variant="v2")
    yield _cifar("ResNet110V2", 18, 1_730_522, 253_149_824, HE_2016, variant="v2")
    yield _cifar("ResNet1202V2", 200, 19_423_834, 2_829_501_056, HE_2016, variant="v2")

    # A ResNet-18 for small images: four stages as on ImageNet, and the stem of CIFAR.
    widths = (64, 128, 256, 512)
    yield _cifar("CifarResNet18", 2, 11_173_962, 555_422_720, HE_2015, widths, stem_filters=64)

    yield _wide("WideResNet28_10", 4, 10, 36_479_194, 5_243_328_768)
    yield _wide("WideResNet40_2", 6, 2, 2_243_546, 327_599_360)
    yield _wide("WideResNet16_8", 2, 8, 10_961_370, 1_548_145_664)

    options: dict[str, Any] = {"conv_bias": True, "shortcut_norm": False, "padding": "same"}
    options |= {"family": "tiny", "batch_norm_epsilon": 1e-3}
    yield _cifar("ResNet8", 1, 78_186, 12_501_632, MLPERF_TINY, **options)


ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in _rows()}


def find(name: str) -> Architecture:
    """The row of that name, ignoring case.

    Raises:
        ValueError: There is no such row; the message suggests the nearest name.
    """
    import difflib

    if not isinstance(name, str):
        raise ValueError(f"An architecture has a name, such as 'ResNet50'. Received: {name!r}")
    by_lower = {row.lower(): row for row in ARCHITECTURES}
    if name.lower() in by_lower:
        return ARCHITECTURES[by_lower[name.lower()]]
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.3)
    hint = f"Did you mean {by_lower[near[0]]}? " if near else ""
    raise ValueError(f"No architecture is called {name!r}. {hint}Known: {', '.join(ARCHITECTURES)}")
