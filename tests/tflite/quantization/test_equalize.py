"""The ablation in benchmarks/equalize.py: other ranges, the same function."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.tflite.interpreted import interpreted
from tflite.model.flatbuffer import pack, read_graph
from tflite.quantization.int8 import prepare

FILE = Path(__file__).parents[3] / "benchmarks/equalize.py"


@pytest.fixture(scope="module")
def ablation():
    spec = importlib.util.spec_from_file_location("equalize", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equalizing_changes_ranges_and_no_output(ablation, files, calibration, digits):
    graph = prepare(read_graph(files["float32"]))
    equal = ablation.equalize(graph, list(calibration))
    images = digits[0][1500:1520]
    np.testing.assert_allclose(
        interpreted(pack(equal), images), interpreted(pack(graph), images), atol=1e-4
    )

    def unevenness(some):
        maxima = ablation.channel_maxima(some, list(calibration))
        return np.mean([
            np.log(maxima[op.output].max() / np.maximum(maxima[op.output], 1e-3)).mean()
            for op in some.operations
            if op.name == "CONV_2D"
        ])  # fmt: skip

    assert unevenness(equal) < 0.6 * unevenness(graph)
