"""The model contract: preprocessing of images, and the meaning of the outputs.

The contract is the only definition of both. It is saved inside the model (see
``ImageClassifier``); training, SavedModel, TFLite and prediction read it from there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal, get_args

from keras_resnet.architectures import Architecture

NORMALIZATIONS = ("inside", "outside")
RESIZES = ("crop", "stretch")
INTERPOLATIONS = ("bilinear", "bicubic")
ORDERS = ("rgb", "bgr")
ORIENTATIONS = ("apply", "ignore")
Task = Literal["single", "binary", "multi"]
TASKS: tuple[Task, ...] = get_args(Task)
DEFAULT_THRESHOLD = 0.5  # of a probability, where a contract has none
MAX_SIZE = 16_384  # pixels of height and width
MAX_CHANNELS = 1_024

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Contract:
    """Preprocessing of the input images of a model, and the labels of its outputs.

    Attributes:
        height: Input height in pixels, or ``None`` for any.
        width: Input width in pixels, or ``None`` for any.
        channels: 3 for colour, 1 for grayscale; images with other numbers of channels can only
            be passed as arrays, not as files.
        mean: Mean of each channel, in the units of raw pixels (0–255); of three channels in
            the order red, green, blue.
        std: Standard deviation of each channel, likewise.
        normalization: ``"inside"`` if the graph itself computes ``(pixels - mean) / std`` from
            raw RGB pixels 0–255; ``"outside"`` if the caller has to.
        labels: Names of the classes in output order; empty if they are not known.
        resize: ``"crop"`` keeps the aspect ratio and crops the centre; ``"stretch"`` resizes
            the whole image without keeping the aspect ratio.
        crop_fraction: Fraction of the largest centred box of the right aspect ratio that is
            kept (0.875 is the usual "resize to 256, crop 224").
        interpolation: Resampling filter; always antialiased.
        order: Order of the three input channels of a graph that normalizes outside: ``"rgb"``,
            or ``"bgr"`` as in Caffe and the first ResNets of keras.applications.
        orientation: ``"apply"`` turns a picture upright by its EXIF orientation; ``"ignore"``
            takes its pixels as they are stored.
        task: ``"single"``: one class an image, softmax. ``"binary"``: two classes, one sigmoid
            output, the probability of the second label. ``"multi"``: any number of labels an
            image, a sigmoid for each.
        thresholds: For ``binary`` one probability, for ``multi`` one a label (or none): the label
            is given from this probability on; 0.5 where there is none. Empty for ``single``.
    """

    height: int | None
    width: int | None
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    normalization: Literal["inside", "outside"] = "outside"
    labels: tuple[str, ...] = ()
    resize: Literal["crop", "stretch"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    order: Literal["rgb", "bgr"] = "rgb"
    orientation: Literal["apply", "ignore"] = "apply"
    task: Task = "single"
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        one_of("normalization", self.normalization, NORMALIZATIONS)
        one_of("order", self.order, ORDERS)
        one_of("resize", self.resize, RESIZES)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        one_of("orientation", self.orientation, ORIENTATIONS)
        one_of("task", self.task, TASKS)
        self._check_size()
        # One number applies to all channels. Channels without statistics (for example a fourth,
        # infrared one) get the average of the others.
        for field in ("mean", "std"):
            values = _floats(field, getattr(self, field))
            if len(values) not in (1, 3, self.channels):
                raise ValueError(
                    f"{field} must have one value, three for RGB, or one for each of "
                    f"{self.channels} channels. Received: {field}={values}"
                )
            if len(values) != self.channels:
                known = values if 3 == len(values) < self.channels else ()
                average = sum(values) / len(values)
                values = (*known, *(average,) * (self.channels - len(known)))
            object.__setattr__(self, field, values)
        object.__setattr__(self, "labels", _names(self.labels))
        if self.order == "bgr" and (self.channels != 3 or self.normalization == "inside"):
            raise ValueError(
                "order='bgr' is for graphs of three channels that normalize outside. Received: "
                f"channels={self.channels}, normalization={self.normalization!r}"
            )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0 in every channel. Received: std={self.std}")
        fraction = self.crop_fraction
        if not _is_number(fraction) or not 0 < fraction <= 1:
            raise ValueError(f"crop_fraction must be above 0 and at most 1. Received: {fraction!r}")
        self._check_task()

    def _check_task(self) -> None:
        if self.task == "binary" and len(self.labels) not in (0, 2):
            raise ValueError(f"task='binary' has two labels. Received: labels={self.labels!r:.200}")
        thresholds = _floats("thresholds", self.thresholds) if len(self.thresholds) else ()
        object.__setattr__(self, "thresholds", thresholds)
        allowed = {"single": (0,), "binary": (0, 1), "multi": (0, len(self.labels))}[self.task]
        if len(thresholds) not in allowed or not all(0 < value < 1 for value in thresholds):
            raise ValueError(
                "thresholds must be probabilities between 0 and 1, one for task='binary' and one a "
                f"label for task='multi'. Received: thresholds={thresholds!r:.200}, "
                f"task={self.task!r}, {len(self.labels)} labels"
            )

    def _check_size(self) -> None:
        limits = {"height": MAX_SIZE, "width": MAX_SIZE, "channels": MAX_CHANNELS}
        for field, limit in limits.items():
            value = getattr(self, field)
            if value is None and field != "channels":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
                raise ValueError(
                    f"{field} must be an integer from 1 to {limit}. Received: {field}={value!r}"
                )

    @property
    def color(self) -> str:
        """Colour space to decode images to: ``"rgb"``, ``"grayscale"``, or ``"raw"`` if neither."""
        return {1: "grayscale", 3: "rgb"}.get(self.channels, "raw")

    @property
    def outputs(self) -> int:
        """Number of outputs of a network with these labels; 0 if they are not known."""
        return 1 if self.task == "binary" else len(self.labels)

    def replace(self, **changes: Any) -> Contract:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def of_network(
        self, size: tuple[int | None, int | None, int], classes: int | None, inside: bool
    ) -> Contract:
        """A copy for a network of the given input size.

        Args:
            size: Height, width and channels.
            classes: Number of outputs, or ``None`` for a network without a classifier.
            inside: Whether the graph normalizes.

        Raises:
            ValueError: The contract has another number of outputs.
        """
        if classes is not None and self.task == "binary" and classes != 1:
            raise ValueError(
                f"task='binary' has one output. Received: classes={classes}. Build the network "
                "with classes=1 and classifier_activation='sigmoid'"
            )
        if classes is not None and self.labels and self.outputs != classes:
            raise ValueError(
                f"The contract names {len(self.labels)} labels for {classes} classes. "
                "Pass one label a class, or none."
            )
        height, width, channels = size
        return self.replace(
            height=height,
            width=width,
            channels=channels,
            normalization="inside" if inside else "outside",
            order="rgb" if inside or channels != 3 else self.order,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Contract:
        """The reverse of ``to_dict``.

        Raises:
            ValueError: A key is missing or unknown, or a value has the wrong type or is out of
                range.
        """
        if not isinstance(data, dict):
            raise ValueError(f"A contract is a set of keys and values. Received: {data!r:.200}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(map(str, set(data) - known)):
            raise ValueError(f"Unknown contract keys: {unknown}. Known: {sorted(known)}")
        if missing := sorted({"height", "width"} - set(data)):
            raise ValueError(f"The contract lacks {missing}")
        labels = data.get("labels", ())
        if not isinstance(labels, (list, tuple)) or not all(isinstance(n, str) for n in labels):
            raise ValueError(f"labels must be names. Received: labels={labels!r:.200}")
        return cls(**data)


def default_contract(architecture: Architecture) -> Contract:
    """The contract if neither the weights nor ``contract=`` define one."""
    if architecture.family == "imagenet":
        return Contract(None, None)
    return Contract(None, None, resize="stretch", crop_fraction=1.0)  # the image is the object


def one_of(argument: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises ValueError, with the received and the allowed values, unless ``value`` is allowed."""
    if value not in allowed:
        raise ValueError(
            f"{argument} must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {argument}={value!r}"
        )


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _floats(field: str, values: Any) -> tuple[float, ...]:
    try:
        floats = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        floats = ()
    if not floats or isinstance(values, (str, bytes)) or not all(map(math.isfinite, floats)):
        raise ValueError(
            f"{field} must be one finite number a channel, such as (127.5,). "
            f"Received: {field}={values!r:.200}"
        )
    return floats


def _names(labels: Any) -> tuple[str, ...]:
    unordered = isinstance(labels, (str, bytes, Mapping, Set))
    if unordered or not isinstance(labels, Iterable):
        raise ValueError(f"labels must be a sequence of names. Received: labels={labels!r:.200}")
    return tuple(str(name) for name in labels)


def crop_box(height: Any, width: Any, contract: Contract) -> tuple[Any, Any, Any, Any]:
    """The part of an image of ``height`` × ``width`` pixels that becomes model input.

    To crop this box and resize it gives the same pixels as to resize the whole image and crop its
    centre, at a fraction of the cost.

    The arithmetic supports Python integers as well as scalar integer tensors inside a
    ``tf.data`` graph, which is why it does not call ``min``.

    Returns:
        ``(top, left, box_height, box_width)`` in pixels of the original image.

    Raises:
        ValueError: The contract has no fixed height and width.
    """
    if contract.height is None or contract.width is None:
        raise ValueError(
            "The model takes any size, so an image cannot be fitted to it. "
            "Build it with a fixed input_shape, such as (224, 224, 3)."
        )
    if contract.resize == "stretch":
        return 0, 0, height, width
    # The largest box of the right aspect ratio, then the fraction of it that is kept.
    fits_height = width * contract.height // contract.width
    fits_width = height * contract.width // contract.height
    per_mille = round(contract.crop_fraction * 1000)
    box_height = _at_least_1(_smaller(height, fits_height) * per_mille // 1000)
    box_width = _at_least_1(_smaller(width, fits_width) * per_mille // 1000)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _smaller(a: Any, b: Any) -> Any:
    return (a + b - abs(a - b)) // 2


def _at_least_1(a: Any) -> Any:
    return (a + 1 + abs(a - 1)) // 2
