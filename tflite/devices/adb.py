"""Latency of .tflite files by the official benchmark binary: on a phone over adb, or here.

The binary also times single operations, which LiteRT's Python API does not.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tflite.devices.benchmark import Latency, this_machine
from tflite.model.interpreter import check_is_tflite

# ai.google.dev/edge/litert/models/measurement, "Native benchmark binary".
PROGRAMS = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/"
    "nightly/latest/{}_benchmark_model"
)
PHONE, LINUX = "android_aarch64", "linux_x86-64"
REPEATS = 3  # runs of the binary for each file, interleaved: A B A B
SECONDS = 600  # at most, for one run of the binary
REMOTE = "/data/local/tmp"


@dataclass(frozen=True)
class OperationTime:
    """All operations of one kind together, as the benchmark binary names them.

    Attributes:
        operation: Such as ``"Convolution (NHWC, QC8) IGEMM"``.
        count: How many of them the graph holds.
        milliseconds: Their mean time in one inference, including the profiler's overhead.
        percent: The same as a share of the inference.
    """

    operation: str
    count: int
    milliseconds: float
    percent: float


@dataclass(frozen=True)
class BinaryLatency:
    """The benchmark binary's measurements of one file with one number of threads.

    Attributes:
        latency: Of the whole file.
        operations: The slowest first.
    """

    latency: Latency
    operations: tuple[OperationTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        operations = [dataclasses.asdict(operation) for operation in self.operations]
        return self.latency.to_dict() | {"operations": operations}


@dataclass(frozen=True)
class Device:
    """Where the binary runs: a phone, or this machine.

    Attributes:
        name: Maker, model and system.
        prefix: The words before a command line that run it there; empty for this machine.
    """

    name: str
    prefix: tuple[str, ...] = ()

    def run(self, *words: str) -> str:
        """Runs a program there; returns what it prints on stdout and stderr.

        Raises:
            ValueError: It fails.
        """
        # adb joins the words with spaces and passes them to a shell.
        line = (shlex.join(words),) if self.prefix else words
        return _output(*self.prefix, *line)


def benchmark_with_binary(
    files: Mapping[str, str | os.PathLike[str]],
    program: str | os.PathLike[str] | None,
    *,
    phone: bool,
    threads: Sequence[int] = (1, 2),
    rounds: int = 50,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BinaryLatency]:
    """Runs the official ``benchmark_model`` on each file, on a phone or on this machine.

    The runs of the files are interleaved; each measure is the median over the runs. Operations
    are timed in a separate run, because profiling slows the inference. All files are removed
    from the phone afterwards.

    Args:
        files: Path of each kind, as ``convert`` returns them.
        program: The benchmark binary, built for the device.
        phone: Whether to run on the phone that adb is connected to (``ANDROID_SERIAL`` selects
            one of several); otherwise on this machine.
        threads: Numbers of CPU threads.
        rounds: The least number of timed inferences for each file and number of threads.
        progress: Called with ``(runs of the binary done, runs in all)``.

    Raises:
        ValueError: There is no such binary, no phone or more than one, or a run fails.
    """
    if not files or not threads or rounds < 1:
        raise ValueError("There is nothing to time: pass files, a number of threads, rounds")
    for path in files.values():
        check_is_tflite(Path(path))
    device = find_phone() if phone else Device(this_machine())
    program = _existing(program, PHONE if phone else LINUX)
    total, done = len(threads) * (REPEATS + 1) * len(files), 0
    records = []
    with _on_device(device, program, files) as (remote, paths):

        def run(kind: str, count: int, *more: str) -> str:
            nonlocal done
            words = (f"--graph={paths[kind]}", f"--num_threads={count}", *more)
            text = device.run(remote, *words)
            done += 1
            progress(done, total)
            return text

        runs = f"--num_runs={-(-rounds // REPEATS)}"
        for count in threads:
            repeats: dict[str, list[Latency]] = {kind: [] for kind in files}
            for _ in range(REPEATS):
                for kind, path in files.items():
                    text = run(kind, count, runs)
                    repeats[kind].append(read_latency(text, kind, count, Path(path), device.name))
            for kind in files:
                profile = run(kind, count, runs, "--enable_op_profiling=true")
                latency = _median(repeats[kind])
                records.append(BinaryLatency(latency, read_operations(profile)))
    return records


def find_phone() -> Device:
    """The phone that adb is connected to.

    Raises:
        ValueError: There is none, or more than one, or it does not allow debugging.
    """
    if not (adb := shutil.which("adb")):
        raise ValueError(
            "There is no adb on PATH. Install Android's platform-tools (apt-get install adb)"
        )
    # A line is "SERIAL state"; the state may hold spaces, such as "no permissions (…)".
    lines = _output(adb, "devices").partition("List of devices attached")[2].splitlines()
    states = dict(line.split(maxsplit=1) for line in lines if len(line.split()) > 1)
    wanted = os.environ.get("ANDROID_SERIAL")
    if wanted and wanted not in states:
        raise ValueError(
            f"adb sees no phone {wanted}, which ANDROID_SERIAL names; it sees "
            f"{', '.join(states) or 'none'}"
        )
    if not states:
        raise ValueError(
            "adb sees no phone. Connect one by USB, with USB debugging on in its developer options"
        )
    if not wanted and len(states) > 1:
        raise ValueError(
            f"adb sees several phones: {', '.join(states)}. "
            f"Name one: ANDROID_SERIAL={next(iter(states))}"
        )
    serial = wanted or next(iter(states))
    if states[serial] != "device":
        remedy = {
            "unauthorized": "Unlock it and allow USB debugging for this computer",
            "offline": "Unplug it and plug it in again",
        }.get(states[serial], "See developer.android.com/tools/adb")
        raise ValueError(f"The phone {serial} is {states[serial]}. {remedy}")
    phone = Device(serial, (adb, "-s", serial, "shell"))
    properties = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release")
    maker, model, android = (phone.run("getprop", name).strip() for name in properties)
    return dataclasses.replace(phone, name=f"{maker} {model}, Android {android}")


def read_latency(text: str, kind: str, threads: int, path: Path, device: str) -> Latency:
    """Parses the latency of one run from the binary's output.

    The format is that of ``tensorflow/lite/tools/benchmark/benchmark_model.cc`` and of
    ``StatWithPercentiles`` in ``xla/tsl/util/stats_calculator.h``: times in microseconds,
    memory in MiB.

    Raises:
        ValueError: They are not in the text.
    """
    timed = re.findall(r"^(?:INFO: )?count=(\d+) .*median=(\S+) p95=(\S+)", text, re.MULTILINE)
    once = re.search(r"Inference timings in us: Init: (\S+), First inference: (\S+),", text)
    memory = re.search(r"emory footprint .*\(MB\): init=\S+ overall=(\S+)", text)
    if not once or not timed:
        lines = [line for line in text.splitlines() if line.strip()]
        raise ValueError(
            f"The benchmark binary printed no median for {path}; it may be an old version, or "
            f"refuse the file. Its last line: {lines[-1].strip() if lines else '(none)'}"
        )
    runs, middle, p95 = timed[-1]  # the first such line is of the warm-up
    return Latency(
        kind=kind,
        threads=threads,
        runs=int(runs),
        median_ms=float(middle) / 1000,
        p90_ms=None,
        p95_ms=float(p95) / 1000,
        p99_ms=None,
        bytes=path.stat().st_size,
        load_ms=float(once[1]) / 1000,
        first_ms=float(once[2]) / 1000,
        memory_bytes=round(float(memory[1]) * 2**20) if memory else None,
        device=device,
        runtime="benchmark_model",
    )


def read_operations(text: str) -> tuple[OperationTime, ...]:
    """Parses the times of operations from the binary's output; empty if it prints none.

    They are in the second table "Summary by node type"; the first is of the initialization.
    """
    regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs")[2]
    summary = regular.partition("Summary by node type")[2].partition("Timings (micro")[0]
    rows = re.findall(r"^\s*(\S.*?)\s+(\d+)\s+(\S+)\s+(\S+)%\s+\S+%\s+\S+\s+\d+\s*$", summary, re.M)
    times = (OperationTime(name, int(n), float(ms), float(share)) for name, n, ms, share in rows)
    return tuple(sorted(times, key=lambda row: -row.milliseconds))


def _median(repeats: list[Latency]) -> Latency:
    """The median of each measure over the runs of the binary, and the sum of its inferences."""

    names = ("median_ms", "p95_ms", "load_ms", "first_ms", "memory_bytes")
    columns = {name: [getattr(one, name) for one in repeats] for name in names}
    # On old phones, the binary may not print the memory.
    medians: Any = {name: median(column) for name, column in columns.items() if None not in column}
    return dataclasses.replace(repeats[0], runs=sum(one.runs for one in repeats), **medians)


def _existing(program: str | os.PathLike[str] | None, built_for: str) -> Path:
    if program is None:
        raise ValueError(
            f"This needs the official benchmark binary. Download {PROGRAMS.format(built_for)} "
            "and name it: --benchmark-binary FILE"
        )
    path = Path(program)
    if not path.is_file():
        raise ValueError(f"There is no benchmark binary {path}")
    return path


@contextmanager
def _on_device(
    device: Device, program: Path, files: Mapping[str, str | os.PathLike[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The binary and the files on the device; removed at the end."""
    if not device.prefix:
        with tempfile.TemporaryDirectory() as local:  # a download is not executable
            copy = shutil.copy(program, Path(local) / "benchmark_model")
            os.chmod(copy, 0o755)
            yield str(copy), {kind: os.fspath(path) for kind, path in files.items()}
        return
    folder = f"{REMOTE}/keras-resnet-{os.getpid()}"
    adb = device.prefix[:-1]
    device.run("mkdir", "-p", folder)
    try:
        paths = {kind: f"{folder}/{kind}.tflite" for kind in files}
        _output(*adb, "push", str(program), f"{folder}/benchmark_model")
        for kind, path in files.items():
            _output(*adb, "push", os.fspath(path), paths[kind])
        device.run("chmod", "755", f"{folder}/benchmark_model")
        yield f"{folder}/benchmark_model", paths
    finally:
        device.run("rm", "-rf", folder)


def _output(*words: str) -> str:
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except OSError as error:
        raise ValueError(f"{words[0]} does not run here: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{shlex.join(words)} took longer than {SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"status {done.returncode}"
        raise ValueError(f"{shlex.join(words)} failed: {reason}")
    return done.stdout
