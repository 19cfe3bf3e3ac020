"""Input and output of a file: the type of its pixels, its batch, its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_resnet.contract import one_of

IMAGE, PROBABILITIES, LOGITS, CLASSES = "image", "probabilities", "logits", "classes"
# Added to a raw pixel before it is stored in that type.
SHIFTS = {"float32": 0, "uint8": 0, "int8": -128}


@dataclass(frozen=True)
class IOSpec:
    """Input and outputs of a file. The default is supported by every runtime.

    Attributes:
        io: Type of the input: ``"float32"`` and ``"uint8"`` are raw pixels 0–255, ``"int8"``
            is raw pixels minus 128. Scores are float32 in any case.
        batch: The fixed number of images in one run.
        logits: Whether the softmax or sigmoid is left out, for the caller to compute.
        top_k: Give that many likeliest classes, best first, as two outputs, ``probabilities``
            float32 and ``classes`` int32, instead of one probability a class; for the task
            ``single`` only.

    Raises:
        ValueError: A value is out of range, or the combination cannot be read.
    """

    io: Literal["float32", "uint8", "int8"] = "float32"
    batch: int = 1
    logits: bool = False
    top_k: int | None = None

    def __post_init__(self) -> None:
        one_of("io", self.io, tuple(SHIFTS))
        for field in ("batch", "top_k"):
            value = getattr(self, field)
            if value is None and field == "top_k":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{field} must be an integer of at least 1. Received: {field}={value!r}"
                )
        if self.logits and self.top_k:
            raise ValueError(
                "Probabilities cannot be computed from top-k logits: ask for logits or for top_k. "
                f"Received: logits=True, top_k={self.top_k}"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        scores = LOGITS if self.logits else PROBABILITIES
        return (scores, CLASSES) if self.top_k else (scores,)

    def __str__(self) -> str:
        scores = f"top {self.top_k}" if self.top_k else self.outputs[0]
        return f"{self.io} images, {self.batch} at a time, to {scores}"

    def as_input(self, images: np.ndarray) -> np.ndarray:
        """uint8 images 0–255 in the type that the file takes."""
        return (images.astype("int16") + SHIFTS[self.io]).astype(self.io)


UNIVERSAL = IOSpec()


def io_spec_of(
    inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> IOSpec | None:
    """From an interpreter's details; ``None`` if it is not an image classifier as ours are.

    Args:
        inputs: As returned by ``get_input_details()``.
        outputs: As returned by ``get_output_details()``.
    """
    if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
        return None
    io, batch = np.dtype(inputs[0]["dtype"]).name, int(inputs[0]["shape"][0])
    if io not in SHIFTS or inputs[0]["quantization"] not in ((0.0, 0), (1.0, SHIFTS[io])):
        return None
    types = tuple(np.dtype(output["dtype"]).name for output in outputs)
    shapes = [tuple(map(int, output["shape"])) for output in outputs]
    if any(len(shape) != 2 or shape[0] != batch for shape in shapes):
        return None
    if types == ("float32",):
        return IOSpec(io, batch, logits=outputs[0]["name"] == LOGITS)  # type: ignore[arg-type]
    if types == ("float32", "int32") and shapes[0] == shapes[1]:
        return IOSpec(io, batch, top_k=shapes[0][1])  # type: ignore[arg-type]
    return None
