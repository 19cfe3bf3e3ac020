"""The statistics by hand, then on real files."""

import json
import weakref

import numpy as np
import pytest

from tflite.evidence.statistics import (
    calibration_error,
    images_to_resolve,
    mcnemar,
    paired_interval,
    wilson_interval,
)
from tflite.evidence.verify import Predictions, compare, verify


def predictions(label, keras, file, apart=0.0, keras_confidence=0.5, file_confidence=0.5):
    n = len(label)
    label, keras, file = map(np.array, (label, keras, file))
    shares = (keras_confidence, file_confidence, apart, apart / 2)
    return Predictions(
        label, keras, file, keras == label, file == label, *(np.full(n, x) for x in shares)
    )


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


# Twice the tail of Binomial(gained + lost, 1/2), as fractions: 2 · (1 + 15 + 105 + 455) / 2¹⁵ …
@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (9, 9, 1.0),
        (0, 5, 2 / 2**5),
        (4, 1, 12 / 2**5),
        (3, 12, 1152 / 2**15),
        (12, 3, 1152 / 2**15),
        (10, 5, 9888 / 2**15),
    ],
)
def test_mcnemar_by_hand(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p, abs=1e-15)


def test_mcnemar_of_ten_thousand_images():
    assert 0 < mcnemar(4000, 6000) < 1e-80
    assert mcnemar(5000, 5000) == 1


# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
# (1998), table I, method 3; Wilson's formula without continuity correction.
@pytest.mark.parametrize(
    ("successes", "n", "published"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_as_newcombe_published_it(successes, n, published):
    assert [round(end, 4) for end in wilson_interval(successes, n)] == list(published)
    low, high = wilson_interval(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(successes, n), abs=1e-15)


def test_calibration_error_by_hand():
    # Two of four images at 0.9 are right: 0.4 apart. The one at 0.31 is wrong: 0.31 apart.
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.31])
    right = np.array([True, True, False, False, False])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.4 + 0.31) / 5)


def test_calibration_of_one_that_is_as_sure_as_it_is_right():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 200_000)
    assert calibration_error(confidence, rng.uniform(size=200_000) < confidence) < 0.005
    assert calibration_error(np.ones(3), np.zeros(3, bool)) == 1


def test_the_number_of_images_is_the_number_that_resolves():
    # 1,000 images, 10 differ: how many for 0.1 points? Put into the interval, it fits.
    needed = images_to_resolve(5, 5, 1000, 0.001)
    share = 11 / 1002
    half = round(needed * share / 2)
    assert paired_interval(half, half, needed)[1] == pytest.approx(0.001, rel=0.01)
    assert paired_interval(half // 2, half // 2, needed // 2)[1] > 0.0013
    assert images_to_resolve(5, 5, 1000, 0) is None


def test_comparison_by_hand():
    c = compare(
        "int8",
        predictions(label=[0, 1, 2, 3, 4], keras=[0, 1, 2, 0, 0], file=[0, 1, 0, 3, 0], apart=0.25),
        size=7,
    )
    assert (c.keras_top1, c.file_top1, c.difference, c.agreement) == (60, 60, 0, 60)
    assert (c.images, c.max_difference, c.mean_difference, c.bytes) == (5, 0.25, 0.125, 7)
    assert c.interval == pytest.approx(tuple(100 * x for x in paired_interval(1, 1, 5)))
    assert c.mcnemar == 1
    assert c.agreement_interval == pytest.approx((23.07, 88.24), abs=0.01)
    assert (c.keras_calibration_error, c.confidence_drift) == (pytest.approx(10), 0)
    (worst,) = c.worst_classes
    assert (worst.label, worst.images, worst.keras_recall, worst.file_recall) == ("2", 1, 100, 0)
    assert c.images_to_resolve is None


def test_top5_counts_the_first_of_equal_probabilities():
    row = np.array([[0.5, 0, 0.1, 0.1, 0.1, 0.1, 0.1]], "float32")
    for label, inside in ((0, True), (5, True), (6, False), (1, False)):
        a = Predictions.of(np.array([label]), row, row)
        assert (a.keras_top5[0], a.file_top5[0]) == (inside, inside)


def test_predictions_of_probabilities():
    a = Predictions.of(
        np.array([1]), np.array([[0.25, 0.75]], "float32"), np.array([[0.75, 0.25]], "float32")
    )
    assert (a.keras[0], a.file[0], a.max_difference[0], a.mean_difference[0]) == (1, 0, 0.5, 0.5)
    assert len(Predictions.join([a, a, a]).label) == 3


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
        assert c.file_top5 >= c.file_top1
        assert c.images_to_resolve > 0
        assert c.agreement_interval[0] < c.agreement <= c.agreement_interval[1] + 1e-9
    assert abs(by_kind["float32"].confidence_drift) < 0.01
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["passed"] and plain["kinds"][0]["kind"] == "float32"


def test_the_most_changed_images_are_kept_as_pictures(model, files, held_out):
    import base64
    import io

    from PIL import Image

    from keras_resnet.deployment import deployable
    from tflite.classifier import Classifier

    (comparison,) = verify(model, {"int8": files["int8"]}, held_out).kinds
    images = np.stack([image for image, _ in held_out])
    keras = deployable(model).predict(images.astype("float32"), verbose=0)
    apart = np.abs(keras - Classifier(files["int8"]).probabilities(images)).max(1)
    assert len(comparison.changed) == 20
    assert comparison.changed[0].index == apart.argmax()
    assert [c.difference for c in comparison.changed] == pytest.approx(
        np.sort(apart)[::-1][:20], abs=1e-4
    )
    first = comparison.changed[0]
    assert first.label == model.contract.labels[held_out[first.index][1]]
    assert first.file_confidence != first.keras_confidence
    png = base64.b64decode(first.picture.removeprefix("data:image/png;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(png)))
    np.testing.assert_array_equal(shown, images[first.index][..., 0])


def test_batches_are_released_while_others_are_still_compared(model, files, held_out, monkeypatch):
    """Of each batch only the pictures that changed most are kept, and those as copies."""
    from tflite.evidence import verify as module

    batches, alive = [], []

    def watched(images):
        for batch, labels in original(images):
            alive.append(sum(reference() is not None for reference in batches))
            batches.append(weakref.ref(batch))
            yield batch, labels
            del batch

    original = module._batches
    monkeypatch.setattr(module, "_batches", watched)
    verify(model, {"int8": files["int8"]}, held_out)
    # While a batch is made, the previous one may still be a local variable.
    assert len(alive) == 10 and max(alive) <= 1


def test_the_kept_pixels_own_their_memory():
    from tflite.evidence.verify import CHANGED, _most_changed

    random = np.random.default_rng(0)
    kept = []
    for done in range(0, 320, 32):
        batch = random.integers(0, 256, (32, 8, 8, 3), dtype="uint8")
        probabilities = random.uniform(size=(32, 4)).astype("float32")
        compared = Predictions.of(np.zeros(32, int), probabilities, probabilities[::-1])
        kept = _most_changed(kept, compared, batch, done)
    assert len(kept) == CHANGED
    assert all(picture.pixels.base is None for picture in kept)


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
    assert other.mcnemar < 1e-6 < good.mcnemar == 1
    assert other.worst_classes[0].file_recall < other.worst_classes[0].keras_recall
    assert good.worst_classes == ()
    assert "may drop by 1" in other.broken[0] and "must on 99" in other.broken[1]
    assert verify(model, both, held_out[:64]).passed  # nothing asked, nothing broken


def test_probabilities_that_are_not_finite_never_pass(model, files, held_out, monkeypatch):
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


def test_the_command_says_what_changed_and_whether_the_images_were_enough():
    from keras_resnet.cli.show import changes

    worst = {"label": "tulips", "images": 30, "keras_recall": 90.0, "file_recall": 86.7}
    row = {"kind": "int8", "images": 150, "worst_classes": [worst], "images_to_resolve": 1234}
    lines = [
        *changes(row, 0.5),
        *changes(row | {"worst_classes": [], "images_to_resolve": 150}, 2.0),
        *changes(row | {"worst_classes": [], "images_to_resolve": None}, None),
    ]
    assert lines == [
        "int8 recognizes less often, in points: tulips -3.3 (of 30)",
        "int8: to tell a drop of 0.5 points, 150 are too few: 1,234 would do",
        "int8: to tell a drop of 2 points, 150 were enough",
    ]
