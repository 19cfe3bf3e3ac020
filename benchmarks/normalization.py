"""What normalization inside the file costs: each kind against itself, fed normalized floats.

    python benchmarks/normalization.py [--networks ResNet8 ResNet50] [--rounds 200]

The second file is the first without its first operation, the subtraction of the mean. Both are
interleaved in one process on one thread; the cost is the median of the ratios within a round.
Times are processor time of that thread: other processes are not counted.
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
from tflite.model.flatbuffer import pack, unpack
from tflite.model.graph import drop_unused, redirect, replace_operations

TIMED_KINDS = ("float32", "dynamic")
INPUTS = {"ResNet8": ((32, 32, 3), 10), "ResNet20": ((32, 32, 3), 10)}


def without_normalization(model: bytes) -> bytes:
    graph = unpack(model)
    (first,) = graph.consumers(graph.inputs[0])
    assert first.name == "ADD", first.name
    graph = replace_operations(graph, {graph.operations.index(first): None})
    return pack(drop_unused(redirect(graph, {graph.inputs[0]: first.output})))


def ready(model: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    noise = np.random.default_rng(0).integers(0, 256, details["shape"]).astype("float32")
    interpreter.set_tensor(details["index"], noise)
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
        source = ConversionSource(Path(folder))
        for kind in TIMED_KINDS:
            file = KINDS[kind].make(source, lambda *_: None).model
            inside, outside = ready(file), ready(without_normalization(file))
            pairs = []
            for turn in range(rounds):  # each is first in every other round
                pair = (inside, outside) if turn % 2 else (outside, inside)
                times = {id(one): seconds(one) for one in pair}
                pairs.append((times[id(inside)], times[id(outside)]))
            measured = np.array(pairs)
            ratio = np.median(measured[:, 0] / measured[:, 1])
            a, b = 1000 * np.median(measured, axis=0)
            least = measured.min(0)
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
