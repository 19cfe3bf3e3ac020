"""Tables of every subcommand on terminals of 80 and 120 columns, and in a pipe."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_resnet import console
from keras_resnet.cli import show
from keras_resnet.table import cell_width
from tests.cli.terminal import Ended, in_pipe, on_terminal
from tests.command_line import run

COMMANDS: dict[str, tuple[str, ...]] = {
    "models": ("models", "*V2"),
    "weights": ("weights", "ResNe?t50*"),
    "evaluate": ("evaluate", "RUN"),
    "compare": ("compare", "RUN", "OTHER", "--out", "OUT/compare.svg"),
    "convert": ("convert", "RUN", "--kinds", "float32", "--out", "OUT/" + "long-" * 12),
    "verify": ("verify", "RUN"),
    "inspect": ("inspect", "RUN/tflite/model_int8.tflite"),
    "layers": ("layers", "RUN", "--images", "2"),
}
TIMED: dict[str, tuple[str, ...]] = {
    "benchmark": ("benchmark", "RUN", "--rounds", "2", "--starts", "1"),
    "dry-run": ("train", "--dry-run", "--epochs", "1", "--out", "OUT/dry"),
}
HOSTILE = ("\x1b[31mred\nline", "a" * 200, "Δ – café \u202e", "plain")


@pytest.fixture(scope="module")
def words(
    converted: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[str, ...]], list[str]]:
    """Fills in the run, another run and a folder for what is written."""
    folder = tmp_path_factory.mktemp("tables")
    other = folder / "other"
    other.mkdir()
    for name in ("evaluation.json", "log.jsonl"):
        shutil.copy(converted / name, other / name)
    experiment = (converted / "experiment.yaml").read_text("utf-8")
    (other / "experiment.yaml").write_text(experiment.replace("seed: 0", "seed: 7"), "utf-8")
    names = {"RUN": converted, "OTHER": other, "OUT": folder}

    def filled(command: tuple[str, ...]) -> list[str]:
        made = []
        for word in command:
            for name, path in names.items():
                word = word.replace(name, str(path))
            made.append(word)
        return made

    return filled


def _fits(ended: Ended, columns: int) -> None:
    assert ended.code == 0, ended.err
    table = ended.out.partition("the images that changed most")[0]  # a command to copy
    assert max(map(cell_width, table.splitlines())) <= columns
    assert all(line.isprintable() for line in ended.out.splitlines())


def _numbers(text: str) -> set[str]:
    """Numbers with their signs; those of names and paths, which may be shortened, are left out."""
    return set(re.findall(r"(?<![\w/.-])[-+]?\d[\d.,]*%?(?![\w/-])", text))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_a_table_fits_its_terminal_with_every_number_of_the_pipe(
    name: str, columns: int, words: Callable[[tuple[str, ...]], list[str]]
) -> None:
    command = words(COMMANDS[name])
    shown, piped = on_terminal(command, columns), in_pipe(command)
    _fits(shown, columns)
    assert piped.code == 0
    numbers = _numbers(piped.out)
    assert len(numbers) >= (1 if name == "convert" else 10)
    assert numbers <= _numbers(shown.out)


@pytest.mark.parametrize("name", TIMED)
def test_a_table_of_times_fits_80_columns(
    name: str, words: Callable[[tuple[str, ...]], list[str]]
) -> None:
    _fits(on_terminal(words(TIMED[name]), 80), 80)


def test_a_row_in_a_pipe_is_one_line(words: Callable[[tuple[str, ...]], list[str]]) -> None:
    """So that grep and awk work."""
    lines = in_pipe(words(COMMANDS["verify"])).out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line}
    for kind in ("float32", "float16", "dynamic", "int8"):
        assert len(rows[kind]) == 19, rows[kind]  # 13 columns, some of several words
    (line,) = (
        line for line in in_pipe(("models",)).out.splitlines() if line.startswith("ResNet50 ")
    )
    assert line.split()[:2] == ["ResNet50", "25,557,032"] and "He et al. 2015" in line


def test_columns_of_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True, fileno=lambda: -1))
    assert console.terminal_width() == 60
    for nonsense in ("", "0", "-5", "wide", "²"):
        monkeypatch.setenv("COLUMNS", nonsense)
        assert console.terminal_width() == 80


# --- Commands that take long: their tables alone ----------------------------------------------


class _Estimate(SimpleNamespace):
    def __str__(self) -> str:
        return "98.61% (96.78%–99.41%, 360 images)"


def _kinds() -> Mapping[str, Any]:
    row = {"top1": 0.98611, "agreement": 1.0, "bytes": 320_100, "latency_ms": 0.133}
    return dict.fromkeys(("float32", "float16", "dynamic", "int8"), row)


def _found() -> Any:
    best = {"trial": "0003", "val_accuracy": 0.98611, "key": "a value " * 20, "short": 0.1}
    return SimpleNamespace(best=best, recipe=best, rows=[best] * 20)


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_of_quickstart_and_tune_fit(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "terminal_width", lambda: columns)
    show.show_quickstart(SimpleNamespace(top1=_Estimate()), _kinds())  # type: ignore[arg-type]
    show.show_search(_found(), ["key", "short"], Path("search"))
    out = capsys.readouterr().out
    assert max(map(cell_width, out.splitlines())) <= columns
    assert "98.61%" in out and "0.13 ms" in out and "0.1" in out


# --- Hostile names ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on folders of pictures whose names are what no name should be."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for label in HOSTILE:
        (folder / "data" / label).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (32, 32, 3), "uint8")
            Image.fromarray(pixels).save(folder / "data" / label / f"{i}\x1b[0m.png")
    data = ("--data", f"folder:{folder / 'data'}")
    short = ("--epochs", "1", "--batch-size", "16", "--set", "schedule.warmup_epochs=0")
    assert run("train", *data, *short, "--out", folder / "run\x1b[0m") == 0
    assert run("convert", folder / "run\x1b[0m", "--calibration", "4", "--kinds", "int8") == 0
    return folder


def test_names_never_reach_a_terminal_raw_and_cut_no_number(hostile: Path) -> None:
    out = hostile / "run\x1b[0m"
    picture = hostile / "data" / "plain" / "0\x1b[0m.png"
    for command in (("evaluate", out), ("verify", out), ("export", out)):
        ended = on_terminal(command, 80)
        assert ended.code == 0, ended.err
        assert all(line.isprintable() for line in (ended.out + ended.err).splitlines())
        if command[0] == "evaluate":
            table = ended.out.split("\n\n")[1].splitlines()
            assert max(map(cell_width, table)) <= 80
            rows = [line.split() for line in table[2:]]
            names = {row[0] for row in rows}
            assert "\\x1b[31mred" in names and any("…" in name for name in names)
            assert len(rows) == len(HOSTILE)
            assert all("%)" in row[-1] or row[-1] == "–" for row in rows)
    for model in (out, out / "tflite" / "model_int8.tflite"):
        ended = on_terminal(("predict", model, picture, "--top", "4"), 80)
        assert ended.code == 0 and ended.out.rstrip("\n").isprintable()
        assert "\\x1b[31mred line" in ended.out and HOSTILE[1] in ended.out
    ended = on_terminal(("predict", out, hostile / "none\x1b[0m.png"), 80)
    assert ended.code == 1 and "none\\x1b[0m.png" in ended.err
    assert all(line.isprintable() for line in ended.err.splitlines())
    ended = on_terminal(("evaluate", out, "--json"), 80)
    assert ended.out.replace("\n", "").isprintable() and '"\\u001b[31mred\\nline"' in ended.out


def test_a_path_in_a_pipe_is_as_it_is(hostile: Path) -> None:
    out = hostile / "run\x1b[0m"
    assert in_pipe(("export", out)).out == f"{out / 'saved_model'}\n"
