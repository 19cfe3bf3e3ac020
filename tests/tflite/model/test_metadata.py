"""TFLite's model metadata in our files, and what MediaPipe makes of it."""

import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from keras_resnet import ResNet8
from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from tflite.classifier import Classifier
from tflite.convert import USUAL_KINDS, convert
from tflite.model.flatbuffer import with_metadata
from tflite.model.io_spec import IOSpec
from tflite.model.metadata import attach_contract, read_contract

CIFAR10 = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")


def flatbuffer_of(path) -> bytes:
    data = path.read_bytes()
    return data[: data.index(b"PK\x03\x04")]


def metadata_of(path) -> bytes:
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    (entry,) = (
        model.Metadata(i)
        for i in range(model.MetadataLength())
        if model.Metadata(i).Name() == b"TFLITE_METADATA"
    )
    return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()


class Reader:
    """A table of the metadata, by slot: a reading that owes nothing to the writer."""

    def __init__(self, data: bytes, place: int) -> None:
        self.table = Table(data, place)

    @classmethod
    def root(cls, data: bytes) -> "Reader":
        return cls(data, int.from_bytes(data[:4], "little"))

    def _place(self, slot: int) -> int:
        return self.table.Pos + self.table.Offset(4 + 2 * slot)

    def text(self, slot: int) -> str:
        return self.table.String(self._place(slot)).decode()

    def byte(self, slot: int) -> int:
        return self.table.Bytes[self._place(slot)]

    def number(self, slot: int) -> int:
        return int.from_bytes(self.table.Bytes[self._place(slot) :][:4], "little")

    def child(self, slot: int) -> "Reader":
        return Reader(self.table.Bytes, self.table.Indirect(self._place(slot)))

    def children(self, slot: int) -> list["Reader"]:
        start, length = self._vector(slot)
        places = (self.table.Indirect(start + 4 * i) for i in range(length))
        return [Reader(self.table.Bytes, place) for place in places]

    def floats(self, slot: int) -> list[float]:
        start, length = self._vector(slot)
        return np.frombuffer(self.table.Bytes, "<f4", length, start).tolist()

    def _vector(self, slot: int) -> tuple[int, int]:
        offset = self.table.Offset(4 + 2 * slot)
        return self.table.Vector(offset), self.table.VectorLen(offset)


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_metadata_tells_of_raw_pixels_and_labels(files, kind):
    data = metadata_of(files[kind])
    assert data[4:8] == b"M001"
    root = Reader.root(data)
    assert "8-bit" not in root.text(1) and "32 × 32" in root.text(1)
    (graph,) = root.children(3)
    (image,), (answer,) = graph.children(2), graph.children(3)
    assert (image.text(0), answer.text(0)) == ("image", "probabilities")

    content = image.child(3)
    assert content.byte(0) == 2  # ImageProperties
    properties = content.child(1)
    assert properties.byte(0) == 2  # grayscale
    assert (properties.child(1).number(0), properties.child(1).number(1)) == (32, 32)
    (unit,) = image.children(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([0.0], [1.0])
    assert (image.child(5).floats(0), image.child(5).floats(1)) == ([255.0], [0.0])

    (labels,) = answer.children(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)


def test_without_labels_no_file_of_labels_is_named(files, tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(attach_contract(flatbuffer_of(files["int8"]), Contract(32, 32, 1)))
    (graph,) = Reader.root(metadata_of(path)).children(3)
    assert graph.children(3)[0].children(6) == []
    assert zipfile.ZipFile(path).namelist() == ["contract.json"]


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_tensors_and_signature_have_names_that_mean_something(files, kind):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(files[kind]))
    assert interpreter.get_signature_list() == {
        "serve": {"inputs": ["image"], "outputs": ["probabilities"]}
    }
    assert interpreter.get_input_details()[0]["name"] == "image"
    assert interpreter.get_output_details()[0]["name"] == "probabilities"


def buffer_places(data: bytes) -> list[int]:
    start = np.frombuffer(data, "uint8").__array_interface__["data"][0]
    model = schema.Model.GetRootAs(data, 0)
    filled = (model.Buffers(i) for i in range(model.BuffersLength()))
    pointers = (b.DataAsNumpy().__array_interface__["data"][0] for b in filled if b.DataLength())
    return [pointer - start for pointer in pointers]


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_no_buffer_moves_against_its_alignment(files, kind):
    before = flatbuffer_of(files[kind])
    after = with_metadata(before, "another", b"content")
    old, new = buffer_places(before), buffer_places(after)
    assert len(new) == len(old) + 1
    moved = {b - a for a, b in zip(old, new)}
    assert len(moved) == 1 and moved.pop() % 16 == 0
    assert new[-1] % 16 == 0


def test_nothing_of_the_model_is_lost(files):
    """As TFLite's own object API reads it: the same but for the entry that is new."""
    before = flatbuffer_of(files["int8"])
    after = with_metadata(before, "another", b"content")
    old, new = (schema.ModelT.InitFromPackedBuf(data) for data in (before, after))
    assert new.metadata[-1].name == b"another"
    assert bytes(new.buffers[-1].data) == b"content"
    assert [m.name for m in new.metadata[:-1]] == [m.name for m in old.metadata]
    for field in ("version", "description"):
        assert getattr(new, field) == getattr(old, field)
    assert len(new.buffers) == len(old.buffers) + 1
    for a, b in zip(old.buffers, new.buffers):
        np.testing.assert_array_equal(a.data, b.data)
    for a, b in zip(old.subgraphs[0].tensors, new.subgraphs[0].tensors):
        assert (a.name, a.buffer, a.type) == (b.name, b.buffer, b.type)
    assert len(old.subgraphs[0].operators) == len(new.subgraphs[0].operators)
    assert len(old.signatureDefs) == len(new.signatureDefs) == 1


def test_metadata_is_replaced_where_there_is_some(files, tmp_path):
    path = tmp_path / "x.tflite"
    contract = read_contract(files["int8"]).replace(labels=())
    path.write_bytes(attach_contract(flatbuffer_of(files["int8"]), contract))
    (graph,) = Reader.root(metadata_of(path)).children(3)  # and metadata_of finds one entry
    assert graph.children(3)[0].children(6) == []
    assert Classifier(path).contract == contract


def test_it_costs_little(files):
    plain = schema.ModelT.InitFromPackedBuf(flatbuffer_of(files["int8"]))
    ours = next(m for m in plain.metadata if m.name == b"TFLITE_METADATA")
    assert len(plain.buffers[ours.buffer].data) < 1000


@pytest.fixture(scope="module")
def photographed(test_data):
    """A network of real weights, and photographs already at its size."""
    model = ResNet8(weights=test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5")
    model.contract = model.contract.replace(labels=CIFAR10)
    photographs = sorted((test_data / "flowers/val").glob("*/*.jpg"))[::10]
    return model, [load_image(photograph, model.contract) for photograph in photographs]


def mediapipe_answers(path, images):
    """Of each image the score of each name; MediaPipe resizes none of them."""
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(path)))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for image in images:
            picture = mediapipe.Image(mediapipe.ImageFormat.SRGB, image)
            (head,) = classifier.classify(picture).classifications
            yield head.head_name, {c.category_name: c.score for c in head.categories}


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_mediapipe_answers_as_we_do(photographed, io, tmp_path):
    pytest.importorskip("mediapipe")
    model, images = photographed
    files = convert(model, tmp_path, calibration=images, io_spec=IOSpec(io))
    for path in files.values():
        ours = Classifier(path).probabilities(np.stack(images))
        seen = set()
        for (head, answered), expected in zip(mediapipe_answers(path, images), ours):
            assert head == "probabilities"
            assert answered == pytest.approx(dict(zip(CIFAR10, expected)), abs=1e-6)
            seen.add(max(answered, key=answered.__getitem__))
        assert len(seen) > 1


@pytest.mark.parametrize(
    ("io_spec", "told"),
    [
        (IOSpec("int8"), "int8"),
        (IOSpec(batch=2), "dimensions 1 x height x width"),
        (IOSpec(top_k=3), "output"),
    ],
    ids=str,
)
def test_mediapipe_refuses_the_ends_that_the_documentation_says_it_refuses(
    photographed, io_spec, told, tmp_path
):
    pytest.importorskip("mediapipe")
    model, images = photographed
    path = convert(model, tmp_path, ["float32"], io_spec=io_spec)["float32"]
    with pytest.raises((RuntimeError, ValueError)) as refused:
        list(mediapipe_answers(path, images[:1]))
    assert told in str(refused.value).lower()


def test_weights_behind_the_flatbuffer_are_found_again(tmp_path):
    """ai-edge-quantizer tells large weights by their place in the file, which metadata moves."""
    from keras_resnet.models import ResNet18

    keras.utils.set_random_seed(0)
    model = ResNet18(input_shape=(64, 64, 3), classes=5, include_preprocessing=True)
    files = convert(model, tmp_path, kinds=("float32", "dynamic"))
    root = schema.Model.GetRootAs(files["dynamic"].read_bytes(), 0)
    assert any(root.Buffers(i).Offset() > 1 for i in range(root.BuffersLength()))
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype="uint8")
    expected, answers = (Classifier(files[kind]).probabilities(noise) for kind in files)
    assert np.abs(answers - expected).max() < 0.1  # they were NaN
