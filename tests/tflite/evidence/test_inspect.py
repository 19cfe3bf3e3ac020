"""What is found in a file, what is to be mended, and where it loads."""

import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet import ResNet8
from tflite.convert import convert
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


def rules(path) -> list[tuple[str, str, str]]:
    return [(f.rule, f.operation, f.layer) for f in lint(read_graph(path))]


def test_what_is_in_the_file(files):
    told = json.loads(json.dumps(inspect(files["int8"]).to_dict(), allow_nan=False))
    assert told["operations"]["CONV_2D"] == 9
    # The head of so small a network stays in float32.
    assert told["weights"] == {"int8 per channel": 9, "float32": 1}
    assert told["inputs"][0] | {"dtype": "float32", "shape": [1, 32, 32, 1]} == told["inputs"][0]
    assert told["bytes"] == files["int8"].stat().st_size
    assert "stage3_block1_conv2" in {row["layer"] for row in told["layers"]}
    assert "TFLITE_METADATA" in told["metadata"]


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
        assert rules(files[kind]) == []


def test_what_is_to_be_mended_is_found_with_its_layer(tmp_path):
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(image)
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(name="late_norm")(x)
    x = layers.ZeroPadding2D(1, name="margin")(x)
    x = layers.Conv2D(4, 3, strides=2, name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="top")(x))
    norm = model.get_layer("late_norm")
    norm.set_weights([np.array(w) for w in np.random.default_rng(0).uniform(0.5, 2, (4, 4))])
    found = rules(converted(model, tmp_path / "x.tflite"))
    assert ("pad", "PAD", "margin") in found
    assert {("batch-norm", "MUL", "late_norm"), ("batch-norm", "ADD", "late_norm")} <= set(found)


def test_operations_of_tensorflow_and_dynamic_sizes_are_found(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda t: keras.ops.tan(t), name="odd")(image)
    x = keras.layers.Flatten()(x)
    path = converted(keras.Model(image, keras.layers.Dense(2)(x)), tmp_path / "x.tflite", True)
    found = {rule for rule, *_ in rules(path)}
    assert "flex" in found and "dynamic-shape" in found


def lines_of(path) -> dict:
    return {line.runtime: line for line in inspect(path).lines}


def test_preflight_of_each_kind(test_data, tmp_path):
    model = ResNet8(weights=test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5")
    calibration = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8")
    paths = convert(model, tmp_path, ["float32", "dynamic", "int8"], list(calibration))
    for kind, path in paths.items():
        lines = lines_of(path)
        litert, compiled = lines["LiteRT on CPU with XNNPACK"], lines["CompiledModel"]
        assert litert.loads and litert.measured and compiled.loads and compiled.measured
        assert lines["MediaPipe ImageClassifier"].loads
        assert lines["ML Kit image labeling"].loads
        assert lines["GPU delegate"].loads and lines["LiteRT.js"].loads
        assert lines["Edge TPU"].loads == (kind == "int8")
        assert lines["TFLite Micro"].loads == (kind != "dynamic")
        assert all(line.measured or line.source for line in lines.values())
    assert "maps 12 of 15" in lines_of(paths["int8"])["Edge TPU"].because  # then comes the head
    # XNNPACK has no softmax of integers, and this one is in float.
    assert "17 of 17" in lines_of(paths["int8"])["LiteRT on CPU with XNNPACK"].because
    names = {op.name for op in read_graph(paths["int8"]).operations}
    assert names <= MICRO


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
        (chain(*QUANTIZED, ("DEQUANTIZE", "float32")), True, "compiles; the conversions"),
        (
            chain(*QUANTIZED, ("DEQUANTIZE", "float32"), ("FULLY_CONNECTED", "float32")),
            True,
            "maps 2 of 3 operations; the rest runs on the CPU, from FULLY_CONNECTED on: it computes"
            " in float32",
        ),
        (chain(("CONV_2D", "float32")), False, "maps 0 of 1"),
        (chain(("QUANTIZE", "int8"), ("EXP", "int8")), False, "it has no such operation"),
        (
            chain(("CONCATENATION", "int8"), ("CONV_2D", "int8"), tensors=[tensor(constant=True)]),
            False,
            "it joins constants only if they are zero",
        ),
        (chain(("CONV_2D", "int8"), tensors=[tensor(dynamic=True)]), False, "constant"),
        (chain(("CONV_2D", "int8"), shape=(2, 8, 8, 4)), False, "one by one"),
    ],
)
def test_the_edge_tpu_takes_what_comes_before_its_first_unknown(graph, loads, because):
    line = _edge_tpu(Path("x"), graph)
    assert (line.loads, line.source) == (loads, EDGE_TPU_SOURCE)
    assert because in line.because


def test_tflite_micro_has_all_operations_of_resnet8(files):
    """Those of its resolver; and no kernel there takes float activations and int8 weights."""
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
        rule, asked = _micro_rule(read_graph(path)), lines_of(path)["TFLite Micro"]
        assert (asked.loads, asked.measured) == (rule.loads, True), asked
        assert rule.because in asked.because


def test_grayscale_loads_in_no_image_api(files):
    lines = lines_of(files["float32"])
    assert lines["ML Kit image labeling"].loads is False
    assert lines["MediaPipe ImageClassifier"].loads is False
    assert lines["LiteRT on CPU with XNNPACK"].loads


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
