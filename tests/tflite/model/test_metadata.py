"""TFLite's model metadata in our files, and how MediaPipe reads it."""

import copy
import dataclasses
import warnings
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from keras_resnet import ResNet8
from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from tests.tflite.interpreted import interpreted
from tflite.classifier import Classifier
from tflite.convert import USUAL_KINDS, convert, save_for_device
from tflite.kinds import KINDS, ConversionSource
from tflite.model import sandbox
from tflite.model.flatbuffer import pack, read_graph, unpack
from tflite.model.graph import replace_operations
from tflite.model.io_spec import IOSpec
from tflite.model.metadata import attach_contract, read_contract

CIFAR10 = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")


@pytest.fixture(scope="module")
def all_files(files, model, calibration, tmp_path_factory):
    """One of every kind."""
    folder = tmp_path_factory.mktemp("others")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "int16x8 has no fast kernels")
        return files | convert(model, folder, ["int16x8", "mixed"], calibration[:5])


def metadata_of(path) -> bytes:
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    (entry,) = (
        model.Metadata(i)
        for i in range(model.MetadataLength())
        if model.Metadata(i).Name() == b"TFLITE_METADATA"
    )
    return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()


class Reader:
    """A table of the metadata, by slot, read without the code that writes it."""

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
def test_metadata_describes_raw_pixels_and_labels(files, kind):
    data = metadata_of(files[kind])
    assert data[4:8] == b"M001"
    root = Reader.root(data)
    assert "8-bit" not in root.text(1) and "32 × 32" in root.text(1)
    assert root.text(1).endswith("Made by keras-resnet.")
    (graph,) = root.children(3)
    (image,), (output,) = graph.children(2), graph.children(3)
    assert (image.text(0), output.text(0)) == ("image", "probabilities")

    content = image.child(3)
    assert content.byte(0) == 2  # ImageProperties
    properties = content.child(1)
    assert properties.byte(0) == 2  # grayscale
    assert (properties.child(1).number(0), properties.child(1).number(1)) == (32, 32)
    (unit,) = image.children(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([0.0], [1.0])
    assert (image.child(5).floats(0), image.child(5).floats(1)) == ([255.0], [0.0])

    (labels,) = output.children(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)


def test_without_labels_no_file_of_labels_is_named(files, tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(attach_contract(read_graph(files["int8"]), Contract(32, 32, 1)))
    (graph,) = Reader.root(metadata_of(path)).children(3)
    assert graph.children(3)[0].children(6) == []
    assert zipfile.ZipFile(path).namelist() == ["contract.json"]


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_tensors_and_signature_have_meaningful_names(files, kind):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(files[kind]))
    assert interpreter.get_signature_list() == {
        "serve": {"inputs": ["image"], "outputs": ["probabilities"]}
    }
    assert interpreter.get_input_details()[0]["name"] == "image"
    assert interpreter.get_output_details()[0]["name"] == "probabilities"


def with_another_entry(path) -> bytes:
    graph = read_graph(path)
    metadata = {**graph.metadata, "another": b"content"}
    return pack(dataclasses.replace(graph, metadata=metadata))


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_every_buffer_of_a_packed_file_is_aligned_to_16_bytes(files, kind):
    data = with_another_entry(files[kind])
    start = np.frombuffer(data, "uint8").__array_interface__["data"][0]
    model = schema.Model.GetRootAs(data, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    pointers = [b.DataAsNumpy().__array_interface__["data"][0] for b in buffers if b.DataLength()]
    assert len(pointers) > 10
    assert {(pointer - start) % 16 for pointer in pointers} == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_between_unpacking_and_packing(all_files, kind):
    """As TFLite's own object API reads it: the same but for the entry that is new."""
    before, after = (
        schema.ModelT.InitFromPackedBuf(data)
        for data in (all_files[kind].read_bytes(), with_another_entry(all_files[kind]))
    )
    assert after.metadata.pop().name == b"another"
    assert bytes(after.buffers.pop().data) == b"content"
    assert plain(after) == plain(before)


def plain(value):
    """An object of the schema as nested dicts, lists and numbers."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tobytes())
    if isinstance(value, list):
        return [plain(one) for one in value]
    if hasattr(value, "__dict__"):
        return (type(value).__name__, {k: plain(v) for k, v in vars(value).items()})
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_graph_is_unpacked_to_an_equal_one(all_files, kind):
    graph = read_graph(all_files[kind])
    again = unpack(pack(graph))
    assert again == graph
    for a, b in zip(graph.tensors, again.tensors):
        np.testing.assert_array_equal(a.data, b.data)
    assert pack(again) == pack(graph)


def test_a_file_of_others_survives_packing(test_data):
    """MLPerf Tiny's ResNet-8, without a signature; the int8 one has optional inputs absent."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    raw = (test_data / "checkpoints/mlperf-tiny/pretrainedResnet.tflite").read_bytes()
    np.testing.assert_array_equal(interpreted(pack(unpack(raw)), images), interpreted(raw, images))


def test_an_absent_optional_input_stays_absent(files):
    graph = read_graph(files["float32"])
    index = next(i for i, op in enumerate(graph.operations) if op.name == "CONV_2D")
    source = copy.copy(graph.operations[index].source)
    source.inputs = [*graph.operations[index].inputs[:2], -1]
    op = dataclasses.replace(
        graph.operations[index], inputs=graph.operations[index].inputs[:2], source=source
    )
    packed = schema.ModelT.InitFromPackedBuf(pack(replace_operations(graph, {index: op})))
    assert list(packed.subgraphs[0].operators[index].inputs) == source.inputs
    assert read_graph(files["float32"]).operations[index].inputs[:2] == op.inputs


def test_several_subgraphs_can_be_read_and_not_written(files):
    graph = dataclasses.replace(read_graph(files["float32"]), subgraphs=2)
    with pytest.raises(ValueError, match="A file of 2 subgraphs can only be read"):
        pack(graph)


def test_packing_changes_no_graph(files):
    """Nothing that a graph holds is changed by writing it, or by attaching a contract."""
    graph = read_graph(files["int8"])
    before = (repr(graph), plain(graph.source))
    attach_contract(graph, read_contract(files["int8"]).replace(labels=()), IOSpec(logits=True))
    assert (repr(graph), plain(graph.source)) == before


def test_attaching_a_contract_changes_no_global(files):
    before = set(sandbox._sound)
    attach_contract(read_graph(files["int8"]), Contract(32, 32, 1, labels=tuple("abcdefghij")))
    assert sandbox._sound == before


def test_metadata_of_the_same_name_is_replaced(files, tmp_path):
    path = tmp_path / "x.tflite"
    contract = read_contract(files["int8"]).replace(labels=())
    path.write_bytes(attach_contract(read_graph(files["int8"]), contract))
    (graph,) = Reader.root(metadata_of(path)).children(3)  # and metadata_of finds one entry
    assert graph.children(3)[0].children(6) == []
    assert Classifier(path).contract == contract


def test_it_costs_little(files):
    assert len(read_graph(files["int8"]).metadata["TFLITE_METADATA"]) < 1000


@pytest.fixture(scope="module")
def photographed(test_data):
    """A network of real weights, and photographs already at its size."""
    model = ResNet8(weights=test_data / "checkpoints/mlperf-tiny/pretrainedResnet.h5")
    model.contract = model.contract.replace(labels=CIFAR10)
    photographs = sorted((test_data / "flowers/val").glob("*/*.jpg"))[::10]
    return model, [load_image(photograph, model.contract) for photograph in photographs]


def mediapipe_scores(path, images):
    """Of each image the score of each label; MediaPipe resizes none of them."""
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(path)))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for image in images:
            picture = mediapipe.Image(mediapipe.ImageFormat.SRGB, image)
            (head,) = classifier.classify(picture).classifications
            yield head.head_name, {c.category_name: c.score for c in head.categories}


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_mediapipe_gives_our_probabilities(photographed, io, tmp_path):
    pytest.importorskip("mediapipe")
    model, images = photographed
    files = convert(model, tmp_path, calibration=images, io_spec=IOSpec(io))
    for path in files.values():
        ours = Classifier(path).probabilities(np.stack(images))
        seen = set()
        for (head, scores), expected in zip(mediapipe_scores(path, images), ours):
            assert head == "probabilities"
            assert scores == pytest.approx(dict(zip(CIFAR10, expected)), abs=1e-6)
            seen.add(max(scores, key=scores.__getitem__))
        assert len(seen) > 1


@pytest.mark.parametrize(
    ("io_spec", "message"),
    [
        (IOSpec("int8"), "int8"),
        (IOSpec(batch=2), "dimensions 1 x height x width"),
        (IOSpec(top_k=3), "output"),
    ],
    ids=str,
)
def test_mediapipe_refuses_what_the_documentation_says_it_refuses(
    photographed, io_spec, message, tmp_path
):
    pytest.importorskip("mediapipe")
    model, images = photographed
    path = convert(model, tmp_path, ["float32"], io_spec=io_spec)["float32"]
    with pytest.raises((RuntimeError, ValueError)) as refused:
        list(mediapipe_scores(path, images[:1]))
    assert message in str(refused.value).lower()


def test_weights_after_the_flatbuffer_are_found(tmp_path):
    """litert-quantizer appends large weights to the flatbuffer, at offsets from its start."""
    from keras_resnet.models import ResNet18

    keras.utils.set_random_seed(0)
    model = ResNet18(input_shape=(64, 64, 3), classes=5, include_preprocessing=True)
    save_for_device(model, tmp_path / "saved")
    source = ConversionSource(tmp_path / "saved")
    dynamic = KINDS["dynamic"].make(source, lambda *_: None).model
    root = schema.Model.GetRootAs(dynamic, 0)
    assert any(root.Buffers(i).Offset() > 1 for i in range(root.BuffersLength()))
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype="uint8")
    path = tmp_path / "dynamic.tflite"
    path.write_bytes(attach_contract(unpack(dynamic), Contract(64, 64, labels=tuple("abcde"))))
    np.testing.assert_array_equal(
        Classifier(path).probabilities(noise), interpreted(dynamic, noise)
    )
