"""Runs side by side."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.training.report.run_folder import PROBABILITIES, TRUTH
from training.evaluate import summarize
from training.experiment_file import load_experiment, save_experiment
from training.report.compare import compare, draw
from training.run import Run


def a_run(folder: Path, rate: float, accuracies: tuple[float, ...]) -> Path:
    folder.mkdir(parents=True)
    experiment = load_experiment("digits-resnet8", {"optimizer.learning_rate": rate})
    run = Run(folder)
    save_experiment(experiment, run.experiment_file)
    rows: list[dict[str, Any]] = [
        {"epoch": n, "accuracy": a, "loss": 1 - a, "val_accuracy": a, "val_loss": 1 - a}
        for n, a in enumerate(accuracies, 1)
    ]
    run.write_text("log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_runs_are_compared_by_their_differing_keys_and_results(tmp_path: Path) -> None:
    one = a_run(tmp_path / "a", 0.1, (0.5, 0.9))
    other = a_run(tmp_path / "b_$x$", 0.2, (0.6, 0.7, 0.8))
    evaluation = summarize(PROBABILITIES, TRUTH, ("cat", "dog")).to_dict()
    Run(one).write("evaluation.json", evaluation)
    first, second = compare([one, other])
    assert first.experiment == {"optimizer.learning_rate": 0.1}
    assert second.experiment == {"optimizer.learning_rate": 0.2}
    assert (first.epochs, second.epochs) == (2, 3)
    assert first.top1 == evaluation["top1"] and second.top1 is None
    draw((first, second), tmp_path / "both.svg")
    picture = (tmp_path / "both.svg").read_text()
    assert picture.count('href="http') == 0 and "<svg" in picture
    draw((first, second), tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b_$x$", "both.png", "both.svg"]


def test_the_curves_of_each_run_are_in_the_picture(tmp_path: Path) -> None:
    ways = ((0.5, 0.9), (0.2, 0.9), (0.5, 0.9))
    pictures = []
    for number, way in enumerate(ways):
        runs = [a_run(tmp_path / str(number) / "x", 0.1, (0.1, 0.2))]
        runs.append(a_run(tmp_path / str(number) / "y", 0.1, way))
        found = compare(runs)
        draw([type(run)(**vars(run) | {"name": "same"}) for run in found], tmp_path / "p.svg")
        text = (tmp_path / "p.svg").read_text()
        pictures.append("".join(line for line in text.splitlines() if "<dc:date>" not in line))
    assert pictures[0] == pictures[2] != pictures[1]


def test_folders_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    one = a_run(tmp_path / "a", 0.1, (0.5,))
    empty = a_run(tmp_path / "b", 0.1, ())
    for folders, says in (
        ([one], "at least two"),
        ([one, one], "each once"),
        ([one, tmp_path], "no run folder"),
        ([one, empty], "no completed epoch"),
    ):
        with pytest.raises(ValueError, match=says):
            compare(folders)
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.pdf"):
        draw(compare([one, a_run(tmp_path / "c", 0.1, (0.5,))]), tmp_path / "p.doc")


def test_runs_of_any_name_are_drawn(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    names = ("a\x1b[31mb\nc", "x" * 200, "\u202egpj.exe", "🦊")
    runs = compare([a_run(tmp_path / name, 0.1, (0.5, 0.9)) for name in names])
    for suffix in ("svg", "png", "pdf"):
        draw(runs, tmp_path / f"p.{suffix}")
    text = (tmp_path / "p.svg").read_text("utf-8")
    ElementTree.fromstring(text)  # an XML reader refuses control characters
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert "x" * 61 not in text
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []
