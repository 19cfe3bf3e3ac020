"""Every module works on platforms without the system calls that only Linux has."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# macOS has no sched_getaffinity; Windows has none of these.
ELSEWHERE = """
import importlib, os, pkgutil, sys
import keras, sklearn.model_selection, tensorflow as tf
import multiprocessing.util, subprocess, tempfile

for name in ("sched_getaffinity", "pread", "O_NOFOLLOW", "fork", "setsid", "setpgid", "sysconf"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None

import keras_resnet, tflite, training
modules = [
    module.name
    for package in (keras_resnet, tflite, training)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if not module.name.endswith(("__main__", "on_jax"))
]
for name in modules:
    importlib.import_module(name)

from pathlib import Path
from training import multihost, runtime
from training.config import RuntimeConfig
from training.data.records import Part, record_reader
from training.run import lock_folder

assert runtime.available_cores() == os.cpu_count()
reasons = runtime.prepare(RuntimeConfig()).reasons
assert any(line.startswith(f"threads {os.cpu_count()}") or "quota" in line for line in reasons)
assert runtime.describe()["memory_bytes"] is None
with lock_folder(Path("run")):
    Path("run/model").touch()
with tf.io.TFRecordWriter("records") as writer:
    for i in range(3):
        writer.write(bytes([i]) * (i + 1))
assert record_reader([Part("records", 1, 2)])(1) == bytes([2, 2, 2])
keras.backend.backend = lambda: "jax"
try:
    multihost.connect("localhost:1", 2, 0)
except ValueError as error:
    print(len(modules), error)
"""


def test_every_module_works_without_calls_that_only_linux_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count, _, error = done.stdout.strip().partition(" ")
    assert int(count) > 100
    assert error == f"Training on several machines is not available on {sys.platform}"
