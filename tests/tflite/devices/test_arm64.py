"""On an emulated Arm processor: what is missing is said, what crashes is said, and what differs.

Tests that are marked ``emulated`` make the Arm system, minutes of work, where it is not in the
cache: `make test-arm64` runs them, `make test` does not.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.classifier import ImageClassifier
from keras_resnet.cli import main
from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8, ResNet20
from keras_resnet.weights.download import cache_folder
from tflite.convert import convert
from tflite.devices import arm64
from tflite.evidence.golden import golden, textures

ANSWERS = np.array([[0.75, 0.25, 0.0], [0.125, 0.5, 0.375]], "float32")
GOLDEN = arm64.Golden(np.zeros((1, 32, 32, 1), "uint8"), {"int8": ANSWERS[:1]})


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


def answering(system: Path, answers: np.ndarray) -> None:
    """QEMU says after each image that it is done, and writes these answers to its last argument."""
    np.save(system / "answers.npy", answers)
    script = f'for out; do :; done; seq {len(answers)}; cp {system}/answers.npy "$out"'
    command(system, arm64.QEMU, script)


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
    assert row.tail == (((0, label),) if kept and steps == 2 else ())


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


def test_a_failed_download_is_reported_and_leaves_nothing(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(system, arm64.QEMU, "exit 0")
    command(system, "dpkg-deb", "exit 0")
    fetch = "echo 'I: Retrieving libc6'; echo 'E: Failed getting release file' >&2; exit 1"
    command(system, "debootstrap", fetch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    said: list[str] = []
    with pytest.raises(
        ValueError, match=r"debootstrap failed with exit code 1: .*Failed getting release file"
    ):
        arm64.arm_system(system / "cache", said.append)
    assert said[-1] == "Retrieving libc6"
    assert os.listdir(system / "cache") == []


@pytest.mark.parametrize(
    ("script", "why"), (("kill -SEGV $$", "SIGSEGV"), ("exit 139", "SIGSEGV"), ("exit 3", "code 3"))
)
def test_crash_is_a_fault_of_the_emulation(system: Path, script: str, why: str) -> None:
    cache = with_python(system)
    command(system, arm64.QEMU, script)
    with pytest.raises(ValueError, match=f"crashed.*{why}.*says nothing about the model"):
        arm64.compare_on_arm64({"int8": system / "model_int8.tflite"}, GOLDEN, cache)


def test_process_that_does_not_end_is_stopped(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = with_python(system)
    command(system, arm64.QEMU, "while :; do :; done")
    monkeypatch.setattr(arm64, "START_SECONDS", 1)
    monkeypatch.setattr(arm64, "SECONDS_AN_IMAGE", 0.1)
    with pytest.raises(ValueError, match=r"too much processor time.*says nothing about the model"):
        arm64.compare_on_arm64({"int8": system / "model_int8.tflite"}, GOLDEN, cache)


def test_each_image_is_told_as_it_is_done(system: Path) -> None:
    cache = with_python(system)
    answering(system, ANSWERS)
    files = dict.fromkeys(("float32", "int8"), system / "model.tflite")
    made = arm64.Golden(np.zeros((2, 32, 32, 1), "uint8"), dict.fromkeys(files, ANSWERS))
    told: list[tuple[int, int]] = []
    rows = arm64.compare_on_arm64(
        files, made, cache, progress=lambda done, total: told.append((done, total))
    )
    assert [row.kind for row in rows if not row.broken] == ["float32", "int8"]
    assert told == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]


def test_command_tells_a_crash_from_another_answer(
    system: Path,
    model: keras.Model,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = system / "run"
    (run / "tflite").mkdir(parents=True)
    model.save(run / "model.keras")
    shutil.copy(files["int8"], run / "tflite")
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(with_python(system)))
    images = textures(model.contract)
    right = golden({"int8": files["int8"]}, images).answers["int8"]

    def verify(*options: str) -> tuple[int, str]:
        words = ("keras-resnet", "verify", str(run), "--arch", "arm64", *options)
        monkeypatch.setattr("sys.argv", list(words))
        try:
            main()
        except SystemExit as leave:
            return int(leave.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    answering(system, right)
    assert verify()[0] == 0
    answering(system, 1 - right)
    code, said = verify()
    assert (code, "failed: int8: another top-1 on Arm" in said) == (1, True)
    command(system, arm64.QEMU, "kill -SEGV $$")
    code, said = verify()
    assert (code, "SIGSEGV" in said, "failed" in said) == (2, True, False)
    for options, message in (
        (("--max-drop", "1"), "Leave them out with --arch"),
        (("--images", "0"), "--images must be at least 1"),
        (("--data", "digits"), "digits has the classes"),
    ):
        code, said = verify(*options)
        assert (code, message in said) == (2, True)


emulated = pytest.mark.skipif(
    not os.environ.get("KERAS_RESNET_ARM64"), reason="minutes: make test-arm64"
)


def hold_against_arm(model: ImageClassifier, images: list[np.ndarray], folder: Path) -> None:
    files = convert(model, folder, calibration=images)
    rows = arm64.compare_on_arm64(files, golden(files, images), cache_folder(), say=print)
    print(*rows, sep="\n")
    assert [row.kind for row in rows] == list(files)
    assert not [row for row in rows if row.broken]


@emulated
@pytest.mark.parametrize("network", (ResNet8, ResNet20))
def test_small_networks_answer_alike(network: type, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = network(classes=10, contract=Contract(32, 32))
    hold_against_arm(model, textures(model.contract), tmp_path)


@emulated
@pytest.mark.parametrize(
    ("network", "file", "options"),
    (
        (ResNet8, "mlperf-tiny/pretrainedResnet.h5", {}),
        (ResNet20, "cifar10-torch/resnet20-12fca82f.th", {"shortcut": "A"}),
    ),
)
def test_trained_networks_answer_alike(
    network: type, file: str, options: dict[str, str], test_data: Path, tmp_path: Path
) -> None:
    if file.endswith(".th"):
        pytest.importorskip("torch")
    model = network(weights=test_data / "checkpoints" / file, **options)
    hold_against_arm(model, cifar10(test_data, 32), tmp_path)


def cifar10(test_data: Path, count: int) -> list[np.ndarray]:
    import tensorflow_datasets as tfds

    folder = test_data / "tensorflow_datasets"
    dataset = tfds.load("cifar10", split=f"test[:{count}]", data_dir=folder, download=False)
    return [example["image"] for example in tfds.as_numpy(dataset)]


def test_a_command_that_fails_is_reported_without_a_guess() -> None:
    with pytest.raises(ValueError) as error:
        arm64._do("/bin/sh", "-c", "echo no such suite >&2; exit 3")
    reason = "/bin/sh failed with exit code 3: no such suite"
    assert str(error.value) == f"The Arm system could not be made: {reason}"
