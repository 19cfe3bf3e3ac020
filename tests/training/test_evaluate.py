"""Figures and their intervals, against sums done by hand and by scikit-learn."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

import keras_resnet
from training.evaluate import Estimate, evaluate, summarize

LABELS = tuple("abcdefg")


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 300)
    probabilities = rng.dirichlet(np.ones(7), 300) + 0.5 * np.eye(7)[truth]
    return probabilities / probabilities.sum(1, keepdims=True), truth


def test_wilson_interval_as_published() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263.
    estimate = Estimate.of(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(value: float) -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, value]])
    with pytest.raises(ValueError, match=r"NaN or infinity for 1 of 2 images"):
        summarize(probabilities, np.array([0, 1]), ("a", "b"))


def test_figures_agree_with_scikit_learn(answers: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, truth = answers
    evaluation = summarize(probabilities, truth, LABELS)
    predicted = probabilities.argmax(1)
    precision, recall, _, count = precision_recall_fscore_support(truth, predicted)
    assert evaluation.top1.value == pytest.approx((predicted == truth).mean())
    assert evaluation.top5.value == pytest.approx(top_k_accuracy_score(truth, probabilities, k=5))
    assert [c.precision.value for c in evaluation.classes] == pytest.approx(list(precision))
    assert [c.recall.value for c in evaluation.classes] == pytest.approx(list(recall))
    assert [c.recall.images for c in evaluation.classes] == list(count)
    np.testing.assert_array_equal(evaluation.confusion, confusion_matrix(truth, predicted))


def test_the_hardest_images_got_the_least_probability_for_what_they_are(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, truth = answers
    hardest = summarize(probabilities, truth, LABELS, hardest=5).hardest
    of_truth = [probabilities[i, y] for i, y in enumerate(truth)]
    assert [of_truth[a.index] for a in hardest] == sorted(of_truth)[:5]
    for answer in hardest:
        row = probabilities[answer.index]
        assert answer.label == LABELS[truth[answer.index]]
        assert (answer.predicted, answer.probability) == (LABELS[row.argmax()], row.max())


def test_a_class_without_images_has_no_figure() -> None:
    evaluation = summarize(np.array([[0.9, 0.1, 0.0]]), np.array([0]), ("a", "b", "c"))
    assert str(evaluation.classes[2].recall) == "no images"
    json.dumps(evaluation.to_dict(), allow_nan=False)  # NaN is not JSON


def test_a_flipped_answer_is_the_mean_of_those_to_both_images() -> None:
    keras.utils.set_random_seed(0)
    model = keras_resnet.ResNet8(classes=3, include_preprocessing=True)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), "uint8")
    truth = np.arange(12) % 3
    both = [np.asarray(model(x.astype("float32"))) for x in (images, images[:, :, ::-1])]
    assert np.abs(both[0] - both[1]).max() > 1e-3

    def answers(images: np.ndarray, flip: bool) -> dict[int, tuple[str, float]]:
        batches = tf.data.Dataset.from_tensor_slices((images, truth)).batch(5)
        found = evaluate(model, batches, tuple("abc"), flip=flip).hardest
        assert len(found) == 12
        return {a.index: (a.predicted, a.probability) for a in found}

    for flip, expected in ((False, both[0]), (True, (both[0] + both[1]) / 2)):
        got = answers(images, flip)
        for i, row in enumerate(expected):
            assert got[i] == ("abc"[row.argmax()], pytest.approx(row.max(), rel=1e-5))
    mirrored = answers(images[:, :, ::-1], True)
    assert mirrored == {i: (p, pytest.approx(q, rel=1e-5)) for i, (p, q) in got.items()}
