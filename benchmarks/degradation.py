"""The degradation problem, with and without shortcuts (He et al. 2015, arXiv:1512.03385,
sections 1 and 4.2, figure 6).

    python benchmarks/degradation.py [--data-dir DIR | --images FILE.npz] [--steps 1500] [--json]

Plain and residual networks of 20 and 56 layers are trained on CIFAR-10 for the same number of
steps, on the same batches in the same order; then a residual network of 110 layers. A deeper plain
network has a higher error on the training images themselves, so the cause is not overfitting; a
deeper residual network does not. The picture shows the training error, and the norm of the gradient
of each convolution's kernel before the first step and after the last.

Images come from tensorflow-datasets, or from an .npz with ``images`` (uint8, (n, 32, 32, 3)) and
``labels``, which needs no TensorFlow: KERAS_BACKEND=jax.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import keras_resnet
from keras_resnet.console import progress, say, show_table

matplotlib.use("Agg")

WINDOW = 50  # steps averaged for one point of the curve
PEAK_RATE, WARM_UP = 0.1, 0.2
DRAWN = {20: "#1f77b4", 56: "#d95f02", 110: "#7b3294"}


@dataclass(frozen=True)
class Result:
    """The result of one network.

    Attributes:
        depth: Layers with weights.
        shortcut: ``"A"``, the paper's for CIFAR-10, or ``"none"`` for a plain network.
        error: Training error in percent, averaged over ``WINDOW`` steps.
        before, after: Norm of each kernel's gradient, in order from the input.
        seconds: Training time.
    """

    depth: int
    shortcut: str
    error: list[float]
    before: list[float]
    after: list[float]
    seconds: float

    @property
    def name(self) -> str:
        return f"{'plain' if self.shortcut == 'none' else 'residual'}-{self.depth}"


def learn(
    depth: int, shortcut: str, images: np.ndarray, labels: np.ndarray, batches: np.ndarray
) -> Result:
    """Trains a network from random weights; each row of ``batches`` is a batch of indices."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model(
        f"ResNet{depth}", shortcut=shortcut, weights=None, input_shape=(32, 32, 3)
    )
    sample = images[batches[:4].ravel()], labels[batches[:4].ravel()]
    before = gradient_lengths(model, *sample)
    rates = one_cycle(len(batches))
    model.compile(
        keras.optimizers.SGD(rates, momentum=0.9, nesterov=True),
        "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    error, began = [], time.perf_counter()
    with progress(f"{'plain' if shortcut == 'none' else 'residual'}-{depth}") as bar:
        for number, batch in enumerate(batches, start=1):
            seen = model.train_on_batch(images[batch], labels[batch], return_dict=True)
            error.append(100 * (1 - float(seen["accuracy"])))
            bar(number, len(batches))
    seconds = time.perf_counter() - began
    windows = np.array(error[: len(error) // WINDOW * WINDOW]).reshape(-1, WINDOW)
    after = gradient_lengths(model, *sample)
    return Result(depth, shortcut, windows.mean(axis=1).tolist(), before, after, seconds)


def one_cycle(steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    rise = round(WARM_UP * steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - rise, warmup_target=PEAK_RATE, warmup_steps=rise
    )


def gradient_lengths(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """Norms of the gradients of all kernels: on any backend, a step of rate 1 subtracts them."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy", jit_compile=False)
    convolutions = [x for x in copy.layers if isinstance(x, keras.layers.Conv2D)]
    before = [keras.ops.convert_to_numpy(layer.kernel).copy() for layer in convolutions]
    copy.train_on_batch(images, labels)
    return [
        float(np.linalg.norm(kernel - keras.ops.convert_to_numpy(layer.kernel)))
        for kernel, layer in zip(before, convolutions)
    ]


def load(path: str | None, folder: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Normalized training images and one-hot labels."""
    if path:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    else:
        import tensorflow_datasets as tfds

        split = tfds.load("cifar10", split="train", data_dir=folder, batch_size=-1, download=False)
        images, labels = (np.asarray(split[key]) for key in ("image", "label"))
    values = images.astype("float32") / 255
    return (values - values.mean((0, 1, 2))) / values.std((0, 1, 2)), np.eye(10, dtype="f4")[labels]


def draw(results: list[Result], batch: int, out: Path) -> None:
    figure = Figure((13, 4), layout="constrained")
    error, before, after = figure.subplots(1, 3)
    for result in results:
        look = {"color": DRAWN[result.depth], "label": result.name, "linewidth": 1.6}
        if result.shortcut == "none":
            look |= {"linestyle": (0, (4, 2)), "linewidth": 1.3}
        steps = WINDOW * np.arange(1, len(result.error) + 1)
        error.plot(steps * batch / 1000, result.error, **look)
        for axes, lengths in ((before, result.before), (after, result.after)):
            axes.plot(np.linspace(0, 1, len(lengths)), lengths, **look)
    label(error, "training error", "thousand images seen", "%")
    for axes, when in ((before, "before the first step"), (after, "after the last step")):
        label(axes, f"gradient of each kernel, {when}", "place, from input to output", "length")
        axes.set_yscale("log")
    error.legend(frameon=False)
    figure.savefig(out, dpi=110)


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Plain and residual networks, trained on the same batches."
    )
    parser.add_argument("--data-dir", help="folder of tensorflow-datasets with cifar10")
    parser.add_argument("--images", help="an .npz with images and labels instead")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56], choices=DRAWN)
    parser.add_argument("--deep", type=int, default=110, choices=DRAWN, help="residual only")
    parser.add_argument("--out", type=Path, default=Path("degradation.png"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.steps < WINDOW:
        parser.error(f"--steps must be at least {WINDOW}, one point of the curve")

    images, labels = load(options.images, options.data_dir)
    rng = np.random.default_rng(0)
    epochs = -(-options.steps * options.batch // len(images))
    order = np.concatenate([rng.permutation(len(images)) for _ in range(epochs)])
    batches = order[: options.steps * options.batch].reshape(options.steps, options.batch)
    networks = [(depth, kind) for kind in ("none", "A") for depth in options.depths]
    results = [
        learn(*network, images, labels, batches) for network in [*networks, (options.deep, "A")]
    ]
    draw(results, options.batch, options.out)
    say(f"picture: {options.out}")
    if options.json:
        print(json.dumps({result.name: vars(result) for result in results}))
        return
    show_table(
        ("network", "training error at the end", "first gradient over last, at start", "seconds"),
        [
            (
                result.name,
                f"{np.mean(result.error[-3:]):.1f} %",
                f"{result.before[0] / result.before[-1]:.3g}",
                f"{result.seconds:.0f}",
            )
            for result in results
        ],
    )


if __name__ == "__main__":
    main()
