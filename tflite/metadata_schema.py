"""TFLite's model metadata as a flatbuffer: what the tensors mean, for MediaPipe and others.

Field numbers are those of ``metadata_schema.fbs``, version 1.5.0, in the repositories of
MediaPipe (mediapipe/tasks/metadata) and TFLite Support. MediaPipe's own writer is not used: in
version 1.2.2 it imports a module that its wheel lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers

from keras_resnet.contract import Contract
from tflite.flatbuffer import offset_vector

IDENTIFIER = b"M001"
# The least that parsers need to know: nothing here is newer than the schema's first release.
MIN_PARSER_VERSION = "1.0.0"
COLOR_SPACES = {"rgb": 1, "grayscale": 2, "raw": 0}  # enum ColorSpaceType
FEATURE_PROPERTIES, IMAGE_PROPERTIES = 1, 2  # union ContentProperties
NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions
TENSOR_AXIS_LABELS = 2  # enum AssociatedFileType


def model_metadata(
    contract: Contract, labels_file: str | None, version: str, input_name: str, output_name: str
) -> bytes:
    """The table ModelMetadata of an image classifier that takes raw pixels.

    Args:
        contract: What the model expects of an image.
        labels_file: Name of the file of labels behind the model; ``None`` without one.
        version: Of the program that made the model.
        input_name: Name of the input tensor.
        output_name: Name of the output tensor.
    """
    builder = flatbuffers.Builder(2048)
    size = f"{contract.height} × {contract.width}"
    color = {"rgb": "RGB", "grayscale": "grayscale"}.get(
        contract.color, f"{contract.channels}-channel"
    )
    image = _table(
        builder,
        (0, _string(builder, input_name)),
        (1, _string(builder, f"{color} image of {size} raw pixels, 0–255.")),
        (3, _image_content(builder, contract)),
        (4, offset_vector(builder, [_raw_pixels(builder)])),
        (5, _range(builder, 0.0, 255.0)),
    )
    files = [] if labels_file is None else [_labels(builder, labels_file)]
    answer = _table(
        builder,
        (0, _string(builder, output_name)),
        (1, _string(builder, "One probability a class; they sum to 1.")),
        (3, _feature_content(builder)),
        (5, _range(builder, 0.0, 1.0)),
        (6, offset_vector(builder, files)),
    )
    graph = _table(
        builder,
        (2, offset_vector(builder, [image])),
        (3, offset_vector(builder, [answer])),
    )
    description = (
        f"Residual network that classifies {color} images of {size} pixels. Takes raw pixels "
        "0–255: normalization and softmax are inside. Made by keras-resnet."
    )
    root = _table(
        builder,
        (0, _string(builder, "image classifier")),
        (1, _string(builder, description)),
        (2, _string(builder, version)),
        (3, offset_vector(builder, [graph])),
        (7, _string(builder, MIN_PARSER_VERSION)),
    )
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _image_content(builder: flatbuffers.Builder, contract: Contract) -> int:
    size = _scalars(builder, (contract.width or 0, contract.height or 0))
    builder.StartObject(2)
    builder.PrependInt8Slot(0, COLOR_SPACES[contract.color], 0)
    builder.PrependUOffsetTRelativeSlot(1, size, 0)
    return _union(builder, IMAGE_PROPERTIES, builder.EndObject())


def _feature_content(builder: flatbuffers.Builder) -> int:
    return _union(builder, FEATURE_PROPERTIES, _table(builder))


def _raw_pixels(builder: flatbuffers.Builder) -> int:
    """The ProcessUnit that leaves pixels as they are."""
    # One value, not one a channel: MediaPipe refuses those.
    options = _table(builder, (0, _floats(builder, [0.0])), (1, _floats(builder, [1.0])))
    return _union(builder, NORMALIZATION_OPTIONS, options)


def _range(builder: flatbuffers.Builder, low: float, high: float) -> int:
    """The table Stats."""
    return _table(builder, (0, _floats(builder, [high])), (1, _floats(builder, [low])))


def _labels(builder: flatbuffers.Builder, name: str) -> int:
    text = _string(builder, name)
    description = _string(builder, "One label a line, in the order of the classes.")
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUOffsetTRelativeSlot(1, description, 0)
    builder.PrependInt8Slot(2, TENSOR_AXIS_LABELS, 0)
    return builder.EndObject()


def _table(builder: flatbuffers.Builder, *fields: tuple[int, int]) -> int:
    """A table of ``(slot, offset)`` fields."""
    builder.StartObject(1 + max((slot for slot, _ in fields), default=-1))
    for slot, offset in fields:
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return builder.EndObject()


def _union(builder: flatbuffers.Builder, kind: int, offset: int) -> int:
    """A table whose first field is a union: its type stands in one slot, itself in the next."""
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


def _string(builder: flatbuffers.Builder, text: str) -> int:
    return builder.CreateString(text)
