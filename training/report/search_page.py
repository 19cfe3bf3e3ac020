"""The report of a search: its trials, the importance of each key, accuracy against cost."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import matplotlib.axes
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from training.report.charts import BLUE, CARD, INK, LINE, MUTED, ORANGE, PALE, new_figure, to_svg
from training.report.run_page import environment
from training.run import Run
from training.tuning.budget import COSTS
from training.tuning.results import Row, best_row, front_of, recipe_row
from training.tuning.space import Dimension, Space
from training.tuning.tuner import Plan

LISTED = 12  # trials
ENOUGH = 8  # trials, for a statement on importance
FAR = 3  # times the most expensive trial: a budget that would squeeze all points into a corner
COST_WORDS = {"size_mb": "size of the int8 file, MB", "latency_ms": "latency, ms an image"}


def write_report(plan: Plan, rows: list[Row], objective: str) -> Path:
    """Writes ``report.html`` atomically.

    Args:
        plan: The search.
        rows: The rows of ``trials.csv``.
        objective: Name of the maximized metric.

    Returns:
        The path of the page.
    """
    page = environment().get_template("tuning.html.j2").render(_contents(plan, rows, objective))
    return Run(plan.folder).write_text("report.html", page)


def _contents(plan: Plan, rows: list[Row], objective: str) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == "completed"]
    trained = [row for row in done if row["val_accuracy"] is not None]
    trained.sort(key=lambda row: row["score"])
    best, space = best_row(rows), plan.space
    return {
        "name": plan.folder.resolve().name,
        "folder": plan.folder,
        "written": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "experiment": plan.base,
        "objective": objective,
        "best": best,
        "recipe": recipe_row(plan, rows),
        "values": {key: _short_value(best[key]) for key in space.keys} if best else {},
        "trials": len(rows),
        "untrained": len(done) - len(trained),
        "seconds": sum(row["seconds"] or 0 for row in rows),
        "progress": _progress(rows) if trained else None,
        "coordinates": _coordinates(space, trained, best) if best else None,
        "importance": _importance(space, trained),
        "enough": ENOUGH,
        "pareto": _pareto(plan, rows) if plan.budget and trained else None,
        "columns": {key: key.rpartition(".")[2].replace("_", " ") for key in space.keys},
        "listed": [
            row | {key: _short_value(row[key]) for key in space.keys}
            for row in reversed(trained[-LISTED:])
        ],
        "failed": [row for row in rows if row["status"] == "failed"],
    }


# --- Charts -----------------------------------------------------------------------------------


def _progress(rows: list[Row]) -> Markup:
    """The accuracy of each trial, and the best so far."""
    figure, axes = new_figure(8, 1.9)
    number, best = [], -np.inf
    steps: list[float] = []
    for i, row in enumerate(rows):
        if row["val_accuracy"] is None:
            continue
        number.append(i)
        best = max(best, 100 * row["val_accuracy"])
        steps.append(best)
        axes.plot(i, 100 * row["val_accuracy"], "o", color=PALE, markersize=5)
    axes.step(number, steps, where="post", color=BLUE, linewidth=1.6)
    axes.set_xlabel("trial", color=MUTED)
    axes.set_ylabel("accuracy, %", color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    return to_svg(figure, "Accuracy of each trial, and the best so far")


def _coordinates(space: Space, trained: list[Row], best: Row) -> Markup:
    """A line for each trial through its values, the stronger the better; the best in orange.

    Without trials that others continue.
    """
    continued = {row["continues"] for row in trained}
    trained = [row for row in trained if row["trial"] not in continued]
    figure, axes = new_figure(9, 3)
    names = [key.rpartition(".")[2].replace("_", "\n") for key in space.keys] + ["accuracy\n%"]
    scores = [100 * row["val_accuracy"] for row in trained]
    low, high = min(scores), max(scores)
    jitter = np.random.default_rng(0)
    for rank, row in enumerate(trained, 1):
        heights = [_height(d, row[d.key]) for d in space.dimensions]
        # Lines through the same choice would cover one another.
        heights = [
            height + (jitter.uniform(-0.02, 0.02) if d.values else 0)
            for d, height in zip(space.dimensions, heights)
        ]
        heights.append((100 * row["val_accuracy"] - low) / (high - low) if high > low else 0.5)
        first = row["trial"] == best["trial"]
        strength = 1 if first else 0.08 + 0.6 * (rank / len(trained)) ** 2
        axes.plot(
            heights,
            color=ORANGE if first else BLUE,
            linewidth=2.4 if first else 1.2,
            alpha=strength,
            zorder=3 if first else 2,
            solid_joinstyle="round",
        )
    for x, d in enumerate(space.dimensions):
        _mark(axes, x, d)
    _label(axes, len(names) - 1, ((0, f"{low:.4g}"), (1, f"{high:.4g}")) if high > low else ())
    for x in range(len(names)):
        axes.axvline(x, color=LINE, linewidth=1.2, zorder=1)
    axes.set_xticks(range(len(names)), names, parse_math=False, color=INK)
    axes.set_xlim(-0.15, len(names) - 0.6)
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return to_svg(figure, "Parallel coordinates of all trained trials")


def _mark(axes: matplotlib.axes.Axes, x: int, d: Dimension) -> None:
    if d.values:
        _label(axes, x, [(_height(d, value), str(value)) for value in d.values])
    else:
        _label(axes, x, ((0, f"{d.low:.4g}"), (1, f"{d.high:.4g}")))


def _label(axes: matplotlib.axes.Axes, x: int, texts: Any) -> None:
    for y, text in texts:
        axes.annotate(
            text,
            (x, y),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=MUTED,
            fontsize=8,
            zorder=4,
            bbox={"facecolor": CARD, "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _importance(space: Space, trained: list[Row]) -> Markup | None:
    """Permutation importance of each key in a random forest; ``None`` for too few trials."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    scores = np.array([row["val_accuracy"] for row in trained])
    if len(trained) < ENOUGH or np.ptp(scores) == 0:
        return None
    columns = {d.key: [_height(d, row[d.key]) for row in trained] for d in space.dimensions}
    # The number of epochs matters most, and is no choice: an input, but not shown.
    epochs = [row["epochs"] for row in trained]
    x = np.array([*columns.values(), epochs]).T
    forest = RandomForestRegressor(50, random_state=0).fit(x, scores)
    found = permutation_importance(forest, x, scores, n_repeats=10, random_state=0)
    losses = np.maximum(found.importances_mean[:-1], 0)
    order = np.argsort(losses)
    shares = 100 * losses / max(losses.sum(), 1e-12)
    spread = 100 * found.importances_std[:-1] / max(losses.sum(), 1e-12)

    figure, axes = new_figure(6, 0.3 + 0.32 * len(columns))
    names = list(columns)
    for y, i in enumerate(order):
        axes.barh(y, shares[i], height=0.55, color=BLUE)
        axes.plot((max(0, shares[i] - spread[i]), shares[i] + spread[i]), (y, y), color=MUTED)
        axes.annotate(
            f"{shares[i]:.0f} %",
            (shares[i] + spread[i], y),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_yticks(range(len(names)), [names[i] for i in order], parse_math=False, color=INK)
    axes.set_xlim(0, 1.2 * (shares + spread).max())
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return to_svg(figure, "Importance of each key")


def _pareto(plan: Plan, rows: list[Row]) -> dict[str, Markup]:
    limits = {"size_mb": plan.budget.max_size_mb, "latency_ms": plan.budget.max_latency_ms}
    front = {row["trial"] for row in front_of(rows)}
    return {COST_WORDS[cost]: _costs(rows, front, cost, limits[cost]) for cost in COSTS}


def _costs(rows: list[Row], front: set[str], cost: str, limit: float | None) -> Markup:
    figure, axes = new_figure(4, 2.8)
    trained = [row for row in rows if row["val_accuracy"] is not None and row.get(cost)]
    for row in trained:
        chosen = row["trial"] in front
        axes.plot(
            row[cost],
            100 * row["val_accuracy"],
            "o",
            color=BLUE if chosen else PALE,
            markersize=8 if chosen else 5,
            zorder=3 if chosen else 2,
        )
    best = sorted((row for row in trained if row["trial"] in front), key=lambda row: row[cost])
    axes.plot(
        [row[cost] for row in best],
        [100 * row["val_accuracy"] for row in best],
        color=BLUE,
        linewidth=1,
    )
    if limit:
        _draw_limit(axes, limit, far=limit > FAR * max(row[cost] for row in trained))
    axes.set_xlabel(COST_WORDS[cost], color=MUTED)
    axes.set_ylabel("accuracy, %", color=MUTED)
    axes.grid(color=LINE, linewidth=0.8)
    axes.margins(0.08)
    return to_svg(figure, f"Accuracy against {COST_WORDS[cost]}")


def _draw_limit(axes: matplotlib.axes.Axes, limit: float, far: bool) -> None:
    if not far:
        axes.axvline(limit, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"budget {limit:g}{' →' if far else ''}",
        (1 if far else limit, 1),
        (-4, 0),
        xycoords=("axes fraction" if far else "data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=ORANGE,
        fontsize=8,
    )


def _height(d: Dimension, value: Any) -> float:
    """The position of a value on its axis, 0–1."""
    if d.values:
        return d.values.index(value) / max(1, len(d.values) - 1) if len(d.values) > 1 else 0.5
    if d.log:
        return float(np.log(value / d.low) / np.log(d.high / d.low))
    return (value - d.low) / (d.high - d.low)


def _short_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
