"""Several devices of one machine learn what one learns from the same batches."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.checkpoint import latest_checkpoint
from training.config import load_experiment
from training.machines import machines
from training.optim import peak_learning_rate

SCRIPT = Path(__file__).with_name("devices_script.py")
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no JAX")

# Sums over a batch are taken in another order on two devices: a few units in the last place of
# float32 a step, of losses near 2.
CLOSE = 1e-5
GROUP = {"model.norm": "group"}
ONE = {"runtime.devices": 1}
PARTS = {"optimizer.gradient_accumulation_steps": 3}
# The gradient's norm is about 1, so that every step is clipped.
CASES: dict[str, dict[str, Any]] = {
    "one": {"keys": GROUP | ONE},
    "two": {"keys": GROUP},
    "one clipped": {"keys": GROUP | ONE, "clip": 0.05},
    "two clipped": {"keys": GROUP, "clip": 0.05},
    "one accumulated": {"keys": GROUP | ONE | PARTS, "clip": 0.05},
    "two accumulated": {"keys": GROUP | PARTS, "clip": 0.05},
    "one batch norm": {"keys": ONE | {"model.norm": "sync_batch"}},
    "two joined batch norms": {"keys": {"model.norm": "sync_batch"}},
    "two batch norms": {"keys": {"model.norm": "batch"}},
    "two in half precision": {"keys": {"runtime.precision": "mixed_float16"}},
    "three": {"keys": {"runtime.devices": 3}},
    "uneven": {"keys": {"runtime.batch_size": 241}},
    "scaled": {"keys": {"optimizer.reference_batch": 120, "schedule.epochs": 1}},
}


def start(folder: Path, cases: dict[str, dict], backend: str) -> subprocess.Popen:
    settings = {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    texts = [json.dumps({"name": name, **case}) for name, case in cases.items()]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *texts],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(folder: Path, cases: dict[str, dict], backend: str) -> dict[str, dict[str, Any]]:
    process = start(folder, cases, backend)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return dict(zip(cases, map(json.loads, out.splitlines())))


def state(folder: Path) -> dict[str, bytes]:
    checkpoint = latest_checkpoint(folder / "checkpoints", pytest.fail)
    assert checkpoint is not None
    # By group and number: Keras counts some names through a process.
    return {name.rpartition("/")[0]: a.tobytes() for name, a in checkpoint.arrays.items()}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return results(tmp_path_factory.mktemp("mirrored"), CASES, "tensorflow")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("one", "two"),
        ("one clipped", "two clipped"),
        ("one accumulated", "two accumulated"),
        ("one batch norm", "two joined batch norms"),
    ],
)
def test_mirrored_losses_are_those_of_one_device(mirrored: Any, one: str, two: str) -> None:
    assert len(mirrored[one]["losses"]) == 10
    np.testing.assert_allclose(mirrored[one]["losses"], mirrored[two]["losses"], atol=CLOSE)


def test_clipping_and_the_reach_of_batch_norm_make_a_difference(mirrored: Any) -> None:
    def apart(one: str, two: str) -> float:
        return np.abs(np.subtract(mirrored[one]["losses"], mirrored[two]["losses"])).max()

    assert apart("two", "two clipped") > 0.1
    assert apart("two clipped", "two accumulated") > 0.01
    assert 1e-4 < apart("one batch norm", "two batch norms") < 0.05
    assert apart("two batch norms", "two in half precision") < 0.05


def test_what_was_chosen_is_said_and_what_cannot_be_is_refused(mirrored: Any) -> None:
    assert "2 devices, 120 images each;" in mirrored["two"]["said"][0]
    assert "one device" in mirrored["one"]["said"][0]
    assert "runtime.devices is 3, and 2 can be had" in mirrored["three"]["said"][-1]
    assert "--batch-size 242" in mirrored["uneven"]["said"][-1]
    assert any(
        "learning rate 0.1: 0.05 is for 120 images an update, and an update has 240" in line
        for line in mirrored["scaled"]["said"]
    )


def test_the_learning_rate_is_scaled_only_where_asked() -> None:
    changes = {"optimizer.learning_rate": 0.1, "runtime.batch_size": 256}
    for reference, expected in ((0, 0.1), (256, 0.1), (64, 0.4)):
        experiment = load_experiment(
            "digits-resnet8", changes | {"optimizer.reference_batch": reference}
        )
        assert peak_learning_rate(experiment) == pytest.approx(expected)


def killed_and_resumed(folder: Path, backend: str) -> None:
    keys = {"checkpoint.every_steps": 2}
    killed = start(folder, {"run": {"keys": keys, "kill": (0, 8)}}, backend)
    killed.communicate(timeout=300)
    assert killed.returncode == -9
    done = results(folder, {"run": {"keys": keys}, "calm": {"keys": keys}}, backend)
    assert 0 < len(done["run"]["losses"]) < len(done["calm"]["losses"])
    assert any("going on after" in line for line in done["run"]["said"])
    assert state(folder / "run") == state(folder / "calm")


def test_two_mirrored_devices_go_on_exactly_after_a_kill(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, "tensorflow")


@needs_jax
def test_jax_goes_on_exactly_after_a_kill(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, "jax")


@needs_jax
def test_jax_losses_are_the_same_on_one_device_and_two(tmp_path: Path, mirrored: Any) -> None:
    names = ("one", "two", "one clipped", "two clipped", "one accumulated", "two accumulated")
    norms = ("one batch norm", "two joined batch norms", "two batch norms")
    done = results(tmp_path, {name: CASES[name] for name in (*names, *norms)}, "jax")
    for one, two in zip(names[::2], names[1::2]):
        np.testing.assert_allclose(done[one]["losses"], done[two]["losses"], atol=CLOSE)
    for name in norms[1:]:  # its statistics are always those of the whole batch
        np.testing.assert_allclose(done[norms[0]]["losses"], done[name]["losses"], atol=1e-4)
    assert "over all of them" in done["two"]["said"][0]


def test_several_workers_of_tensorflow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))
    with pytest.raises(ValueError, match=r"MultiWorkerMirroredStrategy .*--backend jax"):
        machines()
