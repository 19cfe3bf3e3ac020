"""What is timed, in which order, and what is refused."""

import json

import numpy as np
import pytest

from tflite import benchmark as module
from tflite.benchmark import WARM_UP, benchmark


def test_times_every_file_on_every_number_of_threads(files, digits):
    seen = []
    records = benchmark(files, digits[0][0], rounds=5, progress=lambda *step: seen.append(step))
    assert [(r.threads, r.kind) for r in records] == [(t, k) for t in (1, 2) for k in files]
    assert all(0 < r.median_ms <= r.p90_ms and r.runs == 5 for r in records)
    assert records[0].bytes == files["float32"].stat().st_size
    assert seen[0] == (1, 10) and seen[-1] == (10, 10)
    json.dumps([r.to_dict() for r in records])


def test_files_take_turns_and_warm_up_is_not_timed(monkeypatch):
    runs = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def get_input_details(self):
            return [{"index": 0, "shape": (1, 2, 2, 1)}]

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


def test_what_cannot_be_timed_is_refused(files, digits):
    for arguments in ({"rounds": 0}, {"threads": ()}):
        with pytest.raises(ValueError, match="nothing to time"):
            benchmark(files, digits[0][0], **arguments)
    with pytest.raises(ValueError, match="nothing to time"):
        benchmark({}, digits[0][0])
    with pytest.raises(ValueError, match=r"takes a uint8 image \(32, 32, 1\)"):
        benchmark(files, digits[0][0][:16])
