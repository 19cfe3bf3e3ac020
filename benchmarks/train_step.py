"""Speed and memory of a ResNet-50 training step, ours and others', interleaved.

    python benchmarks/train_step.py [--precision bfloat16] [--batch 16] [--rounds 5] [--json]

Each peer takes whole training steps (forward, backward, SGD with momentum) on the same random
images; the cost of a step does not depend on their content. The peers: keras.applications'
ResNet50 (v1, about 6 % fewer multiply-adds than ours, and Keras's batch norm); our network with
Keras's batch norm; and PyTorch's ResNet-50, channels last, compiled by torch.compile on a GPU. On
TensorFlow also the limit: only the convolutions of our network and their gradients, one after the
other. Ratios are computed in each round, and their median is printed. Memory is the peak of the
process, or of the GPU if there is one.

With KERAS_BACKEND=jax, no TensorFlow is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# JAX would preallocate the memory of a GPU, and leave none to the other peers.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from interleaved import Peer, interleaved, peak_bytes

OURS = "keras_resnet"
CLASSES = 1000
LEARNING_RATE, MOMENTUM = 0.01, 0.9
Turn = Callable[[], tuple[float, int]]  # seconds per step, and peak memory in bytes


def noise(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 3)).astype("float32")
    return images, rng.integers(0, CLASSES, batch)


# --- The peers, each from its settings to its turn -------------------------------------------


def ours(precision: str, batch: int, size: int, steps: int, norm: str) -> Turn:
    """Our network with the step of ``training/steps``."""
    import keras

    import keras_resnet

    set_policy(precision)
    if norm == "keras":
        keras_resnet.blocks.BatchNormalization = keras.layers.BatchNormalization
    return keras_turn(keras_resnet.ResNet50(input_shape=(size, size, 3)), batch, size, steps)


def keras_applications(precision: str, batch: int, size: int, steps: int) -> Turn:
    import keras

    set_policy(precision)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    return keras_turn(model, batch, size, steps)


def convolutions(precision: str, batch: int, size: int, steps: int) -> Turn:
    """The limit of any step: each convolution, and the gradients of its arguments."""
    import keras

    import keras_resnet

    if keras.backend.backend() != "tensorflow":
        raise ImportError("only TensorFlow runs its convolutions one by one")
    model = keras_resnet.ResNet50(input_shape=(size, size, 3))
    layers = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    runs = [one_convolution(layer, precision, batch) for layer in layers]

    def step() -> Any:
        for run in runs:
            last = run()
        return last

    return timed(step, lambda results: [result.numpy() for result in results], peak_bytes, steps)


def one_convolution(layer: Any, precision: str, batch: int) -> Callable[[], Any]:
    import tensorflow as tf

    (_, *place, channels), stride = layer.input.shape, layer.strides[0]
    common = {"strides": [1, stride, stride, 1], "padding": layer.padding.upper()}
    kernel_shape = (*layer.kernel_size, channels, layer.filters)
    x = tf.cast(tf.random.normal((batch, *place, channels)), precision)
    kernel = tf.cast(tf.random.normal(kernel_shape), precision)
    y = tf.nn.conv2d(x, kernel, **common)

    @tf.function(autograph=False)
    def run() -> list[tf.Tensor]:
        results = [tf.raw_ops.Conv2D(input=x, filter=kernel, **common)]
        with tf.control_dependencies(results):
            to_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=kernel_shape, out_backprop=y, **common
            )
        results.append(to_kernel)
        if channels != 3:  # no step needs the gradient of the image
            with tf.control_dependencies([to_kernel]):
                to_input = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=x.shape, filter=kernel, out_backprop=y, **common
                )
            results.append(to_input)
        return [result[0, 0, 0, 0] for result in results]  # unused results would be pruned

    return run


def pytorch(precision: str, batch: int, size: int, steps: int) -> Turn:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last
    model = torch_resnet50().train().to(device, memory_format=layout)
    run = torch.compile(model) if device == "cuda" else model
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    images, numbers = noise(batch, size)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(device, memory_format=layout)
    y = torch.from_numpy(numbers).to(device)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision != "float32"):
            loss = torch.nn.functional.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def peak() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()

    return timed(step, lambda loss: loss.item(), peak, steps)


def torch_resnet50() -> Any:
    try:
        from torchvision.models import resnet50

        return resnet50()
    except ImportError:  # the tests' peer is bit-identical with torchvision's
        from tests.keras_resnet.torch_peers import peer

        return peer("ResNet50")


# --- Measuring -------------------------------------------------------------------------------


def set_policy(precision: str) -> None:
    import keras

    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    keras.mixed_precision.set_global_policy(policy)


def keras_turn(model: Any, batch: int, size: int, steps: int) -> Turn:
    """Training steps of any Keras network, by the step of ``training/steps``."""
    import keras

    from training.steps import backend_steps

    optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(), jit_compile=False)
    optimizer.build(model.trainable_variables)
    images, numbers = noise(batch, size)
    data = images, np.eye(CLASSES, dtype="float32")[numbers]
    task = SimpleNamespace(
        model=model,
        ema_model=None,
        class_weights=(),
        metrics={"loss": keras.metrics.Mean(), "accuracy": keras.metrics.CategoricalAccuracy()},
        experiment=SimpleNamespace(optimizer=None),
        runtime=SimpleNamespace(distribution=None, jit_compile=False),
    )
    batches, spec = placed(data)
    step = backend_steps().train_step(task, spec)
    return timed(lambda: step(*batches)["loss"], float, device_peak, steps)


def placed(data: tuple[np.ndarray, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The batch on the backend's device, and its signature."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return tuple(map(jax.device_put, data)), ()
    import tensorflow as tf

    return tuple(map(tf.constant, data)), tuple(tf.TensorSpec(x.shape, x.dtype) for x in data)


def device_peak() -> int:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        if statistics_of := jax.devices()[0].memory_stats():
            return statistics_of["peak_bytes_in_use"]
    return peak_bytes()


def timed(
    step: Callable[[], Any], wait: Callable[[Any], Any], peak: Callable[[], int], steps: int
) -> Turn:
    def turn() -> tuple[float, int]:
        began = time.perf_counter()
        for _ in range(steps):
            result = step()
        wait(result)
        return (time.perf_counter() - began) / steps, peak()

    turn()  # compiles
    return turn


def peers(options: argparse.Namespace, precision: str) -> dict[str, Peer]:
    settings = (precision, options.batch, options.size, options.steps)
    return {
        OURS: Peer(ours, (*settings, "ours")),
        "with Keras's batch norm": Peer(ours, (*settings, "keras")),
        "keras.applications": Peer(keras_applications, settings),
        "PyTorch, channels last": Peer(pytorch, settings),
        "limit: convolutions alone": Peer(convolutions, settings),
    }


def figures(turns: list[tuple[float, int]], own: list[float], batch: int) -> dict[str, float]:
    seconds, memory = zip(*turns)
    return {
        "images_per_second": batch / statistics.median(seconds),
        "ratio": statistics.median(theirs / mine for theirs, mine in zip(seconds, own)),
        "peak_mib": max(memory) / 2**20,
    }


def measure(options: argparse.Namespace, precision: str) -> dict[str, dict[str, float]]:
    turns = interleaved(peers(options, precision), options.rounds)
    own = [seconds for seconds, _ in turns[OURS]]
    return {name: figures(rounds, own, options.batch) for name, rounds in turns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=1, help="steps per turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    load = os.getloadavg()[0]
    result = {
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "batch": options.batch,
        "size": options.size,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": load,
        "precision": {name: measure(options, name) for name in options.precision},
    }
    if options.json:
        print(json.dumps(result))
        return
    for precision, rows in result["precision"].items():
        print(f"{precision:26} {'images/s':>9} {'ours is':>9} {'memory':>10}")
        for name, row in rows.items():
            print(
                f"{name:26} {row['images_per_second']:9.2f} {row['ratio']:7.2f} × "
                f"{row['peak_mib']:6,.0f} MiB"
            )
    print(f"{result['backend']}; {result['cores']} cores; load before {load:.1f}")


if __name__ == "__main__":
    main()
