"""From a model to a phone: ``convert``, ``verify`` and what shows what is in the files."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from keras_resnet.cli.app import Failed, command, light, start_keras
from keras_resnet.cli.arguments import (
    CALIBRATION,
    DataOption,
    FolderOption,
    NumberOption,
    PointsOption,
    RunArgument,
)
from keras_resnet.cli.formats import work
from keras_resnet.cli.inputs import locate, open_images, open_model, test_images, tflite_files
from keras_resnet.console import file_size, progress, say, show_json, show_table

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    from keras_resnet.classifier import ImageClassifier
    from tflite.evidence.golden import Golden
    from tflite.evidence.layers import LayerError
    from training.data.sources import Source
    from training.run import Run


LAYER_IMAGES = 20
STARTS = 3  # of each file, for its loading time, first inference and memory


@command
def convert(
    run: Positional[RunArgument] = None,
    /,
    kinds: Annotated[tuple[str, ...], arg(metavar="KIND ...")] = (),
    calibration: Annotated[int, arg(metavar="N")] = CALIBRATION,
    max_drop: PointsOption = None,
    max_latency: Annotated[float | None, arg(metavar="MS")] = None,
    io: Annotated[Literal["float32", "uint8", "int8"], arg(metavar="TYPE")] = "float32",
    batch: Annotated[int, arg(metavar="N")] = 1,
    logits: bool = False,
    top_k: Annotated[int | None, arg(metavar="K")] = None,
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
        io: What the files take: float32 or uint8 pixels 0-255, or int8, pixels minus 128.
        batch: How many images the files take at a time.
        logits: Leave the softmax out.
        top_k: Answer the numbers of the K likeliest classes and their probabilities.
        data: Other images than the run's: digits, tfds:NAME, folder:PATH or tfrecord:PATTERN.
        data_dir: Where tensorflow-datasets keeps its data.
        out: Folder for the files; tflite in the run by default.
        json: Print a JSON object of paths and sizes.
    """
    budget = {"max_drop": max_drop, "max_latency": max_latency}
    if any(value is not None for value in budget.values()) and "mixed" not in kinds:
        raise ValueError("--max-drop and --max-latency are of the mixed kind: add --kinds mixed")
    ends = {"io": io, "batch": batch, "logits": logits, "top_k": top_k}
    files = run_conversion(locate(run), kinds, calibration, data, data_dir, out, budget, ends)
    sizes = {kind: path.stat().st_size for kind, path in files.items()}
    if json:
        show_json({kind: {"path": str(files[kind]), "bytes": sizes[kind]} for kind in files})
    else:
        rows = [(kind, file_size(sizes[kind]), str(files[kind])) for kind in files]
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

    Top-1 and top-5 in percent, differences in points; p is of McNemar's test; calibration is the
    expected calibration error, of Keras and of the file; drift is by how many points the file is
    surer of its answers.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        max_drop: Points of top-1 that a file may lose.
        min_agreement: Percent of images on which a file must agree with Keras.
        images: How many test images, spread over the split; all by default, eight with --arch.
        data: Other images than the run's: digits, tfds:NAME, folder:PATH or tfrecord:PATTERN.
        data_dir: Where tensorflow-datasets keeps its data.
        arch: Instead, a few golden inputs on an emulated Arm processor against this one.
        json: Print JSON.
    """
    if arch is not None:
        if max_drop is not None or min_agreement is not None:
            raise ValueError(
                "--max-drop and --min-agreement are of labelled test images. Leave them out with "
                "--arch, or leave out --arch"
            )
        _verify_arm64(locate(run), data, data_dir, images, json)
        return
    opened = open_model(run, data, data_dir)
    # The run folder keeps what all of the run's own test images say.
    keep = data is None and images is None
    report = run_verification(*opened, images, max_drop, min_agreement, keep=keep)
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
                "Keras",
                "agreement",
                "calibration",
                "drift",
                "max Δp",
            ),
            [
                (
                    row["kind"],
                    file_size(row["bytes"]),
                    f"{row['file_top1']:.2f}",
                    f"{row['keras_top1']:.2f}",
                    f"{row['difference']:+.2f}",
                    "{:+.2f} … {:+.2f}".format(*row["interval"]),
                    f"{row['mcnemar']:.2g}",
                    f"{row['file_top5']:.2f}",
                    f"{row['keras_top5']:.2f}",
                    f"{row['agreement']:.2f} %",
                    _calibration(row),
                    _drift(row["confidence_drift"]),
                    _probability(row["max_difference"]),
                )
                for row in report["kinds"]
            ],
            title=f"{report['images']:,} test images",
        )
        for row in report["kinds"]:
            _say_what_changed(row, max_drop)
        if data is None:  # what it found is kept in the run
            print(f"the pictures that changed most: keras-resnet report {opened[0].folder}")
    broken = [f"{row['kind']}: {why}" for row in report["kinds"] for why in row["broken"]]
    if broken:
        raise Failed("; ".join(broken))


@command
def benchmark(
    run: Positional[RunArgument] = None,
    /,
    threads: Annotated[tuple[int, ...], arg(metavar="N ...")] = (1, 2),
    rounds: Annotated[int, arg(metavar="N")] = 50,
    starts: Annotated[int, arg(metavar="N")] = STARTS,
    adb: bool = False,
    benchmark_binary: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: bool = False,
) -> None:
    """Time the TFLite files in turn: on this CPU, or on a phone that adb knows.

    load and first are the loading of a file and its first inference in a new process, memory is
    what that process takes more. Operations one by one tells only TensorFlow's own program,
    benchmark_model: on a phone, or here where --benchmark-binary names it without --adb.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        threads: Numbers of CPU threads.
        rounds: Timed inferences for each file and number of threads.
        starts: How often each file is started from nothing; not with a benchmark binary, which
            starts each three times.
        adb: On the connected phone, with the benchmark binary; ANDROID_SERIAL names one of several.
        benchmark_binary: The official benchmark_model; without it, --adb tells where to find it.
        json: Print JSON.
    """
    opened = locate(run)
    if adb or benchmark_binary:
        records = _run_benchmark_program(opened, benchmark_binary, adb, threads, rounds)
    else:
        records = run_benchmark(opened, threads, rounds, starts)
    if json:
        show_json(records)
        return
    show_table(
        ("kind", "threads", "median", "p90", "p95", "p99", "first", "load", "memory", "size"),
        [
            (
                row["kind"],
                str(row["threads"]),
                *(
                    _milliseconds(row[f"{name}_ms"])
                    for name in ("median", "p90", "p95", "p99", "first", "load")
                ),
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


@command
@light
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
    from tflite.evidence.inspect import inspect, write_c_array

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
    images: Annotated[int, arg(metavar="N")] = LAYER_IMAGES,
    out: Annotated[Path | None, arg(metavar="FILE.svg|png")] = None,
    json: bool = False,
) -> None:
    """Tell behind which layer a quantized TFLite file errs, against the float32 file.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        kind: Which file.
        images: How many test images.
        out: Also draw it, into this .svg or .png file.
        json: Print JSON.
    """
    if out and out.suffix not in (".svg", ".png"):
        raise ValueError(f"--out must end in .svg or .png. Received: {out}")
    errors = run_layers(locate(run), kind, images)
    rows = [row.to_dict() for row in errors]
    if out:
        from keras_resnet.files import atomic_write
        from tflite.evidence.layers import plot

        picture = plot(errors, f"{kind} against float32, {images} images", out.suffix[1:])
        with atomic_write(out) as beside:
            beside.write_bytes(picture)
        say(f"plot: {out}")
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
    data: DataOption = None,
    data_dir: FolderOption = None,
) -> None:
    """Write test images with the answers of a TFLite file, for a test on the device.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        kind: Which file.
        images: How many test images.
        out: The archive.
        data: Other images than the run's: digits, tfds:NAME, folder:PATH or tfrecord:PATTERN.
        data_dir: Where tensorflow-datasets keeps its data.
    """
    from tflite.evidence.golden import write_golden

    pictures, files = test_images(run, images, (kind,), data, data_dir)
    write_golden(files[kind], pictures, out)
    print(out)


@command
@light  # it starts Keras itself, after a check that would otherwise take minutes to come to
def demo(
    run: Positional[RunArgument] = None,
    /,
    port: Annotated[int, arg(metavar="N")] = 0,
    no_browser: bool = False,
    export: FolderOption = None,
    data: DataOption = None,
    data_dir: FolderOption = None,
) -> None:
    """Show the TFLite files in a browser on this machine, until Ctrl-C; or write the page as files.

    Args:
        run: A run folder or a .keras file; the newest run by default.
        port: Where to listen on 127.0.0.1; any free port by default.
        no_browser: Only print the address.
        export: Write the page to this folder, for any web host, instead of serving it.
        data: Images for the check, other than the run's: digits, tfds:NAME, folder:PATH or
            tfrecord:PATTERN.
        data_dir: Where tensorflow-datasets keeps its data.
    """
    from tflite.devices import demo as pages

    pages.require_page()
    start_keras()
    opened = locate(run)
    inputs = _golden(opened, data, data_dir)
    site = pages.site(opened.folder.resolve().name, tflite_files(opened), inputs)
    if export is not None:
        print(pages.export(site, export))
        return
    _serve(pages.server(site, port), no_browser)


def run_conversion(
    run: Run,
    kinds: tuple[str, ...],
    calibration: int,
    data: str | None = None,
    data_dir: Path | None = None,
    out: Path | None = None,
    budget: dict[str, float | None] | None = None,
    ends: dict[str, Any] | None = None,
) -> dict[str, Path]:
    from keras_resnet.saving import load_model
    from tflite.convert import USUAL_KINDS, convert
    from tflite.kinds import KINDS
    from tflite.model.io_spec import IOSpec
    from tflite.quantization.budget import Budget
    from training.data.pipeline import images

    if calibration < 1:
        raise ValueError(f"--calibration must be at least 1. Received: {calibration}")
    io_spec = IOSpec(**(ends or {}))
    kinds = kinds or USUAL_KINDS
    pictures = None
    model = load_model(run.model_file)
    if any(KINDS[kind].calibrated for kind in kinds if kind in KINDS):
        _, source, _ = open_images(run, model, data, data_dir)
        pictures = (image for image, _ in images(source.train, model.contract, calibration))
    with progress("converting") as bar:

        def report(kind: str, done: int, total: int) -> None:
            bar(100 * kinds.index(kind) + 100 * done // total, 100 * len(kinds))

        given = {key: value for key, value in (budget or {}).items() if value is not None}
        folder = out or run.tflite
        return convert(model, folder, kinds, pictures, report, Budget(**given), io_spec)


def run_verification(
    run: Run,
    source: Source,
    model: ImageClassifier,
    count: int | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    from tflite.evidence.verify import verify
    from training.data.pipeline import images

    if count is not None and count < 1:
        raise ValueError(f"--images must be at least 1. Received: {count}")
    total = min(count or source.test.count, source.test.count)
    with progress("verifying") as bar:
        result = verify(
            model,
            tflite_files(run),
            images(source.test, model.contract, count),
            max_drop=max_drop,
            min_agreement=min_agreement,
            progress=lambda done, _: bar(done, total),
        ).to_dict()
    if keep:
        run.write("tflite/verify.json", result)
    return result


def _verify_arm64(
    run: Run, data: str | None, data_dir: Path | None, images: int | None, json: bool
) -> None:
    from keras_resnet.weights.download import cache_folder
    from tflite.devices.arm64 import arm_system, compare_on_arm64

    arm_system(cache_folder(), say)  # what is missing is said before anything takes time
    files, inputs = tflite_files(run), _golden(run, data, data_dir, images)
    with progress("running on an emulated Arm processor") as bar:
        rows = compare_on_arm64(files, inputs, cache_folder(), progress=bar)
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
    else:
        show_table(
            ("kind", "same top-1", "max Δp", "where", "two steps in the tail"),
            [
                (
                    row.kind,
                    f"{row.same_top1} of {row.images}",
                    f"{256 * row.max_difference:.3f}/256",
                    _place(row.where) if row.max_difference else "nowhere",
                    "; ".join(map(_place, row.tail)) or "none",
                )
                for row in rows
            ],
            title=f"{len(inputs.images)} {inputs.of} on emulated arm64 against this machine",
        )
    if broken := [f"{row.kind}: {why}" for row in rows for why in row.broken]:
        raise Failed("; ".join(broken))


def _place(where: tuple[int, int]) -> str:
    return "image {}, class {}".format(*where)


def run_benchmark(
    run: Run, threads: tuple[int, ...], rounds: int, starts: int
) -> list[dict[str, Any]]:
    import numpy as np

    from tflite.devices.benchmark import benchmark
    from tflite.model.metadata import read_contract

    files = tflite_files(run)
    contract = read_contract(next(iter(files.values())))
    # The time does not depend on what is in the picture.
    shape = (contract.height or 0, contract.width or 0, contract.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")
    with progress("timing") as bar:
        latencies = benchmark(
            files, noise, threads=threads, rounds=rounds, starts=starts, progress=bar
        )
    records = [latency.to_dict() for latency in latencies]
    run.write("tflite/benchmark.json", records)
    return records


def _run_benchmark_program(
    run: Run, program: Path | None, phone: bool, threads: tuple[int, ...], rounds: int
) -> list[dict[str, Any]]:
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
    """Leaves what is in the files beside them, for the report; says which cannot be read."""
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
    """The errors of one kind by layer, left beside the files, for the report."""
    from tflite.evidence.layers import layer_errors

    pictures, files = test_images(run.model_file, images, ("float32", kind))
    rows = layer_errors(files["float32"], files[kind], pictures)
    layers = [row.to_dict() for row in rows]
    run.write(f"tflite/layers_{kind}.json", {"images": images, "layers": layers})
    return rows


def _golden(run: Run, data: str | None, data_dir: Path | None, count: int | None = None) -> Golden:
    """What the files answer here to a few test images, or to textures where the run has none."""
    from tflite.evidence.golden import COUNT, golden, textures
    from tflite.model.metadata import read_contract
    from training.data.pipeline import images

    files = tflite_files(run)
    count = COUNT if count is None else count
    if count < 1:
        raise ValueError(f"--images must be at least 1. Received: {count}")
    contract = read_contract(next(iter(files.values())))
    try:
        source = open_model(run.model_file, data, data_dir)[1]
        pictures = [image for image, _ in images(source.test, contract, count)]
        of = "test images"
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        say(f"the golden inputs are textures, as there are no test images: {error}")
        pictures, of = textures(contract, count), "textures"
    with progress("asking Python") as bar:
        return golden(files, pictures, bar, of)


def _serve(server: ThreadingHTTPServer, no_browser: bool) -> None:
    import webbrowser

    from tflite.devices.demo import address

    with server:
        print(address(server), flush=True)
        say("Ctrl-C ends it")
        if not no_browser:
            webbrowser.open(address(server))
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it, not a failure
            server.serve_forever()


def _show_inspection(inspection: dict[str, Any]) -> None:
    for key in ("inputs", "outputs"):
        for tensor in inspection[key]:
            shape = "×".join(map(str, tensor["shape"]))
            print(f"{key[:-1]:10} {tensor['name']}: {tensor['dtype']} {shape}")
    for key in ("operations", "weights"):
        counts = inspection[key].items()
        print(f"{key:10} " + ", ".join(f"{count} {name}" for name, count in counts))
    whole, weights = file_size(inspection["bytes"]), file_size(inspection["weight_bytes"])
    print(f"size       {whole}, weights {weights}")
    print(f"arena      at least {file_size(inspection['arena_bytes'])}")
    print(f"work       {work(inspection['multiply_adds'])} multiply-adds")
    for finding in inspection["lint"]:
        print(f"{finding['rule']}: {finding['message']}. In {', '.join(finding['layers'])}")
        if finding["mend"]:
            print(f"  change: {finding['mend']}")
    show_table(
        ("runtime", "loads", "because"),
        [
            (line["runtime"], "yes" if line["loads"] else "no", line["because"])
            for line in inspection["preflight"]
        ],
    )
    for line in inspection["preflight"]:
        if not line["measured"]:
            print(f"{line['runtime']} was not run here: {line['source']}")


def _show_operations(row: dict[str, Any]) -> None:
    show_table(
        ("operation", "count", "time", "share"),
        [
            (
                op["operation"],
                str(op["count"]),
                _milliseconds(op["milliseconds"]),
                f"{op['percent']:.1f} %",
            )
            for op in row["operations"]
        ],
        title=f"{row['kind']}, threads: {row['threads']}",
    )


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.{2 if value >= 1 else 3}f} ms"


def _say_what_changed(row: dict[str, Any], max_drop: float | None) -> None:
    if row["worst_classes"]:
        classes = (
            f"{c['label']} {c['file_recall'] - c['keras_recall']:+.1f} (of {c['images']:,})"
            for c in row["worst_classes"]
        )
        print(f"{row['kind']} recognizes less often, in points: {', '.join(classes)}")
    if needed := row["images_to_resolve"]:
        enough = "were enough" if needed <= row["images"] else f"are too few: {needed:,} would do"
        print(f"{row['kind']}: to tell a drop of {max_drop:g} points, {row['images']:,} {enough}")


def _drift(value: float | None) -> str:
    return "not finite" if value is None else f"{value:+.2f}"


def _calibration(row: dict[str, Any]) -> str:
    before, after = row["keras_calibration_error"], row["file_calibration_error"]
    return f"{before:.2f} → " + ("not finite" if after is None else f"{after:.2f}")


def _decibels(value: float | None) -> str:
    return "no error" if value is None else f"{value:.1f} dB"


def _probability(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
