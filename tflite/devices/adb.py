"""How long a .tflite file takes on a phone, by TensorFlow's own benchmark program over adb.

The same program on this machine tells, for each operation, how long it takes there: LiteRT's
interpreter keeps that from Python.
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
TURNS = 3  # each file is run so many times, A B A B
SECONDS = 600  # for one run
REMOTE = "/data/local/tmp"


@dataclass(frozen=True)
class OperationTime:
    """All operations of one kind together, as the benchmark program names them.

    Attributes:
        operation: Such as ``"Convolution (NHWC, QC8) IGEMM"``.
        count: How many of them the graph holds.
        milliseconds: What they take of one run, on average, the profiler's own time included.
        percent: The same as a share of all.
    """

    operation: str
    count: int
    milliseconds: float
    percent: float


@dataclass(frozen=True)
class Measured:
    """What the benchmark program told of one file.

    Attributes:
        latency: One number of threads.
        operations: The dearest first.
    """

    latency: Latency
    operations: tuple[OperationTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        operations = [dataclasses.asdict(operation) for operation in self.operations]
        return self.latency.to_dict() | {"operations": operations}


@dataclass(frozen=True)
class Device:
    """Where programs run: a phone, or this machine.

    Attributes:
        name: As people know it.
        prefix: What stands before a command line to run it there; empty for this machine.
    """

    name: str
    prefix: tuple[str, ...] = ()

    def run(self, *words: str) -> str:
        """What a program prints there, on both streams.

        Raises:
            ValueError: It fails.
        """
        # adb joins words by blanks and gives them to a shell.
        line = (shlex.join(words),) if self.prefix else words
        return _output(*self.prefix, *line)


def benchmark_by_program(
    files: Mapping[str, str | os.PathLike[str]],
    program: str | os.PathLike[str] | None,
    *,
    phone: bool,
    threads: Sequence[int] = (1, 2),
    rounds: int = 50,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measured]:
    """Runs the official ``benchmark_model`` on each file, on a phone or on this machine.

    The files take turns. Of each figure stands the median of the turns. Operations are timed
    in a run apart, because timing them takes time. Nothing is left on the phone.

    Args:
        files: Path of each kind, as ``convert`` returns them.
        program: The benchmark program, built for where it is to run.
        phone: Whether that is the phone that adb knows (``ANDROID_SERIAL`` names one of
            several); this machine otherwise.
        threads: Numbers of CPU threads.
        rounds: How many runs are timed of each file and number of threads, at the least.
        progress: Called with ``(runs of the program done, runs in all)``.

    Raises:
        ValueError: There is no such program, no phone or more than one, or a run fails.
    """
    if not files or not threads or rounds < 1:
        raise ValueError("There is nothing to time: pass files, a number of threads, rounds")
    for path in files.values():
        check_is_tflite(Path(path))
    device = find_phone() if phone else Device(this_machine())
    program = _found(program, PHONE if phone else LINUX)
    total, done = len(threads) * (TURNS + 1) * len(files), 0
    records = []
    with _placed(device, program, files) as (remote, places):

        def told(kind: str, count: int, *more: str) -> str:
            nonlocal done
            words = (f"--graph={places[kind]}", f"--num_threads={count}", *more)
            text = device.run(remote, *words)
            done += 1
            progress(done, total)
            return text

        runs = f"--num_runs={-(-rounds // TURNS)}"
        for count in threads:
            turns: dict[str, list[Latency]] = {kind: [] for kind in files}
            for _ in range(TURNS):
                for kind, path in files.items():
                    text = told(kind, count, runs)
                    turns[kind].append(read_latency(text, kind, count, Path(path), device.name))
            for kind in files:
                profile = told(kind, count, runs, "--enable_op_profiling=true")
                records.append(Measured(_middle(turns[kind]), read_operations(profile)))
    return records


def find_phone() -> Device:
    """The phone that adb is connected to.

    Raises:
        ValueError: There is none, or more than one, or it does not trust this machine.
    """
    if not (adb := shutil.which("adb")):
        raise ValueError(
            "There is no adb on PATH. Install Android's platform-tools (apt-get install adb)"
        )
    # "SERIAL state" a line; the state may hold blanks, as "no permissions (…)" does.
    lines = _output(adb, "devices").partition("List of devices attached")[2].splitlines()
    states = dict(line.split(maxsplit=1) for line in lines if len(line.split()) > 1)
    wanted = os.environ.get("ANDROID_SERIAL")
    if wanted and wanted not in states:
        raise ValueError(
            f"adb knows no phone {wanted}, which ANDROID_SERIAL names; it knows "
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
        mend = {
            "unauthorized": "Unlock it and allow USB debugging for this computer",
            "offline": "Unplug it and plug it in again",
        }.get(states[serial], "See developer.android.com/tools/adb")
        raise ValueError(f"The phone {serial} is {states[serial]}. {mend}")
    phone = Device(serial, (adb, "-s", serial, "shell"))
    asked = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release")
    maker, model, android = (phone.run("getprop", name).strip() for name in asked)
    return dataclasses.replace(phone, name=f"{maker} {model}, Android {android}")


def read_latency(text: str, kind: str, threads: int, path: Path, device: str) -> Latency:
    """One run's figures from what the program prints.

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
            f"The benchmark program tells no median of {path}; it may be an old one, or refuse "
            f"the file. Its last words: {lines[-1].strip() if lines else '(none)'}"
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
    """The times of operations from what the program prints; none where it prints none.

    They stand in the second table "Summary by node type"; the first is of the start.
    """
    regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs")[2]
    summary = regular.partition("Summary by node type")[2].partition("Timings (micro")[0]
    rows = re.findall(r"^\s*(\S.*?)\s+(\d+)\s+(\S+)\s+(\S+)%\s+\S+%\s+\S+\s+\d+\s*$", summary, re.M)
    found = (OperationTime(name, int(n), float(ms), float(share)) for name, n, ms, share in rows)
    return tuple(sorted(found, key=lambda row: -row.milliseconds))


def _middle(turns: list[Latency]) -> Latency:
    """The median of each figure over the turns; all runs together are counted."""

    names = ("median_ms", "p95_ms", "load_ms", "first_ms", "memory_bytes")
    columns = {name: [getattr(turn, name) for turn in turns] for name in names}
    # An old phone's program may tell nothing of memory.
    middle: Any = {name: median(told) for name, told in columns.items() if None not in told}
    return dataclasses.replace(turns[0], runs=sum(turn.runs for turn in turns), **middle)


def _found(program: str | os.PathLike[str] | None, built_for: str) -> Path:
    if program is None:
        raise ValueError(
            f"The official benchmark program is needed. Download {PROGRAMS.format(built_for)} "
            "and name it: --benchmark-binary FILE"
        )
    path = Path(program)
    if not path.is_file():
        raise ValueError(f"There is no benchmark program {path}")
    return path


@contextmanager
def _placed(
    device: Device, program: Path, files: Mapping[str, str | os.PathLike[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The program and the files where the device finds them, and away again at the end."""
    if not device.prefix:
        with tempfile.TemporaryDirectory() as here:  # a download is not executable
            copy = shutil.copy(program, Path(here) / "benchmark_model")
            os.chmod(copy, 0o755)
            yield str(copy), {kind: os.fspath(path) for kind, path in files.items()}
        return
    folder = f"{REMOTE}/keras-resnet-{os.getpid()}"
    adb = device.prefix[:-1]
    device.run("mkdir", "-p", folder)
    try:
        places = {kind: f"{folder}/{kind}.tflite" for kind in files}
        _output(*adb, "push", str(program), f"{folder}/benchmark_model")
        for kind, path in files.items():
            _output(*adb, "push", os.fspath(path), places[kind])
        device.run("chmod", "755", f"{folder}/benchmark_model")
        yield f"{folder}/benchmark_model", places
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
        raise ValueError(f"{shlex.join(words)} did not end within {SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"status {done.returncode}"
        raise ValueError(f"{shlex.join(words)} failed: {reason}")
    return done.stdout
