"""What is in a .tflite file, what to change in it, and which runtimes load it."""

from __future__ import annotations

import dataclasses
import os
import re
import textwrap
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet.files import atomic_write
from tflite.evidence.lint import Finding, lint
from tflite.evidence.preflight import Line, preflight
from tflite.model.flatbuffer import read_graph
from tflite.model.graph import Graph
from tflite.model.interpreter import check_is_tflite, check_runs


@dataclass(frozen=True)
class Inspection:
    """All about one file.

    Attributes:
        path: The file.
        graph: Its content.
        findings: What costs time or accuracy, grouped by cause.
        lines: Which runtimes load it.
    """

    path: Path
    graph: Graph
    findings: tuple[Finding, ...]
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        graph = self.graph
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "weight_bytes": graph.weight_bytes,
            "arena_bytes": graph.arena_bytes,
            "multiply_adds": graph.multiply_adds,
            "inputs": [_describe(graph, i) for i in graph.inputs],
            "outputs": [_describe(graph, i) for i in graph.outputs],
            "operations": dict(Counter(op.name for op in graph.operations).most_common()),
            "weights": dict(Counter(_weights(graph)).most_common()),
            "layers": [
                {"layer": op.layer, "operation": op.name, "tensor": _describe(graph, i)}
                for op in graph.operations
                for i in op.outputs[:1]
            ],
            "metadata": list(graph.metadata),
            "lint": [dataclasses.asdict(finding) for finding in self.findings],
            "preflight": [dataclasses.asdict(line) for line in self.lines],
        }


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Inspects a file; takes seconds, since it loads the file in each installed runtime.

    Raises:
        ValueError: The file is missing, damaged or no TFLite model.
    """
    path = Path(path)
    check_is_tflite(path)
    check_runs(path)
    graph = read_graph(path)
    return Inspection(path, graph, tuple(lint(graph)), tuple(preflight(path, graph)))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_c_array(
    path: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Writes a model as a C array, for microcontrollers: ``<name>.c`` and ``<name>.h``.

    Without the archive of labels behind the model, which microcontrollers do not read.

    Raises:
        ValueError: The file is missing or no TFLite model.
    """
    path, folder = Path(path), Path(folder)
    check_is_tflite(path)
    data = model_bytes(path)
    name = re.sub(r"\W", "_", path.stem)
    name = f"_{name}" if name[0].isdigit() else name
    folder.mkdir(parents=True, exist_ok=True)
    header, source = folder / f"{name}.h", folder / f"{name}.c"
    guard = f"{name.upper()}_H_"
    _write(
        header,
        f"#ifndef {guard}\n#define {guard}\n\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
        f"extern const unsigned char {name}[];\nextern const unsigned int {name}_len;\n\n"
        "#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
    )
    numbers = textwrap.fill(", ".join(f"0x{byte:02x}" for byte in data), 96)
    _write(
        source,
        f'#include "{header.name}"\n\n'
        "/* TFLite Micro reads the weights in place: they must be aligned to 16 bytes. */\n"
        f"__attribute__((aligned(16))) const unsigned char {name}[] = {{\n{numbers}}};\n"
        f"const unsigned int {name}_len = {len(data)};\n",
    )
    return source, header


def model_bytes(path: Path) -> bytes:
    """The model alone, without an archive behind it."""
    data = path.read_bytes()
    if not zipfile.is_zipfile(path):
        return data
    with zipfile.ZipFile(path) as archive:
        return data[: min((entry.header_offset for entry in archive.infolist()), default=None)]


def _describe(graph: Graph, number: int) -> dict[str, Any]:
    tensor = graph.tensors[number]
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "quantization": tensor.quantization,
    }


def _weights(graph: Graph) -> list[str]:
    """Type and quantization of the weights of each layer with weights."""
    layers = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    tensors = (graph.tensors[op.inputs[1]] for op in graph.operations if op.name in layers)
    return [t.dtype if not t.scales else f"{t.dtype} {t.quantization}" for t in tensors]
