"""What is timed, in which order, and what is refused."""

import json

import numpy as np
import pytest

from tflite.devices import benchmark as module
from tflite.devices import cold_start
from tflite.devices.benchmark import WARM_UP, benchmark
from tflite.devices.cold_start import ColdStart


def test_times_every_file_on_every_number_of_threads(files, digits):
    seen = []
    records = benchmark(files, digits[0][0], rounds=5, progress=lambda *step: seen.append(step))
    assert [(r.threads, r.kind) for r in records] == [(t, k) for t in (1, 2) for k in files]
    assert all(0 < r.median_ms <= r.p90_ms and r.runs == 5 for r in records)
    assert all(r.median_ms <= r.p90_ms <= r.p95_ms <= r.p99_ms for r in records)
    assert all(r.load_ms is r.first_ms is r.memory_bytes is None for r in records)  # not asked
    assert records[0].bytes == files["float32"].stat().st_size
    assert seen[0] == (1, 10) and seen[-1] == (10, 10)
    json.dumps([r.to_dict() for r in records])


def test_files_are_interleaved_and_warm_up_is_not_timed(monkeypatch):
    runs = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def get_input_details(self):
            return [{"index": 0, "shape": (1, 2, 2, 1), "dtype": "float32"}]

        def set_tensor(self, index, value):
            pass

        def invoke(self):
            runs.append(self.name)

    monkeypatch.setattr(module, "open_interpreter", lambda path, threads: Recorder(path.name))
    monkeypatch.setattr(module.Path, "stat", lambda self: type("S", (), {"st_size": 1}))
    a, b = module.Path("a"), module.Path("b")
    records = benchmark({"a": a, "b": b}, np.zeros((2, 2, 1), "uint8"), threads=(1,), rounds=3)
    assert runs == ["a"] * WARM_UP + ["b"] * WARM_UP + ["a", "b"] * 3
    assert [r.runs for r in records] == [3, 3]


def test_percentiles_are_those_of_all_runs_and_starts_are_interleaved(monkeypatch, tmp_path):
    """The clock is ours: the runs of the file take 1 to 100 ms, its starts 10, 20 and 60."""
    started = []

    def start(path, threads):
        started.append((path.name, threads))
        return ColdStart(load_ms=(10, 20, 60)[len(started) // 2 % 3], first_ms=1, memory_bytes=7)

    class Interpreter:
        def get_input_details(self):
            return [{"index": 0, "shape": (1, 2, 2, 1), "dtype": "float32"}]

        set_tensor = invoke = lambda self, *arguments: None

    ticks = iter(np.cumsum([t for ms in range(1, 101) for t in (0.5, ms / 1000) * 2]))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(module, "open_interpreter", lambda path, threads: Interpreter())
    monkeypatch.setattr(module, "cold_start", start)
    files = {name: tmp_path / name for name in "ab"}
    for path in files.values():
        path.write_bytes(b"123")
    image = np.zeros((2, 2, 1), "uint8")
    a, b = benchmark(files, image, threads=(4,), rounds=100, starts=3)
    assert (a.median_ms, a.p90_ms, a.p99_ms) == pytest.approx((50.5, 90.1, 99.01))
    assert started == [("a", 4), ("b", 4)] * 3
    assert (a.load_ms, a.first_ms, a.memory_bytes, b.bytes) == (20, 1, 7, 3)


def test_a_start_is_measured_in_a_process_of_its_own(files, monkeypatch):
    processes = []
    run = cold_start.subprocess.run

    def recorded(command, **options):
        processes.append(command)
        return run(command, **options)

    monkeypatch.setattr(cold_start.subprocess, "run", recorded)
    found = cold_start.cold_start(files["float32"], 1)
    assert len(processes) == 1
    assert found.load_ms > 0 and found.first_ms > 0
    # At least its weights and its arena, and far less than a process with TensorFlow takes.
    assert 300_000 < found.memory_bytes < 50_000_000


def test_a_start_that_fails_is_one_line(tmp_path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"1234TFL3" + bytes(100))
    with pytest.raises(ValueError, match="did not start: its process ended with status 1"):
        cold_start.cold_start(path, 1)


def test_a_start_is_limited_in_processor_time(files, monkeypatch):
    """Not by the clock, so that a busy machine is no fault of the file."""
    spin = cold_start.PROGRAM.replace(
        "measure(*",
        "import tflite.devices.cold_start as m; m.CPU_SECONDS = 1; m._limit_cpu()\n"
        "while True: pass\nmeasure(*",
    )
    monkeypatch.setattr(cold_start, "PROGRAM", spin)
    with pytest.raises(ValueError, match="did not start within 300 s of processor time"):
        cold_start.cold_start(files["float32"], 1)


def test_what_cannot_be_timed_is_refused(files, digits):
    for arguments in ({"rounds": 0}, {"threads": ()}, {"starts": -1}):
        with pytest.raises(ValueError, match="nothing to time"):
            benchmark(files, digits[0][0], **arguments)
    with pytest.raises(ValueError, match="nothing to time"):
        benchmark({}, digits[0][0])
    with pytest.raises(ValueError, match=r"takes a uint8 image \(32, 32, 1\)"):
        benchmark(files, digits[0][0][:16])
