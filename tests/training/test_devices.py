"""Several devices of one machine learn what one learns from the same batches."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import cli
from keras_resnet.contract import Contract
from training import runtime
from training.checkpoint import latest_checkpoint
from training.config import RuntimeConfig
from training.data.pipeline import training_batches
from training.data.sources import Split
from training.experiment_file import list_recipes, load_experiment
from training.multihost import current_host
from training.optim import learning_rate_note, peak_learning_rate
from training.runtime import prepare, threads

SCRIPT = Path(__file__).with_name("devices_script.py")
PATH = os.pathsep.join((str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")))
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
        "PYTHONPATH": PATH,
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
    out, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return dict(zip(cases, map(json.loads, out.splitlines())))


def state(folder: Path) -> dict[str, bytes]:
    checkpoint = latest_checkpoint(folder / "checkpoints", pytest.fail)
    assert checkpoint is not None
    # By group and number: Keras counts some names through a process.
    return {name.rpartition("/")[0]: a.tobytes() for name, a in checkpoint.arrays.items()}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    names = ("one", "two", "three", "uneven", "scaled")
    cases = {name: CASES[name] for name in names}
    return results(tmp_path_factory.mktemp("mirrored"), cases, "tensorflow")


@pytest.fixture(scope="module")
def all_mirrored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return results(tmp_path_factory.mktemp("all-mirrored"), CASES, "tensorflow")


def test_mirrored_losses_are_those_of_one_device(mirrored: Any) -> None:
    assert len(mirrored["one"]["losses"]) == 10
    np.testing.assert_allclose(mirrored["one"]["losses"], mirrored["two"]["losses"], atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("one clipped", "two clipped"),
        ("one accumulated", "two accumulated"),
        ("one batch norm", "two joined batch norms"),
    ],
)
def test_mirrored_steps_of_every_kind_are_those_of_one_device(
    all_mirrored: Any, one: str, two: str
) -> None:
    losses = [all_mirrored[name]["losses"] for name in (one, two)]
    assert len(losses[0]) == 10
    np.testing.assert_allclose(*losses, atol=CLOSE)


@pytest.mark.slow
def test_clipping_and_the_reach_of_batch_norm_make_a_difference(all_mirrored: Any) -> None:
    def apart(one: str, two: str) -> float:
        losses = [all_mirrored[name]["losses"] for name in (one, two)]
        return np.abs(np.subtract(*losses)).max()

    assert apart("two", "two clipped") > 0.1
    assert apart("two clipped", "two accumulated") > 0.01
    assert 1e-4 < apart("one batch norm", "two batch norms") < 0.05
    assert apart("two batch norms", "two in half precision") < 0.05


def test_what_was_chosen_is_said_and_what_cannot_be_is_refused(mirrored: Any) -> None:
    assert "2 devices, 120 images each;" in mirrored["two"]["said"][0]
    assert "one device" in mirrored["one"]["said"][0]
    assert "runtime.devices is 3, and 2 are available" in mirrored["three"]["said"][-1]
    assert "--batch-size 242" in mirrored["uneven"]["said"][-1]
    assert any(
        "learning rate 0.1 for 240 images per update, scaled linearly from 0.05 for 120" in line
        for line in mirrored["scaled"]["said"]
    )


def test_the_learning_rate_is_scaled_only_where_asked() -> None:
    changes = {"optimizer.learning_rate": 0.1, "runtime.batch_size": 256}
    for reference, expected in ((0, 0.1), (256, 0.1), (64, 0.4)):
        experiment = load_experiment(
            "digits-resnet8", changes | {"optimizer.reference_batch": reference}
        )
        assert peak_learning_rate(experiment) == pytest.approx(expected)


@pytest.mark.parametrize("recipe", list_recipes())
def test_a_recipe_has_its_own_rate_at_its_own_batch_and_scales_it(recipe: str) -> None:
    own = load_experiment(recipe)
    if recipe == "digits-resnet8":  # too small to be spread
        assert not own.optimizer.reference_batch
        return
    assert peak_learning_rate(own) == own.optimizer.learning_rate
    four = load_experiment(recipe, {"runtime.batch_size": 4 * own.runtime.batch_size})
    times = peak_learning_rate(four) / own.optimizer.learning_rate
    assert times == pytest.approx(4 if own.optimizer.name == "sgd" else 2)
    assert f"learning rate {peak_learning_rate(four):g} for " in learning_rate_note(four)


def killed_and_resumed(folder: Path, backend: str) -> None:
    keys = {"checkpoint.every_steps": 2}
    killed = start(folder, {"run": {"keys": keys, "kill": 8}}, backend)
    killed.communicate()
    assert killed.returncode == -9
    done = results(folder, {"run": {"keys": keys}, "calm": {"keys": keys}}, backend)
    assert 0 < len(done["run"]["losses"]) < len(done["calm"]["losses"])
    assert any("resuming after" in line for line in done["run"]["said"])
    assert state(folder / "run") == state(folder / "calm")


@pytest.mark.slow
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
    assert "those of the global batch" in done["two"]["said"][0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}, "Train"),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}, "Train with --backend jax --coord"),
        ({"cluster": 2}, "TF_CONFIG is not the JSON of a cluster. Unset it"),
    ],
)
def test_several_workers_of_tensorflow_are_refused(
    value: dict,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps(value))
    monkeypatch.setattr(sys, "argv", ["keras-resnet", "train", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("keras-resnet: error: TF_CONFIG") and said in error
    assert ("MultiWorkerMirroredStrategy" in error) == ("Train" in said)
    assert not (tmp_path / "run").exists()


def test_one_worker_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}}))
    assert current_host().count == 1


COUNT_THREADS = """
import os, sys, keras, training.runtime as runtime
from training.config import RuntimeConfig
for keys in ({"threads": 3}, {"threads": 23}, {"threads": 3, "inter_op_threads": 23}):
    if not os.fork():
        reasons = runtime.prepare(RuntimeConfig(**keys)).reasons
        keras.ops.matmul(keras.ops.ones((64, 64)), keras.ops.ones((64, 64)))
        found = len(os.listdir("/proc/self/task")), runtime.threads()
        print(*found, *(line for line in reasons if line.startswith("threads")), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to count threads in")
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=needs_jax)])
@pytest.mark.slow
def test_threads_are_as_many_as_asked_for(backend: str) -> None:
    settings = {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS],
        env=os.environ | settings | {"PYTHONPATH": PATH},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    few, many, inter = done.stdout.splitlines()
    assert few.split(maxsplit=2)[1:] == ["3", "threads 3: as configured"]
    assert int(many.split()[1]) == 23
    assert int(many.split()[0]) - int(few.split()[0]) >= 20
    if backend == "tensorflow":
        assert int(inter.split()[0]) - int(few.split()[0]) >= 20
    assert "threads 3, 23 between operations: as configured" in inter


def test_threads_that_can_no_longer_be_chosen_are_refused() -> None:
    tf.constant(1)  # TensorFlow has begun
    with pytest.raises(ValueError, match="Use a new process, or leave the keys out"):
        prepare(RuntimeConfig(threads=threads() + 1))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_limits_the_threads(
    files: dict[str, str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(runtime, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    cores, why = runtime._cores()
    assert cores == (expected or 8)
    assert ("quota of the container" in why) == (expected is not None)


class Reading:
    """Twenty batches of four images, read by an input pipeline that is watched.

    Args:
        together: Images that must be read at once before any of them is returned.
        keys: Of the runtime.
    """

    def __init__(self, together: int = 1, **keys: int) -> None:
        self.together = together
        self.now = self.most = self.read = self.delivered = self.ahead = 0
        self.changed = threading.Condition()
        changes: dict[str, Any] = {"runtime.batch_size": 4, "data.cache_gb": 0}
        changes |= {f"runtime.{key}": value for key, value in keys.items()}
        experiment = load_experiment("digits-resnet8", changes)
        contract = Contract(32, 32, 1, labels=("a", "b"), resize="stretch", crop_fraction=1.0)
        split = Split(1000, tf.data.Dataset.range(1000), self._at)
        self.batches = iter(training_batches(split, contract, experiment))

    def _load(self, _: int) -> np.ndarray:
        with self.changed:
            self.now, self.read = self.now + 1, self.read + 1
            self.most = max(self.most, self.now)
            self.ahead = max(self.ahead, self.read - 4 * self.delivered)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= self.together)
            self.now -= 1
        return np.zeros((32, 32, 1), "uint8")

    def _at(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.numpy_function(self._load, [index], tf.uint8, stateful=False)
        return tf.ensure_shape(image, (32, 32, 1)), tf.constant(0, "int64")

    def take(self, batches: int) -> None:
        for _ in range(batches):
            with self.changed:
                self.delivered += 1  # on its way, so that it does not count as read ahead
            next(self.batches)

    def wait_until_ahead(self, images: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.read - 4 * self.delivered >= images)


def test_prefetch_is_as_many_batches_as_asked_for() -> None:
    few, many = Reading(decoders=1, prefetch=1), Reading(decoders=1, prefetch=11)
    for reading, prefetch in ((few, 1), (many, 11)):
        reading.take(1)
        reading.wait_until_ahead(4 * prefetch)
        reading.take(19)
        # Batches that are being decoded, collected and mixed come on top.
        assert 4 * prefetch <= reading.ahead <= 4 * (prefetch + 5)
    assert few.ahead < 4 * 11


def test_decoders_are_as_many_as_asked_for() -> None:
    one = Reading(decoders=1)
    one.take(20)
    assert one.most == 1
    # However many cores there are; two of the threads may be busy with other stages.
    several = Reading(together=5, decoders=7)
    several.take(20)
    assert 5 <= several.most <= 7
