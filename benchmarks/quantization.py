"""What int8 costs, by engine and by step, beside the float32 file of the same model.

    python benchmarks/quantization.py MODEL.keras ... --data tfds:cifar10 [--data-dir DIR]
        [--images 10000] [--only NAME ...] [--json FILE]

Every row is a file, made of the same SavedModel from the same training images, and run by the
same interpreter. ``agreement`` is the share of test images that it puts into the same class as
the float32 file; it is the finer measure, for top-1 moves by chance. ``error`` is finer still
and needs no test image: of training images that nothing was calibrated with, the fifth that the
model is least sure of, and on these how far, on average, the log-odds of the two likeliest classes
move. The defaults were chosen by it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from equalize import equalize

from keras_resnet.console import progress, show_table
from keras_resnet.native_stderr import suppressed_native_stderr
from keras_resnet.saving import load_model
from tflite.convert import save_for_device
from tflite.kinds import KINDS, ConversionSource
from tflite.model.flatbuffer import pack, unpack
from tflite.quantization.calibrate import QuantizationConfig, calibrate
from tflite.quantization.fold_normalization import fold_normalization
from tflite.quantization.int8 import head, with_biases
from tflite.quantization.write import quantized_graph
from training.config import DataConfig
from training.data.pipeline import images
from training.data.sources import open_source

CALIBRATION = 100
# Training images that the error is measured on, before the surest are left out.
JUDGED = 4000
CLOSE = 0.2
Maker = Callable[[ConversionSource], bytes]


def tflite_converter(source: ConversionSource) -> bytes:
    """TFLiteConverter with its own calibration."""
    import tensorflow as tf

    def representative_dataset() -> Iterator[list[np.ndarray]]:
        for image in source.calibration:
            yield [image[np.newaxis].astype("float32")]

    converter = source.converter()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def litert_quantizer(source: ConversionSource) -> bytes:
    """litert-quantizer's static recipe with its own calibration."""
    from litert_quantizer import quantizer, recipe

    engine = quantizer.Quantizer(source.float32, recipe.static_wi8_ai8())
    name = Interpreter(model_content=source.float32).get_signature_list()["serve"]["inputs"][0]
    data = [{name: image[np.newaxis].astype("float32")} for image in source.calibration]
    return bytes(engine.quantize(engine.calibrate({"serve": data})).quantized_model)


def ours(
    config: QuantizationConfig = QuantizationConfig(),
    exact_pixels: bool = True,
    float_head: bool = True,
    equalized: bool = False,
) -> Maker:
    """The steps of ``tflite.quantization.int8``, with some of them left out or added."""

    def make(source: ConversionSource) -> bytes:
        graph = with_biases(unpack(source.float32))
        graph = fold_normalization(graph) if exact_pixels else graph
        graph = equalize(graph, source.calibration) if equalized else graph
        in_float = head(graph) if float_head else frozenset()
        quantized = calibrate(graph, source.calibration, in_float, config)
        return pack(quantized_graph(graph, quantized, in_float))

    return make


# Name, number of calibration images, maker.
ROWS: list[tuple[str, int, Maker]] = [
    ("float16", 0, lambda source: KINDS["float16"].make(source, lambda *_: None).model),
    (
        "dynamic (litert-quantizer)",
        0,
        lambda source: KINDS["dynamic"].make(source, lambda *_: None).model,
    ),
    *(("TFLiteConverter", n, tflite_converter) for n in (20, 100, 500)),
    *(("litert-quantizer", n, litert_quantizer) for n in (20, 100, 500)),
    *(("ours", n, ours()) for n in (20, 100, 500)),
    ("ours, min-max ranges", CALIBRATION, ours(QuantizationConfig(ranges="min-max"))),
    ("ours, 99.99 % ranges", CALIBRATION, ours(QuantizationConfig(ranges="percentile"))),
    ("ours, nearest rounding", CALIBRATION, ours(QuantizationConfig(rounding="nearest"))),
    ("ours, biases as they were", CALIBRATION, ours(QuantizationConfig(correct_bias=False))),
    ("ours, normalized pixels", CALIBRATION, ours(exact_pixels=False)),
    ("ours, int8 head", CALIBRATION, ours(float_head=False)),
    ("ours, equalized", CALIBRATION, ours(equalized=True)),
    (
        "ours, all of it off",
        CALIBRATION,
        ours(
            QuantizationConfig(ranges="min-max", rounding="nearest", correct_bias=False),
            exact_pixels=False,
            float_head=False,
        ),
    ),
]


def probabilities(model: bytes, pixels: np.ndarray) -> np.ndarray:
    """float32 ``(images, classes)``."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (image_input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in pixels:
        interpreter.set_tensor(image_input["index"], _as_input(image[np.newaxis], image_input))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(output["index"])[0])
    if output["dtype"] == np.float32:
        return np.array(outputs)
    scale, zero_point = output["quantization"]
    return (np.array(outputs, "float32") - zero_point) * scale


def _as_input(pixels: np.ndarray, details: dict) -> np.ndarray:
    """litert-quantizer's files take int8 and not float32."""
    if details["dtype"] == np.float32:
        return pixels.astype("float32")
    scale, zero_point = details["quantization"]
    return np.clip(np.rint(pixels / scale) + zero_point, -128, 127).astype("int8")


def log_odds(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Of the first of two classes against the second; ``(images,)``."""
    # Some files give multiples of 1/256: zero counts as half of that.
    chosen = np.log(np.maximum(np.take_along_axis(scores, classes, axis=1), 1 / 512))
    return chosen[:, 0] - chosen[:, 1]


def measure(path: Path, data: str, data_dir: str, count: int, only: list[str]) -> dict:
    model = load_model(path)
    data_source = open_source(DataConfig(source=data, data_dir=data_dir), seed=0)
    few = max(n for _, n, _ in ROWS)
    train = images(data_source.train, model.contract, few + JUDGED)
    pictures = np.stack([image for image, _ in train])
    # Drawn, for a data set may be sorted by class.
    pictures = pictures[np.random.default_rng(0).permutation(len(pictures))]
    calibration, judged = list(pictures[:few]), pictures[few:]
    test, labels = map(np.array, zip(*images(data_source.test, model.contract, count)))

    with tempfile.TemporaryDirectory() as folder, suppressed_native_stderr():
        save_for_device(model, Path(folder))
        float32 = ConversionSource(Path(folder)).float32
        exact, sure = (probabilities(float32, x) for x in (test, judged))
        pairs = np.argsort(-sure, axis=1, kind="stable")[:, :2]
        odds = log_odds(sure, pairs)
        close = odds < np.quantile(odds, CLOSE)
        judged, pairs, odds = judged[close], pairs[close], odds[close]
        rows = [("float32", 0, lambda source: source.float32), *ROWS]
        results = []
        with progress(path.stem) as bar:
            for done, (name, n, make) in enumerate(rows):
                bar(done, len(rows))
                if only and name not in only and name != "float32":
                    continue
                began = time.perf_counter()
                file = make(ConversionSource(Path(folder), calibration[:n]))
                seconds = time.perf_counter() - began
                scores, moved = probabilities(file, test), probabilities(file, judged)
                results.append(
                    {
                        "name": name,
                        "calibration_images": n,
                        "top1": 100 * float((scores.argmax(1) == labels).mean()),
                        "drop": 100 * float((exact.argmax(1) == labels).mean())
                        - 100 * float((scores.argmax(1) == labels).mean()),
                        "agreement": 100 * float((scores.argmax(1) == exact.argmax(1)).mean()),
                        "error": float(np.abs(log_odds(moved, pairs) - odds).mean()),
                        "bytes": len(file),
                        "seconds": seconds,
                    }
                )
    return {"model": path.stem, "test_images": len(test), "rows": results}


def show(result: dict) -> None:
    columns = ("engine", "images", "top-1", "drop", "agreement", "error", "bytes", "seconds")
    rows = [
        (
            row["name"],
            str(row["calibration_images"] or "–"),
            f"{row['top1']:.2f}",
            f"{row['drop']:+.2f}",
            f"{row['agreement']:.2f}",
            f"{row['error']:.3f}",
            f"{row['bytes']:,}",
            f"{row['seconds']:.1f}",
        )
        for row in result["rows"]
    ]
    show_table(columns, rows, f"{result['model']}, {result['test_images']:,} test images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help=".keras files with a contract")
    parser.add_argument("--data", required=True, help="digits, tfds:NAME or folder:PATH")
    parser.add_argument("--data-dir", default="", help="where tensorflow-datasets keeps its data")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--only", nargs="+", default=[], help="names of rows; all by default")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()

    results = []
    for path in options.models:
        results.append(measure(path, options.data, options.data_dir, options.images, options.only))
        show(results[-1])
        sys.stdout.flush()
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
