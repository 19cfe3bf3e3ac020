"""Running a file as an app would, and files that are none."""

import json
import zipfile

import numpy as np
import pytest

from keras_resnet.contract import Contract
from keras_resnet.deployment import deployable
from tflite.classifier import Classifier
from tflite.convert import USUAL_KINDS
from tflite.model.metadata import attach_contract, read_contract


@pytest.mark.parametrize("kind", USUAL_KINDS)
def test_contract_and_labels_are_in_every_file(model, files, kind):
    assert read_contract(files[kind]) == deployable(model).contract
    with zipfile.ZipFile(files[kind]) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().split("\n")[:2] == ["zero", "one"]
        assert json.loads(archive.read("contract.json"))["normalization"] == "inside"


def test_contract_survives_the_round_trip(files, tmp_path):
    contract = Contract(48, 64, 4, mean=(1.0, 2.0, 3.0, 4.0), labels=("é", "two\nlines"))
    path = tmp_path / "x.tflite"
    model = files["float32"].read_bytes()
    path.write_bytes(attach_contract(model[: model.index(b"PK\x03\x04")], contract))
    assert read_contract(path) == contract
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode() == "é\ntwo lines\n"


def test_predicts_files_and_arrays_of_any_size_alike(files, digits, tmp_path):
    from PIL import Image

    large = digits[0][1500].repeat(3, axis=0).repeat(3, axis=1)
    Image.fromarray(large[..., 0]).save(tmp_path / "digit.png")
    classifier = Classifier(files["int8"], threads=1)
    from_file, from_array = classifier.predict([tmp_path / "digit.png", large], top=3)
    assert from_file == from_array
    assert len(from_file) == 3
    assert classifier.predict(large, top=3) == classifier.predict(tmp_path / "digit.png", top=3)
    assert classifier.predict([]) == []


def test_names_digits_that_it_has_not_seen(files, held_out):
    classifier = Classifier(files["int8"])
    answered = [best for ((best, _),) in classifier.predict([x for x, _ in held_out], top=1)]
    labels = classifier.contract.labels
    assert np.mean([name == labels[k] for name, (_, k) in zip(answered, held_out)]) > 0.8


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


def test_a_contract_of_another_model_is_refused(files, tmp_path):
    path = tmp_path / "swapped.tflite"
    model = files["float32"].read_bytes()
    path.write_bytes(attach_contract(model[: model.index(b"PK\x03\x04")], Contract(64, 64, 1)))
    with pytest.raises(ValueError, match="of another model"):
        Classifier(path)


@pytest.mark.parametrize("content", ["[]", "{", '{"height": 1, "widht": 2}', '{"height": 1}'])
def test_a_damaged_contract_is_refused(tmp_path, content):
    path = tmp_path / "x.tflite"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("contract.json", content)
    with pytest.raises(ValueError, match="is not readable"):
        read_contract(path)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_must_be_a_count(files, threads):
    with pytest.raises(ValueError, match="threads must be an integer of at least 1"):
        Classifier(files["float32"], threads=threads)
