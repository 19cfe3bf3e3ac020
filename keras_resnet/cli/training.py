"""From images to a model: ``train``, ``tune``, ``evaluate``, ``export`` and ``compare``."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from keras_resnet.cli.app import Failed, command
from keras_resnet.cli.arguments import DataOption, FolderOption, NumberOption, RunArgument
from keras_resnet.cli.formats import percent, work
from keras_resnet.cli.inputs import locate, open_model
from keras_resnet.console import file_size, progress, say, show_json, show_table

if TYPE_CHECKING:
    import numpy as np

    from keras_resnet.classifier import ImageClassifier
    from training.data.sources import Source
    from training.evaluate import Evaluation
    from training.run import Run


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
    profile: Annotated[tuple[int, int] | None, arg(metavar="FIRST LAST")] = None,
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
        data: Where images come from: digits, tfds:NAME, folder:PATH or tfrecord:PATTERN.
        data_dir: Where tensorflow-datasets keeps its data.
        epochs: Passes over the training images.
        batch_size: Images a step.
        out: The run folder, new or of the same run; a new one, runs/RECIPE, by default.
        deterministic: Use only operations that give the same bits twice, on a GPU too.
        dry_run: Only say what would be done: the experiment, the network, memory and time.
            Nothing is written.
        profile: The first and the last of the steps, counted from this start of the run, that
            TensorBoard gets a profile of.
        backend: What computes; KERAS_BACKEND or TensorFlow by default.
        coordinator: Where several machines meet: a port of the first, or auto under Slurm,
            Kubernetes or Open MPI (docs/several-machines.md). JAX only.
        machines: How many machines there are.
        rank: Which of them this one is, from 0; the first keeps the run folder.
        set: Any other keys of the experiment, such as optimizer.learning_rate=0.05.
        json: Print the evaluation as JSON.
    """
    from training.experiment_file import load_experiment
    from training.multihost import connect, current_host
    from training.run import new_folder

    own = {"runtime.batch_size": batch_size, "runtime.deterministic": deterministic or None}
    changes = {key: value for key, value in own.items() if value is not None}
    experiment = load_experiment(recipe, changes | _changes(data, data_dir, epochs, set))
    if coordinator and out is None:
        raise ValueError("Several machines need to agree on a run folder: --out FOLDER")
    connect(coordinator, machines, rank)
    out = out or new_folder(Path(recipe).stem)
    if dry_run:
        _dry_run(experiment, out, json)
        return
    run = run_training(experiment, out, profile)
    if not current_host().is_first:  # the first machine has the model
        return
    evaluation = run_evaluation(*open_model(run.folder))
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
        data: Where images come from: digits, tfds:NAME, folder:PATH or tfrecord:PATTERN.
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
    from training.experiment_file import load_experiment
    from training.run import new_folder
    from training.tuning.space import default_space
    from training.tuning.tune import (
        Budget,
        Search,
        TooManyFailures,
        load_space,
        parse_address,
        work,
    )
    from training.tuning.tune import tune as search_for

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
        load_space(space, experiment) if space else default_space(recipe, experiment),
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
    except TooManyFailures as error:
        raise Failed(str(error)) from None
    if found.best is None:
        raise Failed(f"no trial was trained to its end. See {folder}/trials.csv")
    if json:
        count = len(found.rows)
        show_json(
            {"folder": str(folder), "trials": count, "best": found.best, "recipe": found.recipe}
        )
        return
    show_table(("key", "best"), [(key, str(found.best[key])) for key in search.space.keys])
    trial = f"trial {found.best['trial']} of {len(found.rows)}"
    print(f"accuracy  {found.best['val_accuracy']:.2%}, {trial}")
    if found.recipe:
        print(f"recipe    {found.recipe['val_accuracy']:.2%}, trial {found.recipe['trial']}")
    print(f"report    {folder}/report.html")
    print(f"train it  keras-resnet train --recipe {folder}/best.yaml")


def measure_int8(model: ImageClassifier, calibration: Sequence[np.ndarray]) -> dict[str, float]:
    """Size (10^6 bytes) and latency (ms an image, one thread) of a model's int8 TFLite file."""
    import tempfile

    from tflite.convert import convert
    from tflite.devices.benchmark import benchmark

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
    flip: bool = False,
    json: bool = False,
) -> None:
    """Measure a model on test images: top-1, top-5, precision and recall, with intervals.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        data: Other images than the run's: digits, tfds:NAME, folder:PATH or tfrecord:PATTERN.
        data_dir: Where tensorflow-datasets keeps its data.
        flip: Average the answers to each image and to its mirror image. The SavedModel and the
            TFLite files do not do it, so the figures are only printed: those that the run folder
            keeps are without it.
        json: Print JSON, confusion matrix included.
    """
    opened, source, model = open_model(run, data, data_dir)
    keep = data is None and not flip
    evaluation = run_evaluation(opened, source, model, keep=keep, flip=flip)
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
    print(run_export(locate(run), out))


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
    from training.report.compare import compare, draw

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


def run_training(experiment: Any, out: Path, profile: tuple[int, int] | None = None) -> Run:
    import signal

    from training.multihost import current_host, disconnect, exit_at_once
    from training.train import Diverged, Interrupted, train

    try:
        run = train(experiment, out, say=say, profile=profile)
        disconnect()
    except Diverged as error:
        raise Failed(str(error)) from None
    except (ValueError, OSError) as error:
        exit_at_once(f"error: {error}", 2)
        raise
    except Interrupted as stop:
        disconnect()
        if stop.signal != signal.SIGTERM:
            raise
        say(f"keras-resnet: {stop}")  # a machine that is taken away takes a saved run for success
        sys.exit(0)
    if current_host().is_first:
        say(f"model: {run.model_file}")
    return run


def _dry_run(experiment: Any, out: Path, json: bool) -> None:
    import yaml

    from training.config import to_dict
    from training.dry_run import dry_run

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
            ("multiply-adds an image", work(found.multiply_adds), "counted, forward"),
            ("steps", f"{found.steps:,}", f"{found.steps_per_epoch:,} an epoch"),
            ("state", file_size(found.state_bytes), "weights, average, optimizer, gradients"),
            ("activations", file_size(found.activation_bytes), "at most: outputs of all layers"),
            ("step", f"{found.step_seconds:.3g} s", "measured on noise, on this machine"),
            ("run", f"{found.hours:.2g} h", "steps alone, no validation, no waiting for images"),
        ],
    )


def run_evaluation(
    run: Run, source: Source, model: ImageClassifier, keep: bool = True, flip: bool = False
) -> Evaluation:
    from keras_resnet.deployment import deployable
    from training.data.pipeline import evaluation_batches
    from training.evaluate import BATCH, evaluate

    split = source.test
    batches = evaluation_batches(split, model.contract, BATCH)
    with progress("evaluating") as bar:
        evaluation = evaluate(
            deployable(model), batches, source.labels, lambda done: bar(done, split.count), flip
        )
    if keep:  # the run folder tells of the run's own images, and of what is deployed
        run.write("evaluation.json", evaluation.to_dict())
    return evaluation


def run_export(run: Run, out: Path | None = None) -> Path:
    from keras_resnet.saving import load_model
    from training.export import export_saved_model

    say("exporting a SavedModel …")
    return export_saved_model(load_model(run.model_file), out or run.saved_model)


def _show_evaluation(run: Run, evaluation: Evaluation) -> None:
    show_table(
        ("class", "images", "precision", "recall"),
        [
            (c.label, str(c.recall.images), percent(c.precision), percent(c.recall))
            for c in evaluation.classes
        ],
    )
    print(f"top-1  {evaluation.top1}")
    print(f"top-5  {evaluation.top5}")
    print(f"run    {run.folder}")


def _top1(estimate: dict[str, Any] | None) -> str:
    if not estimate or estimate["value"] is None:
        return "not evaluated"
    return f"{estimate['value']:.2%} ({estimate['low']:.2%}–{estimate['high']:.2%})"


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
