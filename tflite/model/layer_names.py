"""Names of Keras layers, recovered from the names that the converter gives to tensors."""

from __future__ import annotations

import re

# What the converter calls the operations that a layer becomes.
ENDINGS = {
    "CONV_2D": ("convolution", "Conv2D"),
    "DEPTHWISE_CONV_2D": ("depthwise",),
    "FULLY_CONNECTED": ("MatMul",),
    "ADD": ("Add", "add"),
    "MEAN": ("Mean",),
    "SOFTMAX": ("Softmax",),
    "LOGISTIC": ("Sigmoid",),
    "MUL": ("mul", "Mul"),
}


class LayerNames:
    """Keras layers in the names of tensors: ``net/conv1_1/convolution;net/norm1_1/…``.

    The export adds a number to every layer of a model that it calls anew (``conv1`` becomes
    ``conv1_1``). The number is removed only if all layers carry one: otherwise it belongs to the
    layer's own name.
    """

    def __init__(self, names: list[str]) -> None:
        """Takes the names of the output tensors of all operations that compute activations."""
        found = [part[1] for name in names for part in _parts(name)]
        self._numbered = bool(found) and all(re.search(r"_\d+$", layer) for layer in found)

    def of(self, name: str, operation: str) -> str:
        """The layer that an operation with an output tensor of this name came from, or ``""``."""
        parts = _parts(name)
        if not parts:
            return ""
        endings = ENDINGS.get(operation, ())
        matching = [layer for ending, layer in parts if endings and ending.startswith(endings)]
        layer = (matching or [parts[0][1]])[0]
        return re.sub(r"_\d+$", "", layer) if self._numbered else layer


def _parts(name: str) -> list[tuple[str, str]]:
    """Pairs of operation and layer, one for each part of a fused name."""
    paths = (part.split("/") for part in name.split(";"))
    # Of a path such as net/norm/batchnorm/mul the last two belong to the operation.
    kept = (
        [p for p in path if p not in ("batchnorm", "Reshape", "reduction_indices")]
        for path in paths
    )
    return [(path[-1], path[-2]) for path in kept if len(path) > 1]
