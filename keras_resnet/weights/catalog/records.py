"""What is published: one record a weights file."""

from __future__ import annotations

import functools
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


@dataclass(frozen=True)
class Evaluation:
    """One published accuracy, and how the images were prepared for it.

    Attributes:
        resolution: Height and width of the input in pixels.
        crop_fraction: Share of the image's shorter side that the crop keeps.
        top1: Percentage of the images classified right; ``None`` where none is published.
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
        urls: Its addresses, the best first: ``https://…`` or
            ``hf://owner/name[@revision][/file]``.
        evaluations: Published accuracies, the one that the publisher reports first.
        interpolation: Resampling filter of those.
        licence: SPDX identifier.
        source: Address of the publication that the numbers are from.
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

    def evaluation_at(self, resolution: int | None) -> Evaluation:
        """The evaluation at the input size nearest to ``resolution``, in pixels.

        Of two equally near ones it is the one that the publisher lists first; for ``None``, the
        one that the publisher reports.
        """
        wanted = resolution or self.resolution
        return min(self.evaluations, key=lambda e: abs(e.resolution - wanted))

    def contract_fields(self, resolution: int | None = None) -> dict[str, Any]:
        """The fields of ``Contract`` that follow from these weights.

        Args:
            resolution: Input size in pixels; the crop fraction is that of
                ``evaluation_at(resolution)``.
        """
        return {
            "mean": self.mean,
            "std": self.std,
            "order": self.order,
            "resize": self.resize,
            "crop_fraction": self.evaluation_at(resolution).crop_fraction,
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
    text = (
        resources.files("keras_resnet.weights").joinpath("imagenet_labels.txt").read_text("utf-8")
    )
    return tuple(text.splitlines())
