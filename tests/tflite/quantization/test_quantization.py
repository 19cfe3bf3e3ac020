"""The steps of quantization: each does what it says, and changes nothing else."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.tflite.interpreted import interpreted
from tflite.convert import convert, save_for_device
from tflite.kinds import ConversionSource
from tflite.model.flatbuffer import pack, read_graph, unpack
from tflite.model.graph import Graph, Operation, Tensor
from tflite.quantization.budget import Budget
from tflite.quantization.calibrate import QuantizationConfig, _Activations, _patches, calibrate
from tflite.quantization.fold_normalization import fold_normalization
from tflite.quantization.gptq import (
    channel_scales,
    round_by_least_squares,
    round_to_nearest,
)
from tflite.quantization.int8 import head, prepare, quantize_int8, with_biases
from tflite.quantization.mixed import Point, blocks, choose, expected_changes, quantize_mixed
from tflite.quantization.operations import function
from tflite.quantization.quant_params import (
    PIXELS,
    QuantParams,
    by_min_max,
    by_percentile,
    by_squared_error,
    spanning,
)
from tflite.quantization.write import quantized_graph

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def float32(files):
    return read_graph(files["float32"])


@pytest.fixture(scope="module")
def as_converted(model, tmp_path_factory):
    """As the converter writes it, with a multiplication in front."""
    folder = tmp_path_factory.mktemp("saved")
    save_for_device(model, folder)
    return unpack(ConversionSource(folder).float32)


def computed(graph, pixels):
    """The output of a graph, operation by operation."""
    constants = {i: t.values for i, t in enumerate(graph.tensors) if t.constant}
    values = {graph.inputs[0]: pixels.astype("float32")}
    for op in graph.operations:
        inputs = [values[t] for t in graph.data_inputs(op)]
        values[op.output] = np.asarray(function(op, constants)(*inputs))
    return values[graph.outputs[0]]


def test_raw_pixels_are_exact():
    pixels = np.arange(256, dtype="uint8")
    assert np.array_equal(PIXELS.dequantize(PIXELS.quantize(pixels)), pixels)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 3.0), (-3.0, -0.5), (0.0, 0.0)])
def test_zero_is_always_exact(low, high):
    params = spanning(low, high)
    assert params.dequantize(params.quantize(np.zeros(1, "float32"))) == 0
    assert -128 <= params.zero_point <= 127


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
    op = Operation("CONV_2D", (0, 1), (2,), options)
    tensors = (
        Tensor("x", images.shape, "float32"),
        Tensor("kernel", (), "float32").with_values(kernel),
        Tensor("y", expected.shape, "float32"),
    )
    graph = Graph(tensors, (op,), (0,), (2,))
    positions = tuple(i.ravel() for i in np.indices(expected.shape[:3]))
    patches = _patches(graph, op, _Activations(images), positions, 0)
    np.testing.assert_allclose(
        patches @ kernel.reshape(5, -1).T, expected.reshape(-1, 5), rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("source", ["float32", "as_converted"])
def test_folding_the_normalization_changes_no_output_at_the_borders_either(source, request, digits):
    graph = with_biases(request.getfixturevalue(source))
    folded = fold_normalization(graph)
    normalization = ["ADD"] if source == "float32" else ["MUL", "ADD"]
    names = [op.name for op in graph.operations]
    assert names[: names.index("CONV_2D")] == normalization
    assert [op.name for op in folded.operations[:2]] == ["CONCATENATION", "CONV_2D"]
    # Bright to the very edge, where zero padding must not be taken for black pixels.
    images = 255 - digits[0][:20]
    np.testing.assert_allclose(computed(folded, images), computed(graph, images), atol=1e-4)
    assert fold_normalization(folded) is folded


def test_the_defaults_change_outputs_least(float32, calibration, digits):
    images = digits[0][1500:1700]
    exact = interpreted(pack(float32), images)

    def change(graph, in_float, config=QuantizationConfig()):
        quantized = calibrate(graph, list(calibration), in_float, config)
        file = pack(quantized_graph(graph, quantized, in_float))
        return np.abs(interpreted(file, images) - exact).mean()

    plain, folded = with_biases(float32), prepare(float32)
    default = change(folded, head(folded))
    assert default < change(folded, head(folded), QuantizationConfig(ranges="percentile"))
    assert default < change(plain, frozenset(), QuantizationConfig(rounding="nearest"))


def test_an_operation_that_no_residual_network_has_is_refused(float32, calibration):
    sine = [
        dataclasses.replace(op, name="SIN") if op.name == "SOFTMAX" else op
        for op in float32.operations
    ]
    with pytest.raises(ValueError, match="SIN cannot be quantized here"):
        quantize_int8(dataclasses.replace(float32, operations=tuple(sine)), calibration[:2])


def test_a_graph_of_two_outputs_is_refused(float32, calibration):
    two = dataclasses.replace(float32, outputs=float32.outputs * 2)
    with pytest.raises(ValueError, match=r"one signature can be quantized. Received: 1 inputs, 2"):
        quantize_int8(two, calibration[:2])


def test_every_operation_is_a_step_of_progress(float32, calibration):
    steps = []
    quantize_int8(float32, list(calibration[:2]), lambda *step: steps.append(step))
    total = len(prepare(float32).operations)
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_a_mixed_network_has_the_stem_and_the_blocks_to_choose_from(float32):
    graph = prepare(float32)
    parts = blocks(graph)
    assert [name.split("_")[0] for name in parts] == [
        "0: stem",
        "1: stage1",
        "2: stage2",
        "3: stage3",
    ]
    together = [t for tensors in parts.values() for t in tensors]
    assert sorted([*together, *head(graph)]) == sorted(op.output for op in graph.operations)


def test_all_blocks_in_float_are_the_float_network(float32, calibration, digits):
    graph = prepare(float32)
    in_float = frozenset(op.output for op in graph.operations)
    file = pack(quantized_graph(graph, calibrate(graph, calibration[:5], in_float), in_float))
    images = digits[0][1500:1520]
    np.testing.assert_allclose(
        interpreted(file, images), interpreted(pack(float32), images), atol=1e-4
    )


def test_mixed_files_go_from_int8_to_float(float32, calibration):
    steps = []
    mixed = quantize_mixed(
        float32, list(calibration[:20]), Budget(), lambda *step: steps.append(step)
    )
    assert [len(point.blocks) for point in mixed.points] == [0, 1, 2, 3, 4]
    assert mixed.points[-1].shift < 1e-3 < mixed.points[0].shift
    sizes = [point.bytes for point in mixed.points]
    assert sizes == sorted(sizes)
    assert len(mixed.model) == sizes[mixed.chosen]
    total = steps[0][1]
    assert steps == [(done, total) for done in range(1, total + 1)]


POINTS = [
    Point((), 0.3, 0.5, 100, 1.0),
    Point(("a",), 0.2, 0.1, 200, 1.5),
    Point(("a", "b"), 0.1, 0.05, 300, 2.0),
    Point(("a", "b", "c"), 0.0, 0.001, 400, 4.0),
]


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (Budget(), 1),
        (Budget(max_drop=0.6), 0),
        (Budget(max_drop=0.1), 1),
        (Budget(max_drop=0.0), 3),
        (Budget(max_latency=2.0), 2),
        (Budget(max_latency=1.0), 0),
        (Budget(max_drop=0.1, max_latency=2.0), 1),
        (Budget(max_drop=0.5, max_latency=2.0), 0),
        (Budget(max_drop=0.05, max_latency=2.0), 2),
    ],
    ids=str,
)
def test_every_limit_of_the_budget_holds(budget, chosen):
    assert choose(POINTS, budget) == chosen


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(max_latency=0.5), "max_latency=0.5 ms here; the fastest takes 1.000 ms"),
        (
            Budget(max_drop=0.1, max_latency=1.2),
            "max_drop=0.1 % and max_latency=1.2 ms here: the fastest within max_drop takes "
            "1.500 ms, the most accurate within max_latency has a drop of 0.50 %",
        ),
        (
            Budget(max_drop=0.01, max_latency=2),
            "the fastest within max_drop takes 4.000 ms, the most accurate within max_latency "
            "has a drop of 0.05 %",
        ),
        (
            Budget(max_drop=0.1, max_latency=0.2),
            "the fastest within max_drop takes 1.500 ms, and none is within max_latency",
        ),
    ],
    ids=str,
)
def test_a_budget_that_no_file_meets_says_the_nearest(budget, message):
    with pytest.raises(ValueError) as caught:
        choose(POINTS, budget)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "limits",
    [
        {"max_drop": -0.1},
        {"max_drop": 101},
        {"max_drop": float("nan")},
        {"max_drop": True},
        {"max_latency": -1.0},
        {"max_latency": float("inf")},
        {"max_latency": "2"},
    ],
    ids=str,
)
def test_a_budget_out_of_range_is_refused(limits):
    (name,) = limits
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
        Budget(**limits)


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
        interpreted(path.read_bytes(), images), interpreted(pack(float32), images), atol=0.1
    )


def test_quant_params_dequantize():
    assert QuantParams(0.5, 3).dequantize(np.array([3, 5], "int8")).tolist() == [0.0, 1.0]
