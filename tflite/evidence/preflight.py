"""Which runtimes load a .tflite file, and why others do not.

LiteRT, CompiledModel, MediaPipe and TFLite Micro load the file here, where they are installed
(``pip install mediapipe tflite-micro``). For runtimes that do not run here, the published rules
of their makers decide, with the source. Reasons are short: a table of 80 columns holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tflite.model.graph import Graph, Operation
from tflite.model.sandbox import run_sandboxed


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# NewOperationParser in tensorflow/lite/delegates/gpu/common/model_builder.cc; that file also
# says that activations are float32, float16, int8 or uint8.
GPU_SOURCE = "tensorflow/lite/delegates/gpu/common/model_builder.cc"
GPU = _names(
    """
    ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D COS DEPTHWISE_CONV_2D
    DEQUANTIZE DIV ELU EXP FULLY_CONNECTED HARD_SWISH LEAKY_RELU LOG LOGISTIC LSTM MAXIMUM
    MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD POW PRELU QUANTIZE REDUCE_MAX
    REDUCE_MIN REDUCE_PROD RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT
    SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB
    SUM TANH TRANSPOSE TRANSPOSE_CONV
    """
)
# The table "Supported operations"; above it: models must be "fully 8-bit quantized",
# that sizes must be constant, and that of more than three dimensions all but the innermost three
# must be 1. What follows the first operation that is not in the table runs on the CPU.
EDGE_TPU_SOURCE = "coral.ai/docs/edgetpu/models-intro"
EDGE_TPU = _names(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
    L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU
    QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE
    SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
    """
)
# The Add… functions of tflite-micro's resolver, without its custom operations for signals.
MICRO_SOURCE = "tflite-micro: tensorflow/lite/micro/micro_mutable_op_resolver.h"
# "Hybrid models are not supported on TFLite Micro."
HYBRID_SOURCE = "tflite-micro: tensorflow/lite/micro/kernels/conv_common.cc"
# The input must be int8, int16 or uint8.
DEQUANTIZE_SOURCE = "tflite-micro: tensorflow/lite/micro/kernels/dequantize_common.cc"
MICRO = _names(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM
    DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS
    FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL
    HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL
    NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX REDUCE_MIN RELU RELU6
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN
    SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """
)
MEDIAPIPE_SOURCE = "mediapipe/tasks/cc/components/processors/image_preprocessing_graph.cc"
# The page has the requirements in words; the checks, with the messages that ML Kit gives
# (googlesamples/mlkit, issue 280), are those of TFLite's support library: a single input, 4
# dimensions, uint8 or float32, 1 × height × width × 3, and NormalizationOptions for float32.
ML_KIT_SOURCE = (
    "developers.google.com/ml-kit/custom-models; tflite-support: "
    "tensorflow_lite_support/cc/task/vision/utils/image_tensor_specs.cc"
)
# "Your model also must not have any dynamic input or output dimensions on its tensors."
WEB_SOURCE = "developers.google.com/edge/litert/web/get_started"
METADATA = "TFLITE_METADATA"


@dataclass(frozen=True)
class Line:
    """The verdict of one runtime.

    Attributes:
        runtime: Its name.
        loads: Whether it loads the file; ``None`` if unknown.
        because: The reason, in a few words.
        measured: Whether the runtime itself loaded the file here.
        source: Where the rule is published, if it did not.
    """

    runtime: str
    loads: bool | None
    because: str
    measured: bool
    source: str = ""


def preflight(path: Path, graph: Graph) -> list[Line]:
    """One line for each runtime."""
    return [line(path, graph) for line in LINES]


def _litert(path: Path, graph: Graph) -> Line:
    name = "LiteRT on CPU"
    try:
        result = run_sandboxed(path, "litert")
    except ValueError as error:
        return Line(name, False, str(error), True)
    because = f"XNNPACK runs {result['delegated']} of {result['nodes']} nodes"
    if result["left"]:
        because += f", all but {', '.join(result['left'])}"
    return Line(name, True, because, True)


def _gpu(path: Path, graph: Graph) -> Line:
    activations = {t.dtype for t in graph.tensors if not t.constant and t.bytes}
    if wrong := sorted(activations & {"int16", "int32", "int64", "bool"}):
        because = f"no kernels for {', '.join(wrong)} activations"
        return Line("GPU delegate", False, because, False, GPU_SOURCE)
    return _by_operations("GPU delegate", graph, GPU, GPU_SOURCE)


def _compiled_model(path: Path, graph: Graph) -> Line:
    try:
        result = run_sandboxed(path, "compiled_model")
    except ImportError as error:  # no published rule decides in its place
        return Line("CompiledModel", None, f"not tried: {error}", False)
    except ValueError as error:
        return Line("CompiledModel", False, str(error), True)
    full = result["accelerated"]
    because = "on the CPU, " + ("all" if full else "not all") + " nodes accelerated"
    return Line("CompiledModel", True, because, True)


def _mediapipe(path: Path, graph: Graph) -> Line:
    name = "MediaPipe"
    try:
        result = run_sandboxed(path, "mediapipe")
    except ImportError:  # not installed, or without a library of the system
        problem = _image_problem(graph)
        because = problem or "one RGB image, metadata with its range"
        return Line(name, problem is None, because, False, MEDIAPIPE_SOURCE)
    except ValueError as error:
        return Line(name, False, str(error), True)
    because = "gives class " + ("names" if result["labels"] else "numbers, without names")
    return Line(name, True, because, True)


def _ml_kit(path: Path, graph: Graph) -> Line:
    problem = _image_problem(graph)
    because = problem or "one RGB image in, one row of classes out"
    return Line("ML Kit image labeling", problem is None, because, False, ML_KIT_SOURCE)


def _edge_tpu(path: Path, graph: Graph) -> Line:
    name = "Edge TPU"
    outer = (size for i in graph.inputs for size in graph.tensors[i].shape[:-3])
    if any(t.dynamic for t in graph.tensors) or any(size != 1 for size in outer):
        because = "needs fixed sizes and batch 1"
        return Line(name, False, because, False, EDGE_TPU_SOURCE)
    # The compiler leaves the conversions of input and output to the CPU.
    inner = [op for op in graph.operations if op.name not in ("QUANTIZE", "DEQUANTIZE")]
    reasons = [_not_on_edge_tpu(graph, op) for op in inner]
    mapped = next((i for i, reason in enumerate(reasons) if reason), len(inner))
    if mapped == len(inner):
        because = "compiles, with float conversions on the CPU"
        return Line(name, True, because, False, EDGE_TPU_SOURCE)
    because = f"maps {mapped} of {len(inner)}: {inner[mapped].name} {reasons[mapped]}"
    return Line(name, mapped > 0, because, False, EDGE_TPU_SOURCE)


def _not_on_edge_tpu(graph: Graph, op: Operation) -> str | None:
    """Why the Edge TPU does not compute an operation, or ``None``."""
    kinds = {graph.tensors[i].dtype for i in op.outputs}
    if wrong := sorted(kinds - {"int8", "uint8"}):
        return f"is {', '.join(wrong)}"
    if op.name not in EDGE_TPU:
        return "is not supported"
    if op.name == "CONCATENATION" and any(graph.tensors[i].constant for i in op.inputs):
        return "joins constants"
    return None


def _micro(path: Path, graph: Graph) -> Line:
    rule = _micro_rule(graph)
    try:
        run_sandboxed(path, "micro")
    except ImportError:
        return rule
    except ValueError as error:
        # The rule knows the reason; the runtime says only that it failed.
        return Line(rule.runtime, False, str(error) if rule.loads else rule.because, True)
    return Line(rule.runtime, True, "runs; " + rule.because, True)


def _micro_rule(graph: Graph) -> Line:
    name = "TFLite Micro"
    for op in graph.operations:
        kinds = [graph.tensors[i].dtype for i in op.inputs]
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            if kinds[:2] == ["float32", "int8"]:
                because = f"no hybrid {op.name} (int8 weights only)"
                return Line(name, False, because, False, HYBRID_SOURCE)
        elif op.name == "DEQUANTIZE" and kinds == ["float16"]:
            because = "no kernel for float16 weights"
            return Line(name, False, because, False, DEQUANTIZE_SOURCE)
    return _by_operations(name, graph, MICRO, MICRO_SOURCE)


def _web(path: Path, graph: Graph) -> Line:
    if any(graph.tensors[i].dynamic for i in (*graph.inputs, *graph.outputs)):
        return Line("LiteRT.js", False, "needs fixed sizes", False, WEB_SOURCE)
    if any(op.custom for op in graph.operations):
        return Line("LiteRT.js", False, "has no custom operations", False, WEB_SOURCE)
    because = "LiteRT's CPU kernels in WebAssembly"
    return Line("LiteRT.js", True, because, False, WEB_SOURCE)


LINES: tuple[Callable[[Path, Graph], Line], ...] = (
    _litert,
    _gpu,
    _compiled_model,
    _mediapipe,
    _ml_kit,
    _edge_tpu,
    _micro,
    _web,
)


def _by_operations(name: str, graph: Graph, known: frozenset[str], source: str) -> Line:
    names = {op.name for op in graph.operations}
    if unknown := sorted(names - known):
        return Line(name, False, f"does not support {', '.join(unknown)}", False, source)
    return Line(name, True, f"supports all {len(names)} kinds of operations", False, source)


def _image_problem(graph: Graph) -> str | None:
    """Why an image API does not load the model, or ``None``."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return "needs one input and one output"
    (image,) = (graph.tensors[i] for i in graph.inputs)
    (scores,) = (graph.tensors[i] for i in graph.outputs)
    if len(image.shape) != 4 or image.shape[0] != 1 or image.shape[3] != 3:
        return f"needs one RGB image, not {_size(image.shape)}"
    if image.dtype not in ("float32", "uint8"):
        return f"needs float32 or uint8 pixels, not {image.dtype}"
    if len(scores.shape) not in (2, 4):
        return f"needs one row of classes, not {_size(scores.shape)}"
    if image.dtype == "float32" and METADATA not in graph.metadata:
        return "no metadata with the range of pixels"
    return None


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"
