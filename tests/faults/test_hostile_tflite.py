"""Damaged and hostile .tflite files and pictures: one line, or the right answer."""

import struct
import subprocess
import sys
from pathlib import Path

import keras
import misbehaving
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from keras_resnet.contract import Contract
from keras_resnet.models import ResNet8
from keras_resnet.subprocess_call import SubprocessError
from tflite.classifier import Classifier
from tflite.convert import convert
from tflite.evidence.inspect import inspect
from tflite.model import sandbox
from tflite.model.flatbuffer import read_graph
from tflite.model.metadata import attach_contract

FUZZ = Path(__file__).with_name("fuzz_tflite.py")
LABELS = tuple("abcde")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    contract = Contract(32, 32, 3, labels=LABELS)
    model = ResNet8(input_shape=(32, 32, 3), classes=5, contract=contract)
    calibration = list(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8"))
    return convert(model, tmp_path_factory.mktemp("sound"), ["int8"], calibration)["int8"]


def assert_refused(path: Path, why: str = r"\.tflite") -> None:
    for look in (Classifier, inspect):
        with pytest.raises(ValueError, match=why) as caught:
            look(path)
        assert len(str(caught.value).splitlines()) == 1
        assert path.name in str(caught.value)


def with_labels(sound: Path, path: Path, labels: tuple[str, ...]) -> Path:
    path.write_bytes(attach_contract(read_graph(sound), Contract(32, 32, 3, labels=labels)))
    return path


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_refused(sound, tmp_path, tenth):
    whole = sound.read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(whole[: len(whole) * tenth // 10])
    assert_refused(path)


def hostile(sound: Path, kind: str) -> bytes:
    """A valid file with one invalid number."""
    data = bytearray(sound.read_bytes())
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)

    def put(table, slot: int, number: int, item: int = 0) -> None:
        offset = table._tab.Offset(4 + 2 * slot)
        struct.pack_into("<i", data, table._tab.Vector(offset) + 4 * item, number)

    convolution = next(
        graph.Operators(i)
        for i in range(graph.OperatorsLength())
        if graph.Operators(i).InputsLength() == 3
    )
    match kind:
        case "tensor out of range":
            put(convolution, 1, 1_000_000)
        case "negative tensor":
            put(convolution, 1, -7)
        case "itself as input":
            put(convolution, 1, convolution.Outputs(0))
        case "huge input":
            put(graph.Tensors(graph.Inputs(0)), 0, 2**30, item=1)
        case "negative size":
            put(graph.Tensors(graph.Inputs(0)), 0, -5, item=1)
        case "huge weights":
            put(graph.Tensors(convolution.Inputs(1)), 0, 2**28, item=0)
        case "output out of range":
            put(graph, 2, 1_000_000)
        case "root beyond the end":
            struct.pack_into("<I", data, 0, 2**31)
        case "root into itself":
            struct.pack_into("<I", data, 0, 4)
    return bytes(data)


@pytest.mark.parametrize(
    "kind",
    [
        "tensor out of range",
        "negative tensor",
        "itself as input",
        "huge input",
        "negative size",
        "huge weights",
        "output out of range",
        "root beyond the end",
        "root into itself",
    ],
)
def test_a_hostile_file_is_refused(sound, tmp_path, kind):
    path = tmp_path / "hostile.tflite"
    path.write_bytes(hostile(sound, kind))
    assert_refused(path)


def test_a_file_that_crashes_the_runtime_or_loops_is_refused(sound, tmp_path, monkeypatch):
    path = tmp_path / "crash.tflite"
    path.write_bytes(sound.read_bytes() + b"not seen before")
    monkeypatch.setattr(sandbox, "run", misbehaving.segfault)
    with pytest.raises(ValueError, match=r"the runtime crashed on it \(SIGSEGV\)"):
        Classifier(path)
    monkeypatch.setattr(sandbox, "run", misbehaving.loop)
    monkeypatch.setattr(sandbox, "START_SECONDS", 1)
    with pytest.raises(ValueError, match="the runtime used more than 2 s of processor time"):
        Classifier(path)


def test_a_killed_runtime_is_no_verdict_on_the_file(sound, tmp_path, monkeypatch):
    path = tmp_path / "killed.tflite"
    path.write_bytes(sound.read_bytes() + b"not seen before either")
    monkeypatch.setattr(sandbox, "run", misbehaving.killed)
    for look in (Classifier, inspect):
        with pytest.raises(SubprocessError, match="was killed"):
            look(path)


def test_a_file_is_tried_once(sound, tmp_path, monkeypatch):
    path = tmp_path / "again.tflite"
    path.write_bytes(sound.read_bytes() + b"another")
    tried = []
    monkeypatch.setattr(sandbox, "run_sandboxed", lambda *given: tried.append(given))
    sandbox.ensure_sound(path)
    sandbox.ensure_sound(path)
    sandbox.ensure_sound(sound)  # this process wrote it
    assert tried == [(path, "litert")]


@pytest.mark.parametrize("count", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_random_damage_never_crashes(sound, tmp_path, count):
    done = subprocess.run(
        [sys.executable, FUZZ, sound, tmp_path, str(count)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"mutation {count - 1}"


def test_a_file_of_another_architecture_is_refused(tmp_path):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 7), tf.float32)])
    def rows(x):
        return x + 1.0, x * 2.0

    path = tmp_path / "other.tflite"
    converter = tf.lite.TFLiteConverter.from_concrete_functions([rows.get_concrete_function()])
    path.write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"other.tflite must take images \(batch, height"):
        Classifier(path)
    assert inspect(path).graph.outputs  # there is something to look at nevertheless


def test_zero_labels_answer_numbers(sound, tmp_path):
    path = with_labels(sound, tmp_path / "none.tflite", ())
    ((best, _),) = Classifier(path).predict(np.zeros((40, 40, 3), "uint8"), top=1)[0:1][0]
    assert best in "01234"


def test_other_numbers_of_labels_are_refused(sound, tmp_path):
    for labels in (("only",), (*LABELS, "more")):
        path = with_labels(sound, tmp_path / "labels.tflite", labels)
        with pytest.raises(ValueError, match="of another model"):
            Classifier(path)


def test_a_label_with_a_newline_shifts_no_other(sound, tmp_path):
    labels = ("one\ntwo", "b", "c", "d", "e")
    path = with_labels(sound, tmp_path / "newline.tflite", labels)
    assert Classifier(path).contract.labels == labels
    import zipfile

    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split("\n") == ["one two", *"bcde", ""]


# --- Pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"no picture", "is not a readable picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is cut off or broken"),
    ],
    ids=["empty", "text", "PNG of zeros"],
)
def test_what_is_no_picture_is_refused(sound, tmp_path, content, reason):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"picture\.png {reason}") as caught:
        Classifier(sound).predict(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_picture_of_one_pixel_is_answered_as_that_color(sound, tmp_path):
    Image.new("RGB", (1, 1), (200, 30, 60)).save(tmp_path / "dot.png")
    plain = np.full((32, 32, 3), (200, 30, 60), "uint8")
    classifier = Classifier(sound)
    assert classifier.predict(tmp_path / "dot.png") == classifier.predict(plain)


def test_a_picture_of_400_million_pixels_is_refused_unread(sound, tmp_path):
    path = tmp_path / "vast.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(ValueError, match=r"vast\.png"):
        Classifier(sound).predict(path)


def test_cmyk_16_bits_and_animation_are_answered(sound, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 40), dtype="uint8")
    classifier = Classifier(sound)

    cmyk = Image.fromarray(np.stack([pixels] * 3, 2)).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.jpg", quality=100)
    expected = np.asarray(Image.open(tmp_path / "cmyk.jpg").convert("RGB"))
    assert classifier.predict(tmp_path / "cmyk.jpg") == classifier.predict(expected)

    Image.fromarray(pixels.astype("uint16") << 8 | 77).save(tmp_path / "deep.png")
    gray = np.stack([pixels] * 3, 2)
    assert classifier.predict(tmp_path / "deep.png") == classifier.predict(gray)

    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert classifier.predict(tmp_path / "moving.gif") == classifier.predict(gray)
