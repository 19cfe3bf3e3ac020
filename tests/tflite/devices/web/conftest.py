"""A run folder whose files tell pictures apart, made in seconds."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import load_image, preprocess_input
from tflite.convert import convert

TASK_KINDS = ("float32", "int8")
LABELS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
CONTRACT = Contract(96, 80, labels=LABELS)


# A binary and a multi model: labels and thresholds.
TASKS = {
    "binary": (("cat", "dog"), (0.4,)),
    "multi": (LABELS, (0.5, 0.3, 0.7, 0.2, 0.9)),
}


@pytest.fixture(scope="session")
def photographs_to_fit(test_data: Path) -> list[np.ndarray]:
    paths = sorted((test_data / "flowers/train").glob("*/*.jpg"))[::10]
    return [load_image(path, CONTRACT) for path in paths]


@pytest.fixture(scope="session")
def flowers_run(
    photographs_to_fit: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Random weights, but normalized to what they see, so that outputs differ between pictures."""
    model = _normalized(photographs_to_fit, CONTRACT, "softmax")
    folder = tmp_path_factory.mktemp("runs") / "flowers"
    folder.mkdir()
    model.save(folder / "model.keras")
    convert(model, folder / "tflite", calibration=photographs_to_fit)
    return folder


@pytest.fixture(scope="session")
def task_files(
    photographs_to_fit: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Path]]:
    """For each task the path of each kind, of networks with sigmoid outputs."""
    made = {}
    for task, (labels, thresholds) in TASKS.items():
        contract = CONTRACT.replace(task=task, labels=labels, thresholds=thresholds)
        model = _normalized(photographs_to_fit, contract, "sigmoid")
        folder = tmp_path_factory.mktemp(task)
        convert(model, folder, kinds=TASK_KINDS, calibration=photographs_to_fit)
        made[task] = {kind: folder / f"model_{kind}.tflite" for kind in TASK_KINDS}
    return made


def _normalized(photographs: list[np.ndarray], contract: Contract, activation: str) -> keras.Model:
    keras.utils.set_random_seed(7)
    model = ResNet8(
        input_shape=(96, 80, 3),
        classes=contract.outputs,
        classifier_activation=activation,
        contract=contract,
    )
    seen = preprocess_input(np.stack(photographs), contract)
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.0  # one pass sets the statistics
    model(seen, training=True)
    head = next(layer for layer in reversed(model.layers) if hasattr(layer, "kernel"))
    outputs = np.float64(model.predict(seen, verbose=0))
    logits = np.log(outputs)
    if activation == "softmax":
        logits -= logits.mean(axis=1, keepdims=True)
    else:
        logits -= np.log1p(-outputs)
    head.kernel.assign(head.kernel / logits.std(axis=0))
    head.bias.assign(-(logits / logits.std(axis=0)).mean(axis=0))
    return model
