"""The kinds of .tflite file: one small function each, and one table of them.

Every kind takes float32 raw pixels 0–255 and gives float32 probabilities; they differ in what
is stored and computed between. Which quantizer makes which kind was measured:
``docs/quantization.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.contract import Contract
from tflite.model.flatbuffer import pack, unpack
from tflite.model.fold_scale import fold_scale
from tflite.quantization.budget import Budget

# Measured: docs/quantization.md.
INT16X8_WARNING = (
    "int16x8 has no fast kernels on a CPU: a ResNet-50 takes 139 times as long as in int8"
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConversionSource:
    """What every kind is made from.

    Attributes:
        saved_model: Folder of a SavedModel with one endpoint, ``serve``, at batch 1.
        calibration: Representative images, uint8 ``(height, width, channels)`` 0–255; may be
            empty for the kinds that are not calibrated.
        budget: What the mixed kind may cost.
        contract: Task and thresholds, by which the mixed kind measures what changes.
    """

    saved_model: Path
    calibration: Sequence[np.ndarray] = ()
    budget: Budget = field(default_factory=Budget)
    contract: Contract = Contract(None, None)

    @cached_property
    def float32(self) -> bytes:
        """The unquantized network as converted, which the other kinds start from."""
        return self.converter().convert()

    def converter(self) -> Any:
        """A fresh ``tf.lite.TFLiteConverter``."""
        import tensorflow as tf

        path = str(self.saved_model)
        return tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=["serve"])


@dataclass(frozen=True)
class Artifact:
    """What a kind consists of.

    Attributes:
        model: The bytes of a .tflite file.
        beside: Other files that belong to it: their content, by their suffix.
    """

    model: bytes
    beside: Mapping[str, bytes] = field(default_factory=dict)


def float32(source: ConversionSource, progress: Progress) -> Artifact:
    """Nothing quantized."""
    return Artifact(_with_folded_scale(source.float32))


def float16(source: ConversionSource, progress: Progress) -> Artifact:
    """Weights stored in float16: half the size, computed in float32 on a CPU."""
    import tensorflow as tf

    converter = source.converter()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return Artifact(_with_folded_scale(converter.convert()))


def dynamic(source: ConversionSource, progress: Progress) -> Artifact:
    """Weights in int8 per channel; activations quantized as they are computed."""
    from litert_quantizer import quantizer, recipe

    folded = _with_folded_scale(source.float32)
    result = quantizer.Quantizer(folded, recipe.dynamic_wi8_afp32()).quantize()
    return Artifact(bytes(result.quantized_model))


def int8(source: ConversionSource, progress: Progress) -> Artifact:
    """Weights in int8 per channel, activations in int8 by the ranges of the calibration."""
    from tflite.quantization.int8 import quantize_int8

    graph = unpack(source.float32)
    return Artifact(pack(quantize_int8(graph, source.calibration, progress)))


def int16x8(source: ConversionSource, progress: Progress) -> Artifact:
    """Weights in int8, activations in int16: nearly exact, and for accelerators only."""
    import tensorflow as tf

    def representative_dataset() -> Iterator[list[np.ndarray]]:
        for done, image in enumerate(source.calibration, start=1):
            progress(done, len(source.calibration))
            yield [image[np.newaxis].astype("float32")]

    converter = source.converter()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    return Artifact(converter.convert())


def mixed(source: ConversionSource, progress: Progress) -> Artifact:
    """int8, with as many residual blocks in float32 as the budget needs."""
    from tflite.quantization.mixed import plot, quantize_mixed

    graph = unpack(source.float32)
    chosen = quantize_mixed(graph, source.calibration, source.budget, progress, source.contract)
    return Artifact(chosen.model, {".png": plot(chosen), ".json": chosen.to_json().encode()})


def _with_folded_scale(model: bytes) -> bytes:
    graph = unpack(model)
    folded = fold_scale(graph)
    return model if folded is graph else pack(folded)


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Attributes:
        make: From the source to the files; calls the second argument with ``(steps done,
            steps in all)`` after each step, except while TensorFlow's converter runs, which
            reports nothing and cannot be interrupted.
        calibrated: Whether it needs representative images.
        usual: Whether it is made by default.
        warning: What to know before shipping it.
    """

    make: Callable[[ConversionSource, Progress], Artifact]
    calibrated: bool = False
    usual: bool = True
    warning: str = ""


KINDS: dict[str, Kind] = {
    "float32": Kind(float32),
    "float16": Kind(float16),
    "dynamic": Kind(dynamic),
    "int8": Kind(int8, calibrated=True),
    "int16x8": Kind(int16x8, calibrated=True, usual=False, warning=INT16X8_WARNING),
    "mixed": Kind(mixed, calibrated=True, usual=False),
}
