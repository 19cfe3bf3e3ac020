"""Running a file as an app would, and files that are not models."""

import errno
import json
import os
import zipfile

import numpy as np
import pytest

from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from tflite.classifier import Classifier
from tflite.convert import USUAL_KINDS
from tflite.model import interpreter, metadata
from tflite.model.flatbuffer import read_graph
from tflite.model.metadata import MAX_CONTRACT_BYTES, attach_contract, read_contract


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_contract_and_labels_are_in_every_file(model, files, kind):
    assert read_contract(files[kind]) == deployable(model).contract
    with zipfile.ZipFile(files[kind]) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().split("\n")[:2] == ["zero", "one"]
        assert json.loads(archive.read("contract.json"))["normalization"] == "inside"


def test_contract_survives_the_round_trip(files, tmp_path):
    labels = ("é", "two\nlines", *"abcdefgh")
    contract = Contract(32, 32, 1, mean=(1.5,), resize="stretch", labels=labels)
    path = tmp_path / "x.tflite"
    path.write_bytes(attach_contract(read_graph(files["float32"]), contract))
    assert read_contract(path) == contract
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split("\n")[:2] == ["é", "two lines"]


def test_predicts_files_and_arrays_of_any_size_alike(files, digits, tmp_path):
    from PIL import Image

    large = digits[0][1500].repeat(3, axis=0).repeat(3, axis=1)
    Image.fromarray(large[..., 0]).save(tmp_path / "digit.png")
    classifier = Classifier(files["int8"], threads=1)
    from_file, from_array = classifier.predict([tmp_path / "digit.png", large], top=3)
    assert from_file == from_array
    assert len(from_file) == 3
    assert classifier.predict(large, top=3) == classifier.predict(tmp_path / "digit.png", top=3)
    content = (tmp_path / "digit.png").read_bytes()
    assert classifier.predict(content, top=3) == classifier.predict([content], top=3) == [from_file]
    assert classifier.predict([]) == []


def test_a_pillow_image_is_refused_with_what_to_pass_instead(files):
    from PIL import Image

    picture = Image.new("L", (32, 32))
    for images in (picture, [picture]):
        with pytest.raises(ValueError, match=r"Received: Image. Of a Pillow image take numpy"):
            Classifier(files["int8"]).predict(images)


def test_names_digits_that_it_has_not_seen(files, held_out):
    classifier = Classifier(files["int8"])
    predicted = [best for ((best, _),) in classifier.predict([x for x, _ in held_out], top=1)]
    labels = classifier.contract.labels
    assert np.mean([name == labels[k] for name, (_, k) in zip(predicted, held_out)]) > 0.8


@pytest.mark.parametrize("image", [np.zeros((32, 32)), np.zeros((32, 32, 3)), np.zeros((0, 9, 1))])
def test_arrays_that_are_no_image_are_refused(files, image):
    with pytest.raises(ValueError, match=r"Expected an array \(height, width, 1\)"):
        Classifier(files["float32"]).predict([image])


def test_probabilities_refuses_what_is_not_fitted(files):
    with pytest.raises(ValueError, match=r"Expected uint8 images of \(images, 32, 32, 1\)"):
        Classifier(files["float32"]).probabilities(np.zeros((1, 16, 16, 1), "uint8"))


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match="There is no model file"):
        Classifier(tmp_path / "no.tflite")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.9, 0.99, 0.9999])
def test_truncated_files_are_refused_in_one_line(files, tmp_path, share, capfd):
    whole = files["int8"].read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError) as caught:
        Classifier(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "picture.tflite"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    with pytest.raises(ValueError, match="not a TFLite model"):
        Classifier(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 64},
        {"width": 16000},
        {"height": None, "width": None},
        {"channels": 3, "mean": (0.0,), "std": (1.0,)},
        {"labels": tuple("abcdefghi")},
        {"labels": tuple("abcdefghijk")},
    ],
    ids=str,
)
@pytest.mark.parametrize("read", [read_contract, Classifier])
def test_a_contract_of_another_model_is_refused(files, tmp_path, changes, read):
    path = tmp_path / "swapped.tflite"
    contract = read_contract(files["float32"]).replace(**changes)
    path.write_bytes(attach_contract(read_graph(files["float32"]), contract))
    with pytest.raises(ValueError, match="of another model") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


def with_contract(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("contract.json", content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "A contract is a set of keys and values"),
        ("{", "Expecting"),
        ('{"height": 1, "widht": 2}', "Unknown contract keys"),
        ('{"height": 1}', "width"),
        ('{"height": 32, "width": 32, "height": 64}', "a key occurs twice"),
        ('{"height": 32, "width": 32, "mean": [NaN]}', "must be finite"),
        ('{"height": 32, "width": 32, "std": [1e999]}', "must be finite"),
        ('{"height": 32, "width": 32, "crop_fraction": -Infinity}', "must be finite"),
        (b'{"height": 32, "width": 32, "labels": ["\xff"]}', "utf-8"),
        ('{"height": 32, "width": 32, "labels": {"a": 1}}', "labels"),
        ('{"height": ' + "9" * 5000 + "}", "digits"),
        ("[" * 100_000, "recursion"),
        (b"\xff\xfe{\x00}\x00", "utf-8"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_contract_is_refused(tmp_path, content, reason):
    path = with_contract(tmp_path / "x.tflite", content)
    with pytest.raises(ValueError, match="is not readable") as caught:
        read_contract(path)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_contract_that_zipfile_decompresses_without_a_limit_is_refused(tmp_path, compression):
    path = with_contract(tmp_path / "x.tflite", " " * 1_000_000, compression)
    with pytest.raises(ValueError, match="is compressed by method"):
        read_contract(path)


def test_a_contract_that_decompresses_to_too_much_is_refused(tmp_path):
    content = b" " * (MAX_CONTRACT_BYTES + 1)
    path = with_contract(tmp_path / "x.tflite", content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="is larger than 10,000,000 bytes"):
        read_contract(path)
    # One that claims to be small is read no further than that.
    claimed, real = (len(content).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(path.read_bytes().replace(claimed, real))
    with pytest.raises(ValueError, match=r"is not readable|holds no contract"):
        read_contract(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_contracts_is_refused(files, tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(files["float32"].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("contract.json", archive.read("contract.json"))
    with pytest.raises(ValueError, match=r"more than one contract\.json"):
        read_contract(path)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_must_be_a_count(files, threads):
    with pytest.raises(ValueError, match="threads must be an integer of at least 1"):
        Classifier(files["float32"], threads=threads)


def test_a_failure_to_open_a_sound_file_does_not_blame_it(files, monkeypatch):
    def fails(**_):
        raise RuntimeError("a thread could not be started")

    Classifier(files["float32"])
    monkeypatch.setattr(interpreter, "Interpreter", fails)
    with pytest.raises(OSError, match=r"could not be opened here: a thread could not be started$"):
        Classifier(files["float32"])


def test_a_bad_disk_below_a_contract_does_not_blame_it(files, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(metadata, "_content", fails)
    with pytest.raises(OSError, match=r"could not be read here: .*Input/output error$"):
        Classifier(files["float32"])
