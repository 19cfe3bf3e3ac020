"""The kinds of .tflite file: one small function each, and one table of them.

Every kind takes float32 raw pixels 0–255 and answers float32 probabilities; they differ in
what is stored and computed between. Which quantizer makes which kind was measured:
``docs/quantization.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Graph:
    """What every kind is made from.

    Attributes:
        saved_model: Folder of a SavedModel with one endpoint, ``serve``, at batch 1.
        calibration: Representative images, uint8 ``(height, width, channels)`` 0–255; may be
            empty for the kinds that are not calibrated.
    """

    saved_model: Path
    calibration: Sequence[np.ndarray] = ()

    @cached_property
    def float32(self) -> bytes:
        """The unquantized file, which some kinds start from."""
        return self.converter().convert()

    def converter(self) -> Any:
        """A fresh ``tf.lite.TFLiteConverter``."""
        import tensorflow as tf

        path = str(self.saved_model)
        return tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=["serve"])


def float32(graph: Graph, progress: Progress) -> bytes:
    """Nothing quantized."""
    return graph.float32


def float16(graph: Graph, progress: Progress) -> bytes:
    """Weights stored in float16: half the size, computed in float32 on a CPU."""
    import tensorflow as tf

    converter = graph.converter()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def dynamic(graph: Graph, progress: Progress) -> bytes:
    """Weights in int8 per channel; activations quantized as they are computed."""
    from ai_edge_quantizer import quantizer, recipe

    quantized = quantizer.Quantizer(graph.float32, recipe.dynamic_wi8_afp32()).quantize()
    return bytes(quantized.quantized_model)


def int8(graph: Graph, progress: Progress) -> bytes:
    """Weights in int8 per channel, activations in int8 by the ranges of the calibration."""
    from tflite.quantization.int8 import quantize_int8

    return quantize_int8(graph.float32, graph.calibration, progress=progress)


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Attributes:
        make: From the graph to the bytes of a .tflite file; calls the second argument with
            ``(steps done, steps in all)`` where it takes long.
        calibrated: Whether it needs representative images.
    """

    make: Callable[[Graph, Progress], bytes]
    calibrated: bool = False


TABLE: dict[str, Kind] = {
    "float32": Kind(float32),
    "float16": Kind(float16),
    "dynamic": Kind(dynamic),
    "int8": Kind(int8, calibrated=True),
}
