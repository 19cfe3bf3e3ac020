"""What in a graph costs time or accuracy and need not be there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tflite.model.graph import Graph, Operation

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
ARITHMETIC = ("MUL", "ADD", "SUB", "DIV")


@dataclass(frozen=True)
class Finding:
    """One thing to mend.

    Attributes:
        rule: Name of the rule.
        operation: The operation at fault, or ``""``.
        layer: The Keras layer it came from, or ``""``.
        message: What is wrong.
        mend: What to do about it.
    """

    rule: str
    operation: str
    layer: str
    message: str
    mend: str


def lint(graph: Graph) -> list[Finding]:
    """All findings, rule by rule."""
    return [finding for rule in RULES for finding in rule(graph)]


def _arithmetic(graph: Graph) -> Iterator[Finding]:
    """Batch normalization that is not folded, and other arithmetic with constants."""
    normalization = _input_normalization(graph)
    for op in graph.operations:
        if op.name not in ARITHMETIC or id(op) in normalization:
            continue
        if len(graph.data_inputs(op)) != 1:
            continue  # a shortcut: two activations
        if _is_batch_norm(graph, op):
            yield Finding(
                "batch-norm",
                op.name,
                op.layer,
                "a batch normalization is computed on its own: it is not folded into a convolution",
                "let it follow a convolution without an activation between, or keep it: in a "
                "network that normalizes first (v2) nothing stands before it to fold it into",
            )
        else:
            yield Finding(
                "stray-arithmetic",
                op.name,
                op.layer,
                f"{op.name} with a constant costs a pass over memory",
                "scale or shift in the weights of the layer before",
            )


def _pad(graph: Graph) -> Iterator[Finding]:
    for op in graph.operations:
        if op.name not in ("PAD", "PADV2") or not op.outputs:
            continue
        if not any(taker.name in CONVOLUTIONS for taker in graph.takers(op.outputs[0])):
            continue
        yield Finding(
            "pad",
            op.name,
            op.layer,
            "the padding is copied before the convolution, not fused into it",
            'padding="same" in the layer, if its weights were trained so: at stride 2 TensorFlow '
            "pads one side more, PyTorch both alike",
        )


def _islands(graph: Graph) -> Iterator[Finding]:
    """Conversions between integers and floats inside the graph."""
    for op in graph.operations:
        data = graph.data_inputs(op)
        if op.name == "DEQUANTIZE" and data and op.outputs and not _at_end(graph, op):
            after = ", ".join(sorted({t.name for t in graph.takers(op.outputs[0])}))
            yield Finding(
                "island",
                op.name,
                op.layer,
                f"back to floats inside the graph, for {after}",
                "quantize the layers after it too, or accept it where they are kept in float "
                "on purpose (the mixed kind)",
            )
        if op.name == "QUANTIZE" and data and not _at_start(graph, data[0]):
            kind = graph.tensors[data[0]].dtype
            yield Finding(
                "island",
                op.name,
                op.layer,
                f"from {kind} to {graph.tensors[op.outputs[0]].dtype} inside the graph",
                "quantize both sides alike"
                if kind != "float32"
                else "quantize the layers before it too, or accept it where they are kept in "
                "float on purpose (the mixed kind)",
            )


def _custom(graph: Graph) -> Iterator[Finding]:
    for op in graph.operations:
        if op.custom:
            flex = op.name.startswith("Flex")
            yield Finding(
                "flex" if flex else "custom",
                op.name,
                op.layer,
                "needs TensorFlow's own kernels, tens of megabytes more in the app"
                if flex
                else "is none of TFLite's operations: the app must bring its kernel",
                "build the layer from operations that TFLite has",
            )


def _dynamic(graph: Graph) -> Iterator[Finding]:
    for i in (*graph.inputs, *graph.outputs):
        if graph.tensors[i].dynamic:
            yield Finding(
                "dynamic-shape",
                "",
                graph.tensors[i].name,
                f"{graph.tensors[i].name} has no fixed size: accelerators refuse such models",
                "build the model with a fixed input_shape and convert at a fixed batch",
            )


RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    _arithmetic,
    _pad,
    _islands,
    _custom,
    _dynamic,
)


def _input_normalization(graph: Graph) -> set[int]:
    """The arithmetic before the first convolution, which is there on purpose."""
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
        for taker in graph.takers(tensor):
            if taker.name == "QUANTIZE":
                return False
            pending += taker.outputs
    return True


def _at_start(graph: Graph, tensor: int) -> bool:
    if tensor in graph.inputs:
        return True
    maker = graph.maker(tensor)
    if maker is None or maker.name not in (*ARITHMETIC, "CAST", "QUANTIZE"):
        return False
    return all(_at_start(graph, i) for i in graph.data_inputs(maker))
