"""Planted wrong labels are found, and those of duplicates are not judged by their copies."""

from pathlib import Path

import numpy as np
import pytest

from training.audit.duplicates import Group
from training.audit.labels import (
    doubtful_labels,
    embed,
    open_features,
    out_of_fold,
    pooled_features,
    why_not,
)
from training.config import DataConfig
from training.data.pipeline import evaluation_batches
from training.data.sources import labels_of, open_source


def clusters(count: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of well-separated classes, and their true labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return rng.normal(size=(classes, 32))[labels] * 3 + rng.normal(size=(count, 32)), labels


def test_wrong_labels_are_found_and_right_ones_are_not() -> None:
    features, labels = clusters(400)
    noisy = labels.copy()
    wrong = np.arange(0, 400, 19)  # of every class
    noisy[wrong] = (noisy[wrong] + 1 + np.arange(len(wrong)) % 3) % 4
    doubts = doubtful_labels(features, noisy)
    found = {doubt.index for doubt in doubts}
    assert found <= set(wrong.tolist()) and len(found) >= 0.75 * len(wrong)
    assert all(doubt.suggested == labels[doubt.index] for doubt in doubts)
    probabilities = [doubt.label_probability for doubt in doubts]
    assert probabilities == sorted(probabilities)


def test_duplicates_are_predicted_together() -> None:
    """A copy with the same wrong label would support it."""
    features, _ = clusters(100, classes=2)
    features = np.concatenate([features, features])
    groups = np.tile(np.arange(100), 2)
    random = np.random.default_rng(0).integers(0, 2, 100)  # labels that nothing tells but a copy
    probabilities = out_of_fold(features, np.tile(random, 2), groups)
    np.testing.assert_allclose(probabilities[:100], probabilities[100:])
    alone = out_of_fold(features, np.tile(random, 2), np.arange(200))
    assert not np.allclose(alone[:100], alone[100:])


def test_rare_classes_are_not_judged() -> None:
    features, labels = clusters(100, classes=2)
    labels[:3] = 7
    doubts = doubtful_labels(features, labels)
    assert not {doubt.index for doubt in doubts} & {0, 1, 2}
    groups = [Group(tuple(range(1, 96, 2)), 1.0, True, False, False)]  # one picture, 48 times
    with pytest.raises(ValueError, match="fewer than two classes"):
        doubtful_labels(features, labels, groups)


def test_several_labels_a_picture_are_not_judged() -> None:
    assert "may have several" in str(why_not(np.zeros((5, 3), "uint8")))
    assert "1,000 classes" in str(why_not(np.arange(1001)))
    assert why_not(np.arange(10) % 2) is None


@pytest.mark.parametrize("inside", [True, False])
def test_features_are_those_before_the_classifier(inside: bool) -> None:
    import keras

    import keras_resnet

    keras.utils.set_random_seed(0)
    contract = keras_resnet.Contract(32, 32, channels=1, mean=(100.0,), std=(50.0,))
    model = keras_resnet.ResNet8(
        input_shape=(32, 32, 1), classes=10, include_preprocessing=inside, contract=contract
    )
    source = open_source(DataConfig("digits"), 0)
    found = embed(pooled_features(model), source)
    assert found.shape == (1797, 64)
    kernel, bias = next(x for x in reversed(model.layers) if x.get_weights()).get_weights()
    scores = found[:40] @ kernel + bias
    expected = np.exp(scores - scores.max(1, keepdims=True))
    pixels = next(iter(evaluation_batches(source.train, model.contract, 40)))[0]
    inputs = keras_resnet.preprocess_input(pixels, model.contract)
    np.testing.assert_allclose(expected / expected.sum(1, keepdims=True), model(inputs), atol=1e-4)


def test_a_file_without_a_known_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no model"):
        open_features(tmp_path)
    with pytest.raises(ValueError, match="no file of weights"):
        open_features(tmp_path / "x.safetensors")


def test_wrong_labels_of_flowers_are_found(test_data: Path) -> None:
    """5 % of the labels changed: most are found, and most of what is found was changed."""
    weights = test_data / "checkpoints/imagenet-resnet18/resnet18-float16.safetensors"
    source = open_source(DataConfig(f"folder:{test_data}/flowers"), 0, say=lambda _: None)
    features = embed(open_features(weights), source)
    labels = np.concatenate([labels_of(source.train), labels_of(source.test)])
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(labels))[: len(labels) // 20]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + rng.integers(1, 5, len(wrong))) % 5
    found = {doubt.index for doubt in doubtful_labels(features, noisy)}
    hits = len(found & set(wrong.tolist()))
    assert hits >= 0.5 * len(wrong)
    assert hits >= 0.5 * len(found)
