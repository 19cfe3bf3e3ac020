"""TFLite's model metadata as a flatbuffer: what the tensors mean, for MediaPipe and others.

Field numbers are those of ``metadata_schema.fbs``, version 1.5.0, in the repositories of
MediaPipe (mediapipe/tasks/metadata) and TFLite Support. MediaPipe's own writer is not used: in
version 1.2.2 it imports a module that its wheel lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers

from keras_resnet.contract import Contract
from tflite.model.io_spec import CLASSES, IMAGE, LOGITS, PROBABILITIES, SHIFTS, IOSpec

IDENTIFIER = b"M001"
# The oldest parser that reads it: nothing here is newer than the schema's first release.
MIN_PARSER_VERSION = "1.0.0"
COLOR_SPACES = {"rgb": 1, "grayscale": 2, "raw": 0}  # enum ColorSpaceType
FEATURE_PROPERTIES, IMAGE_PROPERTIES = 1, 2  # union ContentProperties
NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions
TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS = 2, 3  # enum AssociatedFileType


def model_metadata(
    contract: Contract, labels_file: str | None, version: str, io_spec: IOSpec
) -> bytes:
    """The table ModelMetadata of an image classifier that takes raw pixels.

    Args:
        contract: What the model expects of an image.
        labels_file: Name of the file of labels behind the model; ``None`` without one.
        version: Of the program that wrote the model.
        io_spec: Input and outputs of the model.
    """
    builder = flatbuffers.Builder(2048)
    size = f"{contract.height} × {contract.width}"
    color = {"rgb": "RGB", "grayscale": "grayscale"}.get(
        contract.color, f"{contract.channels}-channel"
    )
    low = SHIFTS[io_spec.io]
    image = _table(
        builder,
        (0, _string(builder, IMAGE)),
        (1, _string(builder, _pixels(f"{color} image of {size}", io_spec))),
        (3, _image_content(builder, contract)),
        (4, _vector(builder, [_raw_pixels(builder)])),
        (5, _range(builder, low, low + 255)),
    )
    outputs = [_output(builder, name, io_spec, labels_file, contract) for name in io_spec.outputs]
    graph = _table(
        builder,
        (2, _vector(builder, [image])),
        (3, _vector(builder, outputs)),
    )
    activation = "softmax" if contract.task == "single" else "sigmoid"
    inside = "normalization is" if io_spec.logits else f"normalization and {activation} are"
    description = (
        f"Residual network that classifies {color} images of {size} pixels. Takes raw pixels "
        f"0–255: {inside} inside. Made by keras-resnet."
    )
    root = _table(
        builder,
        (0, _string(builder, "image classifier")),
        (1, _string(builder, description)),
        (2, _string(builder, version)),
        (3, _vector(builder, [graph])),
        (7, _string(builder, MIN_PARSER_VERSION)),
    )
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _pixels(image: str, io_spec: IOSpec) -> str:
    several = "" if io_spec.batch == 1 else f", {io_spec.batch} at a time"
    if io_spec.io == "int8":
        return f"{image} raw pixels 0–255 minus 128{several}."
    return f"{image} raw pixels, 0–255{several}."


def _output(
    builder: flatbuffers.Builder,
    name: str,
    io_spec: IOSpec,
    labels_file: str | None,
    contract: Contract,
) -> int:
    """The table TensorMetadata of one output."""
    each, probabilities = {
        "single": ("a class", "One probability a class; they sum to 1."),
        "binary": ("of the second class", "The probability of the second class."),
        "multi": ("a label", "One probability a label, each from 0 to 1."),
    }[contract.task]
    description = {
        LOGITS: "One logit a class; softmax makes them probabilities."
        if contract.task == "single"
        else f"One logit {each}; sigmoid makes it a probability.",
        CLASSES: f"Numbers of the {io_spec.top_k} likeliest classes, the likeliest first.",
        PROBABILITIES: f"Probabilities of the {io_spec.top_k} likeliest classes, "
        "in descending order."
        if io_spec.top_k
        else probabilities,
    }[name]
    # Labels belong to the tensor that says which class: by position, or by value.
    kind = TENSOR_VALUE_LABELS if io_spec.top_k else TENSOR_AXIS_LABELS
    labeled = labels_file is not None and (name == CLASSES or not io_spec.top_k)
    files = [_labels(builder, labels_file, kind)] if labels_file is not None and labeled else []
    fields = [
        (0, _string(builder, name)),
        (1, _string(builder, description)),
        (3, _feature_content(builder)),
    ]
    if name == PROBABILITIES:
        fields.append((5, _range(builder, 0.0, 1.0)))
    fields.append((6, _vector(builder, files)))
    return _table(builder, *fields)


def _image_content(builder: flatbuffers.Builder, contract: Contract) -> int:
    size = _scalars(builder, (contract.width or 0, contract.height or 0))
    builder.StartObject(2)
    builder.PrependInt8Slot(0, COLOR_SPACES[contract.color], 0)
    builder.PrependUOffsetTRelativeSlot(1, size, 0)
    return _union(builder, IMAGE_PROPERTIES, builder.EndObject())


def _feature_content(builder: flatbuffers.Builder) -> int:
    return _union(builder, FEATURE_PROPERTIES, _table(builder))


def _raw_pixels(builder: flatbuffers.Builder) -> int:
    """The ProcessUnit that leaves pixels as they are: quantization says what integers mean."""
    # One value, not one a channel: MediaPipe refuses those.
    options = _table(builder, (0, _floats(builder, [0.0])), (1, _floats(builder, [1.0])))
    return _union(builder, NORMALIZATION_OPTIONS, options)


def _range(builder: flatbuffers.Builder, low: float, high: float) -> int:
    """The table Stats."""
    return _table(builder, (0, _floats(builder, [high])), (1, _floats(builder, [low])))


def _labels(builder: flatbuffers.Builder, name: str, kind: int) -> int:
    text = _string(builder, name)
    description = _string(builder, "One label a line, in the order of the classes.")
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUOffsetTRelativeSlot(1, description, 0)
    builder.PrependInt8Slot(2, kind, 0)
    return builder.EndObject()


def _table(builder: flatbuffers.Builder, *fields: tuple[int, int]) -> int:
    """A table of ``(slot, offset)`` fields."""
    builder.StartObject(1 + max((slot for slot, _ in fields), default=-1))
    for slot, offset in fields:
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return builder.EndObject()


def _union(builder: flatbuffers.Builder, kind: int, offset: int) -> int:
    """A table whose first field is a union: its type in one slot, the union in the next."""
    builder.StartObject(2)
    builder.PrependUint8Slot(0, kind, 0)
    builder.PrependUOffsetTRelativeSlot(1, offset, 0)
    return builder.EndObject()


def _scalars(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    builder.StartObject(len(values))
    for slot, value in enumerate(values):
        builder.PrependUint32Slot(slot, value, 0)
    return builder.EndObject()


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    """A vector of tables."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _string(builder: flatbuffers.Builder, text: str) -> int:
    return builder.CreateString(text)
