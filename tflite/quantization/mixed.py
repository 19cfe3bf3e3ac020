"""int8 where it costs nothing, float32 where it does: as much of each as a budget asks for.

The parts that can go back to float32 are the residual blocks. Single layers inside them cannot
be told apart: what is lost is lost in the rounding of activations, and these are rounded as
long as either neighbour computes in int8.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite.devices.benchmark import benchmark
from tflite.quantization.budget import Budget
from tflite.quantization.calibrate import Quantized, Tuning, calibrate
from tflite.quantization.int8 import head, prepared
from tflite.quantization.network import Network, Operation
from tflite.quantization.operations import MOVES
from tflite.quantization.write import write_network

ROUNDS = 30


@dataclass(frozen=True)
class Point:
    """One file that could be chosen.

    Attributes:
        blocks: Names of the parts in float32, the one that gains most first.
        shift: How far the log-odds of the two likeliest classes move, on average.
        drop: Percent of images that would get another answer.
        bytes: Size of the file.
        latency: Median milliseconds an image on one thread.
    """

    blocks: tuple[str, ...]
    shift: float
    drop: float
    bytes: int
    latency: float


@dataclass(frozen=True)
class Mixed:
    """The file, and what it was chosen from.

    Attributes:
        model: The .tflite file.
        points: From all int8 to all float32.
        chosen: Index of the file among the points.
    """

    model: bytes
    points: tuple[Point, ...]
    chosen: int

    def to_json(self) -> str:
        """The choice without the file."""
        points = [dataclasses.asdict(point) for point in self.points]
        return json.dumps({"chosen": self.chosen, "points": points}, indent=1)


def quantize_mixed(
    float32: bytes,
    images: Sequence[np.ndarray],
    budget: Budget = Budget(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mixed:
    """Returns blocks of an int8 network to float32, the most harmful for their size first.

    What a block does is measured with all others in float32: errors of different blocks are
    nearly independent, so that their squares add up. Then one after the other goes back, in
    that order, and each of the resulting files is measured as it is.

    Args:
        float32: A .tflite file from raw pixels 0–255 to the answer.
        images: Calibration images, uint8 ``(height, width, channels)`` 0–255.
        budget: What the file may cost.
        progress: Called with ``(steps done, steps in all)``.

    Raises:
        ValueError: No file keeps within the budget, or the network is not of a kind that can
            be quantized.
    """
    network = prepared(float32, Tuning())
    parts = blocks(network)
    total = len(network.operations) + 2 * len(parts) + 2
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    quantized = calibrate(network, images, head(network), Tuning(), step)
    exact, classes = _log_odds_of(float32, images)
    step()

    def shifts(file: bytes) -> np.ndarray:
        step()
        return _log_odds_of(file, images, classes)[0] - exact

    smallest = len(_write(network, quantized, []))

    def harm_per_byte(name: str) -> float:
        others = [tensors for other, tensors in parts.items() if other != name]
        grown = len(_write(network, quantized, [parts[name]])) - smallest
        return float((shifts(_write(network, quantized, others)) ** 2).mean()) / grown

    harms = {name: harm_per_byte(name) for name in parts}
    order = sorted(parts, key=lambda name: -harms[name])  # ties in the order of the network
    files = [
        _write(network, quantized, [parts[name] for name in order[:count]])
        for count in range(len(order) + 1)
    ]
    moved = [shifts(file) for file in files]
    points = tuple(
        Point(
            blocks=tuple(order[:count]),
            shift=float(np.abs(moved[count]).mean()),
            drop=expected_changes(exact, moved[count]),
            bytes=len(files[count]),
            latency=latency,
        )
        for count, latency in enumerate(_latencies(files, images[0]))
    )
    chosen = choose(points, budget)
    return Mixed(files[chosen], points, chosen)


def choose(points: Sequence[Point], budget: Budget) -> int:
    """Index of the point that the budget asks for.

    Raises:
        ValueError: No point is as fast as that.
    """
    if budget.max_latency is None:
        fitting = [i for i, point in enumerate(points) if point.drop <= budget.max_drop]
        return min(fitting, default=len(points) - 1)
    fitting = [i for i, point in enumerate(points) if point.latency <= budget.max_latency]
    if not fitting:
        fastest = min(point.latency for point in points)
        raise ValueError(
            f"No mixed file runs in {budget.max_latency} ms here; the fastest takes "
            f"{fastest:.3f} ms. Raise the limit, or take a smaller network."
        )
    return min(fitting, key=lambda i: (points[i].shift, i))


def blocks(network: Network) -> dict[str, list[int]]:
    """The output tensors of each part between two places where a single tensor passes.

    In a residual network these parts are the stem and the blocks. The head is none of them:
    it computes in float32 anyway.
    """
    excluded = head(network)
    last = {t: i for i, op in enumerate(network.operations) for t in network.variables(op)}
    parts: dict[str, list[int]] = {}
    current: list[Operation] = []
    for i, op in enumerate(network.operations):
        if op.output in excluded:
            break
        current.append(op)
        made = [network.input, *(o.output for o in network.operations[: i + 1])]
        passing = [t for t in made if last.get(t, -1) > i]
        if passing == [op.output] and op.name not in MOVES:
            parts[f"{len(parts)}: {_layer(network, current)}"] = [o.output for o in current]
            current = []
    return parts


def expected_changes(exact: np.ndarray, shifts: np.ndarray) -> float:
    """Percent of images that would get another answer.

    On a hundred images an answer seldom changes, and counting says little. Every image's
    shift is therefore tried on every image: 10,000 trials instead of 100.

    Args:
        exact: Log-odds of the two likeliest classes by the float network, ``(images,)``.
        shifts: How far the other network moves each, ``(images,)``.
    """
    return 100 * float((exact[:, None] + shifts[None, :] < 0).mean())


def plot(mixed: Mixed) -> bytes:
    """The choice as a picture, PNG: what it costs against size and against latency.

    Above in answers that stay the same, which is what a budget is about; below in log-odds, which
    tell files apart even where no answer is expected to change.
    """
    from matplotlib.figure import Figure

    points, chosen = mixed.points, mixed.points[mixed.chosen]
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(
        f"chosen: {len(chosen.blocks)} of {len(points) - 1} blocks in float32, "
        f"{chosen.drop:.2f} % of answers expected to change\n"
        f"{chosen.bytes / 1e6:.3g} MB, {chosen.latency:.3g} ms on one thread"
    )
    rows = {
        "answers expected to stay (%)": [100 - point.drop for point in points],
        "mean shift of the log-odds": [point.shift for point in points],
    }
    columns = {
        "size (MB)": [point.bytes / 1e6 for point in points],
        "latency, one thread (ms)": [point.latency for point in points],
    }
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for line, (quality, y) in zip(grid, rows.items()):
        for axes, x in zip(line, columns.values()):
            axes.plot(x, y, "o-", color="0.6", zorder=1)
            axes.scatter(x[mixed.chosen], y[mixed.chosen], color="C3", s=90, zorder=2)
            axes.margins(0.08)
            axes.ticklabel_format(useOffset=False)
            axes.grid(alpha=0.3)
        line[0].set_ylabel(quality)
    for axes, cost in zip(grid[-1], columns):
        axes.set_xlabel(cost)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _write(network: Network, quantized: Quantized, parts: list[list[int]]) -> bytes:
    in_float = head(network).union(*parts) if parts else head(network)
    return write_network(network, quantized, in_float)


def _layer(network: Network, part: list[Operation]) -> str:
    """The name of a part: that of its last layer, without the converter's trimmings."""
    last = network.names[part[-1].output].split(";")[-1]
    return last.rsplit("/", 1)[0].rsplit("/", 1)[-1]


def _log_odds_of(
    model: bytes, images: Sequence[np.ndarray], classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds ``(images,)`` of the first of two classes against the second, and the classes.

    The two likeliest ones unless they are given.
    """
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (taken,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        interpreter.set_tensor(taken["index"], image[np.newaxis].astype("float32"))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(answered["index"])[0])
    probabilities = np.array(answers, "float64")
    if classes is None:
        classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    chosen = np.log(np.maximum(np.take_along_axis(probabilities, classes, axis=1), 1e-30))
    return chosen[:, 0] - chosen[:, 1], classes


def _latencies(files: list[bytes], image: np.ndarray) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(i): Path(folder) / f"{i}.tflite" for i in range(len(files))}
        for path, file in zip(paths.values(), files):
            path.write_bytes(file)
        return [x.median_ms for x in benchmark(paths, image, threads=(1,), rounds=ROUNDS)]
