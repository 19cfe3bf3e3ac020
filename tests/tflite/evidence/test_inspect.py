"""What is found in a file, what of it a user can change, and which runtimes load it."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet import ResNet8, ResNet18
from tests.command_line import run as run_command
from tflite.convert import convert
from tflite.evidence import preflight
from tflite.evidence.inspect import inspect, model_bytes, write_c_array
from tflite.evidence.lint import lint
from tflite.evidence.preflight import (
    DEQUANTIZE_SOURCE,
    EDGE_TPU_SOURCE,
    HYBRID_SOURCE,
    MICRO,
    _edge_tpu,
    _micro_rule,
)
from tflite.model import sandbox
from tflite.model.flatbuffer import read_graph
from tflite.model.graph import Graph, Operation, Quantization, Tensor


def converted(model: keras.Model, path, dynamic: bool = False):
    """Any Keras model, without our own conversion."""
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    shape = (None if dynamic else 1, *model.input_shape[1:])
    archive.add_endpoint("serve", model, [tf.TensorSpec(shape, tf.float32, "image")])
    archive.write_out(str(path.with_suffix("")), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(path.with_suffix("")), signature_keys=["serve"]
    )
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    path.write_bytes(converter.convert())
    return path


def findings(path) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Rule, whether there is something to change, and layers of each."""
    return [(f.rule, f.mend is not None, f.layers) for f in lint(read_graph(path))]


def test_what_is_in_the_file(files):
    content = json.loads(json.dumps(inspect(files["int8"]).to_dict(), allow_nan=False))
    assert content["operations"]["CONV_2D"] == 9
    # The head of so small a network stays in float32.
    assert content["weights"] == {"int8 per channel": 9, "float32": 1}
    assert (
        content["inputs"][0] | {"dtype": "float32", "shape": [1, 32, 32, 1]} == content["inputs"][0]
    )
    assert content["bytes"] == files["int8"].stat().st_size
    assert "stage3_block1_conv2" in {row["layer"] for row in content["layers"]}
    assert "TFLITE_METADATA" in content["metadata"]


def test_multiply_adds_are_those_of_the_paper(files):
    """By hand: stem, three blocks of two convolutions, two projections, the classifier."""
    stem = 32 * 32 * 16 * 9
    first = 2 * 32 * 32 * 16 * 9 * 16
    second = 16 * 16 * 32 * 9 * (16 + 32) + 16 * 16 * 32 * 16
    third = 8 * 8 * 64 * 9 * (32 + 64) + 8 * 8 * 64 * 32
    expected = stem + first + second + third + 640
    for kind, path in files.items():
        # In int8, a constant second channel carries the mean into the first convolution.
        own = stem if kind == "int8" else 0
        assert read_graph(path).multiply_adds == expected + own


def test_arena_is_what_is_alive_at_once(files):
    # Of the first block: its input, which the shortcut needs, and the convolution's two ends.
    assert read_graph(files["float32"]).arena_bytes == 3 * 32 * 32 * 16 * 4
    assert read_graph(files["int8"]).arena_bytes == 3 * 32 * 32 * 16


def test_our_own_files_are_clean(files):
    for kind in ("float32", "int8", "dynamic", "float16"):
        assert findings(files[kind]) == []


def test_findings_are_grouped_by_cause_and_tell_changes_from_notes(tmp_path):
    layers = keras.layers
    image = keras.Input((34, 34, 3))
    x = layers.Conv2D(4, 3, name="first")(image)
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(name="late_norm")(x)
    x = layers.ZeroPadding2D(1, name="margin")(x)
    x = layers.Conv2D(4, 3, strides=2, name="second")(x)
    x = layers.ZeroPadding2D(1, name="margin2")(x)
    x = layers.Conv2D(4, 3, strides=2, name="third")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="top")(x))
    norm = model.get_layer("late_norm")
    norm.set_weights([np.array(w) for w in np.random.default_rng(0).uniform(0.5, 2, (4, 4))])
    path = converted(model, tmp_path / "x.tflite")
    assert findings(path) == [
        ("batch-norm", True, ("late_norm",)),  # a multiplication and an addition, one cause
        ("pad", False, ("margin", "margin2")),  # symmetric at stride 2: by design
    ]
    plain = json.loads(json.dumps(inspect(path).to_dict()))
    assert plain["lint"][1]["mend"] is None and plain["lint"][1]["layers"] == ["margin", "margin2"]


def test_padding_that_same_would_compute_too_is_a_change():
    """TensorFlow's converter fuses it; others leave it."""
    graph = chain(("PAD", "float32"), ("CONV_2D", "float32"))
    padded = dataclasses.replace(graph.tensors[1], shape=(1, 10, 10, 4))
    strided = dataclasses.replace(graph.tensors[2], shape=(1, 4, 4, 4))
    for output, change in ((graph.tensors[2], True), (strided, False)):
        tensors = (graph.tensors[0], padded, output)
        (finding,) = lint(dataclasses.replace(graph, tensors=tensors))
        assert (finding.rule, finding.layers) == ("pad", ("PAD",))
        assert (finding.mend is not None) is change


def test_a_graph_that_runs_in_a_circle_comes_to_an_end():
    names = ("MUL", "QUANTIZE")
    circle = tuple(Operation(name, (i,), (1 - i,)) for i, name in enumerate(names))
    lint(Graph((tensor(), tensor("float32")), circle, (), ()))


def test_normalization_and_padding_by_design_are_notes(tmp_path):
    """ResNet-v2 normalizes what a shortcut has added; at stride 2 our convolutions pad alike."""
    model = ResNet18(input_shape=(32, 32, 3), classes=3, width=0.25, variant="v2")
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    (path,) = convert(model, tmp_path, ["float32"]).values()
    found = findings(path)
    assert {rule for rule, *_ in found} == {"batch-norm", "pad"}
    assert not any(change for _, change, _ in found)
    assert len(found) == 2 and all(len(layers) > 2 for *_, layers in found)


def test_operations_of_tensorflow_and_dynamic_sizes_are_found(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda t: keras.ops.tan(t), name="odd")(image)
    x = keras.layers.Flatten()(x)
    path = converted(keras.Model(image, keras.layers.Dense(2)(x)), tmp_path / "x.tflite", True)
    found = {rule for rule, *_ in findings(path)}
    assert "flex" in found and "dynamic-shape" in found


def lines_of(path) -> dict:
    return {line.runtime: line for line in inspect(path).lines}


def test_preflight_of_each_kind(test_data, tmp_path):
    model = ResNet8(weights=test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5")
    calibration = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8")
    paths = convert(model, tmp_path, ["float32", "dynamic", "int8"], list(calibration))
    for kind, path in paths.items():
        lines = lines_of(path)
        litert, compiled = lines["LiteRT on CPU"], lines["CompiledModel"]
        assert litert.loads and litert.measured and compiled.loads and compiled.measured
        assert lines["MediaPipe"].loads
        assert lines["ML Kit image labeling"].loads
        assert lines["GPU delegate"].loads and lines["LiteRT.js"].loads
        assert lines["Edge TPU"].loads == (kind == "int8")
        assert lines["TFLite Micro"].loads == (kind != "dynamic")
        assert all(line.measured or line.source for line in lines.values())
    # The head stays in float.
    assert "maps 12 of 15: " in lines_of(paths["int8"])["Edge TPU"].because
    # XNNPACK has no softmax of integers, and this one is in float.
    assert "17 of 17" in lines_of(paths["int8"])["LiteRT on CPU"].because
    names = {op.name for op in read_graph(paths["int8"]).operations}
    assert names <= MICRO


def test_the_verdicts_fit_into_80_columns(files):
    """A table of rich takes 14 columns beside runtime, "loads" and reason."""
    for path in files.values():
        lines = lines_of(path).values()
        assert max(len(line.runtime) for line in lines) <= 21
        assert max(len(line.because) for line in lines) <= 45


def tensor(dtype="int8", shape=(1, 8, 8, 4), constant=False, dynamic=False):
    data = np.zeros(1, "uint8") if constant else None
    return Tensor("t", shape, dtype, Quantization((1.0,), (0,)), data, dynamic)


def chain(*steps, tensors=(), shape=(1, 8, 8, 4)):
    """A graph of operations one behind the other: (name, type of its output) each."""
    made = [tensor("float32", shape), *(tensor(dtype) for _, dtype in steps), *tensors]
    extra = tuple(range(1 + len(steps), len(made)))
    operations = tuple(
        Operation(name, (i, *(extra if name == "CONCATENATION" else ())), (i + 1,))
        for i, (name, _) in enumerate(steps)
    )
    return Graph(tuple(made), operations, (0,), (len(steps),))


QUANTIZED = (("QUANTIZE", "int8"), ("CONV_2D", "int8"), ("MEAN", "int8"))


@pytest.mark.parametrize(
    ("graph", "loads", "because"),
    [
        (chain(*QUANTIZED, ("DEQUANTIZE", "float32")), True, "compiles, with float"),
        (
            chain(*QUANTIZED, ("DEQUANTIZE", "float32"), ("FULLY_CONNECTED", "float32")),
            True,
            "maps 2 of 3: FULLY_CONNECTED is float32",
        ),
        (chain(("CONV_2D", "float32")), False, "maps 0 of 1"),
        (chain(("QUANTIZE", "int8"), ("EXP", "int8")), False, "EXP is not supported"),
        (
            chain(("CONCATENATION", "int8"), ("CONV_2D", "int8"), tensors=[tensor(constant=True)]),
            False,
            "CONCATENATION joins constants",
        ),
        (chain(("CONV_2D", "int8"), tensors=[tensor(dynamic=True)]), False, "needs fixed sizes"),
        (chain(("CONV_2D", "int8"), shape=(2, 8, 8, 4)), False, "batch 1"),
    ],
)
def test_the_edge_tpu_maps_what_comes_before_the_first_unsupported_operation(graph, loads, because):
    line = _edge_tpu(Path("x"), graph)
    assert (line.loads, line.source) == (loads, EDGE_TPU_SOURCE)
    assert because in line.because


def test_tflite_micro_has_all_operations_of_resnet8(files):
    """Its resolver has them; no kernel takes float activations with int8 weights."""
    lines = {kind: _micro_rule(read_graph(path)) for kind, path in files.items()}
    assert {kind: line.loads for kind, line in lines.items()} == {
        "float32": True,
        "float16": False,
        "dynamic": False,
        "int8": True,
    }
    assert "hybrid" in lines["dynamic"].because and lines["dynamic"].source == HYBRID_SOURCE
    assert "float16" in lines["float16"].because and lines["float16"].source == DEQUANTIZE_SOURCE
    assert {op.name for op in read_graph(files["int8"]).operations} <= MICRO


def test_tflite_micro_itself_says_what_the_rule_says(files):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    for path in files.values():
        rule, line = _micro_rule(read_graph(path)), lines_of(path)["TFLite Micro"]
        assert (line.loads, line.measured) == (rule.loads, True), line
        assert rule.because in line.because


def test_a_runtime_that_cannot_be_imported_is_no_verdict_on_the_file(files, monkeypatch, capsys):
    def run(path, runtime):
        if runtime != "litert":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return sandbox.run_sandboxed(path, runtime)

    monkeypatch.setattr(preflight, "run_sandboxed", run)
    lines = lines_of(files["float32"])
    compiled, micro = lines["CompiledModel"], lines["TFLite Micro"]
    assert (compiled.loads, compiled.measured) == (None, False)
    assert "libGL.so.1" in compiled.because
    assert micro == _micro_rule(read_graph(files["float32"]))
    assert "libGL" not in lines["MediaPipe"].because
    assert run_command("inspect", files["float32"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "libGL" in line]
    assert "not tried" in row


def test_grayscale_loads_in_no_image_api(files):
    lines = lines_of(files["float32"])
    assert lines["ML Kit image labeling"].loads is False
    assert lines["MediaPipe"].loads is False
    assert lines["LiteRT on CPU"].loads


def test_c_array_is_the_model_to_the_byte(files, tmp_path):
    source, header = write_c_array(files["int8"], tmp_path / "c")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "main.c").write_text(
        f'#include <stdio.h>\n#include <stdint.h>\n#include "{header}"\n'
        "int main(void) {\n  if ((uintptr_t)model_int8 % 16) return 3;\n"
        "  return fwrite(model_int8, 1, model_int8_len, stdout) != model_int8_len;\n}\n"
    )
    program = tmp_path / "main"
    subprocess.run([compiler, "-o", program, tmp_path / "main.c", source], check=True)
    written = subprocess.run([program], capture_output=True, check=True).stdout
    assert written == model_bytes(files["int8"])
    assert written == files["int8"].read_bytes()[: len(written)]
    assert b"contract.json" not in written


def test_missing_and_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no model file"):
        inspect(tmp_path / "no.tflite")
    path = tmp_path / "x.tflite"
    path.write_bytes(bytes(100))
    with pytest.raises(ValueError, match="not a TFLite model"):
        inspect(path)
