"""Implementation of the subcommands.

The two wings are imported inside functions, each after the checks that need no Keras.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_resnet.cli.app import Failed
from keras_resnet.cli.arguments import CALIBRATION, LAYER_IMAGES, at_least
from keras_resnet.cli.backend import require_tensorflow, start_keras
from keras_resnet.cli.inputs import (
    check_images_known,
    locate,
    open_images,
    open_model,
    test_images,
    tflite_files,
)
from keras_resnet.cli.prediction import (
    Prediction,
    Summary,
    check_input,
    check_model,
    image_rate,
    named_files,
    open_predictor,
    open_results,
    predict_all,
)
from keras_resnet.console import progress, say
from keras_resnet.files import SAVED_MODEL_FILE, check_replaceable

if TYPE_CHECKING:
    import numpy as np

    from keras_resnet.classifier import ImageClassifier
    from tflite.devices.arm64 import ArmComparison
    from tflite.evidence.golden import Golden
    from tflite.evidence.layers import LayerError
    from training.config import Experiment
    from training.dry_run import RunEstimate
    from training.evaluate import Evaluation
    from training.report.compare import Compared
    from training.run import Run
    from training.tuning.tune import Search, SearchResult

QUICKSTART_RECIPE = "digits-resnet8"


@dataclass(frozen=True)
class Cluster:
    """The machines of a distributed training: see ``train --help``."""

    coordinator: str | None = None
    machines: int | None = None
    rank: int | None = None

    def check(self, backend: str | None, out: Path | None) -> None:
        """Raises ValueError if the options of several machines cannot work together."""
        if (self.coordinator, self.machines, self.rank) == (None, None, None):
            return
        if (backend or os.environ.get("KERAS_BACKEND")) != "jax":
            raise ValueError(
                "Several machines train together on JAX only. Give --backend jax to each of them"
            )
        if out is None:
            raise ValueError("Several machines need to agree on a run folder: --out FOLDER")


@dataclass(frozen=True)
class Conversion:
    """The options of ``convert``: see ``convert --help``."""

    kinds: tuple[str, ...] = ()
    calibration: int = CALIBRATION
    max_drop: float | None = None
    max_latency: float | None = None
    io: Literal["float32", "uint8", "int8"] = "float32"
    batch: int = 1
    logits: bool = False
    top_k: int | None = None
    data: str | None = None
    data_dir: Path | None = None
    out: Path | None = None

    def check(self) -> None:
        """Raises ValueError for options that are invalid or exclude each other."""
        from tflite.kinds import KINDS

        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"--kinds must be of {', '.join(KINDS)}. Received: {kind}")
        limits = (self.max_drop, self.max_latency)
        if limits != (None, None) and "mixed" not in self.kinds:
            raise ValueError("--max-drop and --max-latency are for the kind mixed: --kinds mixed")
        if self.out and self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out must be a folder. Received: {self.out}, a file")
        at_least("--calibration", self.calibration, 1)
        at_least("--batch", self.batch, 1)
        at_least("--top-k", self.top_k, 1)
        if self.logits and self.top_k:
            raise ValueError(
                "Probabilities cannot be computed from top-k logits. Give one of --logits and "
                "--top-k"
            )


@dataclass(frozen=True)
class Tolerances:
    """The limits of ``verify``: points of top-1 lost, percent of images that agree."""

    max_drop: float | None = None
    min_agreement: float | None = None


# --- Training ---------------------------------------------------------------------------------


def load_experiment(recipe: str, changes: Mapping[str, Any]) -> Experiment:
    """A recipe with changes by key."""
    from training.experiment_file import load_experiment

    return load_experiment(recipe, dict(changes))


def new_folder(recipe: str, suffix: str = "") -> Path:
    """A new folder under ``runs``, named after the recipe."""
    from training.run import new_folder

    return new_folder(f"{Path(recipe).stem}{suffix}")


def join_cluster(cluster: Cluster) -> None:
    """Connects to the other hosts, if there are any. Keras must have been started."""
    from training.multihost import connect

    connect(cluster.coordinator, cluster.machines, cluster.rank)


def run_training(
    experiment: Experiment, out: Path, profile: tuple[int, int] | None = None
) -> Run | None:
    """Trains; ``None`` on all machines but the first, which has the model."""
    start_keras()
    from training.multihost import current_host, disconnect, exit_at_once
    from training.train import Diverged, Interrupted, train

    try:
        run = train(experiment, out, say=say, profile=profile)
        disconnect()
    except Diverged as error:
        raise Failed(str(error)) from None
    except (ValueError, OSError, RuntimeError) as error:
        exit_at_once(f"error: {error}", 2)
        raise
    except Interrupted as stop:
        disconnect()
        if stop.signal != signal.SIGTERM:
            raise
        # The state is saved: a scheduler that stops a machine must not see a failure.
        say(f"keras-resnet: {stop}")
        sys.exit(0)
    if not current_host().is_first:
        return None
    say(f"model: {run.model_file}")
    return run


def run_dry(experiment: Experiment, out: Path) -> RunEstimate:
    """Memory and time that a training would need; writes nothing."""
    start_keras()
    from training.dry_run import dry_run

    return dry_run(experiment, out, say)


@dataclass(frozen=True)
class SearchOptions:
    """How ``tune`` searches: see ``tune --help``."""

    tuner: str
    trials: int
    max_size_mb: float | None
    max_latency_ms: float | None
    timeout: float | None
    failures: int
    seed: int


def make_search(
    recipe: str, space: Path | None, experiment: Experiment, options: SearchOptions
) -> tuple[list[str], Search]:
    """The keys that are searched, and the search."""
    from training.tuning.space import default_space, load_space

    found = load_space(space, experiment) if space else default_space(recipe, experiment)
    start_keras()
    from training.tuning.tune import Budget, Search

    search = Search(
        experiment,
        found,
        tuner=options.tuner,
        trials=options.trials,
        budget=Budget(max_size_mb=options.max_size_mb, max_latency_ms=options.max_latency_ms),
        timeout=options.timeout,
        failures=options.failures,
        seed=options.seed,
    )
    return list(found.keys), search


def run_search(search: Search, out: Path, oracle: str | None = None) -> SearchResult:
    """Searches for hyperparameters; the result has a best trial.

    Args:
        search: What is searched, and how.
        out: The search's folder.
        oracle: ``HOST:PORT`` to listen at for workers, which then run the trials.

    Raises:
        Failed: No trial completed its training.
    """
    from training.tuning.tune import TooManyFailures, parse_address, tune

    chief = parse_address(oracle) if oracle else None
    try:
        found = tune(search, out, measure=measure_int8, chief=chief, say=say)
    except TooManyFailures as error:
        raise Failed(str(error)) from None
    if found.best is None:
        raise Failed(f"no trial completed its training. See {out}/trials.csv")
    return found


def run_worker(out: Path, oracle: str) -> None:
    """Runs trials for the chief that listens at ``HOST:PORT`` until there are no more."""
    start_keras()
    from training.tuning.tune import parse_address, work

    work(out, parse_address(oracle), measure=measure_int8, say=say)


def measure_int8(model: ImageClassifier, calibration: Sequence[np.ndarray]) -> dict[str, float]:
    """Size (10^6 bytes) and latency (ms an image, one thread) of a model's int8 TFLite file."""
    import tempfile

    from tflite.convert import convert
    from tflite.devices.benchmark import benchmark

    with tempfile.TemporaryDirectory() as folder:
        files = convert(model, folder, ("int8",), calibration)
        [latency] = benchmark(files, calibration[0], threads=(1,))
    return {"size_mb": latency.bytes / 1e6, "latency_ms": latency.median_ms}


def run_evaluation(
    path: Path | None, data: str | None = None, data_dir: Path | None = None, flip: bool = False
) -> tuple[Run, Evaluation]:
    """Evaluates on test images; the run folder keeps the metrics of its own images, unflipped."""
    run, source, opened = open_model(path, data, data_dir)
    from keras_resnet.deployment import deployable
    from keras_resnet.prediction import batch_size
    from training.audit.duplicates import seen_in_training
    from training.data.pipeline import evaluation_batches
    from training.data.split import count_labels
    from training.evaluate import ImageFacts, evaluate

    model, split = deployable(opened), source.test
    batches = evaluation_batches(split, model.contract, batch_size(model))
    own = data is None
    # Labels that only reading every image would tell (tensorflow-datasets) are not counted.
    known = source.train.labels if own else None
    counts = None if known is None else count_labels(known, len(source.labels))
    facts = ImageFacts(split.files, counts, seen_in_training(source) if own else None)
    with progress("evaluating") as bar:
        evaluation = evaluate(
            model,
            batches,
            source.labels,
            lambda done: bar(done, split.count),
            flip,
            facts=facts,
            # Training chose the thresholds on the same images.
            cross_fit=own and bool(model.contract.thresholds),
        )
    if own and not flip:
        run.write("evaluation.json", evaluation.to_dict())
    return run, evaluation


def run_comparison(folders: Sequence[Path], out: Path) -> tuple[Compared, ...]:
    """Draws the curves of several runs into a chart; returns a summary of each."""
    from training.report.compare import compare, draw

    compared = compare(folders)
    draw(compared, out)
    return compared


def run_export(run: Run, out: Path | None = None) -> Path:
    """Writes a SavedModel; returns its folder."""
    require_tensorflow("Exporting a SavedModel")
    folder = out or run.saved_model
    check_replaceable(folder, SAVED_MODEL_FILE, "a SavedModel")
    start_keras()
    from keras_resnet.saving import load_model
    from training.export import export_saved_model

    say("exporting a SavedModel …")
    return export_saved_model(load_model(run.model_file), folder)


def run_prediction(
    model: Path,
    names: Sequence[Path],
    top: int,
    out: Path | None = None,
    show_result: Callable[[Prediction], None] = lambda _: None,
) -> Summary:
    """Predicts picture files, and those in folders, by a model in any format.

    Args:
        model: A .keras or .tflite file, a SavedModel or a run folder.
        names: Picture files and folders.
        top: Most probable classes of each picture.
        out: A .csv or .jsonl file to write.
        show_result: Called with each result, if there is no ``out``.
    """
    check_model(model)
    contract, predictor = open_predictor(model, top)
    check_input(contract)
    files = named_files(names)
    draw = out is not None or not sys.stdout.isatty()
    with contextlib.ExitStack() as stack:
        step = stack.enter_context(image_rate(draw))
        write = show_result
        if out is not None:
            columns = min(top, len(contract.labels) or top)
            write = stack.enter_context(open_results(out, columns))
        return predict_all(files, contract, predictor, write, step)


# --- TFLite -----------------------------------------------------------------------------------


def run_conversion(run: Run, request: Conversion = Conversion()) -> dict[str, Path]:
    """Writes TFLite files; returns the path of each kind."""
    request.check()
    require_tensorflow("Converting to TFLite")
    from tflite.kinds import KINDS

    kinds = request.kinds or tuple(kind for kind, row in KINDS.items() if row.usual)
    calibrated = any(KINDS[kind].calibrated for kind in kinds)
    if calibrated:
        check_images_known(run, request.data)
    start_keras()
    from keras_resnet.saving import load_model
    from tflite.convert import convert
    from tflite.model.io_spec import IOSpec
    from tflite.quantization.budget import Budget
    from training.data.pipeline import images

    limits = {"max_drop": request.max_drop, "max_latency": request.max_latency}
    budget = Budget(**{name: value for name, value in limits.items() if value is not None})
    io_spec = IOSpec(request.io, request.batch, request.logits, request.top_k)
    pictures = None
    model = load_model(run.model_file)
    before = _digests(run)
    if calibrated:
        _, source, _ = open_images(run, model, request.data, request.data_dir, labelled=False)
        pictures = (i for i, _ in images(source.train, model.contract, request.calibration))
    with progress("converting") as bar:

        def report(kind: str, done: int, total: int) -> None:
            bar(100 * kinds.index(kind) + 100 * done // total, 100 * len(kinds))

        files = convert(model, request.out or run.tflite, kinds, pictures, report, budget, io_spec)
    now = _digests(run)
    if any(now[kind] != digest for kind, digest in before.items()):
        _remove_measurements(run)
    return files


def _digests(run: Run) -> dict[str, bytes]:
    """Of the TFLite files by kind, to tell which are replaced by others."""
    digests = {}
    for kind, path in run.tflite_files().items():
        with path.open("rb") as file:
            digests[kind] = hashlib.file_digest(file, "sha256").digest()
    return digests


def _remove_measurements(run: Run) -> None:
    """Removes what was measured of files that are replaced by others, or reports would show it."""
    names = ("verify.json", "benchmark*.json", "layers_*.json")
    measured = sorted(path for name in names for path in run.tflite.glob(name))
    for path in measured:
        path.unlink(missing_ok=True)
    if measured:
        removed = ", ".join(path.name for path in measured)
        say(f"removed, as the files it was measured of are replaced: {removed}")


def run_verification(
    path: Path | None,
    count: int | None = None,
    tolerances: Tolerances = Tolerances(),
    data: str | None = None,
    data_dir: Path | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Compares each TFLite file with Keras; the run folder keeps the result on all its images."""
    files = tflite_files(locate(path))
    run, source, model = open_model(path, data, data_dir)
    from tflite.evidence.verify import verify
    from training.data.pipeline import images

    total = min(count or source.test.count, source.test.count)
    with progress("verifying") as bar:
        report = verify(
            model,
            files,
            images(source.test, model.contract, count),
            max_drop=tolerances.max_drop,
            min_agreement=tolerances.min_agreement,
            progress=lambda done, _: bar(done, total),
        ).to_dict()
    if data is None and count is None:
        run.write("tflite/verify.json", report)
    return run, report


def run_verification_on_arm64(
    run: Run, count: int | None, data: str | None, data_dir: Path | None
) -> tuple[Golden, list[ArmComparison]]:
    """Compares each TFLite file on an emulated Arm processor with the same file here."""
    files = tflite_files(run)
    start_keras()
    from keras_resnet.weights.download import cache_folder
    from tflite.devices.arm64 import arm_system, compare_on_arm64

    arm_system(cache_folder(), say)  # a missing program is reported before anything takes time
    inputs = _golden(run, data, data_dir, count)
    with progress("running on an emulated Arm processor") as bar:
        return inputs, compare_on_arm64(files, inputs, cache_folder(), progress=bar)


def run_benchmark(
    run: Run, threads: tuple[int, ...], rounds: int, starts: int
) -> list[dict[str, Any]]:
    """Times each TFLite file on this CPU."""
    import numpy as np

    from tflite.devices.benchmark import benchmark
    from tflite.model.metadata import read_contract

    files = tflite_files(run)
    contract = read_contract(next(iter(files.values())))
    # Latency does not depend on the pixels.
    shape = (contract.height or 0, contract.width or 0, contract.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")
    with progress("timing") as bar:
        latencies = benchmark(
            files, noise, threads=threads, rounds=rounds, starts=starts, progress=bar
        )
    records = [latency.to_dict() for latency in latencies]
    run.write("tflite/benchmark.json", records)
    return records


def run_benchmark_program(
    run: Run, program: Path | None, phone: bool, threads: tuple[int, ...], rounds: int
) -> list[dict[str, Any]]:
    """Times each TFLite file with the official benchmark program, here or on a phone."""
    from tflite.devices.adb import benchmark_with_binary

    files = tflite_files(run)
    with progress("timing") as bar:
        measured = benchmark_with_binary(
            files, program, phone=phone, threads=threads, rounds=rounds, progress=bar
        )
    records = [one.to_dict() for one in measured]
    run.write(f"tflite/benchmark_{'phone' if phone else 'program'}.json", records)
    return records


def run_inspection(run: Run) -> None:
    """Writes the contents of the TFLite files next to them, for the report."""
    from tflite.evidence.inspect import inspect
    from tflite.kinds import KINDS

    files = run.tflite_files()
    kinds = [kind for kind in KINDS if kind in files]
    found = {}
    with progress("inspecting") as bar:
        for done, kind in enumerate(kinds, start=1):
            try:
                found[kind] = inspect(files[kind]).to_dict()
            except ValueError as error:
                say(f"left out of the report: {error}")
            bar(done, len(kinds))
    if kinds:
        run.write("tflite/inspect.json", found)


def run_layers(run: Run, kind: str, images: int) -> list[LayerError]:
    """The errors of one kind by layer, kept next to the files for the report."""
    at_least("--images", images, 1)
    files = tflite_files(run, ("float32", kind))
    pictures = test_images(run, images)
    from tflite.evidence.layers import layer_errors

    rows = layer_errors(files["float32"], files[kind], pictures)
    layers = [row.to_dict() for row in rows]
    run.write(f"tflite/layers_{kind}.json", {"images": images, "layers": layers})
    return rows


def draw_layers(errors: list[LayerError], title: str, out: Path) -> None:
    """A chart of the errors by layer, as .svg or .png."""
    from keras_resnet.files import atomic_write
    from tflite.evidence.layers import plot

    picture = plot(errors, title, out.suffix[1:])
    with atomic_write(out) as temporary:
        temporary.write_bytes(picture)


def run_golden(
    run: Run, kind: str, images: int, out: Path, data: str | None, data_dir: Path | None
) -> None:
    """Writes an archive of test images with the outputs of one TFLite file."""
    files = tflite_files(run, (kind,))
    pictures = test_images(run, images, data, data_dir)
    from tflite.evidence.golden import write_golden

    write_golden(files[kind], pictures, out)


def run_demo(
    path: Path | None,
    data: str | None,
    data_dir: Path | None,
    export: Path | None,
    port: int,
    browser: bool,
) -> Path | None:
    """Serves the demo page until Ctrl-C, or writes it to a folder, which is returned."""
    from tflite.devices import demo as pages

    pages.require_page()
    run = locate(path)
    files = tflite_files(run)
    inputs = _golden(run, data, data_dir)
    site = pages.site(run.folder.resolve().name, files, inputs)
    if export is not None:
        return pages.export(site, export)
    with pages.server(site, port) as server:
        print(pages.address(server), flush=True)
        say("stop with Ctrl-C")
        if browser:
            import webbrowser

            webbrowser.open(pages.address(server))
        with contextlib.suppress(KeyboardInterrupt):  # the way to stop it, not a failure
            server.serve_forever()
    return None


def _golden(run: Run, data: str | None, data_dir: Path | None, count: int | None = None) -> Golden:
    """The outputs of the files for a few test images, or for textures if there are none."""
    start_keras()
    from tflite.evidence.golden import COUNT, golden, textures
    from tflite.model.metadata import read_contract
    from training.data.pipeline import images

    files = tflite_files(run)
    count = COUNT if count is None else count
    contract = read_contract(next(iter(files.values())))
    try:
        source = open_model(run.model_file, data, data_dir, labelled=False)[1]
        pictures = [image for image, _ in images(source.test, contract, count)]
        of = "test images"
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        say(f"the golden inputs are textures, as there are no test images: {error}")
        pictures, of = textures(contract, count), "textures"
    with progress("computing golden outputs") as bar:
        return golden(files, pictures, bar, of)


# --- Both ------------------------------------------------------------------------------------


def run_report(run: Run) -> Path:
    """Writes one HTML file about a run; returns its path."""
    run_inspection(run)
    start_keras()
    from training.report.run_page import write_report

    return write_report(run)


def run_quickstart(out: Path) -> tuple[Evaluation, dict[str, Any]]:
    """Trains on digits, exports, converts, verifies, times and reports.

    Returns:
        The evaluation, and for JSON: ``accuracy`` (0–1), ``seconds``, ``report`` (a path) and
        ``kinds``, with ``top1`` and ``agreement`` (0–1), ``bytes`` and ``latency_ms`` of each.
    """
    require_tensorflow("quickstart")
    began = time.monotonic()
    run = run_training(load_experiment(QUICKSTART_RECIPE, {}), out)
    assert run is not None  # there is one machine
    _, evaluation = run_evaluation(run.folder)
    run_export(run)
    run_conversion(run)
    _, verification = run_verification(run.folder)
    latencies = {
        row["kind"]: row["median_ms"]
        for row in run_benchmark(run, (1, 2), 50, 1)
        if row["threads"] == 1
    }
    run_layers(run, "int8", LAYER_IMAGES)
    page = run_report(run)
    kinds = {
        row["kind"]: {
            "top1": row["file_top1"] / 100,
            "agreement": row["agreement"] / 100,
            "bytes": row["bytes"],
            "latency_ms": round(latencies[row["kind"]], 3),
        }
        for row in verification["kinds"]
    }
    return evaluation, {
        "accuracy": evaluation.top1.value,
        "seconds": round(time.monotonic() - began, 1),
        "kinds": kinds,
        "report": str(page),
    }
