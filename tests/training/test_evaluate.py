"""Figures and their intervals, against sums done by hand and by scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from training.evaluate import Estimate, summarize

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
