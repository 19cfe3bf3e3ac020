"""The error of a quantized file after each layer, against the float32 file."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet.native_stderr import suppressed_native_stderr
from keras_resnet.text import shorten
from tflite.model.flatbuffer import read_graph
from tflite.model.interpreter import check_is_tflite, check_runs

COMPARED = (
    *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN"),
    *("SOFTMAX", "LOGISTIC"),
)
NAME = 40  # letters of a layer in the picture
COLORS = dict(
    zip(
        COMPARED,
        ("#2563eb", "#0e7490", "#7c3aed", "#c2560c", "#64748b", "#be123c", "#9d174d"),
    )
)


@dataclass(frozen=True)
class LayerError:
    """The output of one layer in the quantized file, against float32, over all images.

    Attributes:
        layer: The Keras layer.
        operation: Its TFLite operation.
        signal_to_noise_db: Power of the float32 output over that of the error, in decibels;
            ``None`` if there is no error.
        cosine: Cosine of the angle between both outputs, -1 to 1; 0 if one is all zeros.
        mean_squared_error: In squared units of the float32 output.
    """

    layer: str
    operation: str
    signal_to_noise_db: float | None
    cosine: float
    mean_squared_error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def layer_errors(
    float32: str | os.PathLike[str],
    quantized: str | os.PathLike[str],
    images: Iterable[np.ndarray],
) -> list[LayerError]:
    """The error after each layer that both files have, in the order of the graph.

    Args:
        float32: The unquantized file.
        quantized: Another file of the same model.
        images: uint8 ``(height, width, channels)``, fitted to the model.

    Raises:
        ValueError: A file cannot be read, there are no images, the two have no layer in common,
            or an output is not finite.
    """
    reference, compared = _Watched.open(float32), _Watched.open(quantized)
    common = [key for key in reference.outputs if key in compared.outputs]
    if not common:
        raise ValueError(f"{float32} and {quantized} have no layer in common")
    sums = {key: np.zeros(4) for key in common}
    for image in images:
        expected, outputs = reference.run(image, common), compared.run(image, common)
        for key in common:
            a, b = expected[key].ravel(), outputs[key].ravel()
            sums[key] += (a @ a, b @ b, a @ b, len(a))
            if not np.isfinite(sums[key]).all():
                path = quantized if np.isfinite(a).all() else float32
                raise ValueError(f"{path} computes values that are not finite in layer {key[0]}")
    if not next(iter(sums.values()))[3]:
        raise ValueError("There are no images to compare on. Pass some, fitted to the model.")
    return [_error(layer, operation, *sums[layer, operation]) for layer, operation in common]


def _error(
    layer: str, operation: str, signal: float, other: float, dot: float, count: float
) -> LayerError:
    noise = max(0.0, signal + other - 2 * dot)
    both = math.sqrt(signal * other)
    return LayerError(
        layer,
        operation,
        10 * math.log10(signal / noise) if noise and signal else None,
        float(min(1.0, dot / both)) if both else 0.0,
        float(noise / count),
    )


def plot(rows: Sequence[LayerError], title: str, format: str) -> bytes:
    """Draws the errors: a row for each layer, a column for each measure.

    Args:
        rows: From ``layer_errors``.
        title: The picture's title.
        format: ``"svg"`` or ``"png"``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.2 * len(rows)), layout="constrained")
    positions = range(len(rows))
    colors = [COLORS[row.operation] for row in rows]
    panels: tuple[tuple[str, list[float]], ...] = (
        ("signal to noise, dB (more is better)", [_finite(r.signal_to_noise_db) for r in rows]),
        ("1 − cosine", [1 - r.cosine for r in rows]),
        ("mean squared error", [r.mean_squared_error for r in rows]),
    )
    all_axes = figure.subplots(1, 3, sharey=True)
    for axes, (name, values) in zip(all_axes, panels):
        axes.plot(values, positions, "-", color="0.75", linewidth=1, zorder=1)
        axes.scatter(values, positions, s=16, color=colors, zorder=2)
        axes.set_xlabel(name)
        axes.grid(axis="x", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in all_axes[1:]:
        if any(value > 0 for value in axes.collections[0].get_offsets()[:, 0]):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter("")  # its numbers would overlap
    names = [shorten(row.layer, NAME) for row in rows]
    all_axes[0].set_yticks(positions, names, fontsize=8, parse_math=False)
    all_axes[0].set_ylim(len(rows) - 0.5, -0.5)
    shown = [name for name in COLORS if name in {row.operation for row in rows}]
    marks = [
        matplotlib.lines.Line2D([], [], color=COLORS[name], marker="o", linestyle="", markersize=5)
        for name in shown
    ]
    figure.legend(marks, shown, loc="outside lower center", ncols=len(shown), frameon=False)
    figure.suptitle(shorten(title, 2 * NAME), parse_math=False)
    file = io.BytesIO()
    # The same rows give the same bytes.
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a letter that the font lacks
        figure.savefig(file, format=format, dpi=150, metadata=metadata)
    return file.getvalue()


def _finite(decibels: float | None) -> float:
    return math.nan if decibels is None else decibels


@dataclass(frozen=True)
class _Watched:
    """A file whose every tensor can be read after a run.

    Attributes:
        interpreter: Runs it.
        outputs: Number of the output tensor for each pair of layer and operation.
    """

    interpreter: Interpreter
    outputs: dict[tuple[str, str], int]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> _Watched:
        path = Path(path)
        check_is_tflite(path)
        check_runs(path)
        graph = read_graph(path)
        with suppressed_native_stderr():
            interpreter = Interpreter(
                str(path),
                # XNNPACK does not expose the tensors between its operations.
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            interpreter.allocate_tensors()
        outputs = {
            (op.layer, op.name): op.outputs[0]
            for op in graph.operations
            if op.name in COMPARED and op.layer
        }
        return cls(interpreter, outputs)

    def run(
        self, image: np.ndarray, keys: list[tuple[str, str]]
    ) -> dict[tuple[str, str], np.ndarray]:
        details = self.interpreter.get_input_details()[0]
        shape = tuple(map(int, details["shape"][1:]))
        if image.shape != shape:
            raise ValueError(f"Expected images {shape}. Received: {image.shape}")
        # int8 pixels are uint8 pixels minus 128, by their quantization.
        pixels = image.astype("int16") - 128 if details["dtype"] == np.int8 else image
        self.interpreter.set_tensor(details["index"], pixels[np.newaxis].astype(details["dtype"]))
        self.interpreter.invoke()
        return {key: self._real(self.outputs[key]) for key in keys}

    def _real(self, tensor: int) -> np.ndarray:
        values = self.interpreter.get_tensor(tensor).astype("float64")
        scale, zero = self.interpreter._get_tensor_details(tensor, 0)["quantization"]
        return (values - zero) * scale if scale else values
