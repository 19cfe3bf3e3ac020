"""``keras-resnet tune`` as a person types it: a search under a budget, and errors of one line."""

import csv
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import run

SHORT = ("schedule.warmup_epochs=0", "data.test_fraction=0.85")


@pytest.mark.slow
def test_a_budget_is_measured_on_int8_files_and_the_best_can_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "search"
    space.write_text("model.architecture: {values: [ResNet8, ResNet20]}")
    words = ("tune", "--space", space, "--tuner", "grid", "--epochs", "1", "--out", out)
    assert run(*words, "--max-size-mb", "0.2", "--json", "--set", *SHORT) == 0
    found = json.loads(capsys.readouterr().out)
    with (out / "trials.csv").open() as file:
        rows = {row["model.architecture"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"ResNet8", "ResNet20"} and found["trials"] == 2
    for name, row in rows.items():
        small = name == "ResNet8"
        assert (float(row["size_mb"]) < 0.2) == small and float(row["latency_ms"]) > 0
        assert (float(row["score"]) > 0) == (row["val_accuracy"] != "") == small
    best = found["best"]
    assert best["model.architecture"] == "ResNet8" and best == found["recipe"]
    front = json.loads((out / "pareto.json").read_text())
    assert [row["trial"] for row in front] == [best["trial"]]
    assert "Accuracy and cost" in (out / "report.html").read_text()

    assert run("train", "--recipe", out / "best.yaml", "--out", tmp_path / "run", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["top1"]["value"] == best["val_accuracy"]  # the same run, to the last bit


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (
            {"optimizer.learning_rat": {"min": 0.1, "max": 1}},
            "Did you mean optimizer.learning_rate",
        ),
        ({"model.size": {"min": 64, "max": 64}}, "empty range"),
        ({"model.variant": {"values": ["v9"]}}, "must be one of"),
        (["model.size"], "must hold keys"),
        ("{", "not readable YAML"),
        (None, "There is no space file"),
    ],
)
def test_a_bad_space_is_told_in_a_line(
    space: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    if space is not None:
        path.write_text(space if isinstance(space, str) else yaml.safe_dump(space))
    assert run("tune", "--space", path, "--out", tmp_path / "search") == 2
    assert says in _error(capsys)
    assert not (tmp_path / "search").exists()


def test_what_cannot_be_searched_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.tuning.tuner.CONNECT_SECONDS", 0.3)
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    out = tmp_path / "search"
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("--out", tmp_path / "file" / "search"), "cannot be written"),
        (("--worker", "--oracle", nobody, "--out", out), "No oracle answers"),
        (("--worker", "--oracle", nobody), "Give it: --out"),
        (("--chief", "--worker"), "Give one of"),
        (("--chief", "--oracle", "here", "--out", out), "takes HOST:PORT"),
        (("--trials", "0", "--out", out), "--trials must be above 0"),
        (("--max-size-mb", "-1", "--out", out), "--max-size-mb must be above 0"),
        (("--timeout", "nan", "--out", out), "--timeout must be above 0"),
    ]
    for words, says in cases:
        assert run("tune", *words) == 2
        assert says in _error(capsys)
        assert not out.exists()


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line, and the only one but for what the command says it starts."""
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not line.startswith("starting")]
    assert len(lines) == 1 and lines[0].startswith("keras-resnet: error: ") and not output.out
    return lines[0]
