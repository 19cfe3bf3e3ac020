"""What normalization inside the file costs: each kind beside itself, fed normalized floats.

    python benchmarks/normalization.py [--networks ResNet8 ResNet50] [--rounds 200]

The second file is the first without its first operation, the subtraction of the mean. Both run
turn by turn in one process on one thread; the cost is the median of the ratios within a turn.
Times are processor time of that thread: what else the machine does is not counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import keras_resnet
from keras_resnet.console import progress, show_table
from keras_resnet.native_stderr import suppressed_native_stderr
from tflite.convert import save_for_device
from tflite.kinds import KINDS, ConversionSource
from tflite.model.flatbuffer import drop_unused, operation_name, pack, unpack

TIMED_KINDS = ("float32", "dynamic")
INPUTS = {"ResNet8": ((32, 32, 3), 10), "ResNet20": ((32, 32, 3), 10)}


def without_normalization(model: bytes) -> bytes:
    file = unpack(model)
    graph = file.subgraphs[0]
    first = next(op for op in graph.operators if graph.inputs[0] in op.inputs)
    assert operation_name(file, first) == "ADD", operation_name(file, first)
    graph.inputs = [int(first.outputs[0])]
    file.signatureDefs[0].inputs[0].tensorIndex = int(first.outputs[0])
    graph.operators = [op for op in graph.operators if op is not first]
    drop_unused(file)
    return pack(file)


def ready(model: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    noise = np.random.default_rng(0).integers(0, 256, taken["shape"]).astype("float32")
    interpreter.set_tensor(taken["index"], noise)
    for _ in range(5):
        interpreter.invoke()
    return interpreter


def seconds(interpreter: Interpreter) -> float:
    began = time.thread_time()
    interpreter.invoke()
    return time.thread_time() - began


def measure(name: str, rounds: int) -> list[tuple[str, ...]]:
    keras.utils.set_random_seed(0)
    shape, classes = INPUTS.get(name, ((224, 224, 3), 1000))
    model = getattr(keras_resnet, name)(input_shape=shape, classes=classes)
    rows = []
    with tempfile.TemporaryDirectory() as folder, suppressed_native_stderr():
        save_for_device(model, Path(folder))
        graph = ConversionSource(Path(folder))
        for kind in TIMED_KINDS:
            file = KINDS[kind].make(graph, lambda *_: None).model
            inside, outside = ready(file), ready(without_normalization(file))
            turns = []
            for turn in range(rounds):  # who goes first takes turns too
                pair = (inside, outside) if turn % 2 else (outside, inside)
                times = {id(one): seconds(one) for one in pair}
                turns.append((times[id(inside)], times[id(outside)]))
            taken = np.array(turns)
            ratio = np.median(taken[:, 0] / taken[:, 1])
            a, b = 1000 * np.median(taken, axis=0)
            least = taken.min(0)
            rows.append(
                (
                    f"{name} {kind}",
                    f"{a:.3f}",
                    f"{b:.3f}",
                    f"{100 * (ratio - 1):+.2f} %",
                    f"{100 * (least[0] / least[1] - 1):+.2f} %",
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["ResNet8", "ResNet50"])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    rows = []
    with progress("timing") as bar:
        for done, name in enumerate(options.networks):
            bar(done, len(options.networks))
            rows += measure(name, options.rounds * (10 if name in INPUTS else 1))
    show_table(("network", "raw, ms", "normalized, ms", "cost", "of the fastest"), rows)


if __name__ == "__main__":
    main()
