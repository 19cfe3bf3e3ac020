"""Damaged files of a run folder: one line that names the file and the remedy, never a traceback."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keras_resnet.contract import Contract
from tests.command_line import run as run_command
from tests.training.report.run_folder import (
    binary_evaluation,
    multi_evaluation,
    write_evidence,
)
from training.evaluate import Evaluation
from training.report.compare import compare
from training.report.records import FILES, read_log, read_record
from training.report.run_page import write_report
from training.run import Run

NAMES = (*FILES, "tflite/layers_int8.json")
PATH = tuple[str | int, ...]
MISSING = object()

DAMAGED_TEXT = {
    "empty": b"",
    "truncated": None,  # the file's own first half
    "not JSON": b"{'a': 1}",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [-Infinity]}',
    "huge float": b'{"a": 1e999}',
    "huge integer": b'{"a": ' + b"9" * 10_000 + b"}",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "another object": b'{"\\u001b[31m": 1}',
    "null": b"null",
    "number": b"3",
    "list of numbers": b"[1, 2]",
}


@pytest.fixture
def whole(run: Run) -> Run:
    """A run folder with every file that the report reads."""
    write_evidence(run)
    facts = {
        "versions": {"keras": "3.15.1"},
        "cpu": "AMD EPYC",
        "gpus": ["L4", {"device_name": "L4", "compute_capability": [8, 9]}],  # new and old
        "platform": "Linux",
    }
    run.write("run.json", {"environment": facts | {"git": {"commit": "88b68b5"}}})
    run.write("contract.json", Contract(32, 32, labels=("cat", "dog")).to_dict())
    program = run.read("tflite/benchmark_phone.json")
    run.write("tflite/benchmark_program.json", program)
    run.model_file.touch()
    assert all((run.folder / name).is_file() for name in NAMES)
    return run


def refusal(run: Run, name: str) -> str:
    """The line that refuses a file; empty where it is read."""
    try:
        read_record(run, name)
    except ValueError as error:
        return str(error)
    return ""


def assert_names_file_and_remedy(line: str, name: str) -> None:
    assert name in line and "\n" not in line and line.isprintable(), line
    assert re.search(r" is damaged: .+\. (Make it again: keras-resnet |Delete it)", line), line
    assert len(line) < 600


@pytest.mark.parametrize("name", NAMES)
def test_sound_files_are_read(whole: Run, name: str) -> None:
    assert read_record(whole, name) == json.loads((whole.folder / name).read_text())
    (whole.folder / name).unlink()
    assert read_record(whole, name) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGED_TEXT)
def test_damaged_text_is_refused_in_one_line(whole: Run, name: str, damage: str) -> None:
    path = whole.folder / name
    content = DAMAGED_TEXT[damage]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    if (damage, name) == ("another object", "run.json"):
        return  # it has no key that must be there
    assert_names_file_and_remedy(refusal(whole, name), name)


@pytest.mark.parametrize(
    "changes",
    [{"labels": {}}, {"mean": [float("1e400")]}, {"height": "x"}, {"mean": 3}, {"sizes": 3}],
)
def test_damaged_contracts_are_refused(whole: Run, changes: dict[str, Any]) -> None:
    content = json.loads((whole.folder / "contract.json").read_text()) | changes
    (whole.folder / "contract.json").write_text(json.dumps(content))
    assert_names_file_and_remedy(refusal(whole, "contract.json"), "contract.json")


def places(value: Any, at: PATH = ()) -> Iterator[PATH]:
    """The path of every value in a file; of lists, in the first and the last item."""
    yield at
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*at, key))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1} if value else ()):
            yield from places(value[i], (*at, i))


def replaced(value: Any, at: PATH, new: Any) -> Any:
    if not at:
        return new
    value = copy.copy(value)
    if len(at) == 1 and new is MISSING:
        del value[at[0]]
    else:
        value[at[0]] = replaced(value[at[0]], at[1:], new)
    return value


REPLACEMENTS: dict[str, Any] = {
    "null": None,
    "true": True,
    "text": "x",
    "long text": "a\x1b[31mb\nc\u202e" * 60,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "large": 10**30,
    "most": 10**14,
    "empty list": [],
    "empty object": {},
    "missing": MISSING,
}


@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_every_value_is_refused_or_shown(whole: Run, kind: str) -> None:
    """Every value of every file is replaced, one after the other; what passes, together."""
    refused = 0
    for name in NAMES:
        path = whole.folder / name
        content = accepted = json.loads(path.read_text())
        for at in list(places(content)):
            if not at and kind == "missing":
                continue
            path.write_text(json.dumps(replaced(content, at, REPLACEMENTS[kind])))
            if line := refusal(whole, name):
                assert_names_file_and_remedy(line, name)
                refused += 1
                continue
            try:
                together = replaced(accepted, at, REPLACEMENTS[kind])
            except (KeyError, IndexError, TypeError):
                continue  # inside of what was replaced already
            path.write_text(json.dumps(together))
            accepted = accepted if refusal(whole, name) else together
        path.write_text(json.dumps(accepted))
    assert refused > 50
    lines: list[str] = []
    page = write_report(whole, lines.append).read_text("utf-8")
    assert lines == []
    assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"<style>.*?</style>", "", page, flags=re.S))


@pytest.mark.parametrize("evaluation", [binary_evaluation(20), multi_evaluation(20)])
def test_every_value_of_an_evaluation_is_refused_or_shown(run: Run, evaluation: Evaluation) -> None:
    path = run.folder / "evaluation.json"
    content = json.loads(json.dumps(evaluation.to_dict()))
    refused = 0
    for kind in ("null", "zero", "fraction", "empty list", "missing"):
        new, accepted = REPLACEMENTS[kind], content
        for at in list(places(content))[(kind == "missing") :]:
            path.write_text(json.dumps(replaced(content, at, new)))
            if line := refusal(run, path.name):
                assert_names_file_and_remedy(line, path.name)
                refused += 1
                continue
            try:
                together = replaced(accepted, at, new)
            except (KeyError, IndexError, TypeError):
                continue  # inside of what was replaced already
            path.write_text(json.dumps(together))
            accepted = accepted if refusal(run, path.name) else together
        path.write_text(json.dumps(accepted))
        lines: list[str] = []
        page = write_report(run, lines.append).read_text("utf-8")
        assert lines == []
        assert not re.search(
            r"\b(nan|inf|None)\b", re.sub("<style>.*?</style>", "", page, flags=re.S)
        )
    assert refused > 100


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_written_without_a_damaged_file(whole: Run, name: str) -> None:
    (whole.folder / name).write_text('{"a": ')
    lines: list[str] = []
    page = write_report(whole, lines.append).read_text("utf-8")
    [line] = lines
    assert line.startswith("left out of the report: ")
    assert_names_file_and_remedy(line, name)
    assert "Damaged files" in page and name in page
    parts = ("Training", "Confusion matrix", "TensorFlow Lite", "Inspection of the files")
    assert sum(f"<h2>{part}</h2>" in page for part in parts) >= 3


def test_the_report_is_written_without_any_sound_file(whole: Run) -> None:
    for name in NAMES:
        (whole.folder / name).write_bytes(b"\xff")
    lines: list[str] = []
    page = write_report(whole, lines.append).read_text("utf-8")
    assert len(lines) == len(NAMES)
    assert page.count("<li>") == len(NAMES) and "keras-resnet verify" in page


def test_the_commands_end_in_one_line(
    whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole.folder / "tflite/layers_int8.json").write_text("[]")
    assert run_command("report", whole.folder) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(whole.report_file)
    [line] = [line for line in printed.err.splitlines() if "layers_int8.json" in line]
    assert "keras-resnet layers" in line and "--kind int8" in line


def test_a_file_that_cannot_be_read_is_not_to_be_deleted(
    whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", fails)
    for read in (lambda: read_log(whole), lambda: read_record(whole, NAMES[0])):
        with pytest.raises(ValueError, match=r"cannot be read: Permission denied$"):
            read()


LOGS = {
    "not JSON": b'{"epoch": 1}\n{"epoch"',
    "not UTF-8": b'{"epoch": 1}\n\xff\n',
    "another type": b'{"epoch": 1}\n[2]\n',
    "no epoch": b'{"epoch": 1}\n{"loss": 2}\n',
    "NaN": b'{"epoch": 1}\n{"epoch": 2, "loss": NaN}\n',
    "text for a number": b'{"epoch": 1}\n{"epoch": 2, "loss": "low"}\n',
}


@pytest.mark.parametrize("damage", LOGS)
def test_damaged_logs_are_not_compared(run: Run, damage: str) -> None:
    (run.folder / "log.jsonl").write_bytes(LOGS[damage])
    with pytest.raises(ValueError, match=r"log\.jsonl is damaged: line 2: .*keras-resnet train"):
        compare([run.folder, copy_of(run)])


def test_damaged_evaluations_are_not_compared(run: Run) -> None:
    (run.folder / "log.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n')
    other = copy_of(run)
    (other / "evaluation.json").write_text('{"top1": null}')
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged: .*keras-resnet evaluate"):
        compare([run.folder, other])


def copy_of(run: Run) -> Path:
    return Path(shutil.copytree(run.folder, run.folder.with_name("other")))
