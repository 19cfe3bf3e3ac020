"""Subcommands of TFLite: convert, verify and inspect TFLite files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from keras_resnet.cli import pipeline, show
from keras_resnet.cli.app import Failed, command
from keras_resnet.cli.arguments import (
    CALIBRATION,
    LAYER_IMAGES,
    STARTS,
    DataFolderOption,
    FolderOption,
    JsonOption,
    NumberOption,
    OtherDataOption,
    PercentOption,
    RunArgument,
    above_zero,
    at_least,
    check_output,
    in_percent,
)
from keras_resnet.cli.inputs import locate
from keras_resnet.console import say, show_json, show_path
from keras_resnet.console import show as show_line

KindOption = Annotated[str, arg(metavar="KIND", help="Which TFLite file.")]


@command
def convert(
    run: Positional[RunArgument] = None,
    /,
    kinds: Annotated[tuple[str, ...], arg(metavar="KIND ...")] = (),
    calibration: Annotated[int, arg(metavar="N")] = CALIBRATION,
    max_drop: PercentOption = None,
    max_latency: Annotated[float | None, arg(metavar="MS")] = None,
    io: Annotated[Literal["float32", "uint8", "int8"], arg(metavar="TYPE")] = "float32",
    batch: Annotated[int, arg(metavar="N")] = 1,
    logits: bool = False,
    top_k: Annotated[int | None, arg(metavar="K")] = None,
    data: OtherDataOption = None,
    data_dir: DataFolderOption = None,
    out: FolderOption = None,
    json: Annotated[bool, arg(help="Print a JSON object of paths and sizes.")] = False,
) -> None:
    """Write TFLite files: float32, float16, dynamic and int8.

    Args:
        kinds: Any of float32, float16, dynamic, int8, int16x8, mixed; the first four by default.
        calibration: Number of training images that int8, int16x8 and mixed are calibrated with.
        max_drop: For mixed: percent of the calibration images whose top-1 class may change. With
            --max-latency, both limits apply.
        max_latency: For mixed: milliseconds an image may take on one thread of this machine.
        io: Input type: float32 or uint8 pixels 0-255, or int8, which is pixels minus 128.
        batch: Fixed batch size of the files.
        logits: Leave the softmax or the sigmoid out.
        top_k: Output the K likeliest classes and their probabilities instead of all.
        out: Folder for the files; tflite in the run by default.
    """
    in_percent("--max-drop", max_drop)
    above_zero("--max-latency", max_latency)
    request = pipeline.Conversion(
        kinds=kinds,
        calibration=calibration,
        max_drop=max_drop,
        max_latency=max_latency,
        io=io,
        batch=batch,
        logits=logits,
        top_k=top_k,
        data=data,
        data_dir=data_dir,
        out=out,
    )
    request.check()
    files = pipeline.run_conversion(locate(run), request)
    if json:
        show_json({kind: {"path": str(p), "bytes": p.stat().st_size} for kind, p in files.items()})
    else:
        show.show_files(files)


@command
def verify(
    run: Positional[RunArgument] = None,
    /,
    max_drop: PercentOption = None,
    min_agreement: PercentOption = None,
    images: NumberOption = None,
    data: OtherDataOption = None,
    data_dir: DataFolderOption = None,
    arch: Annotated[Literal["arm64"] | None, arg(metavar="arm64")] = None,
    json: JsonOption = False,
) -> None:
    """Compare the TFLite files with Keras on test images; exits with 1 if a limit is exceeded.

    Top-1 and top-5 are in percent, differences in points; p is of McNemar's test; calibration is
    the expected calibration error, of Keras and of the file; drift is by how many points the file
    is more confident than Keras.

    Args:
        max_drop: Points of top-1 that a file may lose.
        min_agreement: Percent of images whose top-1 class must be Keras's.
        images: How many test images, spread over the split; all by default, eight with --arch.
        arch: Instead, compare golden inputs on an emulated Arm processor with this machine.
    """
    in_percent("--max-drop", max_drop)
    in_percent("--min-agreement", min_agreement)
    at_least("--images", images, 1)
    if arch is not None:
        if max_drop is not None or min_agreement is not None:
            raise ValueError(
                "--max-drop and --min-agreement are for labelled test images. Leave them out with "
                "--arch, or leave out --arch"
            )
        _verify_on_arm64(run, images, data, data_dir, json)
        return
    tolerances = pipeline.Tolerances(max_drop, min_agreement)
    opened, report = pipeline.run_verification(run, images, tolerances, data, data_dir)
    if json:
        show_json(report)
    else:
        show.show_verification(report, max_drop)
        if data is None:  # the run folder keeps the result
            show_line(f"the images that changed most: keras-resnet report {opened.folder}")
    broken = [f"{row['kind']}: {why}" for row in report["kinds"] for why in row["broken"]]
    if broken:
        raise Failed("; ".join(broken))


def _verify_on_arm64(
    run: Path | None, images: int | None, data: str | None, data_dir: Path | None, json: bool
) -> None:
    inputs, rows = pipeline.run_verification_on_arm64(locate(run), images, data, data_dir)
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
    else:
        show.show_arm_comparison(inputs, rows)
    if broken := [f"{row.kind}: {why}" for row in rows for why in row.broken]:
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
    json: JsonOption = False,
) -> None:
    """Time the TFLite files, interleaved: on this CPU, or on a phone connected by adb.

    load and first are the loading of a file and its first inference in a new process, memory is
    what that adds to the process. Times of single operations need TensorFlow's benchmark_model:
    on a phone, or here with --benchmark-binary and without --adb.

    Args:
        threads: Numbers of CPU threads.
        rounds: Timed inferences for each file and number of threads.
        starts: Cold starts of each file; a benchmark binary always makes three.
        adb: On the connected phone, with the benchmark binary; ANDROID_SERIAL names one of several.
        benchmark_binary: The official benchmark_model; without it, --adb says where to find it.
    """
    for number in threads:
        at_least("--threads", number, 1)
    at_least("--rounds", rounds, 1)
    at_least("--starts", starts, 0)
    if adb or benchmark_binary:
        records = pipeline.run_benchmark_program(
            locate(run), benchmark_binary, adb, threads, rounds
        )
    else:
        records = pipeline.run_benchmark(locate(run), threads, rounds, starts)
    if json:
        show_json(records)
    else:
        show.show_benchmark(records)


@command
def inspect(
    file: Positional[Annotated[Path, arg(metavar="FILE.tflite")]],
    /,
    c_array: FolderOption = None,
    json: JsonOption = False,
) -> None:
    """List the contents of a TFLite file, lint findings, and which runtimes support it.

    Args:
        file: A .tflite file, from this program or any other.
        c_array: Also write the model as a C array for microcontrollers, into this folder.
    """
    from tflite.evidence.inspect import inspect, write_c_array

    inspection = inspect(file).to_dict()
    if c_array:
        say(f"C array: {write_c_array(file, c_array)[0]}")
    if json:
        show_json(inspection)
    else:
        show.show_inspection(inspection)


@command
def layers(
    run: Positional[RunArgument] = None,
    /,
    kind: KindOption = "int8",
    images: Annotated[int, arg(metavar="N")] = LAYER_IMAGES,
    out: Annotated[Path | None, arg(metavar="FILE.svg|png")] = None,
    json: JsonOption = False,
) -> None:
    """Show the error of a quantized TFLite file layer by layer, against the float32 file.

    Args:
        images: How many test images.
        out: Also draw a chart, into this .svg or .png file.
    """
    check_output("--out", out, (".svg", ".png"))
    errors = pipeline.run_layers(locate(run), kind, images)
    if out:
        pipeline.draw_layers(errors, f"{kind} against float32, {images} images", out)
        say(f"chart: {out}")
    rows = [row.to_dict() for row in errors]
    if json:
        show_json(rows)
    else:
        show.show_layers(rows)


@command
def golden(
    run: Positional[RunArgument] = None,
    /,
    kind: KindOption = "int8",
    images: Annotated[int, arg(metavar="N")] = 20,
    out: Annotated[Path, arg(metavar="FILE.zip")] = Path("golden.zip"),
    data: OtherDataOption = None,
    data_dir: DataFolderOption = None,
) -> None:
    """Write test images with the outputs of a TFLite file, for a test on the device.

    Args:
        images: How many test images.
        out: The archive.
    """
    check_output("--out", out, (".zip",))
    at_least("--images", images, 1)
    pipeline.run_golden(locate(run), kind, images, out, data, data_dir)
    show_path(out)


@command
def demo(
    run: Positional[RunArgument] = None,
    /,
    port: Annotated[int, arg(metavar="N")] = 0,
    no_browser: bool = False,
    export: FolderOption = None,
    data: OtherDataOption = None,
    data_dir: DataFolderOption = None,
) -> None:
    """Show the TFLite files in a browser on this machine, until Ctrl-C; or write the page as files.

    Args:
        port: Port on 127.0.0.1; any free port by default.
        no_browser: Only print the address.
        export: Write the page to this folder, for any web host, instead of serving it.
    """
    exported = pipeline.run_demo(run, data, data_dir, export, port, not no_browser)
    if exported is not None:
        show_path(exported)
