"""int8 of our ResNet-50 in LiteRT beside PyTorch's in ONNX Runtime, interleaved in one process.

    pip install torch onnxruntime onnx onnxscript
    python benchmarks/onnx_runtime.py [--threads 1] [--size 224] [--rounds 50] [--json]

The network is the same (v1.5, 25.6 million parameters), with random weights: the time does not
depend on them. Ours is the ``int8`` kind as ``keras-resnet convert`` writes it, with normalization
and softmax inside. The peer is the PyTorch module of our tests, exported and quantized by ONNX
Runtime's own tools: static, in QDQ format, weights per channel, activations once in uint8 and once
in int8, because its documentation says that processors differ in which is faster.
What is not installed is left out, with a message.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

CALIBRATION = 8  # images of noise: they set scales, which cost no time
WARM_UP = 3


def ours(folder: Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    import keras_resnet
    from tflite.convert import convert
    from tflite.model.interpreter import open_interpreter

    model = keras_resnet.ResNet50(input_shape=images.shape[1:])
    files = convert(model, folder, ["int8"], list(images))
    interpreter = open_interpreter(files["int8"], threads)
    (details,) = interpreter.get_input_details()
    interpreter.set_tensor(details["index"], images[:1].astype(details["dtype"]))
    return interpreter.invoke


def theirs(folder: Path, images: np.ndarray, threads: int) -> dict[str, Callable[[], Any]]:
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    inputs = (images.transpose(0, 3, 1, 2) / 127.5 - 1).astype("float32")
    exported, prepared = str(folder / "float.onnx"), str(folder / "prepared.onnx")
    export(exported, inputs[:1])
    quant_pre_process(exported, prepared)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    runs: dict[str, Callable[[], Any]] = {}
    for name, kind in (("uint8", QuantType.QUInt8), ("int8", QuantType.QInt8)):
        path = str(folder / f"{name}.onnx")
        quantize_static(
            prepared,
            path,
            Images(inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=kind,
            weight_type=QuantType.QInt8,
        )
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: inputs[:1]}
        runs[f"ONNX Runtime {onnxruntime.__version__}, {name} activations"] = (
            lambda session=session, feed=feed: session.run(None, feed)
        )
    return runs


class Images:
    """Calibration data reader of ONNX Runtime."""

    def __init__(self, inputs: np.ndarray) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._inputs, None)
        return None if image is None else {"image": image[np.newaxis]}


def export(path: str, example: np.ndarray) -> None:
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "keras_resnet"))
    from torch_peers import peer

    # The newer exporter leaves batch normalizations beside the convolutions.
    torch.onnx.export(
        peer("ResNet50").eval(),
        (torch.from_numpy(example),),
        path,
        input_names=["image"],
        dynamo=False,
    )


def measure(threads: int, size: int, rounds: int) -> dict[str, list[float]]:
    images = np.random.default_rng(0).integers(0, 256, (CALIBRATION, size, size, 3), dtype="uint8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {"keras-resnet int8, LiteRT": ours(folder, images, threads)}
        try:
            runs |= theirs(folder, images, threads)
        except ImportError as missing:
            print(f"ONNX Runtime is left out: {missing}", file=sys.stderr)
        for run in runs.values():
            for _ in range(WARM_UP):
                run()
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                times[name].append(1000 * (time.perf_counter() - began))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    times = measure(args.threads, args.size, args.rounds)
    rows = {
        name: dict(zip(("median", "p90"), map(float, np.percentile(ms, (50, 90)))))
        for name, ms in times.items()
    }
    first, *others = times
    for name in others:  # round by round: what slows the machine slows both
        ratio = statistics.median(b / a for a, b in zip(times[first], times[name]))
        rows[name]["ratio"] = ratio
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for name, row in rows.items():
        ratio = f"  {row['ratio']:.2f} times ours" if "ratio" in row else ""
        print(f"{name:42} {row['median']:7.1f} ms  p90 {row['p90']:7.1f}{ratio}")


if __name__ == "__main__":
    main()
