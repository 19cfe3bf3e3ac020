"""The results of the subcommands as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.cli.formats import (
    before_and_after,
    decibels,
    milliseconds,
    multiply_adds,
    percent,
    percent_or_none,
    points,
    probability,
)
from keras_resnet.console import file_size, show, show_fields, show_table

if TYPE_CHECKING:
    from tflite.devices.arm64 import ArmComparison
    from tflite.evidence.golden import Golden
    from training.config import Experiment
    from training.dry_run import RunEstimate
    from training.evaluate import ClassEvaluation, Evaluation
    from training.report.compare import Compared
    from training.run import Run
    from training.tuning.tune import SearchResult

Records = Sequence[Mapping[str, Any]]

WORST = 20  # classes in the table of an evaluation

# What verify's accuracy is called, by task.
ACCURACY = {"single": "top-1", "binary": "accuracy", "multi": "right labels"}

# Whether a runtime loads a file.
LOADS = {True: "yes", False: "no", None: "not tried"}


def show_evaluation(run: Run, evaluation: Evaluation, kept: bool = True) -> None:
    """Totals first, then the classes with the lowest recall.

    Args:
        run: The run folder.
        evaluation: Its evaluation.
        kept: Whether the run folder keeps it, in ``evaluation.json``.
    """
    of_run = run.model_name == type(run).model_name  # another one is a .keras file by itself
    named = ("run", str(run.folder)) if of_run else ("model", str(run.model_file))
    show_fields([*_totals(evaluation), named])
    show("")
    worst = sorted(evaluation.classes, key=_recall_then_images)[:WORST]
    several = evaluation.task == "multi"
    more = ("F1", "average precision", "threshold") if several else ()
    show_table(
        ("class", "training", "test", "precision", "recall", *more),
        [_class_row(c, several) for c in worst],
    )
    if rest := len(evaluation.classes) - len(worst):
        where = f"{run.folder}/evaluation.json, or --json" if kept else "--json"
        show(f"{rest:,} classes of no lower recall are not shown: {where}")


def _totals(evaluation: Evaluation) -> list[tuple[str, str]]:
    name = {"single": "top-1", "binary": "accuracy", "multi": "all labels right"}
    totals = [(name[evaluation.task], str(evaluation.top1))]
    if baseline := evaluation.baseline:
        totals.append(("baseline", baseline))
    if evaluation.top5:
        totals.append(("top-5", str(evaluation.top5)))
    apart = evaluation.without_duplicates
    if apart and apart.images < evaluation.top1.images:
        totals.append(("without near duplicates", str(apart)))
    if binary := evaluation.binary:
        totals += [
            ("ROC AUC", _figure(binary.roc_auc)),
            ("average precision", _figure(binary.average_precision)),
            ("F1", _figure(binary.f1)),
            ("threshold", f"{binary.threshold:.4g} of {binary.positive}"),
        ]
    if multi := evaluation.multi:
        totals += [
            ("mean average precision", _figure(multi.mean_average_precision)),
            ("mean F1", _figure(multi.mean_f1)),
            ("right decisions", f"{multi.right_decisions:.2%} of images times labels"),
        ]
    if evaluation.cross_fitted:
        totals.append(("thresholds", "chosen on one half of the images, measured on the other"))
    return totals


def _recall_then_images(row: ClassEvaluation) -> tuple[float, int]:
    """The lowest recall first; of equal ones that of most images; without images last."""
    recall = row.recall.value
    return (2.0 if recall is None else recall, -row.test_images)


def _class_row(row: ClassEvaluation, several: bool) -> tuple[str, ...]:
    trained = "–" if row.training_images is None else f"{row.training_images:,}"
    more = (_figure(row.f1), _figure(row.average_precision), _figure(row.threshold))
    return (
        row.label,
        trained,
        f"{row.test_images:,}",
        percent(row.precision),
        percent(row.recall),
        *(more if several else ()),
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def show_estimate(experiment: Experiment, estimate: RunEstimate) -> None:
    """What a training would take, after its experiment as YAML."""
    import yaml

    from training.config import to_dict

    for line in yaml.safe_dump(to_dict(experiment), sort_keys=False, allow_unicode=True).split(
        "\n"
    ):
        show(line)
    network, trained = experiment.model.architecture, f"{estimate.trainable:,} are trained"
    show_table(
        ("", "value", "source"),
        [
            ("network", network, "the experiment"),
            ("parameters", f"{estimate.parameters:,}", f"counted; {trained}"),
            ("multiply-adds", multiply_adds(estimate.multiply_adds), "counted, for an image"),
            ("steps", f"{estimate.steps:,}", f"{estimate.steps_per_epoch:,} an epoch"),
            ("state", file_size(estimate.state_bytes), "weights, average, optimizer, gradients"),
            ("activations", file_size(estimate.activation_bytes), "at most: outputs of all layers"),
            ("step", f"{estimate.step_seconds:.3g} s", "measured on noise, on this machine"),
            ("run", f"{estimate.hours:.2g} h", "steps alone: no validation, no wait for images"),
        ],
        prose=("source",),
    )


def show_search(found: SearchResult, keys: Sequence[str], folder: Path) -> None:
    best = found.best or {}
    show_table(("key", "best"), [(key, str(best[key])) for key in keys], prose=("best",))
    recipe = found.recipe
    trial = f"trial {best['trial']} of {len(found.rows)}"
    lines = [("accuracy", f"{best['val_accuracy']:.2%}, {trial}")]
    if recipe:
        lines.append(("recipe", f"{recipe['val_accuracy']:.2%}, trial {recipe['trial']}"))
    lines.append(("report", f"{folder}/report.html"))
    lines.append(("train it", f"keras-resnet train --recipe {folder}/best.yaml"))
    show("")
    show_fields(lines)


def show_comparison(runs: Sequence[Compared]) -> None:
    rows = [
        ("epochs", [str(run.epochs) for run in runs]),
        ("top-1", [percent_or_none(run.top1) for run in runs]),
    ]
    for key in ("val_accuracy", "val_loss", "accuracy", "loss"):
        rows.append((f"last {key}", [f"{run.rows[-1].get(key, math.nan):.4g}" for run in runs]))
    for key in runs[0].experiment:
        rows.append((key, [str(run.experiment[key]) for run in runs]))
    show_table(("", *(run.name for run in runs)), [(name, *cells) for name, cells in rows])


def show_files(files: Mapping[str, Path]) -> None:
    rows = [(kind, file_size(path.stat().st_size), str(path)) for kind, path in files.items()]
    show_table(("kind", "size", "file"), rows, prose=("file",))


def show_verification(report: Mapping[str, Any], max_drop: float | None) -> None:
    accuracy = ACCURACY[report["task"]]
    more = [
        (name, f"Keras {name}", key)
        for name, key in (("top-5", "top5"), ("mAP", "mean_average_precision"))
        if any(row[f"keras_{key}"] is not None for row in report["kinds"])
    ]
    show_table(
        (
            *("kind", "size", accuracy, f"Keras {accuracy}", "difference", "95 % interval", "p"),
            *(name for *names, _ in more for name in names),
            *("agreement", "calibration", "drift", "max Δp"),
        ),
        [_verification_row(row, [key for *_, key in more]) for row in report["kinds"]],
        title=f"{report['images']:,} test images",
    )
    show("")
    for row in report["kinds"]:
        for line in changes(row, max_drop):
            show(line)


def _verification_row(row: Mapping[str, Any], more: Sequence[str]) -> tuple[str, ...]:
    # Top-5 is in percent, mean average precision from 0 to 1.
    others = [
        (row[f"{model}_{key}"], 2 if key == "top5" else 4)
        for key in more
        for model in ("file", "keras")
    ]
    return (
        row["kind"],
        file_size(row["bytes"]),
        f"{row['file_top1']:.2f}",
        f"{row['keras_top1']:.2f}",
        f"{row['difference']:+.2f}",
        "{:+.2f} … {:+.2f}".format(*row["interval"]),
        f"{row['mcnemar']:.2g}",
        *("–" if value is None else f"{value:.{digits}f}" for value, digits in others),
        f"{row['agreement']:.2f} %",
        before_and_after(row["keras_calibration_error"], row["file_calibration_error"]),
        points(row["confidence_drift"]),
        probability(row["max_difference"]),
    )


def changes(row: Mapping[str, Any], max_drop: float | None) -> list[str]:
    """Which classes a file recognizes less often, and whether the images were enough to tell."""
    lines = []
    if row["worst_classes"]:
        classes = (
            f"{c['label']} {c['file_recall'] - c['keras_recall']:+.1f} (of {c['images']:,})"
            for c in row["worst_classes"]
        )
        lines.append(f"{row['kind']} recognizes less often, in points: {', '.join(classes)}")
    if needed := row["images_to_resolve"]:
        enough = "were enough" if needed <= row["images"] else f"are too few: {needed:,} would do"
        lines.append(
            f"{row['kind']}: to tell a drop of {max_drop:g} points, {row['images']:,} {enough}"
        )
    return lines


def show_arm_comparison(inputs: Golden, rows: Sequence[ArmComparison]) -> None:
    show_table(
        ("kind", "same top-1", "max Δp", "at", "two steps in the tail"),
        [
            (
                row.kind,
                f"{row.same_top1} of {row.images}",
                f"{256 * row.max_difference:.3f}/256",
                _place(row.where) if row.max_difference else "–",
                "; ".join(map(_place, row.tail)) or "none",
            )
            for row in rows
        ],
        title=f"{len(inputs.images)} {inputs.of} on emulated arm64 against this machine",
        prose=("two steps in the tail",),
    )


def _place(where: tuple[int, int]) -> str:
    return "image {}, class {}".format(*where)


def show_benchmark(records: Records) -> None:
    times = ("median", "p90", "p95", "p99", "first", "load")
    show_table(
        ("kind, threads", *times, "memory", "size"),
        [
            (
                f"{row['kind']}, {row['threads']}",
                *(milliseconds(row[f"{name}_ms"]) for name in times),
                "–" if row["memory_bytes"] is None else file_size(row["memory_bytes"]),
                file_size(row["bytes"]),
            )
            for row in records
        ],
        title=f"{records[0]['device']}, {records[0]['runtime']}",
    )
    for row in records:
        if row.get("operations"):
            _show_operations(row)


def _show_operations(row: Mapping[str, Any]) -> None:
    show_table(
        ("operation", "count", "time", "share"),
        [
            (
                op["operation"],
                str(op["count"]),
                milliseconds(op["milliseconds"]),
                f"{op['percent']:.1f} %",
            )
            for op in row["operations"]
        ],
        title=f"{row['kind']}, threads: {row['threads']}",
    )


def show_inspection(inspection: Mapping[str, Any]) -> None:
    lines = [
        (
            f"{key[:-1]}",
            f"{tensor['name']}: {tensor['dtype']} {'×'.join(map(str, tensor['shape']))}",
        )
        for key in ("inputs", "outputs")
        for tensor in inspection[key]
    ]
    for key in ("operations", "weights"):
        counts = inspection[key].items()
        lines.append((key, ", ".join(f"{count} {name}" for name, count in counts)))
    total, weights = file_size(inspection["bytes"]), file_size(inspection["weight_bytes"])
    lines += [
        ("size", f"{total}, weights {weights}"),
        ("arena", f"at least {file_size(inspection['arena_bytes'])}"),
        ("work", f"{multiply_adds(inspection['multiply_adds'])} multiply-adds"),
        *((finding["rule"], _finding(finding)) for finding in inspection["lint"]),
    ]
    show_fields(lines)
    show("")
    show_table(
        ("runtime", "loads", "because"),
        [
            (line["runtime"], LOADS[line["loads"]], line["because"])
            for line in inspection["preflight"]
        ],
        prose=("because",),
    )
    not_run = [(f["runtime"], f["source"]) for f in inspection["preflight"] if f["source"]]
    if not_run:
        show("")
        show("Not run here, but judged by:")
        show_fields(not_run)


def _finding(finding: Mapping[str, Any]) -> str:
    layers = finding["layers"]
    where = f" ({len(layers)} layers, {layers[0]} first)" if len(layers) > 1 else ""
    where = f" ({layers[0]})" if len(layers) == 1 else where
    mend = f". Change: {finding['mend']}" if finding["mend"] else ""
    return f"{finding['message']}{where}{mend}"


def show_layers(rows: Records) -> None:
    show_table(
        ("layer", "operation", "signal to noise", "cosine", "mean squared error"),
        [
            (
                row["layer"],
                row["operation"],
                decibels(row["signal_to_noise_db"]),
                f"{row['cosine']:.5f}",
                f"{row['mean_squared_error']:.3g}",
            )
            for row in rows
        ],
    )


def show_quickstart(evaluation: Evaluation, kinds: Mapping[str, Mapping[str, Any]]) -> None:
    show_table(
        ("kind", "size", "top-1", "agreement", "one thread"),
        [
            (
                kind,
                file_size(row["bytes"]),
                f"{row['top1']:.2%}",
                f"{row['agreement']:.2%}",
                f"{row['latency_ms']:.2f} ms",
            )
            for kind, row in kinds.items()
        ],
        title=f"Keras: {evaluation.top1}",
    )
