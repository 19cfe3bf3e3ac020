"""Where a .tflite file will load, and where not, because of what.

LiteRT, CompiledModel and MediaPipe are asked themselves, where they are installed. For the
others, which cannot run here, stands the rule that their makers publish, with its source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tflite.apart import run_apart
from tflite.graph import Graph


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# NewOperationParser in tensorflow/lite/delegates/gpu/common/model_builder.cc; that file also
# tells that activations are float32, float16, int8 or uint8.
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
EDGE_TPU_SOURCE = "coral.ai/docs/edgetpu/models-intro, supported operations"
EDGE_TPU = _names(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
    L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU
    QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE
    SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
    """
)
# The Add… functions of tflite-micro's resolver.
MICRO_SOURCE = "tensorflow/lite/micro/micro_mutable_op_resolver.h"
MICRO = _names(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND CAST CEIL CONCATENATION
    CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE ELU EQUAL EXP EXPAND_DIMS
    FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL
    HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG NOT_EQUAL PACK
    PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RELU6 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SHAPE SIN SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH
    SPLIT SPLIT_V SQUEEZE SQRT SQUARE STRIDED_SLICE SUB SVDF TANH TRANSPOSE_CONV TRANSPOSE
    UNPACK ZEROS_LIKE
    """
)
MEDIAPIPE_SOURCE = "mediapipe/tasks/cc/components/processors/image_preprocessing_graph.cc"
ML_KIT_SOURCE = "developers.google.com/ml-kit/custom-models, model compatibility"
WEB_SOURCE = "ai.google.dev/edge/litert/web/get_started"
METADATA = "TFLITE_METADATA"


@dataclass(frozen=True)
class Line:
    """What one runtime makes of the file.

    Attributes:
        runtime: Its name.
        loads: Whether it takes the file; ``None`` where that cannot be told.
        because: One sentence.
        measured: Whether the runtime itself was asked, here.
        source: Where the rule is published, where it was not.
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
    name = "LiteRT on CPU with XNNPACK"
    try:
        result = run_apart(path, "litert")
    except ValueError as error:
        return Line(name, False, str(error), True)
    because = f"XNNPACK takes {result['delegated']} of {result['nodes']} nodes"
    if result["left"]:
        because += f"; plain kernels run {', '.join(result['left'])}"
    return Line(name, True, because, True)


def _gpu(path: Path, graph: Graph) -> Line:
    activations = {t.dtype for t in graph.tensors if not t.constant and t.bytes}
    if wrong := sorted(activations & {"int16", "int32", "int64", "bool"}):
        because = f"it has no kernels for {', '.join(wrong)} activations: those run on the CPU"
        return Line("GPU delegate", False, because, False, GPU_SOURCE)
    return _by_operations("GPU delegate", graph, GPU, GPU_SOURCE, "they run on the CPU")


def _compiled_model(path: Path, graph: Graph) -> Line:
    try:
        result = run_apart(path, "compiled_model")
    except (ValueError, ModuleNotFoundError) as error:
        return Line("CompiledModel", False, str(error), True)
    full = result["accelerated"]
    because = "runs on the CPU" + (", all accelerated" if full else ", some nodes in plain kernels")
    return Line("CompiledModel", True, because, True)


def _mediapipe(path: Path, graph: Graph) -> Line:
    name = "MediaPipe ImageClassifier"
    try:
        result = run_apart(path, "mediapipe")
    except ModuleNotFoundError:
        problem = _image_problem(graph)
        because = problem or "one RGB image in, metadata with its range inside"
        return Line(name, problem is None, because, False, MEDIAPIPE_SOURCE)
    except ValueError as error:
        return Line(name, False, str(error), True)
    return Line(name, True, "answers " + ("labels" if result["labels"] else "numbers only"), True)


def _ml_kit(path: Path, graph: Graph) -> Line:
    problem = _image_problem(graph)
    because = problem or "one RGB image of batch 1 in, one row of classes out, metadata inside"
    return Line("ML Kit image labeling", problem is None, because, False, ML_KIT_SOURCE)


def _edge_tpu(path: Path, graph: Graph) -> Line:
    name = "Edge TPU"
    if any(graph.tensors[i].dynamic for i in graph.inputs):
        return Line(name, False, "sizes must be constant", False, EDGE_TPU_SOURCE)
    # The compiler leaves the conversions at both ends to the CPU.
    inner = [op for op in graph.operations if op.name not in ("QUANTIZE", "DEQUANTIZE")]
    floats = [
        op
        for op in inner
        if op.outputs and graph.tensors[op.outputs[0]].dtype not in ("int8", "uint8")
    ]
    if floats:
        kinds = sorted({graph.tensors[op.outputs[0]].dtype for op in floats})
        because = (
            f"{len(floats)} of {len(inner)} operations compute in {', '.join(kinds)}; "
            "it takes 8-bit integers alone"
        )
        return Line(name, False, because, False, EDGE_TPU_SOURCE)
    unknown = sorted({op.name for op in inner} - EDGE_TPU)
    if unknown:
        because = f"the compiler does not map {', '.join(unknown)}"
        return Line(name, False, because, False, EDGE_TPU_SOURCE)
    because = "compiles; the conversions from and to floats at the ends run on the CPU"
    return Line(name, True, because, False, EDGE_TPU_SOURCE)


def _micro(path: Path, graph: Graph) -> Line:
    name = "TFLite Micro"
    for op in graph.operations:
        kinds = [graph.tensors[i].dtype for i in op.inputs]
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            if kinds[:2] == ["float32", "int8"]:
                because = f"{op.name} of float activations and int8 weights (hybrid) has no kernel"
                return Line(name, False, because, False, "tensorflow/lite/micro/kernels")
        elif op.name == "DEQUANTIZE" and kinds == ["float16"]:
            because = "float16 weights have no kernel"
            return Line(name, False, because, False, "tensorflow/lite/micro/kernels")
    line = _by_operations(name, graph, MICRO, MICRO_SOURCE, "the resolver cannot add them")
    if not line.loads:
        return line
    because = f"all {len({op.name for op in graph.operations})} operations can be registered"
    return Line(name, True, because, False, MICRO_SOURCE)


def _web(path: Path, graph: Graph) -> Line:
    if any(graph.tensors[i].dynamic for i in (*graph.inputs, *graph.outputs)):
        return Line("LiteRT.js", False, "sizes must not be dynamic", False, WEB_SOURCE)
    if any(op.custom for op in graph.operations):
        return Line("LiteRT.js", False, "it has no custom operations", False, WEB_SOURCE)
    because = "the same kernels as on the CPU, compiled to WebAssembly"
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


def _by_operations(
    name: str, graph: Graph, known: frozenset[str], source: str, otherwise: str
) -> Line:
    names = [op.name for op in graph.operations]
    unknown = sorted({op for op in names if op not in known})
    if unknown:
        because = f"it does not know {', '.join(unknown)}: {otherwise}"
        return Line(name, False, because, False, source)
    return Line(name, True, f"knows all {len(names)} operations", False, source)


def _image_problem(graph: Graph) -> str | None:
    """Why an image API does not take the model, if it does not."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return "it takes models of one input and one output"
    (taken,) = (graph.tensors[i] for i in graph.inputs)
    (answered,) = (graph.tensors[i] for i in graph.outputs)
    if len(taken.shape) != 4 or taken.shape[0] != 1 or taken.shape[3] != 3:
        return f"it takes one RGB image; this model takes {taken.shape}"
    if taken.dtype not in ("float32", "uint8"):
        return f"it gives float32 or uint8 pixels; this model takes {taken.dtype}"
    if len(answered.shape) not in (2, 4):
        return f"it reads one row of classes; this model answers {answered.shape}"
    if taken.dtype == "float32" and METADATA not in graph.metadata:
        return "the range of float pixels is not told: there is no metadata in the file"
    return None
