"""The statistics by hand, then on real files."""

import json

import numpy as np
import pytest

from tflite.verify import Answers, compare, paired_interval, verify


def answers(label, keras, file, apart=0.0):
    n = len(label)
    return Answers(*map(np.array, (label, keras, file)), np.full(n, apart), np.full(n, apart / 2))


def test_interval_by_hand():
    # 100 images, the file alone right on 4, Keras alone on 10. With half an image in each
    # cell: (4.5 - 10.5) / 102 = -0.058824 and
    # 1.959964 * sqrt(15 - 36 / 102) / 102 = 0.073540.
    low, high = paired_interval(gained=4, lost=10, n=100)
    assert low == pytest.approx(-0.132363, abs=1e-6)
    assert high == pytest.approx(0.014716, abs=1e-6)


def test_interval_of_no_difference_still_has_a_width():
    # sqrt(1) / 12 * 1.959964
    assert paired_interval(0, 0, 10) == pytest.approx((-0.163330, 0.163330), abs=1e-6)


def test_interval_keeps_its_promise():
    """In 95 % of experiments the truth is inside: 2,000 made-up ones of 300 images."""
    rng = np.random.default_rng(0)
    gain, loss, n = 0.02, 0.04, 300
    inside = 0
    for gained, lost, _ in rng.multinomial(n, (gain, loss, 1 - gain - loss), size=2000):
        low, high = paired_interval(int(gained), int(lost), n)
        inside += low <= gain - loss <= high
    assert 0.935 < inside / 2000 < 0.975


def test_comparison_by_hand():
    c = compare(
        "int8",
        answers(label=[0, 1, 2, 3, 4], keras=[0, 1, 2, 0, 0], file=[0, 1, 0, 3, 0], apart=0.25),
        size=7,
    )
    assert (c.keras_top1, c.file_top1, c.difference, c.agreement) == (60, 60, 0, 60)
    assert (c.images, c.max_difference, c.mean_difference, c.bytes) == (5, 0.25, 0.125, 7)
    assert c.interval == pytest.approx(tuple(100 * x for x in paired_interval(1, 1, 5)))


def test_answers_of_probabilities():
    a = Answers.of(
        np.array([1]), np.array([[0.25, 0.75]], "float32"), np.array([[0.75, 0.25]], "float32")
    )
    assert (a.keras[0], a.file[0], a.max_difference[0], a.mean_difference[0]) == (1, 0, 0.5, 0.5)
    assert len(Answers.join([a, a, a]).label) == 3


def test_the_files_are_the_same_model(model, files, held_out):
    seen = []
    report = verify(
        model,
        files,
        held_out,
        max_drop=2.0,
        min_agreement=95.0,
        progress=lambda *step: seen.append(step),
    )
    assert report.passed
    assert seen[-1] == (len(held_out), len(held_out)) == (report.images, 297)
    by_kind = {c.kind: c for c in report.kinds}
    assert list(by_kind) == list(files)
    assert by_kind["float32"].keras_top1 > 80
    assert by_kind["float32"].agreement == 100
    assert by_kind["float32"].max_difference < 1e-4 < by_kind["int8"].max_difference
    for c in report.kinds:
        assert c.interval[0] <= c.difference <= c.interval[1]
        assert c.bytes == files[c.kind].stat().st_size
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["passed"] and plain["kinds"][0]["kind"] == "float32"


def test_another_model_breaks_both_tolerances(model, files, held_out):
    import keras

    from keras_resnet.models import ResNet8
    from tflite.convert import convert

    keras.utils.set_random_seed(1)
    untrained = ResNet8(input_shape=(32, 32, 1), classes=10, contract=model.contract)
    path = convert(untrained, files["int8"].parent / "other", ["float32"])["float32"]
    both = {"good": files["float32"], "other": path}
    report = verify(model, both, held_out[:64], max_drop=1.0, min_agreement=99.0)
    good, other = report.kinds
    assert not report.passed
    assert good.passed and not other.passed
    assert "may drop by 1" in other.broken[0] and "must on 99" in other.broken[1]
    assert verify(model, both, held_out[:64]).passed  # nothing asked, nothing broken


def test_answers_that_are_not_numbers_never_pass(model, files, held_out, monkeypatch):
    from tflite.classifier import Classifier

    monkeypatch.setattr(
        Classifier, "probabilities", lambda self, x: np.full((len(x), 10), np.nan, "float32")
    )
    report = verify(model, {"int8": files["int8"]}, held_out[:4])
    assert not report.passed
    assert "not finite" in report.kinds[0].broken[0]
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_source_without_a_length(model, files, held_out):
    seen = []
    verify(
        model,
        {"float32": files["float32"]},
        (pair for pair in held_out[:40]),
        progress=lambda *step: seen.append(step),
    )
    assert seen == [(32, 0), (40, 0)]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "There are no images"),
        ([(np.zeros((32, 32, 1), "uint8"), 10)], "classes, 0–9"),
        ([(np.zeros((8, 8, 1), "uint8"), 1)], r"must be uint8 \(32, 32, 1\)"),
        ([(np.zeros((32, 32, 1), "float32"), 1)], "Received: float32"),
    ],
)
def test_images_that_do_not_fit_are_refused(model, files, images, message):
    with pytest.raises(ValueError, match=message):
        verify(model, {"float32": files["float32"]}, images)


def test_no_files_and_senseless_tolerances_are_refused(model, files, held_out):
    with pytest.raises(ValueError, match="no files to verify"):
        verify(model, {}, held_out)
    with pytest.raises(ValueError, match="Received: max_drop=-1"):
        verify(model, files, held_out, max_drop=-1)
    with pytest.raises(ValueError, match="Received: min_agreement=nan"):
        verify(model, files, held_out, min_agreement=float("nan"))
