"""What is published where: one record a weights file, and one table of them all.

How far each file's hash is known:

- The whole SHA-256: the CIFAR-10 files of ResNet-8 to 56, and those of torchvision and timm
  that ``_FULL_SHA256`` and ``_PINNED`` name.
- Its first 8 hex digits, which stand in the file's name: the other files of torchvision, and
  CIFAR-10's ResNet-110 and 1202.
- The MD5 that Keras itself checks: keras.applications.
- Nothing here: the other timm files. The Hugging Face hub states the SHA-256 of a file when it
  is asked for it, and ``download.fetch`` holds the file to that; ``identify`` does not know it.

keras.applications does not publish how it resized the images of its accuracies; "224×224,
single center crop" stands in its README, and the usual resize to 256 is taken here.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from keras_resnet.contract import IMAGENET_MEAN, IMAGENET_STD

LabelSet = Literal["imagenet", "cifar10"]
Interpolation = Literal["bilinear", "bicubic"]

CIFAR10_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
HALF = (127.5, 127.5, 127.5)  # x / 127.5 - 1, as mean and std
CAFFE_MEAN = (123.68, 116.779, 103.939)
# How keras.applications prepares images for each variant of its networks.
APPLICATIONS_PREPROCESSING: dict[str, dict[str, Any]] = {
    "v1": {"mean": CAFFE_MEAN, "std": (1.0, 1.0, 1.0), "order": "bgr"},
    "v2": {"mean": HALF, "std": HALF, "order": "rgb"},
}


@dataclass(frozen=True)
class Evaluation:
    """One published accuracy, and how the images were prepared for it.

    Attributes:
        resolution: Height and width of the input in pixels.
        crop_fraction: Share of the image's shorter side that the crop keeps.
        top1: Percentage of the images classified right; ``None`` where nobody published it.
    """

    resolution: int
    crop_fraction: float
    top1: float | None


@dataclass(frozen=True)
class Published:
    """One published weights file.

    Attributes:
        architecture: Name of the network's row in ``architectures.ARCHITECTURES``.
        variant: Its variant, as ``variant=`` names it.
        tag: What ``weights=`` calls this file, such as ``"torchvision-v2"``.
        urls: Where it lies, the best place first: ``https://…`` or
            ``hf://owner/name[@revision][/file]``.
        evaluations: Published accuracies, the one that the publisher reports first.
        interpolation: Resampling filter of those.
        licence: SPDX identifier.
        source: Where the numbers stand.
        sha256: The file's SHA-256 in hex, or its leading digits; empty where unknown.
        md5: The same with MD5, for the files whose publisher gives nothing better.
        size: Bytes; ``None`` where unknown.
        mean: Mean of red, green and blue, in the units of raw pixels (0–255).
        std: Standard deviation, likewise.
        order: Order in which the network takes the channels.
        resize: ``"crop"`` or ``"stretch"``, as in ``Contract``.
        label_set: What the classes are.
        shortcut: ``shortcut=`` of the network.
        include_top: Whether the file holds the classifier.
    """

    architecture: str
    variant: str
    tag: str
    urls: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    interpolation: Interpolation
    licence: str
    source: str
    sha256: str = ""
    md5: str = ""
    size: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["crop", "stretch"] = "crop"
    label_set: LabelSet = "imagenet"
    shortcut: Literal["A", "B"] = "B"
    include_top: bool = True

    @property
    def top1(self) -> float | None:
        """The accuracy that the publisher reports, in percent."""
        return self.evaluations[0].top1

    @property
    def resolution(self) -> int:
        """The input size of ``top1``, in pixels."""
        return self.evaluations[0].resolution

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(class_names(self.label_set))

    @property
    def needs_torch(self) -> bool:
        """Whether the file is in PyTorch's own format, which only PyTorch reads."""
        return self.urls[0].endswith((".pth", ".th"))

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use."""
        return "-NC-" not in self.licence

    def contract_fields(self, resolution: int | None = None) -> dict[str, Any]:
        """The fields of ``Contract`` that follow from these weights.

        Args:
            resolution: Input size in pixels; the crop fraction is that of the nearest
                evaluation. ``None`` for the one that ``top1`` was measured at.
        """
        wanted = resolution or self.resolution
        nearest = min(self.evaluations, key=lambda e: abs(e.resolution - wanted))
        return {
            "mean": self.mean,
            "std": self.std,
            "order": self.order,
            "resize": self.resize,
            "crop_fraction": nearest.crop_fraction,
            "interpolation": self.interpolation,
            "labels": class_names(self.label_set) if self.include_top else (),
        }

    def matches(self, sha256: str, md5: str, size: int) -> bool:
        """Whether a file with these digests (lower-case hex) and this many bytes is this one."""
        if self.size not in (None, size):
            return False
        if self.sha256:
            return sha256.startswith(self.sha256)
        return bool(self.md5) and md5 == self.md5


@functools.cache
def class_names(label_set: LabelSet) -> tuple[str, ...]:
    """Names of the classes in output order.

    ImageNet's are torchvision's (``torchvision/models/_meta.py``), in which no two are alike:
    the crane that flies is ``"crane bird"``.
    """
    if label_set == "cifar10":
        return CIFAR10_LABELS
    text = resources.files(__package__).joinpath("imagenet_labels.txt").read_text("utf-8")
    return tuple(text.splitlines())


def published(
    architecture: str | None = None, variant: str | None = None, tag: str | None = None
) -> tuple[Published, ...]:
    """The rows of the catalog, or those that fit; files without a classifier come last."""
    return tuple(
        row
        for row in CATALOG
        if architecture in (None, row.architecture)
        and variant in (None, row.variant)
        and tag in (None, row.tag)
    )


def find(architecture: str, variant: str, tag: str) -> Published:
    """The file that ``weights=tag`` means for a network.

    Args:
        architecture: Name of the architecture's row.
        variant: Name of the variant.
        tag: A row's tag, or a label set (``"imagenet"``, ``"cifar10"``): the best published
            top-1 among the files that may be used commercially. A tenth of a percent decides
            nothing: among equals, a file that needs no PyTorch.

    Raises:
        ValueError: There is no such file; the message tells what there is.
    """
    rows = [row for row in published(architecture, variant) if row.include_top]
    if not rows:
        raise ValueError(_nothing_for(architecture, variant))
    candidates = [row for row in rows if row.label_set == tag and row.commercial]
    if candidates:
        return max(candidates, key=lambda row: (round(row.top1 or 0, 1), not row.needs_torch))
    for row in rows:
        if row.tag == tag:
            return row
    tags = dict.fromkeys([*(row.label_set for row in rows), *(row.tag for row in rows)])
    elsewhere = sorted({row.variant for row in published(architecture, tag=tag)})
    hint = f"They are for variant={' or '.join(map(repr, elsewhere))}. " if elsewhere else ""
    raise ValueError(
        f"No weights called {tag!r} are published for {architecture}, variant {variant}. {hint}"
        f"There are: {', '.join(tags)}"
    )


def _nothing_for(architecture: str, variant: str) -> str:
    variants = sorted({row.variant for row in published(architecture)})
    if variants:
        there_is = f"There are for its variant {' and '.join(variants)}"
    else:
        there_is = f"There are for: {', '.join(dict.fromkeys(row.architecture for row in CATALOG))}"
    return f"No weights are published for {architecture}, variant {variant}. {there_is}"


def at(address: str) -> Published | None:
    """The row of the file at an address; of ``hf://`` its revision and file do not count."""
    wanted = _without_revision(address)
    for row in CATALOG:
        if wanted in map(_without_revision, row.urls):
            return row
    return None


def _without_revision(address: str) -> str:
    if not address.startswith("hf://"):
        return address
    return "/".join(address.partition("@")[0].split("/")[:4])


def identify(path: str | os.PathLike[str]) -> Published | None:
    """The row of a local file, recognised by its content; ``None`` where there is none.

    Raises:
        OSError: The file cannot be read.
    """
    sha256, md5, size = digests(path)
    for row in CATALOG:
        if row.matches(sha256, md5, size):
            return row
    return None


def digests(path: str | os.PathLike[str]) -> tuple[str, str, int]:
    """A file's SHA-256 and MD5 (lower-case hex) and its size in bytes.

    Raises:
        OSError: The file cannot be read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
        return sha256.hexdigest(), md5.hexdigest(), file.tell()


# torchvision: torchvision/models/resnet.py 0.29. The whole hashes were computed by others from
# the files and agree in several public repositories; each starts with the published digits.

_FULL_SHA256 = {
    "resnet18-f37072fd.pth": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34-b627a593.pth": "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "resnet50-0676ba61.pth": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "resnet50-11ad3fa6.pth": "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    "resnet101-63fe2227.pth": "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    "resnet101-cd907fc2.pth": "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
    "resnet152-394f9c45.pth": "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    "wide_resnet50_2-95faca4d.pth": (
        "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"
    ),
}
_TORCHVISION_SIZES = {
    "resnet18-f37072fd.pth": 46_830_571,
    "resnet50-0676ba61.pth": 102_530_333,
    "resnet50-11ad3fa6.pth": 102_540_417,
}
# Architecture, generation of the training recipe, file, resize (for a crop of 224), top-1.
_TORCHVISION = (
    ("ResNet18", 1, "resnet18-f37072fd.pth", 256, 69.758),
    ("ResNet34", 1, "resnet34-b627a593.pth", 256, 73.314),
    ("ResNet50", 1, "resnet50-0676ba61.pth", 256, 76.130),
    ("ResNet50", 2, "resnet50-11ad3fa6.pth", 232, 80.858),
    ("ResNet101", 1, "resnet101-63fe2227.pth", 256, 77.374),
    ("ResNet101", 2, "resnet101-cd907fc2.pth", 232, 81.886),
    ("ResNet152", 1, "resnet152-394f9c45.pth", 256, 78.312),
    ("ResNet152", 2, "resnet152-f82ba261.pth", 232, 82.284),
    ("ResNeXt50_32x4d", 1, "resnext50_32x4d-7cdf4587.pth", 256, 77.618),
    ("ResNeXt50_32x4d", 2, "resnext50_32x4d-1a0047aa.pth", 232, 81.198),
    ("ResNeXt101_32x8d", 1, "resnext101_32x8d-8ba56ff5.pth", 256, 79.312),
    ("ResNeXt101_32x8d", 2, "resnext101_32x8d-110c445d.pth", 232, 82.834),
    ("ResNeXt101_64x4d", 1, "resnext101_64x4d-173b62eb.pth", 232, 83.246),
    ("WideResNet50_2", 1, "wide_resnet50_2-95faca4d.pth", 256, 78.468),
    ("WideResNet50_2", 2, "wide_resnet50_2-9ba9bcbe.pth", 232, 81.602),
    ("WideResNet101_2", 1, "wide_resnet101_2-32ee1156.pth", 256, 78.848),
    ("WideResNet101_2", 2, "wide_resnet101_2-d733dc28.pth", 232, 82.510),
)


def _torchvision(
    architecture: str, generation: int, file: str, resize: int, top1: float
) -> Published:
    digits = file.removesuffix(".pth").rpartition("-")[2]
    return Published(
        architecture=architecture,
        variant="v1.5",
        tag=f"torchvision-v{generation}",
        urls=(f"https://download.pytorch.org/models/{file}",),
        evaluations=(Evaluation(224, 224 / resize, top1),),
        interpolation="bilinear",
        licence="BSD-3-Clause",
        source="https://github.com/pytorch/vision/blob/v0.29.1/torchvision/models/resnet.py",
        sha256=_FULL_SHA256.get(file, digits),
        size=_TORCHVISION_SIZES.get(file),
    )


# keras.applications: keras/src/applications/resnet.py 3.15 for the hashes, the README of
# keras-team/keras-applications for the accuracies (100 minus the top-1 error), download logs
# of Keras for the sizes.

# Architecture, variant, file's first word, top-1, MD5 and bytes with and without classifier.
_KERAS: tuple[tuple[str, str, str, float, str, int | None, str, int | None], ...] = (
    (
        *("ResNet50", "v1", "resnet50", 74.928),
        *("2cb95161c43110f7111970584f804107", 102_967_424),
        *("4d473c1dd8becc155b73f8504c6f6626", 94_765_736),
    ),
    (
        *("ResNet101", "v1", "resnet101", 76.420),
        *("f1aeb4b969a6efcfb50fad2f0c20cfc5", 179_648_224),
        *("88cf7a10940856eca736dc7b7e228a21", 171_446_536),
    ),
    (
        *("ResNet152", "v1", "resnet152", 76.604),
        *("100835be76be38e30d865e96f2aaae62", None),
        *("ee4c566cf9a93f14d82f913c2dc6dd0c", 234_698_864),
    ),
    (
        *("ResNet50V2", "v2", "resnet50v2", 75.960),
        *("3ef43a0b657b3be2300d5770ece849e0", None),
        *("fac2f116257151a9d068a22e544a4917", 94_668_760),
    ),
    (
        *("ResNet101V2", "v2", "resnet101v2", 77.234),
        *("6343647c601c52e1368623803854d971", None),
        *("c0ed64b8031c3730f411d2eb4eea35b5", 171_317_808),
    ),
    (
        *("ResNet152V2", "v2", "resnet152v2", 78.032),
        *("a49b44d1979771252814e80f8ec446f9", None),
        *("ed17cf2e0169df9d443503ef94b23b33", 234_545_216),
    ),
)


def _keras(
    architecture: str,
    variant: str,
    word: str,
    top1: float | None,
    md5: str,
    size: int | None,
    include_top: bool = True,
) -> Published:
    ending = "" if include_top else "_notop"
    return Published(
        architecture=architecture,
        variant=variant,
        tag="keras",
        urls=(
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
            f"{word}_weights_tf_dim_ordering_tf_kernels{ending}.h5",
        ),
        evaluations=(Evaluation(224, 0.875, top1),),
        interpolation="bilinear",
        licence="MIT",
        source="https://github.com/keras-team/keras-applications/blob/master/README.md",
        md5=md5,
        size=size,
        include_top=include_top,
        **APPLICATIONS_PREPROCESSING[variant],
    )


# timm: timm/models/resnet.py 1.0.31 for names, licences and preprocessing;
# results/results-imagenet.csv (commit 0173a139) for the first accuracy, and the table in the
# model cards of timm's ResNets on the hub, which has two decimals, for the second.

# What timm's presets evaluate at: (input size, crop fraction), the reported one first.
_STRIKES_BACK = ((288, 1.0), (224, 0.95))  # _rcfg
_STRIKES_BACK_160 = ((224, 0.95), (160, 0.95))  # _r3cfg
_TIMM_TRAINED = ((288, 0.95), (224, 0.875))  # _ttcfg
_TIMM_256 = ((320, 1.0), (256, 0.95))
_PLAIN = ((224, 0.875),)  # _cfg, _gcfg
_TORCHVISION_2 = ((224, 0.965), (176, 0.875))

_NC = "CC-BY-NC-4.0"
_BSD = "BSD-3-Clause"

_Sizes = tuple[tuple[int, float], ...]
# Architecture, variant, name on the hub, evaluated at, top-1 there.
_TIMM: tuple[tuple[str, str, str, _Sizes, tuple[float, ...]], ...] = (
    ("ResNet18", "v1.5", "resnet18.a1_in1k", _STRIKES_BACK, (73.158, 71.49)),
    ("ResNet18", "v1.5", "resnet18.a2_in1k", _STRIKES_BACK, (72.372, 70.64)),
    ("ResNet18", "v1.5", "resnet18.a3_in1k", _STRIKES_BACK_160, (68.254, 65.66)),
    ("ResNet18", "v1.5", "resnet18.gluon_in1k", _PLAIN, (70.838,)),
    ("ResNet18", "v1.5", "resnet18.tv_in1k", _PLAIN, (69.760,)),
    ("ResNet18", "v1.5", "resnet18.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (72.594,)),
    ("ResNet18", "v1.5", "resnet18.fb_swsl_ig1b_ft_in1k", _PLAIN, (73.282,)),
    ("ResNet18", "d", "resnet18d.ra2_in1k", _TIMM_TRAINED, (73.794, 72.26)),
    ("ResNet34", "v1.5", "resnet34.a1_in1k", _STRIKES_BACK, (77.918, 76.42)),
    ("ResNet34", "v1.5", "resnet34.a2_in1k", _STRIKES_BACK, (77.158, 75.52)),
    ("ResNet34", "v1.5", "resnet34.a3_in1k", _STRIKES_BACK_160, (72.970, 70.56)),
    ("ResNet34", "v1.5", "resnet34.bt_in1k", _TIMM_TRAINED, (76.480, 75.16)),
    ("ResNet34", "v1.5", "resnet34.gluon_in1k", _PLAIN, (74.578,)),
    ("ResNet34", "v1.5", "resnet34.tv_in1k", _PLAIN, (73.32,)),
    ("ResNet34", "d", "resnet34d.ra2_in1k", _TIMM_TRAINED, (78.436, 77.10)),
    ("ResNet50", "v1.5", "resnet50.a1_in1k", _STRIKES_BACK, (81.214, 80.38)),
    ("ResNet50", "v1.5", "resnet50.a1h_in1k", ((224, 1.0), (176, 0.9)), (80.676, 79.27)),
    ("ResNet50", "v1.5", "resnet50.a2_in1k", _STRIKES_BACK, (80.772, 79.85)),
    ("ResNet50", "v1.5", "resnet50.a3_in1k", _STRIKES_BACK_160, (78.048, 75.96)),
    ("ResNet50", "v1.5", "resnet50.b1k_in1k", _STRIKES_BACK, (80.706, 79.52)),
    ("ResNet50", "v1.5", "resnet50.b2k_in1k", _STRIKES_BACK, (80.454, 79.38)),
    ("ResNet50", "v1.5", "resnet50.c1_in1k", _STRIKES_BACK, (80.912, 79.74)),
    ("ResNet50", "v1.5", "resnet50.c2_in1k", _STRIKES_BACK, (80.870, 79.88)),
    ("ResNet50", "v1.5", "resnet50.d_in1k", _STRIKES_BACK, (80.972, 79.91)),
    ("ResNet50", "v1.5", "resnet50.ram_in1k", _TIMM_TRAINED, (79.976, 79.03)),
    ("ResNet50", "v1.5", "resnet50.ra_in1k", _TIMM_TRAINED, (79.836, 78.81)),
    ("ResNet50", "v1.5", "resnet50.bt_in1k", _TIMM_TRAINED, (79.640, 78.46)),
    ("ResNet50", "v1.5", "resnet50.am_in1k", _PLAIN, (78.998,)),
    ("ResNet50", "v1.5", "resnet50.gluon_in1k", _PLAIN, (77.580,)),
    ("ResNet50", "v1.5", "resnet50.tv_in1k", _PLAIN, (76.130,)),
    ("ResNet50", "v1.5", "resnet50.tv2_in1k", _TORCHVISION_2, (80.850, 79.42)),
    ("ResNet50", "v1.5", "resnet50.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (79.234,)),
    ("ResNet50", "v1.5", "resnet50.fb_swsl_ig1b_ft_in1k", _PLAIN, (81.182,)),
    ("ResNet50", "c", "resnet50c.gluon_in1k", _PLAIN, (78.012,)),
    ("ResNet50", "s", "resnet50s.gluon_in1k", _PLAIN, (78.718,)),
    ("ResNet50", "d", "resnet50d.ra4_e3600_r224_in1k", _STRIKES_BACK, (81.838, 80.952)),
    ("ResNet50", "d", "resnet50d.ra2_in1k", _TIMM_TRAINED, (81.356, 80.53)),
    ("ResNet50", "d", "resnet50d.a1_in1k", _STRIKES_BACK, (81.450, 80.68)),
    ("ResNet50", "d", "resnet50d.a2_in1k", _STRIKES_BACK, (81.164, 80.22)),
    ("ResNet50", "d", "resnet50d.a3_in1k", _STRIKES_BACK_160, (78.722, 77.22)),
    ("ResNet50", "d", "resnet50d.gluon_in1k", _PLAIN, (79.078,)),
    ("ResNet101", "v1.5", "resnet101.a1h_in1k", _STRIKES_BACK, (82.778, 81.93)),
    ("ResNet101", "v1.5", "resnet101.a1_in1k", _STRIKES_BACK, (82.322, 81.50)),
    ("ResNet101", "v1.5", "resnet101.a2_in1k", _STRIKES_BACK, (82.236, 81.32)),
    ("ResNet101", "v1.5", "resnet101.a3_in1k", _STRIKES_BACK_160, (79.814, 77.88)),
    ("ResNet101", "v1.5", "resnet101.gluon_in1k", _PLAIN, (79.310,)),
    ("ResNet101", "v1.5", "resnet101.tv_in1k", _PLAIN, (77.376,)),
    ("ResNet101", "v1.5", "resnet101.tv2_in1k", _TORCHVISION_2, (81.890, 79.90)),
    ("ResNet101", "c", "resnet101c.gluon_in1k", _PLAIN, (79.542,)),
    ("ResNet101", "s", "resnet101s.gluon_in1k", _PLAIN, (80.302,)),
    ("ResNet101", "d", "resnet101d.ra2_in1k", _TIMM_256, (83.016, 82.26)),
    ("ResNet101", "d", "resnet101d.gluon_in1k", _PLAIN, (80.426,)),
    ("ResNet152", "v1.5", "resnet152.a1h_in1k", _STRIKES_BACK, (83.450, 82.80)),
    ("ResNet152", "v1.5", "resnet152.a1_in1k", _STRIKES_BACK, (82.732, 81.97)),
    ("ResNet152", "v1.5", "resnet152.a2_in1k", _STRIKES_BACK, (82.608, 81.77)),
    ("ResNet152", "v1.5", "resnet152.a3_in1k", _STRIKES_BACK_160, (80.546, 78.89)),
    ("ResNet152", "v1.5", "resnet152.gluon_in1k", _PLAIN, (79.694,)),
    ("ResNet152", "v1.5", "resnet152.tv_in1k", _PLAIN, (78.322,)),
    ("ResNet152", "v1.5", "resnet152.tv2_in1k", _TORCHVISION_2, (82.288, 80.20)),
    ("ResNet152", "c", "resnet152c.gluon_in1k", _PLAIN, (79.910,)),
    ("ResNet152", "s", "resnet152s.gluon_in1k", _PLAIN, (81.002,)),
    ("ResNet152", "d", "resnet152d.ra2_in1k", _TIMM_256, (83.684, 83.14)),
    ("ResNet152", "d", "resnet152d.gluon_in1k", _PLAIN, (80.476,)),
    ("ResNet200", "d", "resnet200d.ra2_in1k", _TIMM_256, (83.964, 83.23)),
    ("SEResNet50", "v1.5", "seresnet50.ra2_in1k", _TIMM_TRAINED, (81.284, 80.26)),
    ("SEResNet50", "v1.5", "seresnet50.a1_in1k", _STRIKES_BACK, (81.102, 80.02)),
    ("SEResNet50", "v1.5", "seresnet50.a2_in1k", _STRIKES_BACK, (81.106, 80.08)),
    ("SEResNet50", "v1.5", "seresnet50.a3_in1k", _STRIKES_BACK_160, (77.028, 75.10)),
    ("SEResNet152", "d", "seresnet152d.ra2_in1k", _TIMM_256, (84.360, 83.69)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a1h_in1k", _STRIKES_BACK, (82.014, 81.10)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a1_in1k", _STRIKES_BACK, (81.466, 80.53)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a2_in1k", _STRIKES_BACK, (81.304, 80.45)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.a3_in1k", _STRIKES_BACK_160, (79.268, 77.73)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.ra_in1k", _TIMM_TRAINED, (80.698, 79.76)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.gluon_in1k", _PLAIN, (79.360,)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.tv_in1k", _PLAIN, (77.618,)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.tv2_in1k", _TORCHVISION_2, (81.182, 79.37)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (80.338,)),
    ("ResNeXt50_32x4d", "v1.5", "resnext50_32x4d.fb_swsl_ig1b_ft_in1k", _PLAIN, (82.174,)),
    ("ResNeXt50_32x4d", "d", "resnext50d_32x4d.bt_in1k", _TIMM_TRAINED, (80.664, 79.67)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.tv_in1k", _PLAIN, (79.310,)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.tv2_in1k", _TORCHVISION_2, (82.832, 81.98)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k", _PLAIN, (81.606,)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.fb_swsl_ig1b_ft_in1k", _PLAIN, (84.302,)),
    ("ResNeXt101_32x8d", "v1.5", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", _PLAIN, (82.698,)),
    ("ResNeXt101_64x4d", "v1.5", "resnext101_64x4d.c1_in1k", _STRIKES_BACK, (83.156, 82.46)),
    ("ResNeXt101_64x4d", "v1.5", "resnext101_64x4d.gluon_in1k", _PLAIN, (80.600,)),
    ("ResNeXt101_64x4d", "v1.5", "resnext101_64x4d.tv_in1k", _PLAIN, (82.992,)),
    ("WideResNet50_2", "v1.5", "wide_resnet50_2.racm_in1k", _TIMM_TRAINED, (82.280, 81.45)),
    ("WideResNet50_2", "v1.5", "wide_resnet50_2.tv_in1k", _PLAIN, (78.480,)),
    ("WideResNet50_2", "v1.5", "wide_resnet50_2.tv2_in1k", _TORCHVISION_2, (81.606, 80.43)),
    ("WideResNet101_2", "v1.5", "wide_resnet101_2.tv_in1k", _PLAIN, (78.838,)),
    ("WideResNet101_2", "v1.5", "wide_resnet101_2.tv2_in1k", _TORCHVISION_2, (82.498, 80.48)),
    ("ResNetRS50", "d", "resnetrs50.tf_in1k", ((224, 0.91), (160, 0.91)), (79.896, 77.82)),
    ("ResNetRS101", "d", "resnetrs101.tf_in1k", ((288, 0.94), (192, 0.94)), (82.284, 80.69)),
    ("ResNetRS152", "d", "resnetrs152.tf_in1k", ((320, 1.0), (256, 1.0)), (83.702, 82.86)),
    ("ResNetRS200", "d", "resnetrs200.tf_in1k", ((320, 1.0), (256, 1.0)), (84.444, 83.87)),
    ("ResNetRS270", "d", "resnetrs270.tf_in1k", ((352, 1.0), (256, 1.0)), (84.428, 83.59)),
    ("ResNetRS350", "d", "resnetrs350.tf_in1k", ((384, 1.0), (288, 1.0)), (84.714, 84.30)),
    ("ResNetRS420", "d", "resnetrs420.tf_in1k", ((416, 1.0), (320, 1.0)), (85.006, 84.24)),
)
# Commit on the hub, SHA-256 and bytes of model.safetensors, where several public repositories
# state the same ones.
_PINNED: dict[str, tuple[str, str, int]] = {
    "resnet18.a1_in1k": (
        "491b427b45c94c7fb0e78b5474cc919aff584bbf",
        "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
        46_807_446,
    ),
    "resnet18.tv_in1k": (
        "bbd144b3e5565108aad885f145491d11bc6ce807",
        "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        46_807_446,
    ),
    "resnet50.tv_in1k": (
        "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
        102_469_840,
    ),
    "wide_resnet50_2.racm_in1k": (
        "30f73aceaaa1911830a9795b83ab1908dba18719",
        "03b71d65fb2c73bb0de079a1781009f27a782ec481d2f64ab3bde9b1cdec3000",
        275_835_296,
    ),
    "resnet50.a1_in1k": (
        "767268603ca0cb0bfe326fa87277f19c419566ef",
        "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        102_469_840,
    ),
}


def _timm(
    architecture: str, variant: str, name: str, sizes: _Sizes, top1: tuple[float, ...]
) -> Published:
    tag = name.partition(".")[2].removesuffix("_in1k").removesuffix("_ft")
    by_others = {"tv": _BSD, "tv2": _BSD}.get(tag, _NC if tag.startswith("fb_") else None)
    commit, sha256, size = _PINNED.get(name, ("", "", None))
    half = "ra4_" in tag
    return Published(
        architecture=architecture,
        variant=variant,
        tag=f"timm-{tag}",
        urls=(f"hf://timm/{name}" + (f"@{commit}" if commit else ""),),
        evaluations=tuple(Evaluation(*at, accuracy) for at, accuracy in zip(sizes, top1)),
        interpolation="bilinear" if by_others else "bicubic",
        licence=by_others or "Apache-2.0",
        source=f"https://huggingface.co/timm/{name}",
        sha256=sha256,
        size=size,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )


# CIFAR-10: hashes and sizes of the files themselves; accuracies measured with them.

_AKAMASTER = (
    ("ResNet20", "resnet20-12fca82f.th", 91.73, 1_099_231),
    ("ResNet32", "resnet32-d509ac18.th", 92.63, 1_890_043),
    ("ResNet44", "resnet44-014dd654.th", 93.10, 2_680_855),
    ("ResNet56", "resnet56-4bfd9763.th", 93.39, 3_471_733),
    # Not at hand: accuracy of the README, the hash's digits from the name.
    ("ResNet110", "resnet110-1d1ed7c2.th", 93.68, None),
    ("ResNet1202", "resnet1202-f3b1deed.th", 93.82, None),
)
_AKAMASTER_SHA256 = {
    "resnet20-12fca82f.th": "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    "resnet32-d509ac18.th": "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
    "resnet44-014dd654.th": "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
    "resnet56-4bfd9763.th": "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
}


def _akamaster(architecture: str, file: str, top1: float, size: int | None) -> Published:
    repository = "https://github.com/akamaster/pytorch_resnet_cifar10"
    digits = file.removesuffix(".th").rpartition("-")[2]
    return Published(
        architecture=architecture,
        variant="v1.5",
        tag="akamaster",
        urls=(f"{repository}/raw/master/pretrained_models/{file}",),
        evaluations=(Evaluation(32, 1.0, top1),),
        interpolation="bilinear",
        licence="BSD-2-Clause",
        source=repository,
        sha256=_AKAMASTER_SHA256.get(file, digits),
        size=size,
        resize="stretch",
        label_set="cifar10",
        shortcut="A",
    )


_MLPERF_FOLDER = "benchmark/training/image_classification"
_MLPERF_FILE = f"{_MLPERF_FOLDER}/trained_models/pretrainedResnet.h5"
_MLPERF_RAW = "https://raw.githubusercontent.com/mlcommons/tiny"
_MLPERF_TINY = Published(
    architecture="ResNet8",
    variant="v1.5",
    tag="mlperf-tiny",
    # The file under this name was another one, of wider layers, in some revisions.
    urls=(
        f"{_MLPERF_RAW}/master/{_MLPERF_FILE}",
        f"{_MLPERF_RAW}/4addd0fa08d216e20637637874e084895f289da4/{_MLPERF_FILE}",
    ),
    evaluations=(Evaluation(32, 1.0, 87.19),),
    interpolation="bilinear",
    licence="Apache-2.0",
    source=f"https://github.com/mlcommons/tiny/tree/master/{_MLPERF_FOLDER}",
    sha256="5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
    size=1_116_712,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    resize="stretch",
    label_set="cifar10",
)

CATALOG: tuple[Published, ...] = (
    *(_torchvision(*row) for row in _TORCHVISION),
    *(_keras(a, v, word, top1, md5, size) for a, v, word, top1, md5, size, _, _ in _KERAS),
    *(_timm(*row) for row in _TIMM),
    *(_akamaster(*row) for row in _AKAMASTER),
    _MLPERF_TINY,
    *(_keras(a, v, word, None, md5, size, False) for a, v, word, _, _, _, md5, size in _KERAS),
)
