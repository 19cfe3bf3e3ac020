"""The archive, read as a test on a device reads it: with an interpreter alone."""

import json
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tflite.evidence.golden import write_golden


def test_another_interpreter_gives_the_answers_in_the_archive(files, digits, tmp_path):
    path = tmp_path / "golden.zip"
    images = digits[0][1500:1512]
    assert write_golden(files["int8"], images, path) == 12
    assert list(tmp_path.iterdir()) == [path]

    interpreter = Interpreter(str(files["int8"]))
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    with zipfile.ZipFile(path) as archive:
        description = json.loads(archive.read("golden.json"))
        for number, image in enumerate(images):
            pixels = np.frombuffer(archive.read(f"{number:04}.input.bin"), "<f4")
            pixels = pixels.reshape(description["input"]["shape"])
            np.testing.assert_array_equal(pixels[0], image)
            expected = np.frombuffer(archive.read(f"{number:04}.output.bin"), "<f4")
            answered = run(image=pixels)["probabilities"]
            assert list(answered.shape) == description["output"]["shape"]
            assert np.abs(answered[0] - expected).max() <= description["tolerance"]
            assert answered.argmax() == description["top1"][number]
    assert len(set(description["top1"])) > 1 and description["labels"][0] == "zero"


def test_the_same_images_give_the_same_bytes(files, digits, tmp_path):
    for name in ("a.zip", "b.zip"):
        write_golden(files["float32"], digits[0][:3], tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_no_images_and_other_sizes_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match="no images to write"):
        write_golden(files["int8"], [], tmp_path / "golden.zip")
    with pytest.raises(ValueError, match="Expected uint8 images"):
        write_golden(files["int8"], [np.zeros((8, 8, 1), "uint8")], tmp_path / "golden.zip")
    assert not any(tmp_path.iterdir())
