"""Figures and their intervals, against sums done by hand and by scikit-learn."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

import keras_resnet
from keras_resnet.prediction import batch_size, in_top, predictor
from tests.peak_memory import PEAK_KIB
from training.data.split import count_labels
from training.estimate import Estimate
from training.evaluate import ImageFacts, evaluate, summarize
from training.thresholds import best_threshold, choose_thresholds, cross_fitted, first_half
from training.validation import validate

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
    hardest = summarize(probabilities, truth, LABELS, hardest=300).hardest
    right = probabilities.argmax(1) == truth
    of_truth = [(right[i], probabilities[i, y]) for i, y in enumerate(truth)]
    assert [of_truth[a.index] for a in hardest] == sorted(of_truth)
    assert 0 < right.sum() < 300
    for answer in hardest:
        row = probabilities[answer.index]
        assert answer.label == LABELS[truth[answer.index]]
        assert (answer.predicted, answer.probability) == (LABELS[row.argmax()], row.max())


@pytest.mark.parametrize(
    "train, test, expected",
    [
        ([90, 30], [45, 15], "always answering no: 75.0% of the test images"),
        # That of the class that is largest in training.
        ([30, 90], [45, 15], None),
        ([30, 90], [15, 45], "always answering yes: 75.0% of the test images"),
        (None, [94, 6], "always answering no: 94.0% of the test images"),
        ([50, 50], [50, 50], None),
    ],
)
def test_unequal_classes_have_a_baseline(
    train: list[int] | None, test: list[int], expected: str | None
) -> None:
    truth = np.repeat([0, 1], test)
    facts = ImageFacts(training_counts=None if train is None else np.array(train))
    for scores, task in ((np.eye(2)[truth], "single"), (truth[:, np.newaxis] / 1, "binary")):
        found = summarize(scores, truth, ("no", "yes"), task=task, facts=facts)
        assert found.baseline == expected


def test_many_equal_classes_and_several_labels_have_no_baseline() -> None:
    truth = np.repeat(np.arange(200), 2)
    labels = tuple(map(str, range(200)))
    assert summarize(np.eye(200)[truth], truth, labels).baseline is None
    several = np.array([[1, 0], [1, 0], [1, 1]])
    assert summarize(several / 1, several, ("a", "b"), task="multi").baseline is None


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


def test_wilson_intervals_agree_with_scipy() -> None:
    from scipy.stats import binomtest

    for successes, images in ((0, 1), (1, 1), (0, 30), (7, 30), (30, 30), (4999, 10_000)):
        expected = binomtest(successes, images).proportion_ci(method="wilson")
        found = Estimate.of(successes, images)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_rank_of_a_class_is_that_of_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.integers(0, 4, (200, 12)).astype("float32")  # many are equal
    outputs[rng.random(outputs.shape) < 0.1] = np.nan
    classes = rng.integers(0, 12, 200)
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(in_top(outputs, classes, 5), (order == classes[:, None]).any(1))


def test_fewer_than_six_classes_have_no_top_5() -> None:
    for count in (5, 6):
        labels = tuple(map(str, range(count)))
        evaluation = summarize(np.eye(count), np.arange(count), labels)
        assert (evaluation.top5 is None) == (count == 5)


def test_many_classes_have_no_matrix_but_all_their_mistakes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 150, 900)
    probabilities = rng.random((900, 150)) + 0.5 * np.eye(150)[truth]
    evaluation = summarize(probabilities, truth, tuple(map(str, range(150))))
    expected = confusion_matrix(truth, probabilities.argmax(1), labels=range(150))
    np.fill_diagonal(expected, 0)
    found = np.zeros_like(expected)
    for true, predicted, images in evaluation.mistakes:
        found[true, predicted] = images
    assert evaluation.confusion is None
    np.testing.assert_array_equal(found, expected)
    assert [n for *_, n in evaluation.mistakes] == sorted(expected[expected > 0])[::-1]


def test_facts_of_the_images_are_kept() -> None:
    probabilities = np.array([(0.9, 0.1), (0.2, 0.8), (0.3, 0.7), (0.4, 0.6)])
    facts = ImageFacts(
        files=("/a/0.png", "/a/1.png", "/b/2.png", "/b/3.png"),
        training_counts=count_labels(np.array([0, 0, 0, 1]), 2),
        duplicates=np.array([True, False, False, False]),
    )
    evaluation = summarize(probabilities, np.array([0, 0, 1, 1]), ("a", "b"), facts=facts)
    assert [(c.training_images, c.test_images) for c in evaluation.classes] == [(3, 2), (1, 2)]
    assert (evaluation.hardest[0].file, evaluation.hardest[0].label) == ("/a/1.png", "a")
    without = evaluation.without_duplicates
    assert without is not None and (without.value, without.images) == (pytest.approx(2 / 3), 3)
    assert evaluation.top1.value == 0.75
    assert count_labels(np.array([[1, 1], [0, 1]], "uint8"), 2).tolist() == [1, 2]  # type: ignore


# --- Thresholds -----------------------------------------------------------------------------


def test_a_threshold_has_the_highest_f1_of_all() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        truth = rng.random(400) < share
        scores = np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1).round(2)  # with ties
        best = best_threshold(scores, truth)
        possible = [f1_score(truth, scores >= t, zero_division=0) for t in np.unique(scores)]
        assert f1_score(truth, scores >= best) == pytest.approx(max(possible))
        assert best not in scores  # between two
    assert best_threshold(np.array([0.1, 0.9]), np.array([True, True])) == 0.5
    assert best_threshold(np.array([0.1, 0.9]), np.array([False, False])) == 0.5
    assert best_threshold(np.array([0.2, 0.8]), np.array([False, True])) == 0.5  # the midpoint


def test_no_image_is_decided_by_a_threshold_that_its_label_helped_to_choose() -> None:
    rng = np.random.default_rng(1)
    scores, truth = rng.random((61, 3)), rng.random((61, 3)) < (0.4, 0.2, 0.05)
    decided = cross_fitted(scores, truth)
    for label, (score, true) in enumerate(zip(scores.T, truth.T)):
        first = first_half(true)
        for has in (True, False):  # each half has its share of both
            assert abs(first[true == has].sum() - (~first)[true == has].sum()) <= 1
        for half in (first, ~first):
            chosen = best_threshold(score[~half], true[~half])
            np.testing.assert_array_equal(decided[half, label], score[half] >= chosen)


@pytest.mark.parametrize("period", [2, 3, 4, 7])
def test_pictures_that_alternate_in_a_folder_do_not_fall_into_different_halves(
    period: int,
) -> None:
    # Two kinds of each class alternate; 0.3 separates the classes for all of them.
    images = np.arange(600)
    truth = images >= 300
    kind = images % period == 0
    scores = np.where(truth, np.where(kind, 0.35, 0.9), np.where(kind, 0.01, 0.25))
    assert (cross_fitted(scores[:, np.newaxis], truth[:, np.newaxis])[:, 0] == truth).all()


@pytest.fixture(scope="module")
def binary() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    truth = np.sort(rng.random(1000) < 0.3).astype("int64")
    return np.clip(rng.normal(0.35 + 0.25 * truth, 0.15), 0, 1)[:, np.newaxis], truth


def test_a_binary_evaluation_agrees_with_scikit_learn(
    binary: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, truth = binary
    found = summarize(scores, truth, ("no", "yes"), task="binary", thresholds=(0.6,))
    decided = scores[:, 0] >= 0.6
    assert found.binary is not None and found.top5 is None
    assert found.top1.value == pytest.approx((decided == truth).mean())
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, decided))
    assert found.binary.f1 == found.classes[1].f1 == pytest.approx(f1_score(truth, decided))
    assert found.binary.roc_auc == pytest.approx(roc_auc_score(truth, scores))
    assert found.binary.average_precision == pytest.approx(average_precision_score(truth, scores))
    for curve in (found.binary.roc, found.binary.precision_recall):
        assert 50 < len(curve) <= 200 and {x for x, _ in curve} >= {0, 1}
    area = np.trapezoid(*np.array(found.binary.roc).T[::-1])
    assert area == pytest.approx(found.binary.roc_auc, abs=2e-3)
    json.dumps(found.to_dict(), allow_nan=False)


def test_average_precision_is_at_most_1() -> None:
    for images in range(2, 60):  # scikit-learn's sum is 1.0000000000000002 for some of them
        truth = (np.arange(2 * images) < images).astype("uint8")[:, np.newaxis]
        scores = np.linspace(0.9, 0.1, 2 * images)[:, np.newaxis]
        several = summarize(scores, truth, ("a",), task="multi").classes[0]
        binary = summarize(scores, truth[:, 0], ("a", "b"), task="binary").binary
        assert binary is not None
        assert several.average_precision == pytest.approx(1) == binary.average_precision
        assert several.average_precision <= 1 and (binary.average_precision or 0) <= 1


def test_cross_fitted_accuracy_does_not_see_its_own_threshold(
    binary: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, truth = binary
    decided = cross_fitted(scores, truth[:, np.newaxis] > 0)[:, 0]
    found = summarize(scores, truth, ("no", "yes"), task="binary", cross_fit=True)
    assert found.cross_fitted and found.top1.value == pytest.approx((decided == truth).mean())


@pytest.mark.parametrize("task", ["binary", "multi"])
@pytest.mark.parametrize("level", [0.05, 0.95])
def test_mistakes_are_listed_first_at_a_threshold_far_from_a_half(task: str, level: float) -> None:
    rng = np.random.default_rng(4)
    truth = (rng.random((100, 1)) < 0.5).astype("uint8")
    scores = np.clip(rng.normal(level, 0.03, (100, 1)) + 0.01 * truth, 0, 1)
    wrong = int(((scores >= level) != truth).sum())
    labels = ("no", "yes") if task == "binary" else ("yes",)
    found = summarize(
        scores,
        truth[:, 0] if task == "binary" else truth,
        labels,
        hardest=100,
        task=task,
        thresholds=(level,),
    )
    mistaken = [row.label != row.predicted for row in found.hardest]
    assert 0 < wrong < 100 and mistaken == [True] * wrong + [False] * (100 - wrong)


def test_a_binary_evaluation_of_one_class_has_no_curves() -> None:
    scores, truth = np.array([[0.2], [0.7]]), np.array([0, 0])
    found = summarize(scores, truth, ("no", "yes"), task="binary").binary
    assert found is not None and (found.roc_auc, found.roc, found.f1) == (None, (), 0)


def test_an_evaluation_of_several_labels_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((300, 4)) < (0.5, 0.2, 0.05, 0)).astype("uint8")
    scores = np.clip(rng.normal(0.3 + 0.3 * truth, 0.15), 0, 1)
    levels = (0.5, 0.4, 0.6, 0.5)
    labels = ("a", "b", "c", "d")
    found = summarize(scores, truth, labels, task="multi", thresholds=levels)
    decided = scores >= levels
    assert found.multi is not None and found.confusion is None and found.top5 is None
    assert found.top1.value == pytest.approx((decided == truth).all(1).mean())
    precisions = [average_precision_score(truth[:, i], scores[:, i]) for i in range(3)]
    assert [c.average_precision for c in found.classes] == pytest.approx([*precisions, None])
    f1 = [f1_score(truth[:, i], decided[:, i]) for i in range(3)]
    assert [c.f1 for c in found.classes[:3]] == pytest.approx(f1)
    assert found.multi.mean_average_precision == pytest.approx(np.mean(precisions))
    assert found.multi.mean_f1 == pytest.approx(np.mean(f1))
    assert found.multi.right_decisions == pytest.approx((decided == truth).mean())
    assert [c.threshold for c in found.classes] == list(levels)
    worst = np.abs(truth - scores).max(1).argmax()
    names = [label for label, present in zip(labels, truth[worst]) if present]
    assert found.hardest[0].index == worst and found.hardest[0].label == " | ".join(
        names or ["none"]
    )
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("task", ["single", "binary", "multi"])
def test_validation_counts_right_answers_and_chooses_thresholds(task: str) -> None:
    rng = np.random.default_rng(4)
    width = 1 if task == "binary" else 3
    outputs = rng.random((40, width)).astype("float32")
    targets = (rng.random((40, width)) < 0.5).astype("float32")
    if task == "single":
        targets = np.eye(3, dtype="float32")[rng.integers(0, 3, 40)]

    def test_step(images: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
        of = outputs[images]
        return float(len(of)), of.argmax(1).astype("int32") if task == "single" else of

    batches = [(np.arange(i, i + 8), targets[i : i + 8]) for i in range(0, 40, 8)]
    found = validate(task, batches, test_step, lambda: None)
    right = (
        outputs.argmax(1) == targets.argmax(1)
        if task == "single"
        else (outputs >= 0.5) == (targets > 0)
    )
    assert (found.loss, found.accuracy) == (1, pytest.approx(right.mean()))
    expected = () if task == "single" else choose_thresholds(outputs, targets > 0)
    assert found.thresholds() == expected


# --- Memory ---------------------------------------------------------------------------------


def test_a_predictor_takes_any_number_of_images_and_pads_the_last() -> None:
    keras.utils.set_random_seed(0)
    model = keras_resnet.ResNet8(classes=3, include_preprocessing=True)
    images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), "uint8")
    expected = np.asarray(model(images.astype("float32")))
    shapes = []
    compiled = model.predict_on_batch
    model.predict_on_batch = lambda x: (shapes.append(len(x)), compiled(x))[1]
    predict = predictor(model, 4)
    np.testing.assert_allclose(predict(images), expected, atol=1e-6)
    np.testing.assert_allclose(predict(images[:1]), expected[:1], atol=1e-6)
    assert shapes == [4, 4, 4, 4]


def test_large_activations_make_small_batches() -> None:
    sizes = [
        batch_size(keras_resnet.ResNet18(classes=2, input_shape=(side, side, 3)))
        for side in (32, 224, 1024)
    ]
    assert sizes == [128, 40, 1]


MEMORY = f"""
{PEAK_KIB}
import sys
import numpy as np, tensorflow as tf
import keras_resnet
from training.evaluate import evaluate

model = keras_resnet.ResNet18(classes=2, input_shape=(96, 96, 3), include_preprocessing=True)
images = np.zeros((128, 96, 96, 3), "uint8")
batches = tf.data.Dataset.from_tensors((images, np.arange(128) % 2))
before = peak_kib()
if sys.argv[1] == "eager":
    model(images.astype("float32"))
else:
    evaluate(model, batches, ("a", "b"))
print((peak_kib() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_evaluation_does_not_keep_every_activation() -> None:
    """An eager call holds all activations of a batch; the evaluation those of one or two layers."""

    def mebibytes(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[-1])

    eager = mebibytes("eager")
    assert eager > 50  # the measurement sees it
    assert 3 * mebibytes("compiled") < eager
