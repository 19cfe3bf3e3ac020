"""The tasks ``binary`` and ``multi`` in every kind of .tflite file, on real digits."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from keras_resnet.models import ResNet8
from keras_resnet.preprocessing import decide, decisions, decode_predictions, preprocess_input
from keras_resnet.saving import load_model
from tests.made_once import made_once
from tflite.classifier import Classifier
from tflite.convert import convert
from tflite.devices.arm64 import compare as compare_on_arm
from tflite.evidence.golden import golden, write_golden
from tflite.evidence.inspect import inspect
from tflite.evidence.layers import layer_errors
from tflite.evidence.statistics import average_precision, paired_interval_of_shares
from tflite.evidence.verify import Predictions, compare, verify
from tflite.kinds import KINDS
from tflite.model.io_spec import IOSpec
from tflite.quantization.mixed import _to_threshold

LABELS = {"binary": ("low", "high"), "multi": ("even", "large", "prime")}
THRESHOLDS = {"binary": (0.4,), "multi": (0.6, 0.5, 0.3)}
TRAIN = 1500


def truth(digits: np.ndarray, task: str) -> np.ndarray:
    if task == "binary":
        return (digits >= 5).astype("int64")
    properties = (digits % 2 == 0, digits >= 5, np.isin(digits, (2, 3, 5, 7)))
    return np.stack(properties, axis=1).astype("uint8")


@pytest.fixture(scope="module", params=LABELS)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def trained(task, digits, tmp_path_factory):
    def make(folder: Path) -> None:
        keras.utils.set_random_seed(0)
        statistics = {"mean": (78.0,), "std": (96.0,), "crop_fraction": 1.0}
        meaning = {"labels": LABELS[task], "task": task, "thresholds": THRESHOLDS[task]}
        contract = Contract(32, 32, 1, **statistics, **meaning)
        options = {"classes": contract.outputs, "classifier_activation": "sigmoid"}
        model = ResNet8(input_shape=(32, 32, 1), contract=contract, **options)
        model.compile("adam", "binary_crossentropy", jit_compile=False)
        y = truth(digits[1][:TRAIN], task).reshape(TRAIN, -1).astype("float32")
        x = preprocess_input(digits[0][:TRAIN], contract)
        model.fit(x, y, batch_size=50, epochs=3, verbose=0)
        model.save(folder / "model.keras")

    return load_model(made_once(tmp_path_factory, f"{task}-model", make) / "model.keras")


@pytest.fixture(scope="module")
def made(task, trained, calibration, tmp_path_factory) -> dict[str, Path]:
    def make(folder: Path) -> None:
        with pytest.warns(UserWarning, match="int16x8"):
            convert(trained, folder, list(KINDS), calibration)

    folder = made_once(tmp_path_factory, f"{task}-tflite", make)
    return {kind: folder / f"model_{kind}.tflite" for kind in KINDS}


@pytest.fixture(scope="module")
def unseen(task, digits):
    return digits[0][TRAIN:], truth(digits[1][TRAIN:], task)


def by_keras(model, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(deployable(model)(pixels.astype("float32")))


def test_every_kind_decides_as_keras_does(task, trained, made, unseen):
    pixels, labels = unseen
    expected = by_keras(trained, pixels)
    right = decisions(expected, trained.contract) == labels
    assert right.mean() > 0.85
    # The thresholds matter: with 0.5 some decisions would be others.
    without = decisions(expected, trained.contract.replace(thresholds=()))
    assert (without != decisions(expected, trained.contract)).any()
    for kind, path in made.items():
        classifier = Classifier(path)
        assert classifier.contract == deployable(trained).contract, kind
        outputs = classifier.probabilities(pixels)
        assert outputs.shape == expected.shape, kind
        same = decisions(outputs, classifier.contract) == decisions(expected, trained.contract)
        assert same.mean() == 1.0 if kind == "float32" else same.mean() > 0.97, kind
        assert classifier.labels(list(pixels)) == decide(outputs, classifier.contract)
        assert classifier.predict(list(pixels[:3])) == decode_predictions(
            outputs[:3], classifier.contract
        )
        assert classifier.labels([]) == []


def test_labels_in_the_file_are_one_an_output(task, made):
    with zipfile.ZipFile(made["int8"]) as archive:
        names = archive.read("labels.txt").decode().splitlines()
        contract = json.loads(archive.read("contract.json"))
    assert names == (["high"] if task == "binary" else list(LABELS[task]))
    assert contract["labels"] == list(LABELS[task])
    assert contract["thresholds"] == list(THRESHOLDS[task]) and contract["task"] == task


def test_the_head_stays_in_float(made):
    last = {kind: inspect(made[kind]).graph.operations[-1] for kind in ("int8", "mixed")}
    assert {op.name for op in last.values()} == {"LOGISTIC"}
    outputs = [op.output for op in last.values()]
    for kind, tensor in zip(last, outputs):
        assert inspect(made[kind]).graph.tensors[tensor].dtype == "float32"
    rows = layer_errors(made["float32"], made["int8"], np.zeros((2, 32, 32, 1), "uint8"))
    assert rows[-1].layer == "predictions"


@pytest.mark.parametrize("io_spec", [IOSpec(logits=True), IOSpec("uint8", 4), IOSpec("int8")])
def test_other_inputs_and_outputs_give_the_same_probabilities(
    trained, made, unseen, calibration, io_spec, tmp_path
):
    files = convert(trained, tmp_path, ("float32", "int8"), calibration, io_spec=io_spec)
    for kind, path in files.items():
        expected = Classifier(made[kind]).probabilities(unseen[0][:9])
        np.testing.assert_allclose(
            Classifier(path).probabilities(unseen[0][:9]), expected, atol=1e-5
        )


def test_the_likeliest_classes_are_refused(task, trained, calibration, tmp_path):
    message = f"no answer for task='{task}'.*--top-k"
    with pytest.raises(ValueError, match=message) as caught:
        convert(trained, tmp_path / "out", calibration=calibration, io_spec=IOSpec(top_k=1))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_verify_measures_decisions(task, trained, made, unseen):
    pixels, labels = unseen
    report = verify(trained, made, list(zip(pixels, labels)), max_drop=50, min_agreement=50)
    assert report.passed and report.task == task
    expected = by_keras(trained, pixels)
    decided = decisions(expected, trained.contract)
    for row in report.kinds:
        outputs = Classifier(made[row.kind]).probabilities(pixels)
        theirs = decisions(outputs, trained.contract)
        assert row.images == len(pixels)
        assert row.keras_top1 == pytest.approx(100 * (decided == labels).mean())
        assert row.file_top1 == pytest.approx(100 * (theirs == labels).mean())
        assert row.agreement == pytest.approx(100 * (theirs == decided).mean())
        assert row.keras_top5 is None and row.file_top5 is None
        low, high = row.interval
        assert low < row.difference < high
        if task == "multi":
            precision = average_precision_score(labels, outputs)
            assert row.file_mean_average_precision == pytest.approx(precision, abs=1e-6)
            assert {c.label for c in row.worst_classes} <= set(LABELS[task])
        else:
            assert row.file_mean_average_precision is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_verify_refuses_labels_of_another_task(task, trained, made, unseen):
    pixels = unseen[0][:2]
    wrong = [np.array([1, 0, 1]), np.array([0, 1, 0])] if task == "binary" else [0, 1]
    with pytest.raises(ValueError, match="label") as caught:
        verify(trained, {"float32": made["float32"]}, list(zip(pixels, wrong)))
    assert "\n" not in str(caught.value)


def test_golden_outputs_hold_the_decisions(task, trained, made, unseen, tmp_path):
    pixels = unseen[0][:6]
    write_golden(made["int8"], pixels, tmp_path / "golden.zip")
    with zipfile.ZipFile(tmp_path / "golden.zip") as archive:
        description = json.loads(archive.read("golden.json"))
        outputs = np.stack(
            [np.frombuffer(archive.read(f"{i:04}.output.bin"), "<f4") for i in range(6)]
        )
    decided = decisions(outputs, trained.contract)
    if task == "multi":
        found = [np.flatnonzero(row).tolist() for row in decided]
        assert description["labels_given"] == found and "top1" not in description
    else:
        assert description["top1"] == decided.tolist()


def test_arm_is_compared_by_decisions(trained, made, unseen):
    inputs = golden({"float32": made["float32"]}, list(unseen[0][:20]))
    here = inputs.answers["float32"]
    assert compare_on_arm("float32", here, here, inputs.contract).same_top1 == 20
    other = 1 - here
    compared = compare_on_arm("float32", here, other, inputs.contract)
    assert compared.same_top1 < 10 and "another decision on Arm" in compared.broken[0]


# --- By hand ----------------------------------------------------------------------------------


def test_comparison_of_labels_by_hand():
    contract = Contract(8, 8, 1, labels=("a", "b"), task="multi", thresholds=(0.5, 0.3))
    label = np.array([[1, 0], [0, 1], [1, 1]])
    keras_outputs = np.array([[0.9, 0.1], [0.2, 0.4], [0.4, 0.2]])  # right: 2, 2, 0
    file_outputs = np.array([[0.9, 0.35], [0.2, 0.4], [0.6, 0.2]])  # right: 1, 2, 1
    row = compare("int8", Predictions.of(label, keras_outputs, file_outputs, contract), 1)
    assert row.keras_top1 == row.file_top1 == pytest.approx(100 * 4 / 6)
    assert row.difference == 0 and row.mcnemar == 1.0  # one image gained, one lost
    assert row.agreement == pytest.approx(100 * 4 / 6)
    low, high = row.interval
    # Differences -1/2, 0, 1/2 and the added ±1/2: a deviation of sqrt(4 · 0.25 / 5).
    assert high == -low == pytest.approx(100 * 1.959964 * np.sqrt(0.2) / np.sqrt(5), rel=1e-5)
    # a: ranks 1 and 2 of the images that have it; b: 0.4, 0.2, 0.1.
    assert row.keras_mean_average_precision == 1.0
    # b by the file: 0.4 right, 0.35 wrong, 0.2 right: (1 + 2/3) / 2.
    assert row.file_mean_average_precision == pytest.approx((1 + 5 / 6) / 2)


def test_comparison_of_a_binary_task_by_hand():
    contract = Contract(8, 8, 1, labels=("a", "b"), task="binary", thresholds=(0.7,))
    outputs = np.array([[0.6], [0.8], [0.9]]), np.array([[0.75], [0.8], [0.65]])
    predictions = Predictions.of(np.array([0, 1, 1]), *outputs, contract)
    np.testing.assert_array_equal(predictions.keras, [0, 1, 1])
    np.testing.assert_array_equal(predictions.file, [1, 1, 0])
    np.testing.assert_allclose(predictions.keras_confidence, [0.4, 0.8, 0.9])
    row = compare("int8", predictions, 1, contract.labels)
    assert (row.keras_top1, row.file_top1) == (100.0, pytest.approx(100 / 3))
    assert [c.label for c in row.worst_classes] == ["a", "b"]


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, 50) / 8  # with equal scores
    labels = rng.integers(0, 2, 50)
    expected = average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(expected)
    assert average_precision(scores, np.zeros(50)) is None


def test_interval_of_shares_covers_the_truth():
    """In 95 % of 1,000 experiments, with labels of an image that depend on each other."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        of_image = rng.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.75, 0.15])
        low, high = paired_interval_of_shares(of_image, 0.25)
        inside += low <= 0.05 <= high
    assert 0.93 < inside / 1000 < 0.97


def test_distance_to_the_threshold_by_hand():
    contract = Contract(8, 8, 1, labels=("a", "b"), task="multi", thresholds=(0.5, 0.8))
    exact, signs = _to_threshold(contract, np.array([[0.9, 0.5], [0.1, 0.7]]))
    # The least sure: of the first image b (log 1 − log 4), below its threshold; so of the second.
    np.testing.assert_array_equal(signs, [[0, -1], [0, -1]])
    np.testing.assert_allclose(exact, [np.log(4), np.log(4) - np.log(7 / 3)])
    moved, _ = _to_threshold(contract, np.array([[0.1, 0.5], [0.1, 0.9]]), signs)
    assert moved[0] == pytest.approx(np.log(4)) and moved[1] < 0
