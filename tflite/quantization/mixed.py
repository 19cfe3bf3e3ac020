"""Mixed int8 and float32 within a budget.

The parts that can go back to float32 are the residual blocks. Single layers inside a block cannot
be judged apart: the loss is in the rounding of activations, and these are rounded as long as
either neighbour computes in int8.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_resnet.contract import DEFAULT_THRESHOLD, Contract
from tflite.devices.benchmark import benchmark
from tflite.model.flatbuffer import pack
from tflite.model.graph import Graph, Operation
from tflite.model.sandbox import trust
from tflite.quantization.budget import DEFAULT_MAX_DROP, Budget
from tflite.quantization.calibrate import Quantized, calibrate
from tflite.quantization.int8 import head, prepare
from tflite.quantization.operations import MOVES
from tflite.quantization.write import quantized_graph

ROUNDS = 30


@dataclass(frozen=True)
class Point:
    """One file that could be chosen.

    Attributes:
        blocks: Names of the parts in float32, the one that gains most first.
        shift: Mean absolute change of the log-odds of the two likeliest classes; for the tasks
            ``binary`` and ``multi``, of the probability that is closest to its threshold.
        drop: Percent of images whose predicted class or labels would change.
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
    float32: Graph,
    images: Sequence[np.ndarray],
    budget: Budget = Budget(),
    progress: Callable[[int, int], None] = lambda done, total: None,
    contract: Contract = Contract(None, None),
) -> Mixed:
    """Returns blocks of an int8 network to float32, the most harmful for their size first.

    The error of a block is measured with all others in float32: errors of different blocks are
    nearly independent, so that their squares add up. Then blocks return to float32 one after the
    other, in that order, and each of the resulting files is measured as it is.

    Args:
        float32: From raw pixels 0–255 to probabilities.
        images: Calibration images, uint8 ``(height, width, channels)`` 0–255.
        budget: What the file may cost.
        progress: Called with ``(steps done, steps in all)``.
        contract: Task and thresholds.

    Raises:
        ValueError: No file is within the budget, or the network has operations that cannot be
            quantized.
    """
    graph = prepare(float32)
    parts = blocks(graph)
    total = len(graph.operations) + 2 * len(parts) + 2 + ROUNDS
    done = iter(range(1, total + 1))

    def step() -> None:
        progress(next(done), total)

    quantized = calibrate(graph, images, head(graph), step=step)
    margin = _between_classes if contract.task == "single" else partial(_to_threshold, contract)
    exact, decided = margin(_probabilities(pack(float32), images))
    step()

    def shifts(file: bytes) -> np.ndarray:
        step()
        return margin(_probabilities(file, images), decided)[0] - exact

    smallest = len(_write(graph, quantized, []))

    def harm_per_byte(name: str) -> float:
        others = [tensors for other, tensors in parts.items() if other != name]
        grown = len(_write(graph, quantized, [parts[name]])) - smallest
        return float((shifts(_write(graph, quantized, others)) ** 2).mean()) / grown

    harms = {name: harm_per_byte(name) for name in parts}
    order = sorted(parts, key=lambda name: -harms[name])  # ties in the order of the network
    files = [
        _write(graph, quantized, [parts[name] for name in order[:count]])
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
        for count, latency in enumerate(_latencies(files, images[0], step))
    )
    chosen = choose(points, budget)
    return Mixed(files[chosen], points, chosen)


def choose(points: Sequence[Point], budget: Budget) -> int:
    """Index of the point that the budget asks for (see ``Budget``).

    Args:
        points: From all int8 to all float32.
        budget: The limits. The last point is within any ``max_drop``: what differs between it
            and the float network is the order of floating-point operations.

    Raises:
        ValueError: No point is within ``max_latency``, or within both limits; the message says
            the nearest.
    """
    drop, latency = budget.max_drop, budget.max_latency
    if drop is None and latency is None:
        drop = DEFAULT_MAX_DROP
    last = len(points) - 1
    accurate = [i for i, p in enumerate(points) if drop is None or p.drop <= drop or i == last]
    if latency is None:
        return accurate[0]
    fast = [i for i in accurate if points[i].latency <= latency]
    if fast:
        return fast[0] if drop is not None else min(fast, key=lambda i: (points[i].shift, i))
    fastest = min(points[i].latency for i in accurate)
    if drop is None:
        raise ValueError(
            f"No mixed file runs within max_latency={latency:g} ms here; the fastest takes "
            f"{fastest:.3f} ms. Raise max_latency, or take a smaller network."
        )
    raise ValueError(
        f"No mixed file is within both max_drop={drop:g} % and max_latency={latency:g} ms here: "
        f"the fastest within max_drop takes {fastest:.3f} ms, {_nearest(points, latency)}. Raise "
        "one of the limits, or take a smaller network."
    )


def _nearest(points: Sequence[Point], latency: float) -> str:
    within = [point.drop for point in points if point.latency <= latency]
    if not within:
        return "and none is within max_latency"
    return f"the most accurate within max_latency has a drop of {min(within):.2f} %"


def blocks(graph: Graph) -> dict[str, list[int]]:
    """The output tensors of each part between two places where a single tensor passes.

    In a residual network these parts are the stem and the blocks. The head is none of them:
    it computes in float32 anyway.
    """
    excluded = head(graph)
    last = {t: i for i, op in enumerate(graph.operations) for t in graph.data_inputs(op)}
    parts: dict[str, list[int]] = {}
    current: list[Operation] = []
    computed = [graph.inputs[0]]
    for i, op in enumerate(graph.operations):
        if op.output in excluded:
            break
        current.append(op)
        computed.append(op.output)
        passing = [t for t in computed if last.get(t, -1) > i]
        if passing == [op.output] and op.name not in MOVES:
            parts[f"{len(parts)}: {_layer(graph, current)}"] = [o.output for o in current]
            current = []
    return parts


def expected_changes(exact: np.ndarray, shifts: np.ndarray) -> float:
    """Percent of images whose predicted class would change.

    On a hundred images a class seldom changes, and counting says little. Every image's shift is
    therefore tried on every image: 10,000 trials instead of 100.

    Args:
        exact: Log-odds by which the float network decides, ``(images,)``, above 0.
        shifts: By how much the other network changes each, ``(images,)``.
    """
    return 100 * float((exact[:, None] + shifts[None, :] < 0).mean())


def plot(mixed: Mixed) -> bytes:
    """The choice as a picture, PNG: accuracy against size and against latency.

    Above, the share of unchanged predictions, which a budget limits; below, log-odds, which
    distinguish files even if no prediction is expected to change.
    """
    from matplotlib.figure import Figure

    points, chosen = mixed.points, mixed.points[mixed.chosen]
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(
        f"chosen: {len(chosen.blocks)} of {len(points) - 1} blocks in float32, "
        f"{chosen.drop:.2f} % of predictions expected to change\n"
        f"{chosen.bytes / 1e6:.3g} MB, {chosen.latency:.3g} ms on one thread"
    )
    rows = {
        "unchanged predictions (%)": [100 - point.drop for point in points],
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


def _write(graph: Graph, quantized: Quantized, parts: list[list[int]]) -> bytes:
    in_float = head(graph).union(*parts) if parts else head(graph)
    return pack(quantized_graph(graph, quantized, in_float))


def _layer(graph: Graph, part: list[Operation]) -> str:
    """The name of a part: that of its last layer, without the converter's additions."""
    last = graph.tensors[part[-1].output].name.split(";")[-1]
    return last.rsplit("/", 1)[0].rsplit("/", 1)[-1]


def _probabilities(model: bytes, images: Sequence[np.ndarray]) -> np.ndarray:
    """float64 ``(images, outputs)``."""
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (image_input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in images:
        interpreter.set_tensor(image_input["index"], image[np.newaxis].astype("float32"))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(output["index"])[0])
    return np.array(outputs, "float64")


def _between_classes(
    probabilities: np.ndarray, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds ``(images,)`` of the first of two classes against the second, and the classes.

    The two likeliest ones unless they are given.
    """
    if classes is None:
        classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    chosen = np.log(np.maximum(np.take_along_axis(probabilities, classes, axis=1), 1e-30))
    return chosen[:, 0] - chosen[:, 1], classes


def _to_threshold(
    contract: Contract, probabilities: np.ndarray, signs: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distance ``(images,)`` of one probability from its threshold, in log-odds, and which one.

    That of the least sure decision of each image unless it is given: a matrix ``(images, outputs)``
    of its sign, and 0 for all others. A distance below 0 is another decision.
    """
    thresholds = np.array(contract.thresholds or DEFAULT_THRESHOLD)
    # Closer to 0 and 1, float32 probabilities are too coarse to compare.
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    odds = np.log(p / (1 - p)) - np.log(thresholds / (1 - thresholds))
    if signs is None:
        least = np.abs(odds).argmin(axis=1)[:, np.newaxis]
        side = np.where(odds >= 0, 1.0, -1.0)
        signs = np.where(np.arange(odds.shape[1]) == least, side, 0.0)
    return (odds * signs).sum(axis=1), signs


def _latencies(files: list[bytes], image: np.ndarray, step: Callable[[], None]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(i): Path(folder) / f"{i}.tflite" for i in range(len(files))}
        for path, file in zip(paths.values(), files):
            path.write_bytes(file)
            trust(file)
        latencies = benchmark(
            paths, image, threads=(1,), rounds=ROUNDS, progress=lambda done, total: step()
        )
        return [latency.median_ms for latency in latencies]
