"""The error after each layer, by hand and on real files."""

from xml.etree import ElementTree

import numpy as np
import pytest

from tflite.classifier import Classifier
from tflite.evidence.layers import LayerError, _error, layer_errors, plot


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


def test_int8_has_an_error_after_every_layer_and_float16_far_less(files, digits):
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


def test_the_last_row_is_the_error_of_the_probabilities(files, digits):
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


def test_values_that_are_not_finite_are_no_small_error(files, digits, monkeypatch):
    from tflite.evidence import layers

    real = layers._Watched._real

    def broken(self, tensor):
        values = real(self, tensor)
        values.flat[0] = np.nan
        return values

    monkeypatch.setattr(layers._Watched, "_real", broken)
    with pytest.raises(ValueError, match=r"float32\.tflite computes values that are not finite"):
        layer_errors(files["float32"], files["int8"], digits[0][:1])


def test_layers_of_any_name_are_drawn(recwarn):
    names = ("a\x1b[31mb\nc", "x" * 200, "\u202egpj.exe", "🦊", "\x00", "")
    rows = [LayerError(name, "ADD", 30.0, 0.9, 0.1) for name in names]
    for format in ("svg", "png"):
        assert plot(rows, names[0] * 20, format)
    text = plot(rows, names[0] * 20, "svg").decode()
    ElementTree.fromstring(text)  # an XML reader refuses control characters
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert "x" * 41 not in text
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []
