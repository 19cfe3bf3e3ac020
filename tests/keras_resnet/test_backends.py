"""The models know Keras alone: no TensorFlow import of theirs, and other backends run them."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_resnet
from keras_resnet.models import ResNet20

SOURCES = sorted(Path(keras_resnet.__file__).parent.rglob("*.py"))
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no JAX")

IMPORT_ALONE = """
import sys
import keras
loaded = set(sys.modules)
import keras_resnet
print(keras.backend.backend(), "tensorflow" in loaded, "tensorflow" in sys.modules)
model = keras_resnet.ResNet8()
model(keras.ops.zeros((1, 32, 32, 3)))
print("tensorflow" in sys.modules)
"""
IMPORT_BESIDE_KERAS = """
import sys
import keras
loaded = set(sys.modules)
import keras_resnet
print(*(name.partition(".")[0] for name in set(sys.modules) - loaded))
"""
TRAIN_AND_ANSWER = """
import sys
import keras, keras_resnet
import numpy as np
model = keras_resnet.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], keras.ops.convert_to_numpy(model(x)))
model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
model.fit(x, np.arange(len(x)), batch_size=4, epochs=1, shuffle=False, verbose=0)
model.save_weights(sys.argv[4])
"""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_module_imports_tensorflow_or_a_wing(path: Path) -> None:
    forbidden = {"tensorflow", "jax", "torch"}
    if path.parent.name != "cli":  # the command stands above the wings
        forbidden |= {"training", "tflite"}
    if path.stem == "pytorch":  # reads PyTorch's files, where PyTorch is there
        forbidden -= {"torch"}
    assert not imported(path) & forbidden


@pytest.mark.parametrize(
    "backend",
    [pytest.param("jax", marks=needs_jax), pytest.param("numpy", marks=needs_jax), "torch"],
)
def test_tensorflow_stays_unloaded_on_other_backends(python: Any, backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    before_after, with_model = python(IMPORT_ALONE, backend=backend).splitlines()
    assert before_after == f"{backend} False False"
    assert with_model == "False"


def test_import_brings_little_beside_keras(python: Any) -> None:
    """No package that takes seconds to import: they are imported where they are needed."""
    beside = set(python(IMPORT_BESIDE_KERAS).split()) - sys.stdlib_module_names
    assert "keras_resnet" in beside
    assert beside <= {"keras_resnet", "safetensors"}


@needs_jax
def test_jax_answers_and_learns_as_tensorflow(
    tmp_path: Path, rng: np.random.Generator, python: Any
) -> None:
    x = rng.normal(size=(8, 32, 32, 3)).astype("float32")
    model = ResNet20(shortcut="A")
    paths = [tmp_path / name for name in ("model.keras", "x.npy", "y.npy", "jax.weights.h5")]
    model.save(paths[0])
    np.save(paths[1], x)
    python(TRAIN_AND_ANSWER, *paths, backend="jax")
    np.testing.assert_allclose(np.load(paths[2]), model(x), atol=1e-4)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(x, np.arange(8), batch_size=4, epochs=1, shuffle=False, verbose=0)
    trained = ResNet20(shortcut="A", weights=paths[3])
    for ours, theirs in zip(model.weights, trained.weights):
        if "moving" in ours.name:
            np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.02, err_msg=ours.path)
