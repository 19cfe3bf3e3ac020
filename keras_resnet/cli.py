"""``keras-resnet``: one command from images to a phone.

Results go to stdout and everything else to stderr. Exit codes: 0 done (or stopped by SIGTERM with
everything saved), 1 the model failed its verification or the training diverged, 2 something given
was wrong, 130 stopped by Ctrl-C. Heavy modules are imported inside each subcommand, so that
``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from keras_resnet.console import progress, say, show_json, show_table
from keras_resnet.quiet import quiet

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    import numpy as np

    from keras_resnet.classifier import ImageClassifier
    from tflite.golden import Golden
    from training.data.sources import Source
    from training.evaluate import Evaluation
    from training.run import Run

CALIBRATION = 100
QUICKSTART_RECIPE = "digits-resnet8"

RunArgument = Annotated[Path | None, arg(metavar="RUN")]
DataOption = Annotated[str | None, arg(metavar="SPEC")]
FolderOption = Annotated[Path | None, arg(metavar="DIR")]
NumberOption = Annotated[int | None, arg(metavar="N")]
PointsOption = Annotated[float | None, arg(metavar="POINTS")]

app = tyro.extras.SubcommandApp()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a subcommand, so that parsing returns it, ready to be called."""

    @functools.wraps(function)
    def ready(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    app.command(ready)
    return function


class Failed(Exception):
    """The command did its work, and the answer is no: exit code 1."""


@command
def models(
    pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "", /, json: bool = False
) -> None:
    """List the networks.

    Args:
        pattern: Only those whose name or paper has these letters; * and ? stand for any.
        json: Print a JSON list.
    """
    from keras_resnet.architectures import ARCHITECTURES

    rows = [row for row in ARCHITECTURES.values() if _matches(pattern, row.name, row.paper)]
    if not rows:
        raise ValueError(f"No network matches {pattern!r}. See them all: keras-resnet models")
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    show_table(
        ("name", "parameters", "multiply-adds", "input", "classes", "variant", "paper"),
        [
            (
                row.name,
                f"{row.parameters:,}",
                _multiply_adds(row.multiply_adds),
                "×".join(map(str, row.input_shape)),
                str(row.classes),
                row.variant,
                row.paper.split(",")[0],
            )
            for row in rows
        ],
    )


@command
def weights(
    pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "", /, json: bool = False
) -> None:
    """List the published weights that weights= of the constructors takes by a tag.

    Args:
        pattern: Only those whose network or tag has these letters; * and ? stand for any.
        json: Print a JSON list.
    """
    from keras_resnet.weights.catalog import CATALOG

    rows = [row for row in CATALOG if _matches(pattern, row.architecture, row.tag)]
    if not rows:
        raise ValueError(f"No weights match {pattern!r}. See them all: keras-resnet weights")
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    show_table(
        ("network", "variant", "tag", "top-1", "at", "licence", "size"),
        [
            (
                row.architecture,
                row.variant,
                row.tag if row.include_top else f"{row.tag} (no classifier)",
                "" if row.top1 is None else f"{row.top1:.2f} %",
                f"{row.resolution} px",
                row.licence,
                "" if row.size is None else _bytes(row.size),
            )
            for row in rows
        ],
    )


@command
def train(
    *,
    recipe: Annotated[str, arg(metavar="NAME|FILE")] = "digits-resnet8",
    data: DataOption = None,
    data_dir: FolderOption = None,
    epochs: NumberOption = None,
    batch_size: NumberOption = None,
    out: FolderOption = None,
    deterministic: bool = False,
    dry_run: bool = False,
    backend: Literal["tensorflow", "jax"] | None = None,
    coordinator: Annotated[str | None, arg(metavar="HOST:PORT|auto")] = None,
    machines: NumberOption = None,
    rank: NumberOption = None,
    set: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...")] = (),
    json: bool = False,
) -> None:
    """Train a model by a recipe, and evaluate it.

    A run that was stopped, by whatever means, goes on with the same command and --out.

    Args:
        recipe: A recipe's name (digits-resnet8, cifar10-resnet20, finetune-folder …: see
            docs/recipes.md), or an experiment.yaml.
        data: Where images come from: digits, tfds:NAME or folder:PATH.
        data_dir: Where tensorflow-datasets keeps its data.
        epochs: Passes over the training images.
        batch_size: Images a step.
        out: The run folder, new or of the same run; a new one, runs/RECIPE, by default.
        deterministic: Use only operations that give the same bits twice, on a GPU too.
        dry_run: Only say what would be done: the experiment, the network, memory and time.
            Nothing is written.
        backend: What computes; KERAS_BACKEND or TensorFlow by default.
        coordinator: Where several machines meet: a port of the first, or auto under Slurm,
            Kubernetes or Open MPI (docs/several-machines.md). JAX only.
        machines: How many machines there are.
        rank: Which of them this one is, from 0; the first keeps the run folder.
        set: Any other keys of the experiment, such as optimizer.learning_rate=0.05.
        json: Print the evaluation as JSON.
    """
    from training.config import load_experiment
    from training.machines import join
    from training.run import new_folder

    join(coordinator, machines, rank)
    own = {"runtime.batch_size": batch_size, "runtime.deterministic": deterministic or None}
    changes = {key: value for key, value in own.items() if value is not None}
    experiment = load_experiment(recipe, changes | _changes(data, data_dir, epochs, set))
    if coordinator and out is None:
        raise ValueError("Several machines need to agree on a run folder: --out FOLDER")
    out = out or new_folder(Path(recipe).stem)
    if dry_run:
        _dry_run(experiment, out, json)
        return
    run = _train(experiment, out)
    if rank:  # the first machine has the model
        return
    evaluation = _evaluate(*_open(run.folder))
    if json:
        show_json({"run": str(run.folder), **evaluation.to_dict()})
    else:
        _show_evaluation(run, evaluation)


@command
def tune(
    *,
    recipe: Annotated[str, arg(metavar="NAME|FILE")] = "digits-resnet8",
    space: Annotated[Path | None, arg(metavar="FILE")] = None,
    tuner: Literal["random", "grid", "bayesian", "hyperband"] = "hyperband",
    trials: Annotated[int, arg(metavar="N")] = 20,
    data: DataOption = None,
    data_dir: FolderOption = None,
    epochs: NumberOption = None,
    max_latency_ms: Annotated[float | None, arg(metavar="MS")] = None,
    max_size_mb: Annotated[float | None, arg(metavar="MB")] = None,
    timeout: Annotated[float | None, arg(metavar="SECONDS")] = None,
    failures: Annotated[int, arg(metavar="N")] = 3,
    seed: Annotated[int, arg(metavar="N")] = 0,
    chief: bool = False,
    worker: bool = False,
    oracle: Annotated[str, arg(metavar="HOST:PORT")] = "127.0.0.1:8000",
    out: FolderOption = None,
    set: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...")] = (),
    json: bool = False,
) -> None:
    """Search for a better recipe with KerasTuner, each trial in a process of its own.

    A search that was stopped, by whatever means, goes on with the same command and --out.

    Args:
        recipe: A recipe's name, or an experiment.yaml, that the search varies.
        space: A YAML file of ranges over keys of the experiment; the recipe's own by default.
        tuner: Which way of choosing what to try.
        trials: The most trials; hyperband's number follows from the epochs.
        data: Where images come from: digits, tfds:NAME or folder:PATH.
        data_dir: Where tensorflow-datasets keeps its data.
        epochs: Passes over the training images, of a whole training.
        max_latency_ms: What the int8 TFLite file may take for an image, on one thread of this CPU.
        max_size_mb: What the int8 TFLite file may weigh.
        timeout: The longest that a trial may take.
        failures: Trials that may fail one after the other before the search gives up.
        seed: Decides what is tried.
        chief: Run no trials here, but hand them to workers.
        worker: Run trials for a chief, whose --out is this one's too.
        oracle: Where the chief listens.
        out: The search's folder, new or of the same search; a new one, runs/RECIPE-tuned, by
            default.
        json: Print the best trial as JSON.
        set: Any other keys of the experiment, such as checkpoint.monitor=val_loss.
    """
    from training.config import load_experiment
    from training.run import new_folder
    from training.tune import Budget, Exhausted, Search, load_space, parse_address, work
    from training.tune import tune as search_for
    from training.tuning.space import default_space

    if worker and chief:
        raise ValueError("A process is the chief or a worker. Give one of --chief and --worker")
    address = parse_address(oracle)
    if worker:
        if out is None:
            raise ValueError("A worker shares its chief's folder. Give it: --out FOLDER")
        work(out, address, measure=measure_int8, say=say)
        return
    experiment = load_experiment(recipe, _changes(data, data_dir, epochs, set))
    search = Search(
        experiment,
        load_space(space or default_space(recipe), experiment),
        tuner=tuner,
        trials=trials,
        budget=Budget(max_size_mb=max_size_mb, max_latency_ms=max_latency_ms),
        timeout=timeout,
        failures=failures,
        seed=seed,
    )
    folder = out or new_folder(f"{Path(recipe).stem}-tuned")
    try:
        found = search_for(
            search, folder, measure=measure_int8, chief=address if chief else None, say=say
        )
    except Exhausted as error:
        raise Failed(str(error)) from None
    if found.best is None:
        raise Failed(f"no trial was trained to its end. See {folder}/trials.csv")
    if json:
        show_json({"folder": str(folder), "trials": len(found.rows), "best": found.best})
        return
    show_table(("key", "best"), [(key, str(found.best[key])) for key in search.space.keys])
    print(f"accuracy  {found.best['val_accuracy']:.2%}, the best of {len(found.rows)} trials")
    print(f"report    {folder}/report.html")
    print(f"train it  keras-resnet train --recipe {folder}/best.yaml")


def measure_int8(model: ImageClassifier, calibration: Sequence[np.ndarray]) -> dict[str, float]:
    """Size (10^6 bytes) and latency (ms an image, one thread) of a model's int8 TFLite file."""
    import tempfile

    from tflite.benchmark import benchmark
    from tflite.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        files = convert(model, folder, ("int8",), calibration)
        [latency] = benchmark(files, calibration[0], threads=(1,))
    return {"size_mb": latency.bytes / 1e6, "latency_ms": latency.median_ms}


@command
def evaluate(
    run: Positional[RunArgument] = None,
    /,
    data: DataOption = None,
    data_dir: FolderOption = None,
    json: bool = False,
) -> None:
    """Measure a model on test images: top-1, top-5, precision and recall, with intervals.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        data: Other images than the run's: digits, tfds:NAME or folder:PATH.
        data_dir: Where tensorflow-datasets keeps its data.
        json: Print JSON, confusion matrix included.
    """
    opened, source, model = _open(run, data, data_dir)
    evaluation = _evaluate(opened, source, model, keep=data is None)
    if json:
        show_json(evaluation.to_dict())
    else:
        _show_evaluation(opened, evaluation)


@command
def export(run: Positional[RunArgument] = None, /, out: FolderOption = None) -> None:
    """Write a SavedModel that runs without this package.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        out: The SavedModel's folder; saved_model in the run by default.
    """
    print(_export(_locate(run), out))


@command
def convert(
    run: Positional[RunArgument] = None,
    /,
    kinds: Annotated[tuple[str, ...], arg(metavar="KIND ...")] = (),
    calibration: Annotated[int, arg(metavar="N")] = CALIBRATION,
    max_drop: PointsOption = None,
    max_latency: Annotated[float | None, arg(metavar="MS")] = None,
    data: DataOption = None,
    data_dir: FolderOption = None,
    out: FolderOption = None,
    json: bool = False,
) -> None:
    """Write TFLite files: float32, float16, dynamic and int8.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        kinds: Which of float32, float16, dynamic, int8, int16x8, mixed; the first four by
            default.
        calibration: Number of training images that int8, int16x8 and mixed are calibrated with.
        max_drop: For mixed, percent of calibration images that may get another answer.
        max_latency: For mixed, milliseconds an image may take on one thread here.
        data: Other images than the run's: digits, tfds:NAME or folder:PATH.
        data_dir: Where tensorflow-datasets keeps its data.
        out: Folder for the files; tflite in the run by default.
        json: Print a JSON object of paths and sizes.
    """
    budget = {"max_drop": max_drop, "max_latency": max_latency}
    files = _convert(_locate(run), kinds, calibration, data, data_dir, out, budget)
    sizes = {kind: path.stat().st_size for kind, path in files.items()}
    if json:
        show_json({kind: {"path": str(files[kind]), "bytes": sizes[kind]} for kind in files})
    else:
        rows = [(kind, _bytes(sizes[kind]), str(files[kind])) for kind in files]
        show_table(("kind", "size", "file"), rows)


@command
def verify(
    run: Positional[RunArgument] = None,
    /,
    max_drop: PointsOption = None,
    min_agreement: PointsOption = None,
    images: NumberOption = None,
    data: DataOption = None,
    data_dir: FolderOption = None,
    arch: Annotated[Literal["arm64"] | None, arg(metavar="arm64")] = None,
    json: bool = False,
) -> None:
    """Prove that the TFLite files still answer as Keras does; exit code 1 where they do not.

    Top-1 in percent, differences in points; p is of McNemar's test; calibration is the expected
    calibration error, of Keras and of the file.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        max_drop: Points of top-1 that a file may lose.
        min_agreement: Percent of images on which a file must agree with Keras.
        images: How many test images, spread over the split; all by default.
        data: Other images than the run's: digits, tfds:NAME or folder:PATH.
        data_dir: Where tensorflow-datasets keeps its data.
        arch: Instead, a few golden inputs on an emulated Arm processor against this one.
        json: Print JSON.
    """
    if arch is not None:
        _verify_arm64(_locate(run), data_dir, json)
        return
    opened = _open(run, data, data_dir)
    report = _verify(*opened, images, max_drop, min_agreement, keep=data is None)
    if json:
        show_json(report)
    else:
        show_table(
            (
                "kind",
                "size",
                "top-1",
                "Keras",
                "difference",
                "95 % interval",
                "p",
                "top-5",
                "agreement",
                "calibration",
                "max Δp",
            ),
            [
                (
                    row["kind"],
                    _bytes(row["bytes"]),
                    f"{row['file_top1']:.2f}",
                    f"{row['keras_top1']:.2f}",
                    f"{row['difference']:+.2f}",
                    "{:+.2f} … {:+.2f}".format(*row["interval"]),
                    f"{row['mcnemar']:.2g}",
                    f"{row['file_top5'] - row['keras_top5']:+.2f}",
                    f"{row['agreement']:.2f} %",
                    _calibration(row),
                    _probability(row["max_difference"]),
                )
                for row in report["kinds"]
            ],
            title=f"{report['images']:,} test images",
        )
        for row in report["kinds"]:
            if (needed := row["images_to_resolve"]) and needed > report["images"]:
                print(f"{row['kind']}: to tell a drop of {max_drop:g} points, {needed:,} images")
    broken = [f"{row['kind']}: {why}" for row in report["kinds"] for why in row["broken"]]
    if broken:
        raise Failed("; ".join(broken))


@command
def benchmark(
    run: Positional[RunArgument] = None,
    /,
    threads: Annotated[tuple[int, ...], arg(metavar="N ...")] = (1, 2),
    rounds: Annotated[int, arg(metavar="N")] = 50,
    json: bool = False,
) -> None:
    """Time the TFLite files on this CPU, in turn.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        threads: Numbers of CPU threads.
        rounds: Timed inferences for each file and number of threads.
        json: Print JSON.
    """
    records = _benchmark(_locate(run), threads, rounds)
    if json:
        show_json(records)
        return
    show_table(
        ("kind", "threads", "median", "p90", "size"),
        [
            (
                row["kind"],
                str(row["threads"]),
                f"{row['median_ms']:.2f} ms",
                f"{row['p90_ms']:.2f} ms",
                _bytes(row["bytes"]),
            )
            for row in records
        ],
    )


@command
def inspect(
    file: Positional[Annotated[Path, arg(metavar="FILE.tflite")]],
    /,
    c_array: FolderOption = None,
    json: bool = False,
) -> None:
    """Tell what is in a TFLite file, what to mend in it, and where it will load.

    Args:
        file: A .tflite file, of this program or any other.
        c_array: Also write the model as a C array for microcontrollers, into this folder.
        json: Print JSON.
    """
    from tflite.inspect import inspect, write_c_array

    inspection = inspect(file).to_dict()
    if c_array:
        say(f"C array: {write_c_array(file, c_array)[0]}")
    if json:
        show_json(inspection)
    else:
        _show_inspection(inspection)


@command
def layers(
    run: Positional[RunArgument] = None,
    /,
    kind: Annotated[str, arg(metavar="KIND")] = "int8",
    images: Annotated[int, arg(metavar="N")] = 20,
    json: bool = False,
) -> None:
    """Tell behind which layer a quantized TFLite file errs, against the float32 file.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        kind: Which file.
        images: How many test images.
        json: Print JSON.
    """
    from tflite.layers import layer_errors

    pictures, files = _test_images(run, images, ("float32", kind))
    rows = [row.to_dict() for row in layer_errors(files["float32"], files[kind], pictures)]
    if json:
        show_json(rows)
        return
    show_table(
        ("layer", "operation", "signal to noise", "cosine", "mean squared error"),
        [
            (
                row["layer"],
                row["operation"],
                _decibels(row["signal_to_noise_db"]),
                f"{row['cosine']:.5f}",
                f"{row['mean_squared_error']:.3g}",
            )
            for row in rows
        ],
    )


@command
def golden(
    run: Positional[RunArgument] = None,
    /,
    kind: Annotated[str, arg(metavar="KIND")] = "int8",
    images: Annotated[int, arg(metavar="N")] = 20,
    out: Annotated[Path, arg(metavar="FILE.zip")] = Path("golden.zip"),
) -> None:
    """Write test images with the answers of a TFLite file, for a test on the device.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        kind: Which file.
        images: How many test images.
        out: The archive.
    """
    from tflite.golden import write_golden

    pictures, files = _test_images(run, images, (kind,))
    write_golden(files[kind], pictures, out)
    print(out)


@command
def predict(
    model: Positional[Annotated[Path, arg(metavar="MODEL")]],
    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE ...")]],
    /,
    top: Annotated[int, arg(metavar="N")] = 5,
    json: bool = False,
) -> None:
    """Name what is in pictures.

    Args:
        model: A .keras or .tflite file, a SavedModel folder, or a run folder.
        images: Picture files.
        top: How many names for each picture.
        json: Print JSON.
    """
    answers = _predict(model, images, top)
    if json:
        show_json(
            [
                {"image": str(path), "top": [{"label": n, "probability": p} for n, p in answer]}
                for path, answer in zip(images, answers)
            ]
        )
        return
    for path, answer in zip(images, answers):
        print(f"{path}: " + ", ".join(f"{label} {100 * p:.2f} %" for label, p in answer))


@command
def demo(
    run: Positional[RunArgument] = None,
    /,
    port: Annotated[int, arg(metavar="N")] = 0,
    no_browser: bool = False,
    export: FolderOption = None,
    data_dir: FolderOption = None,
) -> None:
    """Show the TFLite files in a browser on this machine, until Ctrl-C; or write the page as files.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        port: Where to listen on 127.0.0.1; any free port by default.
        no_browser: Only print the address.
        export: Write the page to this folder, for any web host, instead of serving it.
        data_dir: Where tensorflow-datasets keeps its data.
    """
    from tflite import demo as pages

    opened = _locate(run)
    site = pages.site(
        opened.folder.resolve().name, _tflite_files(opened), _golden(opened, data_dir)
    )
    if export is not None:
        print(pages.export(site, export))
        return
    _serve(pages.server(site, port), no_browser)


@command
def report(run: Positional[RunArgument] = None, /) -> None:
    """Write one HTML file with all that is known about a run.

    Args:
        run: A run folder; the newest run by default.
    """
    from training.report import write_report

    print(write_report(_locate(run)))


@command
def compare(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN ...")]],
    /,
    out: Annotated[Path, arg(metavar="FILE")] = Path("compare.svg"),
    json: bool = False,
) -> None:
    """Draw runs side by side, and tell what was different and what came of it.

    Args:
        runs: Two run folders or more.
        out: The picture: .svg, .png or .pdf.
        json: Print JSON, with each run's log.
    """
    from training.compare import compare, draw

    compared = compare(runs)
    draw(compared, out)
    say(f"picture: {out}")
    if json:
        show_json([dataclasses.asdict(run) for run in compared])
        return
    rows = [
        ("epochs", [str(run.epochs) for run in compared]),
        ("top-1", [_top1(run.top1) for run in compared]),
    ]
    for key in ("val_accuracy", "val_loss", "accuracy", "loss"):
        rows.append((f"last {key}", [f"{run.rows[-1].get(key, math.nan):.4g}" for run in compared]))
    for key in compared[0].experiment:
        rows.append((key, [str(run.experiment[key]) for run in compared]))
    show_table(("", *(run.name for run in compared)), [(name, *cells) for name, cells in rows])


@command
def quickstart(
    *, out: Annotated[Path, arg(metavar="DIR")] = Path("quickstart"), json: bool = False
) -> None:
    """Do everything once, on handwritten digits: train, export, convert, verify, time, report.

    Args:
        out: The run folder.
        json: Print one JSON object: accuracy, seconds, and a record for each TFLite kind.
    """
    from training.config import load_experiment
    from training.report import write_report

    began = time.monotonic()
    run = _train(load_experiment(QUICKSTART_RECIPE), out)
    opened = _open(run.folder)
    evaluation = _evaluate(*opened)
    _export(run)
    _convert(run, (), CALIBRATION)
    verification = _verify(*opened)
    latencies = {
        row["kind"]: row["median_ms"] for row in _benchmark(run, (1, 2), 50) if row["threads"] == 1
    }
    page = write_report(run)
    kinds = {
        row["kind"]: {
            "top1": row["file_top1"] / 100,
            "agreement": row["agreement"] / 100,
            "bytes": row["bytes"],
            "latency_ms": round(latencies[row["kind"]], 3),
        }
        for row in verification["kinds"]
    }
    seconds = round(time.monotonic() - began, 1)
    result = {"accuracy": evaluation.top1.value, "seconds": seconds, "kinds": kinds}
    if json:
        show_json(result | {"report": str(page)})
        return
    show_table(
        ("kind", "size", "top-1", "agreement", "one thread"),
        [
            (
                kind,
                _bytes(row["bytes"]),
                f"{row['top1']:.2%}",
                f"{row['agreement']:.2%}",
                f"{row['latency_ms']:.2f} ms",
            )
            for kind, row in kinds.items()
        ],
        title=f"Keras: {evaluation.top1}",
    )
    print(page)


# --- The steps that several commands share ------------------------------------------------


def _train(experiment: Any, out: Path) -> Run:
    import signal

    from training.machines import Lost, leave, machines
    from training.train import Diverged, Interrupted, train

    try:
        run = train(experiment, out, say=say)
    except Diverged as error:
        raise Failed(str(error)) from None
    except Lost as error:
        say(f"keras-resnet: error: {error}")
        leave(machines(), 2)
    except Interrupted as stop:
        if stop.signal != signal.SIGTERM:
            raise
        say(f"keras-resnet: {stop}")  # a machine that is taken away takes a saved run for success
        sys.exit(0)
    say(f"model: {run.model_file}")
    return run


def _top1(estimate: dict[str, Any] | None) -> str:
    if not estimate or estimate["value"] is None:
        return "not evaluated"
    return f"{estimate['value']:.2%} ({estimate['low']:.2%}–{estimate['high']:.2%})"


def _dry_run(experiment: Any, out: Path, json: bool) -> None:
    import yaml

    from training.config import to_dict
    from training.train import dry_run

    found = dry_run(experiment, out, say)
    if json:
        show_json({"experiment": to_dict(experiment), **dataclasses.asdict(found)})
        return
    print(yaml.safe_dump(to_dict(experiment), sort_keys=False, allow_unicode=True))
    show_table(
        ("", "", "how it is known"),
        [
            ("network", experiment.model.architecture, ""),
            ("parameters", f"{found.parameters:,}", f"counted; {found.trainable:,} are trained"),
            ("multiply-adds an image", _multiply_adds(found.multiply_adds), "counted, forward"),
            ("steps", f"{found.steps:,}", f"{found.steps_per_epoch:,} an epoch"),
            ("state", _bytes(found.state_bytes), "weights, average, optimizer, gradients"),
            ("activations", _bytes(found.activation_bytes), "at most: outputs of all layers"),
            ("step", f"{found.step_seconds:.3g} s", "measured on noise, on this machine"),
            ("run", f"{found.hours:.2g} h", "steps alone, no validation, no waiting for images"),
        ],
    )


def _evaluate(run: Run, source: Source, model: ImageClassifier, keep: bool = True) -> Evaluation:
    from keras_resnet.deployable import deployable
    from training.data.pipeline import evaluation_batches
    from training.evaluate import BATCH, evaluate

    split = source.test
    batches = evaluation_batches(split, model.contract, BATCH)
    with progress("evaluating") as bar:
        evaluation = evaluate(
            deployable(model), batches, source.labels, lambda done: bar(done, split.count)
        )
    if keep:  # the run folder tells of the run's own images
        run.write("evaluation.json", evaluation.to_dict())
    return evaluation


def _export(run: Run, out: Path | None = None) -> Path:
    from keras_resnet.classifier import load_model
    from training.export import export_saved_model

    say("exporting a SavedModel …")
    return export_saved_model(load_model(run.model_file), out or run.saved_model)


def _convert(
    run: Run,
    kinds: tuple[str, ...],
    calibration: int,
    data: str | None = None,
    data_dir: Path | None = None,
    out: Path | None = None,
    budget: dict[str, float | None] | None = None,
) -> dict[str, Path]:
    from keras_resnet.classifier import load_model
    from tflite.convert import USUAL_KINDS, convert
    from tflite.quantization.budget import Budget
    from tflite.quantize import TABLE
    from training.data.pipeline import images

    if calibration < 1:
        raise ValueError(f"--calibration must be at least 1. Received: {calibration}")
    kinds = kinds or USUAL_KINDS
    pictures = None
    model = load_model(run.model_file)
    if any(TABLE[kind].calibrated for kind in kinds if kind in TABLE):
        _, source, _ = _open_source(run, model, data, data_dir)
        pictures = (image for image, _ in images(source.train, model.contract, calibration))
    with progress("converting") as bar:

        def report(kind: str, done: int, total: int) -> None:
            bar(100 * kinds.index(kind) + 100 * done // total, 100 * len(kinds))

        given = {key: value for key, value in (budget or {}).items() if value is not None}
        return convert(model, out or run.tflite, kinds, pictures, report, Budget(**given))


def _verify(
    run: Run,
    source: Source,
    model: ImageClassifier,
    count: int | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    from tflite.verify import verify
    from training.data.pipeline import images

    if count is not None and count < 1:
        raise ValueError(f"--images must be at least 1. Received: {count}")
    total = min(count or source.test.count, source.test.count)
    with progress("verifying") as bar:
        result = verify(
            model,
            _tflite_files(run),
            images(source.test, model.contract, count),
            max_drop=max_drop,
            min_agreement=min_agreement,
            progress=lambda done, _: bar(done, total),
        ).to_dict()
    if keep:
        run.write("tflite/verify.json", result)
    return result


def _benchmark(run: Run, threads: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    import numpy as np

    from tflite.benchmark import benchmark
    from tflite.metadata import read_contract

    files = _tflite_files(run)
    contract = read_contract(next(iter(files.values())))
    # The time does not depend on what is in the picture.
    shape = (contract.height or 0, contract.width or 0, contract.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")
    with progress("timing") as bar:
        latencies = benchmark(files, noise, threads=threads, rounds=rounds, progress=bar)
    records = [latency.to_dict() for latency in latencies]
    run.write("tflite/benchmark.json", records)
    return records


def _golden(run: Run, data_dir: Path | None = None) -> Golden:
    """What the files answer here to a few of the run's test images, or to textures without them."""
    from tflite.golden import COUNT, golden, textures
    from tflite.metadata import read_contract
    from training.data.pipeline import images

    files = _tflite_files(run)
    contract = read_contract(next(iter(files.values())))
    try:
        source = _open(run.model_file, None, data_dir)[1]
        pictures = [image for image, _ in images(source.test, contract, COUNT)]
    except (ValueError, OSError) as error:
        say(f"the golden inputs are textures, as there are no test images: {error}")
        pictures = textures(contract)
    with progress("asking Python") as bar:
        return golden(files, pictures, bar)


def _verify_arm64(run: Run, data_dir: Path | None, json: bool) -> None:
    from keras_resnet.weights.download import cache_folder
    from tflite.arm64 import arm_system, compare_on_arm64

    arm_system(cache_folder(), say)  # what is missing is said before anything takes time
    files, inputs = _tflite_files(run), _golden(run, data_dir)
    rows = compare_on_arm64(files, inputs, cache_folder(), say=say)
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
    else:
        show_table(
            ("kind", "same top-1", "max Δp", "where"),
            [
                (
                    row.kind,
                    f"{row.same_top1} of {row.images}",
                    f"{256 * row.max_difference:.3f}/256",
                    "image {}, class {}".format(*row.where),
                )
                for row in rows
            ],
            title="arm64, emulated, against this machine",
        )
    if broken := [f"{row.kind}: {why}" for row in rows for why in row.broken]:
        raise Failed("; ".join(broken))


def _serve(server: ThreadingHTTPServer, no_browser: bool) -> None:
    import webbrowser

    from tflite.demo import address

    with server:
        print(address(server), flush=True)
        say("Ctrl-C ends it")
        if not no_browser:
            webbrowser.open(address(server))
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it, not a failure
            server.serve_forever()


def _test_images(
    path: Path | None, count: int, kinds: tuple[str, ...]
) -> tuple[Iterator[Any], dict[str, Path]]:
    """Test images, fitted to the model, and the files of the run."""
    from training.data.pipeline import images

    if count < 1:
        raise ValueError(f"--images must be at least 1. Received: {count}")
    run, source, model = _open(path)
    files = _tflite_files(run)
    if missing := [kind for kind in kinds if kind not in files]:
        raise ValueError(
            f"There is no {missing[0]} file in {run.tflite}. Kinds: {', '.join(files)}"
        )
    return (image for image, _ in images(source.test, model.contract, count)), files


def _predict(model: Path, images: tuple[Path, ...], top: int) -> list[list[tuple[str, float]]]:
    if top < 1:
        raise ValueError(f"--top must be at least 1. Received: {top}")
    if not images:
        raise ValueError("There are no images to predict. Name at least one picture file")
    if model.suffix == ".tflite":
        from tflite.classifier import Classifier

        return Classifier(model).predict(images, top)

    import numpy as np

    from keras_resnet.preprocessing import decode_predictions, load_image
    from training.predict import keras_predictor, saved_model_predictor

    if (model / "saved_model.pb").is_file():
        contract, predictor = saved_model_predictor(model)
    else:
        contract, predictor = keras_predictor(_locate(model).model_file)
    pixels = np.stack([load_image(path, contract) for path in images])
    return decode_predictions(predictor(pixels), contract, top)


def _locate(path: Path | None) -> Run:
    """The run that a run folder or a .keras file stands for; the newest one by default."""
    from training.run import open_run

    return open_run(path)


def _open(
    path: Path | None, data: str | None = None, data_dir: Path | None = None
) -> tuple[Run, Source, ImageClassifier]:
    from keras_resnet.classifier import load_model

    run = _locate(path)
    return _open_source(run, load_model(run.model_file), data, data_dir)


def _open_source(
    run: Run, model: ImageClassifier, data: str | None, data_dir: Path | None
) -> tuple[Run, Source, ImageClassifier]:
    """The run's own images or others, once it is certain that they are of the same classes."""
    from training.config import DataConfig
    from training.data.sources import open_source

    experiment = run.experiment
    if experiment is None and data is None:
        raise ValueError(f"{run.model_file} tells of no images. Name them: --data folder:PATH")
    config = experiment.data if experiment else DataConfig()
    if data is not None:
        config = dataclasses.replace(config, source=data)
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(data_dir))
    source = open_source(config, experiment.runtime.seed if experiment else 0)
    contract = model.contract
    if source.channels != contract.channels:
        raise ValueError(
            f"{config.source} has {source.channels} channels, the model takes {contract.channels}"
        )
    if source.labels != contract.labels:
        raise ValueError(
            f"{config.source} has the classes {_some(source.labels)}; the model knows "
            f"{_some(contract.labels)}. Give images of the same classes"
        )
    return run, source, model


def _tflite_files(run: Run) -> dict[str, Path]:
    from tflite.convert import KINDS

    files = run.tflite_files()
    if not files:
        raise ValueError(f"There are no files in {run.tflite}. Make them: keras-resnet convert")
    return {kind: files[kind] for kind in KINDS if kind in files}


def _show_evaluation(run: Run, evaluation: Evaluation) -> None:
    show_table(
        ("class", "images", "precision", "recall"),
        [
            (c.label, str(c.recall.images), _percent(c.precision), _percent(c.recall))
            for c in evaluation.classes
        ],
    )
    print(f"top-1  {evaluation.top1}")
    print(f"top-5  {evaluation.top5}")
    print(f"run    {run.folder}")


def _show_inspection(inspection: dict[str, Any]) -> None:
    for key in ("inputs", "outputs"):
        for tensor in inspection[key]:
            shape = "×".join(map(str, tensor["shape"]))
            print(f"{key[:-1]:10} {tensor['name']}: {tensor['dtype']} {shape}")
    for key in ("operations", "weights"):
        counts = inspection[key].items()
        print(f"{key:10} " + ", ".join(f"{count} {name}" for name, count in counts))
    print(f"size       {_bytes(inspection['bytes'])}, weights {_bytes(inspection['weight_bytes'])}")
    print(f"arena      at least {_bytes(inspection['arena_bytes'])}")
    print(f"work       {_multiply_adds(inspection['multiply_adds'])} multiply-adds")
    for finding in inspection["lint"]:
        where = f"{finding['layer'] or finding['operation']}: " if finding["layer"] else ""
        print(f"{finding['rule']}: {where}{finding['message']}. Mend: {finding['mend']}")
    show_table(
        ("runtime", "loads", "because", ""),
        [
            (
                line["runtime"],
                "yes" if line["loads"] else "no",
                line["because"],
                "asked" if line["measured"] else line["source"],
            )
            for line in inspection["preflight"]
        ],
    )


def _percent(estimate: Any) -> str:
    if not estimate.images:
        return "–"
    return f"{estimate.value:.1%} ({estimate.low:.1%}–{estimate.high:.1%})"


def _calibration(row: dict[str, Any]) -> str:
    before, after = row["keras_calibration_error"], row["file_calibration_error"]
    return f"{before:.2f} → " + ("not finite" if after is None else f"{after:.2f}")


def _decibels(value: float | None) -> str:
    return "no error" if value is None else f"{value:.1f} dB"


def _probability(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _matches(pattern: str, *texts: str) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(text.lower(), f"*{pattern.lower()}*") for text in texts)


def _multiply_adds(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _changes(
    data: str | None, data_dir: Path | None, epochs: int | None, pairs: tuple[str, ...]
) -> dict[str, Any]:
    """What the command line says otherwise than the recipe."""
    changes = {
        "data.source": data,
        "data.data_dir": None if data_dir is None else str(data_dir),
        "schedule.epochs": epochs,
    }
    return {k: v for k, v in changes.items() if v is not None} | dict(map(_key_value, pairs))


def _key_value(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes KEY=VALUE, such as schedule.epochs=5. Received: {text}")
    return key, yaml.safe_load(value)


# --- Running -------------------------------------------------------------------------------


def main() -> None:
    """The entry point of the command."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    # Before TensorFlow is imported: its start-up chatter is no one's concern here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _one_line_usage_errors():
            run = app.cli(
                prog="keras-resnet",
                description="Residual networks for Keras, from images to a phone. "
                "--debug after any command shows the traceback of an error.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        if run.func not in (models, weights, inspect):
            _start_keras(run.keywords.get("backend"))
        run()
    except KeyboardInterrupt as stop:
        _leave(str(stop) or "stopped", 130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Failed as failure:
        _leave(f"failed: {failure}", 1)
    except (ValueError, OSError) as error:
        if debug:
            raise
        _leave(f"error: {' '.join(str(error).split())}", 2)


def _start_keras(backend: str | None) -> None:
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    say("starting TensorFlow …" if backend != "jax" else "starting JAX …")
    # It greets from C++ before any of its settings are heard.
    with quiet():
        import keras  # noqa: F401


def _leave(message: str, code: int) -> None:
    say(f"keras-resnet: {message}")
    sys.exit(code)


@contextlib.contextmanager
def _one_line_usage_errors() -> Iterator[None]:
    """tyro draws boxes of several paragraphs around its errors; ours are one line."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as leave:
        if leave.code in (None, 0):
            raise
        _leave(f"error: {_first_paragraph(drawn.getvalue())}. See keras-resnet --help", 2)


def _first_paragraph(box: str) -> str:
    """What stands in the box up to its first rule, and the option meant if one is suggested."""
    lines = [line.strip("│╭╮╰╯|+ ") for line in box.splitlines()[1:]]
    body = itertools.dropwhile(_is_rule, lines)
    words = list(itertools.takewhile(lambda line: not _is_rule(line), body))
    for line, following in itertools.pairwise(lines):
        if line.startswith("Perhaps you meant"):
            words.append(f"(perhaps you meant {following}?)")
    return " ".join(words).rstrip(".:")


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")


if __name__ == "__main__":
    main()
