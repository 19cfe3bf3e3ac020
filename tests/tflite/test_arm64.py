"""On an emulated Arm processor: what is missing is said, what crashes is said, and what differs.

``test_small_networks_answer_alike`` makes the Arm system, minutes of work, where it is not in the
cache: `make test-arm64` runs it, `make test` does not.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8, ResNet20
from keras_resnet.weights.download import cache_folder
from tflite import arm64
from tflite.convert import convert
from tflite.golden import golden, textures

ANSWERS = np.array([[0.75, 0.25, 0.0], [0.125, 0.5, 0.375]], "float32")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for an Arm system; what QEMU does there is a script of the test's."""
    commands = tmp_path / "bin"
    commands.mkdir()
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return tmp_path


def command(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def with_python(system: Path) -> Path:
    command(system, arm64.QEMU, "exit 0")
    cache = system / "cache"
    name = f"arm64-{arm64.SUITE}-{'-'.join(arm64.WHEELS).replace('==', '-')}"
    (cache / name / "root" / arm64.PYTHON).parent.mkdir(parents=True)
    (cache / name / "root" / arm64.PYTHON).touch()
    return cache


def test_same_answers_keep_all_promises() -> None:
    row = arm64.compare("int8", ANSWERS, ANSWERS)
    assert (row.images, row.same_top1, row.max_difference, row.broken) == (2, 2, 0.0, ())


@pytest.mark.parametrize(
    ("label", "steps", "kept"), ((0, 1, True), (0, 2, False), (1, 2, True), (1, 3, False))
)
def test_tail_may_be_two_steps_apart_and_the_first_answer_one(
    label: int, steps: int, kept: bool
) -> None:
    arm = ANSWERS.copy()
    arm[0, label] -= steps / 256
    row = arm64.compare("int8", ANSWERS, arm)
    assert bool(row.broken) is not kept
    assert row.where == (0, label)
    assert row.max_difference == steps / 256


def test_other_first_answer_and_nan_are_told() -> None:
    assert (
        "another top-1 on Arm for images [0, 1]"
        in arm64.compare("int8", ANSWERS, ANSWERS[::-1]).broken[0]
    )
    arm = ANSWERS.copy()
    arm[1, 2] = np.nan
    assert arm64.compare("int8", ANSWERS, arm).broken


def test_missing_qemu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"There is no qemu-aarch64-static.*qemu-user-static"):
        arm64.arm_system(tmp_path)


def test_missing_debootstrap_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    command(tmp_path, arm64.QEMU, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ValueError, match="There is no debootstrap"):
        arm64.arm_system(tmp_path / "cache")


def test_other_users_than_root_are_told(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (arm64.QEMU, "debootstrap", "dpkg-deb"):
        command(system, name, "exit 0")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="has to be run as root"):
        arm64.arm_system(system / "cache")


def test_missing_network_is_said_and_leaves_nothing(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(system, arm64.QEMU, "exit 0")
    command(system, "dpkg-deb", "exit 0")
    command(system, "debootstrap", "echo 'E: Failed getting release file' >&2; exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ValueError, match=r"network.*debootstrap.*Failed getting release file"):
        arm64.arm_system(system / "cache")
    assert os.listdir(system / "cache") == []


@pytest.mark.parametrize(
    ("script", "why"), (("kill -SEGV $$", "SIGSEGV"), ("exit 139", "SIGSEGV"), ("exit 3", "code 3"))
)
def test_crash_is_a_fault_of_the_emulation(system: Path, script: str, why: str) -> None:
    cache = with_python(system)
    command(system, arm64.QEMU, script)
    made = arm64.Golden(np.zeros((1, 32, 32, 1), "uint8"), {"int8": ANSWERS[:1]})
    with pytest.raises(ValueError, match=f"crashed.*{why}.*says nothing about the model"):
        arm64.compare_on_arm64({"int8": system / "model_int8.tflite"}, made, cache)


@pytest.mark.skipif(not os.environ.get("KERAS_RESNET_ARM64"), reason="minutes: make test-arm64")
@pytest.mark.parametrize("network", (ResNet8, ResNet20))
def test_small_networks_answer_alike(network: type, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = network(classes=10, contract=Contract(32, 32))
    images = textures(model.contract)
    files = convert(model, tmp_path, calibration=images)
    rows = arm64.compare_on_arm64(files, golden(files, images), cache_folder(), say=print)
    print(*rows, sep="\n")
    assert [row.kind for row in rows] == list(files)
    assert not [row for row in rows if row.broken]
