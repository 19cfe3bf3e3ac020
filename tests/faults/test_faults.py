"""Signals, full disks, vanished folders and NaN losses never lose the state of a run."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import RECIPE, Command, Moment, fill_disk, run, start
from PIL import Image
from state import left_by

import keras_resnet
from training.checkpoint import latest_checkpoint
from training.run import Run

# Data on the disk, which are read anew in every epoch.
FOLDER_RECIPE = (
    *("train", "--recipe", "folder-resnet18", "--epochs", "3", "--batch-size", "8"),
    *("--set", "model.architecture=ResNet8", "model.size=32", "optimizer.learning_rate=0.01"),
)


def last_line(output: str) -> str:
    assert "Traceback" not in output
    return output.strip().splitlines()[-1]


def start_to_gate(out: Path, where: str, nth: int, arguments: tuple[str, ...]) -> Command:
    """Starts a run, and returns once it waits at a moment for the file of ``gate``."""
    moment = Moment(where, nth, gate=str(gate(out)))
    command = start(out, arguments=arguments, moments=(moment,))
    command.wait_for(gate(out))
    return command


def gate(out: Path) -> Path:
    return out.with_name("gate")


def stop(command: Command, out: Path, by: signal.Signals) -> int:
    os.kill(command.process.pid or 0, by)
    gate(out).unlink()
    return command.end()


def test_asked_to_stop_it_saves_and_resumes_and_a_second_run_is_refused(
    undisturbed: dict[str, Any], out: Path
) -> None:
    first = start_to_gate(out, "training.train:_check_loss", 8, RECIPE)
    code, output = run(out)
    assert code == 2
    assert f"{out} is in use by process {first.process.pid}" in last_line(output)
    assert stop(first, out, signal.SIGTERM) == 0
    assert last_line(first.text).endswith("the same command resumes the run")
    assert not (out / "model.keras").exists()
    saved = latest_checkpoint(out / "checkpoints", pytest.fail)
    assert saved is not None and saved.progress.step % 5  # between two regular checkpoints

    second = start_to_gate(out, "training.train:_close_epoch", 1, RECIPE)
    assert stop(second, out, signal.SIGINT) == 130
    assert keras_resnet.load_model(out / "model.keras").count_params() > 0
    metrics = Run(out).read("metrics.json")
    assert not metrics["finished"] and metrics["epochs"] == 1

    assert run(out)[0] == 0
    assert left_by(out) == undisturbed
    code, output = run(out)
    assert code == 0 and f"{out} is finished: 2 epochs" in output
    assert left_by(out) == undisturbed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_costs_nothing_but_the_wait_for_space(
    undisturbed: dict[str, Any], small_disk: Path
) -> None:
    out, ballast = small_disk / "run", small_disk / "ballast"
    for moment in (
        Moment("training.train:write_checkpoint", 4, fill=str(ballast)),
        Moment("training.run:Run.write_rows", fill=str(ballast)),
        # TensorFlow writes these, in C++.
        Moment("training.results:_write_tensorboard", fill=str(ballast)),
        Moment("training.train:write_results", fill=str(ballast)),
    ):
        code, output = run(out, moments=(moment,))
        assert code == 2, output
        assert "No space left on device" in last_line(output)
        assert "run the same command again" in last_line(output)
        assert latest_checkpoint(out / "checkpoints", pytest.fail) is not None
        assert not [path for path in out.rglob("*") if ".writing." in path.name]
        ballast.unlink()
    assert run(out)[0] == 0
    assert left_by(out) == undisturbed


def test_an_export_to_a_full_disk_ends_in_one_line_and_leaves_nothing(
    digits_run: Run, small_disk: Path
) -> None:
    arguments = ("export", str(digits_run.folder))
    exported = small_disk / "exported"
    assert run(exported, arguments=arguments)[0] == 0
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    fill_disk(str(small_disk / "ballast"))
    code, output = run(exported, arguments=arguments)
    assert code == 2
    assert f"error: {exported} cannot be written: " in last_line(output)
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "exported"]


@pytest.mark.slow
def test_a_run_whose_checkpoints_vanish_stops_and_resumes_once_they_are_back(
    undisturbed: dict[str, Any], out: Path
) -> None:
    command = start_to_gate(out, "training.train:_check_loss", 14, RECIPE)
    (out / "checkpoints").rename(out / "away")
    gate(out).unlink()
    assert command.end() == 2
    assert f"{out} can no longer be used" in last_line(command.text)
    (out / "away").rename(out / "checkpoints")
    assert run(out)[0] == 0
    assert left_by(out) == undisturbed


@pytest.mark.slow
def test_images_that_go_away_stop_the_run_with_its_state_saved(tmp_path: Path, out: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (data / label).mkdir(parents=True)
        for i in range(250):
            pixels = rng.integers(0, 256, (40, 40, 3), "uint8")
            Image.fromarray(pixels).save(data / label / f"{i}.png")
    more = ("--data", f"folder:{data}")
    arguments = (*FOLDER_RECIPE[:7], *more, *FOLDER_RECIPE[7:])
    code, output = run(tmp_path / "calm", arguments=arguments)
    assert code == 0, output

    command = start_to_gate(out, "training.train:_close_epoch", 1, arguments)
    data.rename(away)
    gate(out).unlink()
    assert command.end() == 2
    assert str(data) in last_line(command.text)
    saved = latest_checkpoint(out / "checkpoints", pytest.fail)
    assert saved is not None and saved.progress.epoch >= 1
    away.rename(data)
    code, output = run(out, arguments=arguments)
    assert code == 0, output
    assert left_by(out) == left_by(tmp_path / "calm")


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_good_state(out: Path) -> None:
    # A hundred times each weight is subtracted at each step: soon no number is large enough.
    absurd = ("optimizer.learning_rate=100", "optimizer.weight_decay=1")
    code, output = run(out, *absurd, arguments=RECIPE)
    assert code == 1, output
    message = last_line(output)
    assert message.startswith("keras-resnet: failed: ")
    step = int(message.partition("(step ")[2].partition(" ")[0])
    assert "of epoch 1" in message and 5 < step < 22 and "optimizer.learning_rate" in message
    saved = latest_checkpoint(out / "checkpoints", pytest.fail)
    assert saved is not None and saved.progress.step == (step - 1) // 5 * 5
    assert all(np.isfinite(array).all() for array in saved.arrays.values())
    assert "diverged" in (out / "events.jsonl").read_text()


@pytest.mark.slow
def test_deterministic_gives_the_same_bits_twice(tmp_path: Path) -> None:
    arguments = ("train", "--deterministic", *RECIPE[1:])
    for name in ("one", "two"):
        code, output = run(tmp_path / name, "schedule.epochs=1", arguments=arguments)
        assert code == 0 and "deterministic operations only" in output
    assert left_by(tmp_path / "one") == left_by(tmp_path / "two")
    facts = Run(tmp_path / "one").read("run.json")
    assert facts["seed"] == 0 and facts["environment"]["versions"]["tensorflow"]
    assert facts["environment"]["threads"] >= 1 and facts["environment"]["memory_bytes"] > 0
