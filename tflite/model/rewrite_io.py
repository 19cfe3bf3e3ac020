"""Another input and other outputs for a finished graph.

Every kind is made and calibrated with the universal input and output (``io_spec.UNIVERSAL``).
Others replace them afterwards and leave the network between unchanged, so that its predictions
do not depend on them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet.contract import Task
from tflite.model.flatbuffer import pack
from tflite.model.graph import (
    Graph,
    Operation,
    Quantization,
    Tensor,
    add_tensors,
    drop_unused,
    redirect,
    replace_operations,
    replace_tensors,
)
from tflite.model.io_spec import CLASSES, IMAGE, PROBABILITIES, SHIFTS, UNIVERSAL, IOSpec


def rewrite_io(graph: Graph, io_spec: IOSpec, task: Task = "single") -> Graph:
    """The same network with another input and other outputs.

    Args:
        graph: From one float32 image of raw pixels to probabilities.
        io_spec: The input and the outputs that it shall have.
        task: The contract's.

    Raises:
        ValueError: The last operation is not the task's softmax or sigmoid, ``top_k`` exceeds the
            number of classes or the task is not ``single``, or an operation takes only one image.
    """
    check_task(io_spec, task)
    if io_spec == UNIVERSAL:
        return graph
    if io_spec.logits:
        graph = _without_activation(graph, task)
    if io_spec.io != "float32":
        graph = _with_integer_input(graph, io_spec.io)
    if io_spec.top_k:
        graph = _with_top_k(graph, io_spec.top_k)
    graph = drop_unused(graph)
    return _with_batch(graph, io_spec.batch) if io_spec.batch > 1 else graph


def check_task(io_spec: IOSpec, task: Task) -> None:
    """Raises ValueError if a model of this task cannot have these outputs."""
    if io_spec.top_k and task != "single":
        raise ValueError(
            f"The {io_spec.top_k} likeliest classes are no answer for task={task!r}, whose labels "
            "are given by thresholds. Leave out top_k (--top-k)"
        )


def _without_activation(graph: Graph, task: Task) -> Graph:
    last = graph.producer(graph.outputs[0])
    if last is not None and last.name == "DEQUANTIZE":
        last = graph.producer(last.inputs[0]) or last
    name, operation = ("softmax", "SOFTMAX") if task == "single" else ("sigmoid", "LOGISTIC")
    if last is None or last.name != operation:
        raise ValueError(f"the last operation of the model is no {name} that could be left out")
    return redirect(graph, {last.output: last.inputs[0]})


def _with_integer_input(graph: Graph, io: str) -> Graph:
    old = graph.inputs[0]
    pixels = Tensor(
        IMAGE, graph.tensors[old].shape, io, quantized=Quantization((1.0,), (SHIFTS[io],))
    )
    graph, (new,) = add_tensors(graph, pixels)
    consumers = graph.consumers(old)
    first = consumers[0]
    if len(consumers) == 1 and first.name == "QUANTIZE" and _keeps_pixels(graph, first):
        index = graph.operations.index(first)
        if io == "int8":  # the network's own first tensor
            new = first.output
            graph = replace_operations(graph, {index: None})
        else:
            graph = replace_operations(graph, {index: dataclasses.replace(first, inputs=(new,))})
    else:
        convert = Operation(
            "DEQUANTIZE", (new,), (old,), schema.DequantizeOptionsT(), 2 if io == "int8" else 1
        )
        graph = dataclasses.replace(graph, operations=(convert, *graph.operations))
    signature = graph.signatures[0]
    inputs = dict.fromkeys(signature.inputs, new)
    return dataclasses.replace(
        graph, inputs=(new,), signatures=(dataclasses.replace(signature, inputs=inputs),)
    )


def _keeps_pixels(graph: Graph, quantize: Operation) -> bool:
    """Whether the output of a QUANTIZE is raw pixels minus 128: integers pass it unchanged."""
    output = graph.tensors[quantize.output]
    return output.dtype == "int8" and output.quantized == Quantization((1.0,), (SHIFTS["int8"],))


def _with_top_k(graph: Graph, k: int) -> Graph:
    scores = graph.outputs[0]
    batch, classes = graph.tensors[scores].shape
    if k > classes:
        raise ValueError(f"top_k must be at most the model's {classes} classes. Received: {k}")
    graph, (count, *outputs) = add_tensors(
        graph,
        Tensor("k", (), "int32").with_values(np.array(k, "int32")),
        Tensor(PROBABILITIES, (batch, k), "float32"),
        Tensor(CLASSES, (batch, k), "int32"),
    )
    sort = Operation("TOPK_V2", (scores, count), tuple(outputs), schema.TopKV2OptionsT())
    signature = graph.signatures[0]
    names = (*signature.outputs, CLASSES)
    return dataclasses.replace(
        graph,
        operations=(*graph.operations, sort),
        outputs=tuple(outputs),
        signatures=(dataclasses.replace(signature, outputs=dict(zip(names, outputs))),),
    )


def _with_batch(graph: Graph, batch: int) -> Graph:
    """Computed shapes are those that the runtime infers from the input and the constants."""
    image = graph.inputs[0]
    shape = (batch, *graph.tensors[image].shape[1:])
    tensors = {image: dataclasses.replace(graph.tensors[image], shape=shape)}
    operations = {}
    for index, op in enumerate(graph.operations):
        if op.name == "RESHAPE":
            sizes = graph.tensors[op.inputs[1]].values.copy()
            sizes[0] = batch
            tensors[op.inputs[1]] = graph.tensors[op.inputs[1]].with_values(sizes)
            operations[index] = _with_new_shape(op, sizes)
        if op.name == "CONCATENATION":
            repeated = ((i, graph.tensors[i]) for i in op.inputs)
            tensors |= {i: _repeated(t, batch) for i, t in repeated if _is_one_image(t)}
    graph = replace_operations(replace_tensors(graph, tensors), operations)
    shapes = _inferred_shapes(graph)
    computed = {
        number: dataclasses.replace(tensor, shape=shapes[number], dynamic=False)
        for number, tensor in enumerate(graph.tensors)
        if number in shapes and not tensor.constant
    }
    graph = replace_tensors(graph, computed)
    if any(graph.tensors[i].shape[0] != batch for i in graph.outputs):
        raise ValueError("an operation of the model takes only one image; leave batch at 1")
    return graph


def _with_new_shape(op: Operation, sizes: np.ndarray) -> Operation:
    if op.options is None or op.options.newShape is None:
        return op
    options = schema.ReshapeOptionsT()
    options.newShape = sizes
    return dataclasses.replace(op, options=options)


def _is_one_image(tensor: Tensor) -> bool:
    return tensor.constant and len(tensor.shape) == 4 and tensor.shape[0] == 1


def _repeated(tensor: Tensor, batch: int) -> Tensor:
    return tensor.with_values(np.repeat(tensor.values, batch, axis=0))


def _inferred_shapes(graph: Graph) -> dict[int, tuple[int, ...]]:
    interpreter = Interpreter(
        model_content=pack(graph),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    return {one["index"]: tuple(map(int, one["shape"])) for one in details}
