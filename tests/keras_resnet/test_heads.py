"""Heads that cannot mean what their contract says, and what outputs mean by task."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.classifier import ImageClassifier, head_activation, require_probabilities
from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.models import ResNet8, create_model, list_models
from keras_resnet.preprocessing import decide, decode_predictions
from keras_resnet.saving import load_model

BINARY = Contract(32, 32, 3, labels=("a", "b"), task="binary", thresholds=(0.7,))
MULTI = Contract(32, 32, 3, labels=("a", "b", "c"), task="multi", thresholds=(0.5, 0.2, 0.9))


@pytest.mark.parametrize("name", list_models())
def test_one_class_with_softmax_is_refused_by_every_constructor(name: str) -> None:
    with pytest.raises(ValueError, match=r"1\.0 for every image.*classes=1.*'sigmoid'") as caught:
        create_model(name, classes=1)
    assert "\n" not in str(caught.value)


def test_it_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1\.0 for every image"):
        ResNet8(classes=1, weights=tmp_path / "missing.keras")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contract": MULTI, "classes": 3}, "needs a sigmoid for each output"),
        ({"contract": BINARY, "classes": 1}, "task='binary' needs a sigmoid for each output"),
        ({"contract": BINARY, "classes": 2}, "task='binary' has one output"),
        ({"contract": BINARY.replace(labels=()), "classes": 10}, "task='binary' has one output"),
        ({"contract": MULTI, "classes": 2}, "names 3 labels for 2 classes"),
    ],
)
def test_other_heads_than_the_task_needs_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ResNet8(**options)
    assert "\n" not in str(caught.value)


def test_one_sigmoid_is_a_binary_task() -> None:
    model = ResNet8(classes=1, classifier_activation="sigmoid")
    assert model.contract.task == "binary"
    require_probabilities(deployable(model))


def test_task_and_thresholds_travel_with_the_weights(tmp_path: Path) -> None:
    sigmoid = {"classifier_activation": "sigmoid"}
    ResNet8(classes=3, contract=MULTI, **sigmoid).save(tmp_path / "multi.keras")
    assert load_model(tmp_path / "multi.keras").contract.thresholds == MULTI.thresholds
    again = ResNet8(classes=3, weights=tmp_path / "multi.keras", **sigmoid)
    assert (again.contract.task, again.contract.labels) == ("multi", MULTI.labels)
    assert again.contract.thresholds == MULTI.thresholds
    with pytest.raises(ValueError, match="needs a sigmoid for each output"):
        ResNet8(classes=3, weights=tmp_path / "multi.keras")
    other = ResNet8(classes=5, weights=tmp_path / "multi.keras")
    assert (other.contract.task, other.contract.labels) == ("single", ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier_activation": None}, "outputs logits.*classifier_activation='softmax'"),
        ({"classifier_activation": None, "contract": MULTI, "classes": 3}, "='sigmoid'"),
        ({"classifier_activation": "relu"}, "outputs relu"),
        ({"include_top": False, "pooling": "avg"}, "has no classifier"),
        ({"include_top": False}, "has no classifier"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_not_probabilities_is_refused(options: dict, message: str, wrapped: bool) -> None:
    model = ResNet8(**options)
    with pytest.raises(ValueError, match=message) as caught:
        require_probabilities(deployable(model) if wrapped else model)
    assert "\n" not in str(caught.value)


def foreign(last: str) -> ImageClassifier:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    ends = {
        "layer": lambda: keras.layers.Softmax()(x),
        "activation": lambda: keras.layers.Activation("sigmoid")(x),
        "operation": lambda: keras.ops.softmax(x),
        "mean": lambda: keras.layers.Average()([keras.layers.Softmax()(x)] * 2),
        "logits": lambda: x,
    }
    return ImageClassifier(inputs, ends[last]())


@pytest.mark.parametrize("last", ["layer", "activation", "operation", "mean"])
def test_probabilities_of_other_graphs_are_accepted(last: str) -> None:
    require_probabilities(foreign(last))


def test_logits_of_other_graphs_are_refused() -> None:
    assert head_activation(foreign("logits")) == "linear"
    with pytest.raises(ValueError, match="outputs logits"):
        require_probabilities(foreign("logits"))


def test_predictions_of_a_binary_task() -> None:
    p = np.array([[0.6], [0.7], [0.9]], "float32")
    assert decode_predictions(p, BINARY)[2] == [
        ("b", pytest.approx(0.9)),
        ("a", pytest.approx(0.1)),
    ]
    assert decode_predictions(p, BINARY, top=1)[0] == [("b", pytest.approx(0.6))]
    assert decide(p, BINARY) == [["a"], ["b"], ["b"]]  # from the threshold on
    assert decide(p, Contract(8, 8, task="binary")) == [["1"], ["1"], ["1"]]


def test_predictions_of_a_multi_task() -> None:
    p = np.array([[0.5, 0.6, 0.8], [0.1, 0.1, 0.1]])
    assert decode_predictions(p, MULTI)[0] == [("c", 0.8), ("b", 0.6), ("a", 0.5)]
    assert decide(p, MULTI) == [["b", "a"], []]


@pytest.mark.parametrize("read", [decode_predictions, decide])
@pytest.mark.parametrize("value", [-3.0, 8.0, np.nan])
def test_logits_are_not_read_as_probabilities(read, value: float) -> None:
    with pytest.raises(ValueError, match="must be probabilities, from 0 to 1"):
        read(np.array([[0.5, value]]), Contract(8, 8))


def test_other_numbers_of_outputs_are_refused() -> None:
    for contract, outputs in ((BINARY, 2), (MULTI, 2)):
        with pytest.raises(ValueError, match=r"labels for . outputs"):
            decode_predictions(np.full((1, outputs), 0.5), contract)
