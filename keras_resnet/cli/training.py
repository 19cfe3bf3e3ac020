"""Subcommands of training: ``train``, ``tune``, ``evaluate``, ``export`` and ``compare``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from keras_resnet.cli import pipeline, show
from keras_resnet.cli.app import command
from keras_resnet.cli.arguments import (
    DataFolderOption,
    DataOption,
    FolderOption,
    NumberOption,
    OtherDataOption,
    RunArgument,
    SetOption,
    TestOption,
    TrainOption,
    above_zero,
    at_least,
    check_output,
)
from keras_resnet.cli.backend import start_keras
from keras_resnet.cli.inputs import locate
from keras_resnet.console import say, show_json, show_path


@command
def train(
    *,
    recipe: Annotated[str, arg(metavar="NAME|FILE")] = "digits-resnet8",
    data: DataOption = None,
    train: TrainOption = None,
    test: TestOption = None,
    data_dir: DataFolderOption = None,
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
    set: SetOption = (),
    json: Annotated[bool, arg(help="Print the evaluation as JSON.")] = False,
) -> None:
    """Train a model by a recipe, and evaluate it.

    The same command with the same --out resumes a run that was stopped in any way.

    Args:
        recipe: A recipe's name (digits-resnet8, cifar10-resnet20, finetune-folder …: see
            docs/recipes.md), or an experiment.yaml.
        epochs: Passes over the training images.
        batch_size: Images a step.
        out: The run folder, new or of the same run; a new one, runs/RECIPE, by default.
        deterministic: Use deterministic operations only, on a GPU too.
        dry_run: Print the experiment, the network, memory and time, and write nothing.
        profile: First and last step, counted from this start of the run, of a profile for
            TensorBoard.
        backend: The Keras backend; KERAS_BACKEND or tensorflow by default. keras.json is ignored.
        coordinator: Address of the first machine, with a free port; or auto under Slurm,
            Kubernetes or Open MPI (docs/several-machines.md). JAX only.
        machines: Number of machines.
        rank: Number of this machine, from 0; the first keeps the run folder.
    """
    at_least("--epochs", epochs, 1)
    at_least("--batch-size", batch_size, 1)
    cluster = pipeline.Cluster(coordinator, machines, rank)
    cluster.check(backend, out)
    own = {"runtime.batch_size": batch_size, "runtime.deterministic": deterministic or None}
    experiment = pipeline.load_experiment(
        recipe, _present(own) | _images(data, train, test) | _changes(data_dir, epochs, set)
    )
    start_keras(backend)
    pipeline.join_cluster(cluster)
    out = out or pipeline.new_folder(recipe)
    if dry_run:
        _dry_run(experiment, out, json)
        return
    run = pipeline.run_training(experiment, out, profile)
    if run is None:  # the first machine has the model
        return
    run, evaluation = pipeline.run_evaluation(run.folder)
    if json:
        show_json({"run": str(run.folder), **evaluation.to_dict()})
    else:
        show.show_evaluation(run, evaluation)


def _dry_run(experiment: Any, out: Path, json: bool) -> None:
    from training.config import to_dict

    estimate = pipeline.run_dry(experiment, out)
    if json:
        show_json({"experiment": to_dict(experiment), **dataclasses.asdict(estimate)})
    else:
        show.show_estimate(experiment, estimate)


@command
def tune(
    *,
    recipe: Annotated[str, arg(metavar="NAME|FILE")] = "digits-resnet8",
    space: Annotated[Path | None, arg(metavar="FILE")] = None,
    tuner: Literal["random", "grid", "bayesian", "hyperband"] = "hyperband",
    trials: Annotated[int, arg(metavar="N")] = 20,
    data: DataOption = None,
    train: TrainOption = None,
    test: TestOption = None,
    data_dir: DataFolderOption = None,
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
    set: SetOption = (),
    json: Annotated[bool, arg(help="Print the best trial as JSON.")] = False,
) -> None:
    """Search for a better recipe with KerasTuner, each trial in a process of its own.

    The same command with the same --out resumes a search that was stopped in any way.

    Args:
        recipe: A recipe's name, or an experiment.yaml, that the search varies.
        space: A YAML file of ranges over keys of the experiment; the recipe's own by default.
        tuner: The search algorithm.
        trials: The most trials; hyperband's number follows from the epochs.
        epochs: Passes over the training images in a full training.
        max_latency_ms: Limit for the int8 TFLite file: milliseconds an image on one thread of
            this CPU.
        max_size_mb: Limit for the size of the int8 TFLite file.
        timeout: Limit for the time of a trial.
        failures: Consecutive failed trials after which the search stops.
        seed: Seed of the search.
        chief: Run no trials here; distribute them to workers.
        worker: Run trials for a chief, with the same --out as the chief.
        oracle: Address at which the chief listens.
        out: The search's folder, new or of the same search; a new one, runs/RECIPE-tuned, by
            default.
    """
    if worker and chief:
        raise ValueError("A process is the chief or a worker. Give one of --chief and --worker")
    if worker and out is None:
        raise ValueError("A worker shares its chief's folder. Give it: --out FOLDER")
    at_least("--epochs", epochs, 1)
    for option, value in (
        ("--trials", trials),
        ("--failures", failures),
        ("--timeout", timeout),
        ("--max-size-mb", max_size_mb),
        ("--max-latency-ms", max_latency_ms),
    ):
        above_zero(option, value)
    if worker and out:
        pipeline.run_worker(out, oracle)
        return
    experiment = pipeline.load_experiment(
        recipe, _images(data, train, test) | _changes(data_dir, epochs, set)
    )
    request = pipeline.SearchOptions(
        tuner, trials, max_size_mb, max_latency_ms, timeout, failures, seed
    )
    keys, search = pipeline.make_search(recipe, space, experiment, request)
    folder = out or pipeline.new_folder(recipe, "-tuned")
    found = pipeline.run_search(search, folder, oracle if chief else None)
    if json:
        count = len(found.rows)
        show_json(
            {"folder": str(folder), "trials": count, "best": found.best, "recipe": found.recipe}
        )
    else:
        show.show_search(found, keys, folder)


@command
def evaluate(
    run: Positional[RunArgument] = None,
    /,
    data: OtherDataOption = None,
    data_dir: DataFolderOption = None,
    flip: bool = False,
    json: Annotated[bool, arg(help="Print JSON, confusion matrix included.")] = False,
) -> None:
    """Measure a model on test images: accuracy, precision and recall, with intervals.

    The table has the twenty classes of lowest recall; evaluation.json in the run, and --json, have
    all of them. Tasks binary and multi: also average precision, and F1 at the model's thresholds.

    Args:
        flip: Average the probabilities for each image and for its mirror image. The SavedModel and
            the TFLite files do not do it, so the metrics are printed only: those that the run
            folder keeps are without it.
    """
    opened, evaluation = pipeline.run_evaluation(run, data, data_dir, flip)
    if json:
        show_json(evaluation.to_dict())
    else:
        show.show_evaluation(opened, evaluation, kept=data is None and not flip)


@command
def export(run: Positional[RunArgument] = None, /, out: FolderOption = None) -> None:
    """Write a SavedModel that runs without this package.

    Args:
        out: The SavedModel's folder; saved_model in the run by default.
    """
    show_path(pipeline.run_export(locate(run), out))


@command
def compare(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN ...")]],
    /,
    out: Annotated[Path, arg(metavar="FILE")] = Path("compare.svg"),
    json: Annotated[bool, arg(help="Print JSON, with each run's log.")] = False,
) -> None:
    """Draw the curves of runs into one chart, and list their differences and metrics.

    Args:
        runs: Two run folders or more.
        out: The chart: .svg, .png or .pdf.
    """
    check_output("--out", out, (".svg", ".png", ".pdf"))
    compared = pipeline.run_comparison(runs, out)
    say(f"chart: {out}")
    if json:
        show_json([dataclasses.asdict(run) for run in compared])
    else:
        show.show_comparison(compared)


def _images(data: str | None, train: Path | None, test: Path | None) -> dict[str, Any]:
    """The keys of the experiment that --data, or --train and --test, set.

    Raises:
        ValueError: They cannot be combined.
    """
    if train is None and test is not None:
        raise ValueError(
            f"--test names the test images beside those of --train. Give both: --train DIR "
            f"--test {test}"
        )
    if train is not None and data is not None:
        raise ValueError("--data and --train both name the training images. Give one of them")
    source = data if train is None else f"folder:{train}/*"
    return {} if source is None else {"data.source": source, "data.test": str(test or "")}


def _changes(data_dir: Path | None, epochs: int | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Other keys of the experiment that the command line sets."""
    named = {
        "data.data_dir": None if data_dir is None else str(data_dir),
        "schedule.epochs": epochs,
    }
    return _present(named) | dict(map(_key_value, pairs))


def _present(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if value is not None}


def _key_value(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes KEY=VALUE, such as schedule.epochs=5. Received: {text}")
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError):
        raise ValueError(f"--set takes KEY=VALUE with a YAML value. Received: {text}") from None
