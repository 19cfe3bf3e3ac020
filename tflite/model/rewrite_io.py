"""Another input and other outputs for a finished .tflite file.

Every kind is made and calibrated with the ends that every runtime takes. Others are put on
afterwards, without touching the network between: what a file answers does not depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite.model.flatbuffer import (
    add_constant,
    add_tensor,
    drop_unused,
    is_constant,
    operation_code,
    operation_name,
    pack,
    unpack,
)
from tflite.model.io_spec import SHIFTS, UNIVERSAL, IOSpec


def rewrite_io(model: bytes, io_spec: IOSpec) -> bytes:
    """The same network between other ends.

    Args:
        model: A .tflite file from one float32 image of raw pixels to probabilities.
        io_spec: The ends that it shall have.

    Raises:
        ValueError: It does not end in a softmax, has fewer classes than are asked for, or holds
            an operation that takes one image only.
    """
    if io_spec == UNIVERSAL:
        return model
    file = unpack(model)
    if io_spec.logits:
        _leave_out_softmax(file)
    if io_spec.io != "float32":
        _take_integers(file, io_spec.io)
    if io_spec.top_k:
        _answer_likeliest(file, io_spec.top_k)
    drop_unused(file)
    if io_spec.batch > 1:
        _take_batch(file, io_spec.batch)
    return pack(file)


def _leave_out_softmax(file: Any) -> None:
    graph = file.subgraphs[0]
    makers = {int(op.outputs[0]): op for op in graph.operators}
    last = makers[int(graph.outputs[0])]
    if operation_name(file, last) == "DEQUANTIZE":
        last = makers.get(int(last.inputs[0]), last)
    if operation_name(file, last) != "SOFTMAX":
        raise ValueError("the model does not end in a softmax that could be left out")
    _replace(file, int(last.outputs[0]), int(last.inputs[0]))


def _take_integers(file: Any, io: str) -> None:
    graph = file.subgraphs[0]
    old = int(graph.inputs[0])
    takers = [op for op in graph.operators if old in op.inputs]
    new = add_tensor(file, "image", graph.tensors[old].shape, io)
    graph.tensors[new].quantization = _pixel_grid(io)
    first = takers[0]
    if (
        len(takers) == 1
        and operation_name(file, first) == "QUANTIZE"
        and _holds_pixels(file, first)
    ):
        if io == "int8":  # the network's own first tensor
            graph.operators = [op for op in graph.operators if op is not first]
            new = int(first.outputs[0])
        else:
            first.inputs = [new]
    else:
        convert = schema.OperatorT()
        convert.opcodeIndex = operation_code(file, "DEQUANTIZE", 2 if io == "int8" else 1)
        convert.inputs, convert.outputs = [new], [old]
        convert.builtinOptions = schema.DequantizeOptionsT()
        convert.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        graph.operators = [convert, *graph.operators]
    graph.inputs = [new]
    file.signatureDefs[0].inputs[0].tensorIndex = new


def _answer_likeliest(file: Any, count: int) -> None:
    graph = file.subgraphs[0]
    scores = int(graph.outputs[0])
    batch, classes = map(int, graph.tensors[scores].shape)
    if count > classes:
        raise ValueError(f"top_k must be at most the model's {classes} classes. Received: {count}")
    k = add_constant(file, "k", np.array(count, "int32"))
    outputs = [
        add_tensor(file, "probabilities", [batch, count], "float32"),
        add_tensor(file, "classes", [batch, count], "int32"),
    ]
    sort = schema.OperatorT()
    sort.opcodeIndex = operation_code(file, "TOPK_V2", 1)
    sort.inputs, sort.outputs = [scores, k], outputs
    sort.builtinOptions = schema.TopKV2OptionsT()
    sort.builtinOptionsType = schema.BuiltinOptions.TopKV2Options
    graph.operators.append(sort)
    graph.outputs = outputs
    answers = file.signatureDefs[0].outputs
    answers[0].tensorIndex = outputs[0]
    classes_map = schema.TensorMapT()
    classes_map.name, classes_map.tensorIndex = b"classes", outputs[1]
    answers.append(classes_map)


def _take_batch(file: Any, batch: int) -> None:
    """Every shape is asked of the runtime itself, once the input and the constants tell it."""
    graph = file.subgraphs[0]
    taken = graph.tensors[int(graph.inputs[0])]
    taken.shape = np.array([batch, *taken.shape[1:]], "int32")
    for op in graph.operators:
        if operation_name(file, op) == "RESHAPE":
            _reshape_batch(file, op, batch)
        if operation_name(file, op) == "CONCATENATION":
            for number in op.inputs:
                _repeat_constant(file, number, batch)
    interpreter = Interpreter(
        model_content=pack(file),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    shapes = {details["index"]: details["shape"] for details in interpreter.get_tensor_details()}
    for number, tensor in enumerate(graph.tensors):
        if number in shapes and not is_constant(file, number):
            tensor.shape = np.array(shapes[number], "int32")
            tensor.shapeSignature = None
    if any(graph.tensors[int(i)].shape[0] != batch for i in graph.outputs):
        raise ValueError("the model holds an operation that takes one image only; leave batch at 1")


def _reshape_batch(file: Any, op: Any, batch: int) -> None:
    constant = file.buffers[file.subgraphs[0].tensors[int(op.inputs[1])].buffer]
    shape = np.frombuffer(bytes(constant.data), "int32").copy()
    shape[0] = batch
    constant.data = np.frombuffer(shape.tobytes(), "uint8")
    if op.builtinOptions is not None and op.builtinOptions.newShape is not None:
        op.builtinOptions.newShape = shape


def _repeat_constant(file: Any, number: int, batch: int) -> None:
    tensor = file.subgraphs[0].tensors[int(number)]
    if is_constant(file, number) and len(tensor.shape) == 4 and tensor.shape[0] == 1:
        buffer = file.buffers[tensor.buffer]
        buffer.data = np.tile(np.frombuffer(bytes(buffer.data), "uint8"), batch)
        tensor.shape = np.array([batch, *tensor.shape[1:]], "int32")


def _holds_pixels(file: Any, quantize: Any) -> bool:
    """Whether a QUANTIZE answers raw pixels minus 128, so that integers pass it unchanged."""
    answered = file.subgraphs[0].tensors[int(quantize.outputs[0])]
    grid = answered.quantization
    return (
        answered.type == schema.TensorType.INT8
        and grid is not None
        and list(grid.scale) == [1.0]
        and list(grid.zeroPoint) == [SHIFTS["int8"]]
    )


def _pixel_grid(io: str) -> Any:
    grid = schema.QuantizationParametersT()
    grid.scale = np.array([1.0], "float32")
    grid.zeroPoint = np.array([SHIFTS[io]], "int64")
    return grid


def _replace(file: Any, old: int, new: int) -> None:
    """Whoever took or answered the old tensor takes or answers the new one."""
    graph = file.subgraphs[0]

    def replaced(numbers: Any) -> list[int]:
        return [new if number == old else int(number) for number in numbers]

    for op in graph.operators:
        op.inputs = replaced(op.inputs)
    graph.inputs, graph.outputs = replaced(graph.inputs), replaced(graph.outputs)
    for signature in file.signatureDefs:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = new if entry.tensorIndex == old else entry.tensorIndex
