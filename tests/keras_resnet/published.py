"""What others published about these networks: parameters and multiply-adds, each with its source.

Parameters are the trainable ones, so without batch-norm statistics, of a network for 1000 classes
(10 for CIFAR). A multiply-add is one multiplication with its addition, so half a FLOP count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Read from the installed packages.
TORCHVISION = 'torchvision 0.29.1, models/resnet.py, meta["num_params"] of the weights'
TORCHVISION_OPS = 'torchvision 0.29.1, models/resnet.py, meta["_ops"] of the weights (224×224)'
TIMM = "timm 1.0.31, parameters of timm.create_model(%r)"
# Convolutions and matrix products only, as torchvision counts too.
TIMM_COUNTED = "timm 1.0.31, %r at %d×%d counted by torch 2.14.1's torch.utils.flop_counter"
KERAS = "keras 3.15.1, keras.applications.%s(weights=None)"
# Its profiler counts norms, activations and pools as well, which is up to 1 % more.
TIMM_GMACS = (
    "timm, results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv at commit 7479d451, "
    "infer_gmacs of %s at %d×%d"
)
# The papers were not at hand: CIFAR's table 6 and the WRNs' 11.0M and 36.5M are quoted as other
# projects' READMEs quote them, the rest from knowledge of the tables.
HE_2015 = "He et al. 2015, arXiv:1512.03385, %s"
ZAGORUYKO_2016 = "Zagoruyko & Komodakis 2016, arXiv:1605.07146, table 4"
# The paper's table has 36, 64, 87, 93, 130, 164 and 192; this one has a digit more, and counts
# batch-norm statistics too.
RESNET_RS = (
    "TensorFlow Model Garden, official/vision/README.md, ResNet-RS, Params (M); "
    "Bello et al. 2021, arXiv:2103.07579"
)
BELLO_FLOPS = "Bello et al. 2021, arXiv:2103.07579, table of ResNet-RS models, FLOPs / 2"


@dataclass(frozen=True)
class Figure:
    """One published number.

    Attributes:
        name: The constructor.
        value: What was published.
        within: How far off the true number may be: 0 where the source is exact, half a unit of
            the last digit where it was rounded, more where the source counts other things.
        source: Where it stands.
        options: Arguments of the constructor (``variant``, ``shortcut``, ``norm``,
            ``antialias``).
        size: Height and width that multiply-adds were counted for.
    """

    name: str
    value: float
    within: float
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 224

    def __str__(self) -> str:
        return " ".join([self.name, *map(str, self.options.values()), f"{self.size}"])


# (timm's name, ours, our options, size, parameters, multiply-adds)
_TIMM_EXACT: tuple[tuple[str, str, dict[str, Any], int, int, int], ...] = (
    ("resnet18", "ResNet18", {}, 224, 11_689_512, 1_814_073_344),
    ("resnet34", "ResNet34", {}, 224, 21_797_672, 3_663_761_408),
    ("resnet50", "ResNet50", {}, 224, 25_557_032, 4_089_184_256),
    ("resnet101", "ResNet101", {}, 224, 44_549_160, 7_801_405_440),
    ("resnet152", "ResNet152", {}, 224, 60_192_808, 11_513_626_624),
    ("resnet200", "ResNet200", {}, 224, 64_673_832, 15_007_481_856),
    ("resnet50c", "ResNet50", {"variant": "c"}, 224, 25_576_264, 4_328_824_832),
    ("resnet101c", "ResNet101", {"variant": "c"}, 224, 44_568_392, 8_041_046_016),
    ("resnet152c", "ResNet152", {"variant": "c"}, 224, 60_212_040, 11_753_267_200),
    ("resnet50s", "ResNet50", {"variant": "s"}, 224, 25_680_808, 5_444_337_664),
    ("resnet101s", "ResNet101", {"variant": "s"}, 224, 44_672_936, 9_156_558_848),
    ("resnet152s", "ResNet152", {"variant": "s"}, 224, 60_316_584, 12_868_780_032),
    ("resnet18d", "ResNet18", {"variant": "d"}, 224, 11_708_744, 2_053_713_920),
    ("resnet34d", "ResNet34", {"variant": "d"}, 224, 21_816_904, 3_903_401_984),
    ("resnet50d", "ResNet50", {"variant": "d"}, 224, 25_576_264, 4_328_824_832),
    ("resnet101d", "ResNet101", {"variant": "d"}, 224, 44_568_392, 8_041_046_016),
    ("resnet152d", "ResNet152", {"variant": "d"}, 224, 60_212_040, 11_753_267_200),
    ("resnet200d", "ResNet200", {"variant": "d"}, 224, 64_693_064, 15_247_122_432),
    ("resnetv2_18", "ResNet18", {"variant": "v2"}, 224, 11_687_720, 1_814_073_344),
    ("resnetv2_34", "ResNet34", {"variant": "v2"}, 224, 21_795_880, 3_663_761_408),
    ("resnetv2_50", "ResNet50", {"variant": "v2"}, 224, 25_549_352, 4_089_184_256),
    ("resnetv2_101", "ResNet101", {"variant": "v2"}, 224, 44_541_480, 7_801_405_440),
    ("resnetv2_152", "ResNet152", {"variant": "v2"}, 224, 60_185_128, 11_513_626_624),
    ("resnet50_gn", "ResNet50", {"norm": "group"}, 224, 25_557_032, 4_089_184_256),
    # The blur counts as the depthwise convolution that it is.
    ("resnetblur18", "ResNet18", {"antialias": True}, 224, 11_689_512, 2_337_684_992),
    ("resnetblur50", "ResNet50", {"antialias": True}, 224, 25_557_032, 5_133_020_672),
    ("seresnet18", "SEResNet18", {}, 224, 11_779_624, 1_814_161_408),
    ("seresnet34", "SEResNet34", {}, 224, 21_960_416, 3_663_920_128),
    ("seresnet50", "SEResNet50", {}, 224, 28_088_024, 4_091_699_200),
    ("seresnet101", "SEResNet101", {}, 224, 49_326_872, 7_806_148_608),
    ("seresnet152", "SEResNet152", {}, 224, 66_821_848, 11_520_204_800),
    ("seresnet152d", "SEResNet152", {"variant": "d"}, 224, 66_841_080, 11_759_845_376),
    ("resnext50_32x4d", "ResNeXt50_32x4d", {}, 224, 25_028_904, 4_230_479_872),
    ("resnext101_32x8d", "ResNeXt101_32x8d", {}, 224, 88_791_336, 16_414_015_488),
    ("resnext101_64x4d", "ResNeXt101_64x4d", {}, 224, 83_455_272, 15_460_270_080),
    ("wide_resnet50_2", "WideResNet50_2", {}, 224, 68_883_240, 11_398_021_120),
    ("wide_resnet101_2", "WideResNet101_2", {}, 224, 126_886_696, 22_753_050_624),
    ("resnetrs50", "ResNetRS50", {}, 160, 35_691_912, 2_278_629_376),
    ("resnetrs101", "ResNetRS101", {}, 192, 63_618_696, 6_012_157_952),
    ("resnetrs152", "ResNetRS152", {}, 256, 86_621_576, 15_527_886_848),
    ("resnetrs200", "ResNetRS200", {}, 256, 93_209_992, 20_093_386_752),
    ("resnetrs270", "ResNetRS270", {}, 256, 129_861_448, 26_950_189_056),
    ("resnetrs350", "ResNetRS350", {}, 288, 163_956_168, 43_493_793_792),
    ("resnetrs420", "ResNetRS420", {}, 320, 191_891_656, 63_942_344_704),
)

# (name, parameters, 10⁹ multiply-adds)
_TORCHVISION = (
    ("ResNet18", 11_689_512, 1.814),
    ("ResNet34", 21_797_672, 3.664),
    ("ResNet50", 25_557_032, 4.089),
    ("ResNet101", 44_549_160, 7.801),
    ("ResNet152", 60_192_808, 11.514),
    ("ResNeXt50_32x4d", 25_028_904, 4.230),
    ("ResNeXt101_32x8d", 88_791_336, 16.414),
    ("ResNeXt101_64x4d", 83_455_272, 15.460),
    ("WideResNet50_2", 68_883_240, 11.398),
    ("WideResNet101_2", 126_886_696, 22.753),
)

# (timm's name, ours, our options, size, 10⁹ multiply-adds)
_TIMM_GMACS: tuple[tuple[str, str, dict[str, Any], int, float], ...] = (
    ("resnet18", "ResNet18", {}, 224, 1.82),
    ("resnet34", "ResNet34", {}, 224, 3.67),
    ("resnet50", "ResNet50", {}, 224, 4.11),
    ("resnet101", "ResNet101", {}, 224, 7.83),
    ("resnet152", "ResNet152", {}, 224, 11.56),
    ("resnet200", "ResNet200", {}, 224, 15.07),
    ("resnet50c", "ResNet50", {"variant": "c"}, 224, 4.35),
    ("resnet101c", "ResNet101", {"variant": "c"}, 224, 8.08),
    ("resnet152c", "ResNet152", {"variant": "c"}, 224, 11.8),
    ("resnet50s", "ResNet50", {"variant": "s"}, 224, 5.47),
    ("resnet101s", "ResNet101", {"variant": "s"}, 224, 9.19),
    ("resnet152s", "ResNet152", {"variant": "s"}, 224, 12.92),
    ("resnet18d", "ResNet18", {"variant": "d"}, 224, 2.06),
    ("resnet34d", "ResNet34", {"variant": "d"}, 224, 3.91),
    ("resnet50d", "ResNet50", {"variant": "d"}, 224, 4.35),
    ("resnet101d", "ResNet101", {"variant": "d"}, 224, 8.08),
    ("resnet152d", "ResNet152", {"variant": "d"}, 224, 11.8),
    ("resnet200d", "ResNet200", {"variant": "d"}, 256, 20.0),
    ("resnetv2_50", "ResNet50", {"variant": "v2"}, 224, 4.11),
    ("resnetv2_101", "ResNet101", {"variant": "v2"}, 224, 7.83),
    ("resnetv2_152", "ResNet152", {"variant": "v2"}, 224, 11.55),
    ("resnetblur18", "ResNet18", {"antialias": True}, 224, 2.34),
    ("resnetblur50", "ResNet50", {"antialias": True}, 224, 5.16),
    ("seresnet18", "SEResNet18", {}, 224, 1.82),
    ("seresnet34", "SEResNet34", {}, 224, 3.67),
    ("seresnet50", "SEResNet50", {}, 224, 4.11),
    ("seresnet101", "SEResNet101", {}, 224, 7.84),
    ("seresnet152", "SEResNet152", {}, 224, 11.57),
    ("seresnet152d", "SEResNet152", {"variant": "d"}, 256, 15.42),
    ("legacy_seresnet50", "SEResNet50", {"variant": "v1"}, 224, 3.88),
    ("legacy_seresnet101", "SEResNet101", {"variant": "v1"}, 224, 7.61),
    ("legacy_seresnet152", "SEResNet152", {"variant": "v1"}, 224, 11.33),
    ("resnext50_32x4d", "ResNeXt50_32x4d", {}, 224, 4.26),
    ("resnext101_32x8d", "ResNeXt101_32x8d", {}, 224, 16.48),
    ("resnext101_64x4d", "ResNeXt101_64x4d", {}, 224, 15.52),
    ("wide_resnet50_2", "WideResNet50_2", {}, 224, 11.43),
    ("wide_resnet101_2", "WideResNet101_2", {}, 224, 22.8),
    ("resnetrs50", "ResNetRS50", {}, 160, 2.29),
    ("resnetrs101", "ResNetRS101", {}, 192, 6.04),
    ("resnetrs152", "ResNetRS152", {}, 256, 15.59),
    ("resnetrs200", "ResNetRS200", {}, 256, 20.18),
    ("resnetrs270", "ResNetRS270", {}, 256, 27.06),
    ("resnetrs350", "ResNetRS350", {}, 288, 43.67),
    ("resnetrs420", "ResNetRS420", {}, 320, 64.2),
)

# Millions: option A (section 4.2), table 6.
_HE_CIFAR = (
    ("ResNet20", 0.27),
    ("ResNet32", 0.46),
    ("ResNet44", 0.66),
    ("ResNet56", 0.85),
    ("ResNet110", 1.7),
    ("ResNet1202", 19.4),
)

# Billions, table 1: stride on the first 1×1. Its last digit is not always the nearest.
_HE_IMAGENET = (
    ("ResNet18", 1.8),
    ("ResNet34", 3.6),
    ("ResNet50", 3.8),
    ("ResNet101", 7.6),
    ("ResNet152", 11.3),
)

# Millions.
_WIDE_CIFAR = (("WideResNet40_2", 2.2), ("WideResNet16_8", 11.0), ("WideResNet28_10", 36.5))

# Millions; the statistics counted with them are 0.1 to 0.3 % of it.
_RS = (
    ("ResNetRS50", 35.7),
    ("ResNetRS101", 63.7),
    ("ResNetRS152", 86.8),
    ("ResNetRS200", 93.4),
    ("ResNetRS270", 130.1),
    ("ResNetRS350", 164.3),
)


def _digits(value: float) -> float:
    """Half a unit of the last digit that ``value`` is written with."""
    return 0.5 * 10.0 ** -len(f"{value}".partition(".")[2])


def _parameters() -> Iterable[Figure]:
    for name, count, _ in _TORCHVISION:
        yield Figure(name, count, 0, TORCHVISION)
    for theirs, name, options, size, count, _ in _TIMM_EXACT:
        yield Figure(name, count, 0, TIMM % theirs, options, size)
    for name, millions in _HE_CIFAR:
        source, options = HE_2015 % "table 6", {"shortcut": "A"}
        # 0.855 and 1.728 million stand there as 0.85 and 1.7.
        yield Figure(name, millions * 1e6, 1.2 * _digits(millions) * 1e6, source, options, 32)
    for name, millions in _WIDE_CIFAR:
        within = _digits(millions) * 1e6
        yield Figure(name, millions * 1e6, within, ZAGORUYKO_2016, size=32)
    for name, millions in _RS:
        within = _digits(millions) * 1e6 + 0.003 * millions * 1e6
        yield Figure(name, millions * 1e6, within, RESNET_RS)


def _multiply_adds() -> Iterable[Figure]:
    for name, _, billions in _TORCHVISION:
        yield Figure(name, billions * 1e9, 0.5e6, TORCHVISION_OPS)
    for theirs, name, options, size, _, count in _TIMM_EXACT:
        yield Figure(name, count, 0, TIMM_COUNTED % (theirs, size, size), options, size)
    for theirs, name, options, size, billions in _TIMM_GMACS:
        source = TIMM_GMACS % (theirs, size, size)
        yield Figure(name, billions * 1e9, 0.01 * billions * 1e9, source, options, size)
    for name, billions in _HE_IMAGENET:
        source = HE_2015 % "table 1"
        yield Figure(name, billions * 1e9, 0.07e9, source, {"variant": "v1"})
    plain = {"shortcut": "none"}
    yield Figure("ResNet34", 3.6e9, 0.05e9, HE_2015 % "section 3.3, plain network", plain)
    yield Figure("ResNetRS50", 4.6e9 / 2, 0.05e9 / 2, BELLO_FLOPS, size=160)
    yield Figure("ResNetRS420", 128e9 / 2, 0.5e9 / 2, BELLO_FLOPS, size=320)


PARAMETERS = tuple(_parameters())
MULTIPLY_ADDS = tuple(_multiply_adds())


@dataclass(frozen=True)
class KerasApplication:
    """What ``model.count_params()`` and friends say of a ``keras.applications`` model.

    Attributes:
        name: Of the model there.
        total: All parameters: trainable ones and batch-norm statistics.
        trainable: Without the statistics.
        conv_biases: Of these, biases of convolutions. In the v1 models a batch norm follows each
            one, so that it can be folded away; in the V2 models none does.
    """

    name: str
    total: int
    trainable: int
    conv_biases: int

    @property
    def source(self) -> str:
        return KERAS % self.name


KERAS_APPLICATIONS = (
    KerasApplication("ResNet50", 25_636_712, 25_583_592, 26_560),
    KerasApplication("ResNet101", 44_707_176, 44_601_832, 52_672),
    KerasApplication("ResNet152", 60_419_944, 60_268_520, 75_712),
    KerasApplication("ResNet50V2", 25_613_800, 25_568_360, 19_008),
    KerasApplication("ResNet101V2", 44_675_560, 44_577_896, 36_416),
    KerasApplication("ResNet152V2", 60_380_648, 60_236_904, 51_776),
)
