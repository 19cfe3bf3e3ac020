"""The error behind each layer, by hand and on real files."""

import numpy as np
import pytest

from tflite.classifier import Classifier
from tflite.evidence.layers import _error, layer_errors, plot


def test_error_by_hand():
    a, b = np.array([3.0, 4.0]), np.array([3.0, 5.0])
    e = _error("x", "ADD", a @ a, b @ b, a @ b, 2)
    assert e.mean_squared_error == pytest.approx(0.5)
    assert e.signal_to_noise_db == pytest.approx(10 * np.log10(25))
    assert e.cosine == pytest.approx(29 / (5 * np.sqrt(34)))


def test_a_file_has_no_error_against_itself(files, digits):
    errors = layer_errors(files["float32"], files["float32"], digits[0][:3])
    assert all(e.mean_squared_error == 0 and e.signal_to_noise_db is None for e in errors)
    assert all(e.cosine == pytest.approx(1) for e in errors)


def test_int8_errs_behind_every_layer_and_float16_far_less(files, digits):
    images = digits[0][1500:1510]
    int8 = layer_errors(files["float32"], files["int8"], images)
    float16 = {e.layer: e for e in layer_errors(files["float32"], files["float16"], images)}
    layers = [e.layer for e in int8]
    # In int8 there is no normalization: pixels are exact, and the first kernel has taken it in.
    assert layers[0] == "stem_conv" and "stage3_block1_conv2" in layers
    assert len(layers) >= 13
    for e in int8:
        assert 5 < e.signal_to_noise_db < 70, e
        assert 0.9 < e.cosine <= 1, e
        assert float16[e.layer].signal_to_noise_db > e.signal_to_noise_db + 10, e


def test_the_last_row_is_the_answers_own_error(files, digits):
    images = digits[0][1500:1510]
    last = layer_errors(files["float32"], files["int8"], images)[-1]
    a, b = (Classifier(files[k]).probabilities(images) for k in ("float32", "int8"))
    assert last.operation == "SOFTMAX" or last.layer == "predictions"
    if last.operation == "SOFTMAX":
        assert last.mean_squared_error == pytest.approx(np.mean((a - b) ** 2), rel=0.5)


def test_the_plot_names_every_layer_and_is_the_same_twice(files, digits):
    rows = layer_errors(files["float32"], files["int8"], digits[0][:2])
    exact = layer_errors(files["float32"], files["float32"], digits[0][:2])
    svg = plot(rows, "int8 $x_1$", "svg")
    assert svg == plot(rows, "int8 $x_1$", "svg") != plot(rows[:-1], "int8 $x_1$", "svg")
    assert svg.startswith(b"<?xml") and svg.count(b"stage3_block1_conv2") >= 1  # in a comment
    for drawn in (rows, exact):  # no error has no decibels, and no logarithm
        assert plot(drawn, "int8", "png").startswith(b"\x89PNG")


def test_no_images_and_other_files_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match="no images to compare on"):
        layer_errors(files["float32"], files["int8"], [])
    with pytest.raises(ValueError, match="There is no model file"):
        layer_errors(files["float32"], tmp_path / "no.tflite", [])
