"""The steps of quantization: each does what it says, and none changes what it must not."""

import json

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.tflite.interpreted import interpreted
from tflite.convert import convert, save_for_device
from tflite.kinds import ConversionSource
from tflite.quantization.budget import Budget
from tflite.quantization.calibrate import Tuning, _Activations, _patches, channel_maxima
from tflite.quantization.equalize import equalize
from tflite.quantization.fold_normalization import fold_normalization
from tflite.quantization.gptq import (
    channel_scales,
    round_by_least_squares,
    round_to_nearest,
)
from tflite.quantization.int8 import head, prepared, quantize_int8
from tflite.quantization.mixed import Point, blocks, choose, expected_changes, quantize_mixed
from tflite.quantization.network import Network, Operation, read_network
from tflite.quantization.operations import function
from tflite.quantization.quant_params import (
    PIXELS,
    QuantParams,
    by_min_max,
    by_percentile,
    by_squared_error,
    spanning,
)

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def float32(files):
    return files["float32"].read_bytes()


@pytest.fixture(scope="module")
def as_converted(model, tmp_path_factory):
    """As the converter leaves it, with a multiplication in front."""
    folder = tmp_path_factory.mktemp("saved")
    save_for_device(model, folder)
    return ConversionSource(folder).float32


def answer(network, pixels):
    """What a network of plain data computes, operation by operation."""
    values = {network.input: pixels.astype("float32"), **network.constants}
    for op in network.operations:
        variables = [values[t] for t in network.variables(op)]
        values[op.output] = np.asarray(function(op, network.constants)(*variables))
    return values[network.output]


def test_raw_pixels_are_exact():
    pixels = np.arange(256, dtype="uint8")
    assert np.array_equal(PIXELS.dequantize(PIXELS.quantize(pixels)), pixels)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 3.0), (-3.0, -0.5), (0.0, 0.0)])
def test_zero_lies_on_every_grid(low, high):
    grid = spanning(low, high)
    assert grid.dequantize(grid.quantize(np.zeros(1, "float32"))) == 0
    assert -128 <= grid.zero_point <= 127


def test_a_lone_outlier_is_kept_clipped_or_weighed():
    values = np.append(RANDOM.normal(size=100_000), 60.0).astype("float32")
    rounding = {f: np.square(f(values).dequantize(f(values).quantize(values)) - values).mean()
                for f in (by_min_max, by_percentile, by_squared_error)}  # fmt: skip
    assert by_min_max(values).scale > 60 / 255
    assert by_percentile(values).scale < 12 / 255
    assert rounding[by_squared_error] == min(rounding.values())


def test_large_tensors_are_judged_by_all_their_channels():
    # Only the second of two channels reaches far: every other value leaves it out.
    values = np.zeros((3_000_000, 2), "float32")
    values[:, 1] = RANDOM.normal(size=3_000_000)
    assert by_squared_error(values).scale > 5 / 255


def test_least_squares_rounding_loses_less_on_correlated_inputs():
    mixing = RANDOM.normal(size=(60, 60))
    inputs = (RANDOM.normal(size=(500, 60)) @ mixing).astype("float32")
    weights = RANDOM.normal(size=(8, 60)).astype("float32")
    scales = channel_scales(weights)

    def error(q):
        return np.linalg.norm(inputs @ (weights - q * scales[:, None]).T)

    least = round_by_least_squares(weights, scales, inputs)
    nearest = round_to_nearest(weights, scales)
    assert least.dtype == nearest.dtype == np.int8
    assert error(least) < 0.8 * error(nearest)


def test_inputs_that_never_vary_round_to_nearest():
    weights = RANDOM.normal(size=(4, 9)).astype("float32")
    scales = channel_scales(weights)
    q = round_by_least_squares(weights, scales, np.zeros((50, 9), "float32"))
    assert np.array_equal(q, round_to_nearest(weights, scales))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_patches_are_what_a_convolution_multiplies(padding, stride, dilation):
    images = RANDOM.integers(0, 256, (2, 9, 8, 4), dtype="uint8")
    kernel = RANDOM.normal(size=(5, 3, 3, 4)).astype("float32")
    options = schema.Conv2DOptionsT()
    options.padding = getattr(schema.Padding, padding)
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = dilation
    expected = tf.nn.conv2d(
        images.astype("float32"), kernel.transpose(1, 2, 3, 0), stride, padding, dilations=dilation
    ).numpy()
    op = Operation("CONV_2D", (0, 1), 2, options)
    network = Network((op,), {1: kernel}, {0: images.shape, 2: expected.shape}, {}, 0, 2, None)
    positions = tuple(i.ravel() for i in np.indices(expected.shape[:3]))
    patches = _patches(network, op, _Activations(images), positions, 0)
    np.testing.assert_allclose(
        patches @ kernel.reshape(5, -1).T, expected.reshape(-1, 5), rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("made", ["float32", "as_converted"])
def test_folding_the_normalization_changes_no_answer_at_the_borders_either(made, request, digits):
    network = read_network(request.getfixturevalue(made))
    folded = fold_normalization(network)
    normalization = ["ADD"] if made == "float32" else ["MUL", "ADD"]
    names = [op.name for op in network.operations]
    assert names[: names.index("CONV_2D")] == normalization
    assert [op.name for op in folded.operations[:2]] == ["CONCATENATION", "CONV_2D"]
    # Bright to the very edge, where zero padding must not be taken for black pixels.
    images = 255 - digits[0][:20]
    np.testing.assert_allclose(answer(folded, images), answer(network, images), atol=1e-4)
    assert fold_normalization(folded) is folded


def test_equalizing_changes_ranges_and_no_answer(float32, calibration, digits):
    network = prepared(float32, Tuning())
    equal = equalize(network, channel_maxima(network, list(calibration)))
    images = digits[0][1500:1520]
    np.testing.assert_allclose(answer(equal, images), answer(network, images), atol=1e-4)

    def unevenness(some):
        maxima = channel_maxima(some, list(calibration))
        return np.mean([
            np.log(maxima[op.output].max() / np.maximum(maxima[op.output], 1e-3)).mean()
            for op in some.operations
            if op.name == "CONV_2D"
        ])  # fmt: skip

    assert unevenness(equal) < 0.6 * unevenness(network)


@pytest.mark.parametrize(
    "worse",
    [{"ranges": "percentile"}, {"exact_pixels": False, "float_head": False, "rounding": "nearest"}],
)
def test_the_defaults_move_answers_least(float32, calibration, digits, worse):
    images = digits[0][1500:1700]
    exact = interpreted(float32, images)

    def moved(tuning):
        file = quantize_int8(float32, list(calibration), tuning)
        return np.abs(interpreted(file, images) - exact).mean()

    assert moved(Tuning()) < moved(Tuning(**worse))


def test_an_operation_that_no_residual_network_has_is_refused(float32, calibration):
    file = schema.ModelT.InitFromPackedBuf(float32, 0)
    code = next(c for c in file.operatorCodes if c.builtinCode == schema.BuiltinOperator.SOFTMAX)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SIN
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    with pytest.raises(ValueError, match="SIN cannot be quantized here"):
        quantize_int8(bytes(builder.Output()), list(calibration[:2]))


def test_a_mixed_network_has_the_stem_and_the_blocks_to_choose_from(float32):
    network = prepared(float32, Tuning())
    parts = blocks(network)
    assert [name.split("_")[0] for name in parts] == [
        "0: stem",
        "1: stage1",
        "2: stage2",
        "3: stage3",
    ]
    together = [t for tensors in parts.values() for t in tensors]
    assert sorted([*together, *head(network)]) == sorted(op.output for op in network.operations)


def test_mixed_ends_in_the_float_network(float32, calibration, digits):
    made = quantize_mixed(float32, list(calibration[:20]), Budget(max_drop=-1))
    assert made.chosen == len(made.points) - 1 == 4
    assert made.points[-1].shift < 1e-3 < made.points[0].shift
    assert [len(p.blocks) for p in made.points] == [0, 1, 2, 3, 4]
    sizes = [p.bytes for p in made.points]
    assert sizes == sorted(sizes)
    images = digits[0][1500:1520]
    np.testing.assert_allclose(
        interpreted(made.model, images), interpreted(float32, images), atol=1e-4
    )


def test_the_budget_decides():
    points = [
        Point((), 0.3, 0.5, 100, 1.0),
        Point(("a",), 0.2, 0.1, 200, 1.5),
        Point(("a", "b"), 0.0, 0.0, 400, 4.0),
    ]
    assert choose(points, Budget(max_drop=0.6)) == 0
    assert choose(points, Budget(max_drop=0.1)) == 1
    assert choose(points, Budget(max_drop=0.01)) == 2
    assert choose(points, Budget(max_latency=2.0)) == 1
    with pytest.raises(ValueError, match=r"in 0.5 ms here; the fastest takes 1.000 ms"):
        choose(points, Budget(max_latency=0.5))


def test_expected_changes_try_every_shift_on_every_image():
    assert expected_changes(np.array([1.0, 3.0]), np.array([0.0, -2.0])) == 25.0


@pytest.mark.slow
def test_a_mixed_file_comes_with_its_plot_and_figures(model, calibration, tmp_path):
    convert(model, tmp_path, ["mixed"], calibration[:10])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"model_mixed.{suffix}" for suffix in ("json", "png", "tflite")
    ]
    assert (tmp_path / "model_mixed.png").read_bytes()[:4] == b"\x89PNG"
    figures = json.loads((tmp_path / "model_mixed.json").read_text())
    assert len(figures["points"]) == 5 and figures["chosen"] in range(5)


def test_int16x8_says_that_it_is_slow(model, float32, calibration, digits, tmp_path):
    with pytest.warns(UserWarning, match="int16x8 has no fast kernels"):
        path = convert(model, tmp_path, ["int16x8"], calibration[:10])["int16x8"]
    images = digits[0][1500:1505]
    np.testing.assert_allclose(
        interpreted(path.read_bytes(), images), interpreted(float32, images), atol=0.1
    )


def test_grids_are_data():
    assert QuantParams(0.5, 3).dequantize(np.array([3, 5], "int8")).tolist() == [0.0, 1.0]
