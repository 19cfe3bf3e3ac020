"""Every command on thousands of classes, each in a process whose memory is measured."""

import json
from pathlib import Path

import pytest

from benchmarks.many_classes import commands, make_pictures, peak_memory

CLASSES = 2000
LIMIT = 1.5 * 2**30  # bytes; about two thirds are TensorFlow's and Keras's own


@pytest.mark.slow
def test_thousands_of_classes_go_through_in_bounded_memory_and_output(tmp_path: Path) -> None:
    pictures, run = make_pictures(tmp_path / "pictures", CLASSES), tmp_path / "run"
    for step, arguments in commands(pictures, run).items():
        output = tmp_path / f"{step}.txt"
        code, peak = peak_memory(arguments, output)
        text = output.read_text()
        assert code == 0, text[-2000:]
        assert peak < LIMIT, step
        assert text.count("\n") < 80, step  # train prints two tables of twenty classes
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert len(evaluation["classes"]) == CLASSES and evaluation["confusion"] is None
    wrong = sum(images for *_, images in evaluation["mistakes"])
    assert wrong == round(CLASSES * (1 - evaluation["top1"]["value"]))
    assert {(c["training_images"], c["test_images"]) for c in evaluation["classes"]} == {(2, 1)}
    assert (run / "report.html").stat().st_size < 2e6
