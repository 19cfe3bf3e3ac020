"""Training speed of our ResNet-50 beside keras.applications', turn by turn in one process.

    python benchmarks/train_step.py [--precision mixed_bfloat16] [--batch 16] [--rounds 5] [--json]

Both are trained by the same optimizer on the same random images, which is enough to time a step:
its cost does not depend on what is in the pictures. The ratio is taken round by round, so that a
machine that slows down meanwhile does so for both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_resnet


def trainable(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.SGD(0.01, 0.9), "categorical_crossentropy", jit_compile=False)
    return model


def images_per_second(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    began = time.perf_counter()
    model.train_on_batch(x, y)
    return len(x) / (time.perf_counter() - began)


def measure(batch: int, size: int, rounds: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, size, size, 3)).astype("float32")
    y = np.eye(1000, dtype="float32")[rng.integers(0, 1000, batch)]
    models = {
        "keras_resnet": trainable(keras_resnet.ResNet50(input_shape=(size, size, 3))),
        "keras.applications": trainable(
            keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
        ),
    }
    for model in models.values():  # the first step builds the graph
        model.train_on_batch(x, y)
    speeds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            speeds[name].append(images_per_second(model, x, y))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="float32", help="a Keras dtype policy")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    keras.mixed_precision.set_global_policy(options.precision)
    speeds = measure(options.batch, options.size, options.rounds)
    ours, theirs = speeds["keras_resnet"], speeds["keras.applications"]
    result = {
        "precision": options.precision,
        "images_per_second": {name: statistics.median(runs) for name, runs in speeds.items()},
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs)),
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, speed in result["images_per_second"].items():
        print(f"{name:20} {speed:6.2f} images/s")
    print(f"{'ratio':20} {result['ratio']:6.2f}   ({options.precision}, {options.rounds} rounds)")


if __name__ == "__main__":
    main()
