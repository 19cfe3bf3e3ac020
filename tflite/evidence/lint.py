"""What in a graph costs time or accuracy, and what of that a user can change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tflite.model.graph import Graph, Operation

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
ARITHMETIC = ("MUL", "ADD", "SUB", "DIV")


@dataclass(frozen=True)
class Finding:
    """One cause, in all layers where it was found.

    Attributes:
        rule: Name of the rule.
        message: What costs time or accuracy.
        mend: What to change; ``None`` for a note on what is so by the network's design.
        layers: The Keras layers, in file order; an operation that came from none is named itself.
    """

    rule: str
    message: str
    mend: str | None
    layers: tuple[str, ...]


class Cause(NamedTuple):
    """What findings are grouped by."""

    rule: str
    message: str
    mend: str | None


# A rule yields each cause with the layer where it was found.
Found = Iterator[tuple[Cause, str]]


def lint(graph: Graph) -> list[Finding]:
    """All findings, grouped by cause, rule by rule."""
    layers: dict[Cause, dict[str, None]] = {}
    for rule in RULES:
        for cause, layer in rule(graph):
            layers.setdefault(cause, {})[layer] = None
    return [Finding(*cause, tuple(names)) for cause, names in layers.items()]


UNFOLDED_NORM = Cause(
    "batch-norm",
    "batch normalization is computed on its own, not folded into a convolution",
    "normalize directly after the convolution, before its activation",
)
NORM_FIRST = Cause(
    "batch-norm",
    "batch normalization is computed on its own: no convolution stands directly before it, "
    "as in networks that normalize first (v2)",
    None,
)


def _arithmetic(graph: Graph) -> Found:
    """Batch normalization that is not folded, and other arithmetic with constants."""
    normalization = _input_normalization(graph)
    for op in graph.operations:
        if op.name not in ARITHMETIC or id(op) in normalization:
            continue
        if len(graph.data_inputs(op)) != 1:
            continue  # a shortcut: two activations
        if _is_batch_norm(graph, op):
            folds = _before_arithmetic(graph, op) in (*CONVOLUTIONS, "FULLY_CONNECTED")
            yield UNFOLDED_NORM if folds else NORM_FIRST, _place(op)
        else:
            yield (
                Cause(
                    "stray-arithmetic",
                    f"{op.name} with a constant costs a pass over memory",
                    "scale or shift the weights of the layer before instead",
                ),
                _place(op),
            )


REDUNDANT_PAD = Cause(
    "pad",
    "padding is copied before the convolution, not fused into it",
    'padding="same" in the layer: at stride 1 it computes the same, if both sides are padded alike',
)
STRIDED_PAD = Cause(
    "pad",
    "padding is copied before a strided convolution, not fused into it: its weights were trained "
    'with the same padding on both sides, as in PyTorch, which padding="same" is not',
    None,
)


def _pad(graph: Graph) -> Found:
    for op in graph.operations:
        if op.name not in ("PAD", "PADV2") or not op.outputs:
            continue
        convolutions = [t for t in graph.consumers(op.outputs[0]) if t.name in CONVOLUTIONS]
        if convolutions:
            keeps_size = all(
                _area(graph, op.inputs) == _area(graph, c.outputs) for c in convolutions
            )
            yield REDUNDANT_PAD if keeps_size else STRIDED_PAD, _place(op)


def _islands(graph: Graph) -> Found:
    """Conversions between integers and floats inside the graph."""
    for op in graph.operations:
        data = graph.data_inputs(op)
        if op.name == "DEQUANTIZE" and data and op.outputs and not _at_end(graph, op):
            after = ", ".join(sorted({t.name for t in graph.consumers(op.outputs[0])}))
            mend = "quantize the layers after it too, unless they are in float on purpose (mixed)"
            yield Cause("island", f"back to floats inside the graph, for {after}", mend), _place(op)
        if op.name == "QUANTIZE" and data and op.outputs and not _at_start(graph, data[0]):
            before = graph.tensors[data[0]].dtype
            after = graph.tensors[op.outputs[0]].dtype
            mend = (
                "quantize the layers before it too, unless they are in float on purpose (mixed)"
                if before == "float32"
                else "quantize both sides alike"
            )
            yield Cause("island", f"from {before} to {after} inside the graph", mend), _place(op)


def _custom(graph: Graph) -> Found:
    for op in graph.operations:
        if op.custom:
            flex = op.name.startswith("Flex")
            message = (
                f"{op.name} needs TensorFlow's own kernels, tens of megabytes more in the app"
                if flex
                else f"{op.name} is not an operation of TFLite: the app must bring its kernel"
            )
            mend = "build the layer from operations that TFLite has"
            yield Cause("flex" if flex else "custom", message, mend), _place(op)


def _dynamic(graph: Graph) -> Found:
    cause = Cause(
        "dynamic-shape",
        "an input or output has no fixed size: accelerators refuse such models",
        "build the model with a fixed input_shape and convert at a fixed batch",
    )
    for i in (*graph.inputs, *graph.outputs):
        if graph.tensors[i].dynamic:
            yield cause, graph.tensors[i].name


RULES: tuple[Callable[[Graph], Found], ...] = (_arithmetic, _pad, _islands, _custom, _dynamic)


def _place(op: Operation) -> str:
    return op.layer or op.name


def _area(graph: Graph, tensors: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of the first of the tensors."""
    return graph.tensors[tensors[0]].shape[1:3] if tensors else ()


def _before_arithmetic(graph: Graph, op: Operation) -> str:
    """Name of the operation whose output a run of arithmetic with constants begins with."""
    for _ in graph.operations:  # a damaged graph may run in a circle
        data = graph.data_inputs(op)
        if op.name not in ARITHMETIC or len(data) != 1:
            break
        before = graph.producer(data[0])
        if before is None:
            return ""
        op = before
    return op.name


def _input_normalization(graph: Graph) -> set[int]:
    """The arithmetic before the first convolution: the input's normalization."""
    found: set[int] = set()
    reached = set(graph.inputs)
    for op in graph.operations:
        if op.name in (*ARITHMETIC, "QUANTIZE", "DEQUANTIZE", "CAST") and reached & set(op.inputs):
            found.add(id(op))
            reached |= set(op.outputs)
    return found


def _is_batch_norm(graph: Graph, op: Operation) -> bool:
    name = " ".join(graph.tensors[i].name.lower() for i in (*op.inputs, *op.outputs))
    return any(word in name for word in ("batchnorm", "batch_norm", "_norm", "/bn"))


def _at_end(graph: Graph, op: Operation) -> bool:
    """Whether all that follows stays in floats: a classifier's float head is no island."""
    pending, seen = list(op.outputs), set()
    while pending:
        tensor = pending.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        for consumer in graph.consumers(tensor):
            if consumer.name == "QUANTIZE":
                return False
            pending += consumer.outputs
    return True


def _at_start(graph: Graph, tensor: int) -> bool:
    """Whether only arithmetic and conversions lie between the inputs and this tensor."""
    pending, seen = [tensor], set(graph.inputs)
    while pending:
        tensor = pending.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        producer = graph.producer(tensor)
        if producer is None or producer.name not in (*ARITHMETIC, "CAST", "QUANTIZE"):
            return False
        pending += graph.data_inputs(producer)
    return True
