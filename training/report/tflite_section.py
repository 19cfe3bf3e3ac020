"""The report's part on TFLite: all evidence on the files that the run folder holds.

It is read from what the commands wrote (``tflite/*.json``); nothing is measured here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_resnet.console import file_size
from keras_resnet.text import shorten
from training.report.charts import (
    BLUE,
    INK,
    LINE,
    MUTED,
    ORANGE,
    PALE,
    new_figure,
    points,
    significant,
    thread_word,
    to_svg,
)
from training.report.records import Records

# By task: what verify's accuracy is called, and what it and agreement are shares of.
ACCURACY = {
    "single": ("top-1", "images"),
    "binary": ("accuracy", "images"),
    "multi": ("right labels", "labels"),
}

Rows = dict[str, dict[str, Any]]

VISIBLE = 0.001  # of a probability: kinds that change less have no pictures
SEVERAL = (BLUE, ORANGE, "#12917a", "#9a63d8", "#b8860b", MUTED)  # legible in both themes
WIDEST = 2.5  # of the longest median: a line to p90 beyond that is cut
FAR_APART = 12  # times: latencies that differ by more are cut, or drawn on a logarithmic axis
SAME_LEVEL = 0.02  # of the axis: the least distance between labels of one height
KIND_NAME = 24  # letters of a kind in a chart
LAYER_NAME = 40  # letters of a layer in a chart


def tflite(records: Records) -> dict[str, Any] | None:
    """What the template shows; ``None`` if there is nothing to show."""
    verify, here = records.read("tflite/verify.json"), records.read("tflite/benchmark.json")
    binary = [records.read(f"tflite/benchmark_{where}.json") for where in ("program", "phone")]
    inspected = records.read("tflite/inspect.json") or {}
    mixed, layers = records.read("tflite/model_mixed.json"), records.layers()
    rows: Rows = {}
    for record in verify["kinds"] if verify else ():
        rows[record["kind"]] = {"bytes": record["bytes"], "verified": record, "latencies": {}}
    for record in here or ():
        empty = {"bytes": record["bytes"], "verified": None, "latencies": {}}
        rows.setdefault(record["kind"], empty)["latencies"][record["threads"]] = record
    for kind, inspection in inspected.items():
        empty = {"bytes": inspection["bytes"], "verified": None, "latencies": {}}
        rows.setdefault(kind, empty)
    if not rows:
        return None
    verified = {kind: row["verified"] for kind, row in rows.items() if row["verified"]}
    task = str((verify or {}).get("task"))  # older records have none
    accuracy, of = ACCURACY.get(task, ACCURACY["single"])
    return {
        "rows": rows,
        "accuracy": accuracy,
        "images": verify and verify["images"],
        "threads": sorted({record["threads"] for record in here or ()}),
        "charts": _charts(rows, verified, accuracy, of),
        "trade_off": _trade_off(rows, accuracy),
        "timings": _timings((here, *binary)),
        "worst": [(k, c) for k, v in verified.items() for c in v.get("worst_classes", ())],
        "changed": _changed(verified),
        "inspected": inspected,
        "findings": _findings(inspected),
        "preflight": _preflight(inspected),
        "layers": _layers(layers),
        "mixed": _mixed(mixed),
    }


# The files side by side


def _charts(rows: Rows, verified: Rows, accuracy: str, of: str) -> dict[str, Markup]:
    charts = {"Size": _sizes(rows)}
    if any(row["latencies"] for row in rows.values()):
        charts["Latency, ms an image: median, and a line to p90"] = _latencies(rows)
    if verified:
        name = accuracy[0].upper() + accuracy[1:]
        charts[f"{name} against Keras, points, with 95 % interval"] = _differences(verified)
        charts[f"Same prediction as Keras, % of {of}"] = _agreements(verified)
    return charts


def _sizes(rows: Rows) -> Markup:
    figure, axes = _panel(list(rows))
    sizes = [row["bytes"] for row in rows.values()]
    axes.barh(range(len(rows)), sizes, height=0.5, color=BLUE)
    for y, size in enumerate(sizes):
        _write_beside(axes, size, y, file_size(size))
    _end_panel(axes, max(sizes))
    return to_svg(figure, "Size of each TFLite file")


def _latencies(rows: Rows) -> Markup:
    counts = sorted({count for row in rows.values() for count in row["latencies"]})
    timed = [record for row in rows.values() for record in row["latencies"].values()]
    medians = [record["median_ms"] for record in timed]
    height = 0.7 / len(counts)
    colors = dict(zip(counts, itertools.cycle((PALE, BLUE))))
    figure, axes = _panel(list(rows), row_height=max(0.42, 0.2 * len(counts)))
    # One kind without fast kernels, or one busy moment, must not flatten the other bars.
    edge = min(WIDEST * max(medians), FAR_APART * min(medians))
    longest = 0.0
    for y, row in enumerate(rows.values()):
        for place, count in enumerate(counts):
            if record := row["latencies"].get(count):
                at = y + height * (place - (len(counts) - 1) / 2)
                median, p90 = (min(record[key], edge) for key in ("median_ms", "p90_ms"))
                axes.barh(at, median, height=0.86 * height, color=colors[count])
                axes.plot((median, p90), (at, at), color=MUTED, linewidth=1.2)
                if p90 == edge:  # cut here
                    axes.plot(p90, at, ">", color=MUTED, markersize=4)
                text = f"{significant(record['median_ms'])} · {count} {thread_word(count)}"
                _write_beside(axes, p90, at, text)
                longest = max(longest, p90)
    _end_panel(axes, longest)
    return to_svg(figure, "Latency of each TFLite file")


def _differences(verified: Rows) -> Markup:
    figure, axes = _panel(list(verified))
    for y, record in enumerate(verified.values()):
        low, high = record["interval"]
        axes.plot((low, high), (y, y), color=BLUE, linewidth=2, solid_capstyle="round")
        axes.plot(record["difference"], y, "o", color=BLUE, markersize=6)
        axes.annotate(
            points(record["difference"]),
            (record["difference"], y),
            (0, 6),
            textcoords="offset points",
            ha="center",
            color=INK,
        )
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    widest = max(max(map(abs, record["interval"])) for record in verified.values()) or 1
    axes.set_xlim(-1.15 * widest, 1.15 * widest)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", bottom=False)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    return to_svg(figure, "Difference of accuracy between each TFLite file and Keras")


def _agreements(verified: Rows) -> Markup:
    figure, axes = _panel(list(verified))
    for y, record in enumerate(verified.values()):
        axes.barh(y, 100, height=0.5, color=LINE)
        axes.barh(y, record["agreement"], height=0.5, color=BLUE)
        _write_beside(axes, 100, y, f"{record['agreement']:.2f}")
    _end_panel(axes, 100)
    return to_svg(figure, "Agreement of each TFLite file with Keras")


def _trade_off(rows: Rows, accuracy: str) -> Markup | None:
    """Accuracy against latency; a bubble's area is the file's size."""
    count = min((count for row in rows.values() for count in row["latencies"]), default=0)
    shown = {
        kind: row for kind, row in rows.items() if row["verified"] and count in row["latencies"]
    }
    if not shown:
        return None
    figure, axes = new_figure(7.4, 2.6)
    largest = max(row["bytes"] for row in shown.values())
    medians = [_median(row, count) for row in shown.values()]
    logarithmic = max(medians) > FAR_APART * min(medians)
    left = 0.5 * min(medians) if logarithmic else 0.0
    right = (2.5 if logarithmic else 1.3) * max(medians)
    ends: list[float] = []  # of the labels on each level
    for kind, row in sorted(shown.items(), key=lambda item: _median(item[1], count)):
        x, y = _median(row, count), row["verified"]["file_top1"]
        low, high = (row["verified"]["keras_top1"] + end for end in row["verified"]["interval"])
        axes.plot((x, x), (low, min(high, 100)), color=MUTED, linewidth=1.2, zorder=1)
        axes.scatter(x, y, s=900 * row["bytes"] / largest, color=BLUE, alpha=0.45, zorder=2)
        axes.scatter(x, y, s=14, color=INK, zorder=3)
        text = f"{shorten(kind, KIND_NAME)}  {file_size(row['bytes'])}"
        at = math.log(x / left, right / left) if logarithmic else x / right
        level = next((i for i, end in enumerate(ends) if end < at), len(ends))
        ends[level : level + 1] = [at + 0.0105 * len(text) + SAME_LEVEL]
        axes.annotate(
            text,
            (x, 1),
            (-4, 8 + 15 * level),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=INK,
        )
        axes.axvline(x, color=LINE, linewidth=0.8, zorder=0)
    keras = next(iter(shown.values()))["verified"]["keras_top1"]
    axes.axhline(keras, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    axes.annotate(
        "Keras",
        (1, keras),
        (5, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        color=MUTED,
    )
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left, right)
    low, high = axes.get_ylim()
    margin = 0.2 * (high - low)  # the bubbles reach beyond their centres
    axes.set_ylim(low - margin, high + margin)
    axes.set_yticks([tick for tick in axes.get_yticks() if low - margin <= tick < 100.001])
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_ylabel(f"{accuracy}, %", color=MUTED)
    axes.set_xlabel(f"median ms an image, {count} {thread_word(count)}", color=MUTED)
    axes.ticklabel_format(axis="y", useOffset=False)
    return to_svg(figure, "Accuracy against latency and size of each TFLite file")


def _median(row: dict[str, Any], count: int) -> float:
    return row["latencies"][count]["median_ms"]


def _panel(kinds: list[str], row_height: float = 0.42) -> tuple[Figure, Axes]:
    """One small chart with a row for each kind; heights are in inches."""
    figure, axes = new_figure(3.5, 0.3 + row_height * len(kinds))
    names = [shorten(kind, KIND_NAME) for kind in kinds]
    axes.set_yticks(range(len(kinds)), names, parse_math=False, color=INK)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _write_beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", color=INK)


def _end_panel(axes: Axes, longest: float) -> None:
    axes.set_xlim(0, 1.45 * longest or 1)  # room for the numbers
    axes.set_xticks([])


# Timings, changed images, findings, runtimes, layers


def _timings(benchmarks: Sequence[list[dict[str, Any]] | None]) -> list[dict[str, Any]]:
    """A table for each device that timed the files."""
    return [
        {
            "device": records[0].get("device", ""),
            "runtime": records[0].get("runtime", ""),
            "load": records[0].get("load_average"),
            "records": records,
            "columns": [
                (title, key)
                for title, key in TIMES
                if any(record.get(key) is not None for record in records)
            ],
            "memory": any(record.get("memory_bytes") is not None for record in records),
        }
        for records in benchmarks
        if records
    ]


TIMES = (
    ("median", "median_ms"),
    ("p90", "p90_ms"),
    ("p95", "p95_ms"),
    ("p99", "p99_ms"),
    ("first", "first_ms"),
    ("load", "load_ms"),
)


def _changed(verified: Rows) -> list[tuple[str, dict[str, Any]]]:
    """The kinds that changed images visibly, the one that changed most first."""
    found = [
        (kind, record)
        for kind, record in verified.items()
        if record.get("changed") and _most(record) >= VISIBLE
    ]
    return sorted(found, key=lambda item: -_most(item[1]))


def _most(record: dict[str, Any]) -> float:
    return 1.0 if record["max_difference"] is None else record["max_difference"]


def _findings(inspected: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Findings grouped by cause over all kinds: what a user can change, and notes."""
    grouped: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for kind, inspection in inspected.items():
        for finding in inspection["lint"]:
            cause = finding["rule"], finding["message"], finding["mend"]
            group = grouped.setdefault(cause, {**finding, "kinds": [], "layers": {}})
            group["kinds"].append(kind)
            group["layers"] |= dict.fromkeys(finding["layers"])
    findings = [group | {"layers": list(group["layers"])} for group in grouped.values()]
    return {
        "changes": [finding for finding in findings if finding["mend"]],
        "notes": [finding for finding in findings if not finding["mend"]],
    }


def _preflight(inspected: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The line of each kind, by runtime."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, inspection in inspected.items():
        for line in inspection["preflight"]:
            table.setdefault(line["runtime"], {})[kind] = line
    return table


def _layers(kinds: dict[str, Any]) -> dict[str, Any] | None:
    """Signal-to-noise ratio after each layer, for each kind that ``layers`` compared."""
    names = list(dict.fromkeys(row["layer"] for kind in kinds.values() for row in kind["layers"]))
    if not names:
        return None
    figure, axes = new_figure(7.4, 0.5 + 0.2 * len(names))
    for (kind, compared), color in zip(kinds.items(), itertools.cycle(SEVERAL)):
        known = {
            row["layer"]: row["signal_to_noise_db"]
            for row in compared["layers"]
            if row["signal_to_noise_db"] is not None
        }
        positions = [names.index(layer) for layer in known]
        values = list(known.values())
        label = shorten(kind, KIND_NAME)
        axes.plot(values, positions, "o-", color=color, markersize=4, linewidth=1, label=label)
    shown = [shorten(name, LAYER_NAME) for name in names]
    axes.set_yticks(range(len(names)), shown, parse_math=False, color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_xlabel("signal-to-noise ratio, dB; higher is better", color=MUTED)
    if len(kinds) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    images = next(iter(kinds.values()))["images"]
    worst = {kind: _noisiest(compared["layers"]) for kind, compared in kinds.items()}
    chart = to_svg(figure, "Error after each layer")
    return {"chart": chart, "kinds": list(kinds), "images": images, "worst": worst}


def _noisiest(rows: list[dict[str, Any]]) -> str:
    noisy = [row for row in rows if row["signal_to_noise_db"] is not None]
    row = min(noisy, key=lambda row: row["signal_to_noise_db"], default=None)
    if row is None:
        return "no error"
    return f"{row['signal_to_noise_db']:.1f} dB after {shorten(row['layer'], LAYER_NAME)}"


def _mixed(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The candidates for the mixed kind: error against size and against latency."""
    if not found:
        return None
    chosen = found["points"][found["chosen"]]
    sizes = _choice(found, [p["bytes"] / 1e6 for p in found["points"]], "size, MB")
    times = _choice(found, [p["latency"] for p in found["points"]], "latency, one thread, ms")
    return {
        "charts": {"Error against size": sizes, "Error against latency": times},
        "chosen": chosen,
        "blocks": len(found["points"]) - 1,
    }


def _choice(found: dict[str, Any], values: list[float], name: str) -> Markup:
    figure, axes = new_figure(3.5, 2)
    shifts = [point["shift"] for point in found["points"]]
    axes.plot(values, shifts, "o-", color=BLUE, markersize=4, linewidth=1)
    at = found["chosen"]
    axes.plot(values[at], shifts[at], "o", color=ORANGE, markersize=9)
    axes.set_xlabel(name, color=MUTED)
    axes.set_ylabel("mean shift of the log-odds", color=MUTED)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    return to_svg(figure, f"Mixed files: error against {name}")
