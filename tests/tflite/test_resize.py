"""How far other bilinear resizers than ours change predictions on real photographs.

``pytest -s tests/tflite/test_resize.py`` prints the table in docs/deploying.md.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from keras_resnet.contract import Contract, crop_box
from keras_resnet.preprocessing import fit_image
from tflite.classifier import Classifier
from tflite.model.flatbuffer import unpack
from tflite.model.metadata import attach_contract

CONTRACT = Contract(32, 32, 3, mean=(0.0,), std=(1.0,), normalization="inside")
# How many pixels of the photograph's shorter side become one: all of them, and less.
SIDES = {"whole photographs": None, "64 to 32 pixels": 64, "37 to 32 pixels": 37}


def pillow(box):
    from PIL import Image

    return np.asarray(Image.fromarray(box).resize((32, 32), Image.Resampling.BILINEAR))


def tensorflow(box):
    """``tf.image.resize`` as it is by default: no antialiasing."""
    import tensorflow as tf

    return np.rint(tf.image.resize(box, (32, 32)).numpy()).astype("uint8")


def android(box):
    """``Bitmap.createScaledBitmap(…, filter = true)``, which TFLite's ResizeOp calls.

    It draws through Skia without mipmaps: the four nearest pixels are blended, by
    the upper four bits of the fraction, and the result is truncated, not rounded (Filter_32_opaque
    in skia/src/core/SkBitmapProcState_filter.h).
    """
    rows, y = _taps(box.shape[0])
    columns, x = _taps(box.shape[1])
    y, x = y[:, None, None], x[None, :, None]
    pixels = box.astype("int32")
    top, bottom = (pixels[rows[i]][:, columns[0]] * (16 - x) for i in (0, 1))
    top += pixels[rows[0]][:, columns[1]] * x
    bottom += pixels[rows[1]][:, columns[1]] * x
    return ((top * (16 - y) + bottom * y) >> 8).astype("uint8")


def _taps(size):
    """Both neighbours of each of 32 places along an axis, and sixteenths of the way between."""
    place = np.floor(((np.arange(32) + 0.5) * size / 32 - 0.5) * 16).astype(int)
    whole, sixteenths = np.divmod(place, 16)
    return [np.clip(whole + i, 0, size - 1) for i in (0, 1)], sixteenths


@dataclass(frozen=True)
class Moved:
    pixels: float  # mean absolute difference, of 255
    classes: float  # percent of photographs whose predicted class changes
    confidence: float  # mean absolute difference of the first class's probability


@pytest.fixture(scope="module")
def measured(test_data, tmp_path_factory):
    """The change by each resizer, for each size of photographs, against our own."""
    from PIL import Image

    path = tmp_path_factory.mktemp("resize") / "resnet8.tflite"
    original = test_data / "checkpoints/mlperf-tiny/pretrainedResnet.tflite"
    path.write_bytes(attach_contract(unpack(original.read_bytes()), CONTRACT))
    classifier = Classifier(path)
    photographs = sorted((test_data / "flowers/val").glob("*/*.jpg"))
    boxes = []
    for photograph in photographs:
        with Image.open(photograph) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        top, left, height, width = crop_box(*pixels.shape[:2], CONTRACT)
        boxes.append(pixels[top : top + height, left : left + width])
    whole = CONTRACT.replace(resize="stretch")
    table = {}
    for name, side in SIDES.items():
        pictures = boxes
        if side is not None:
            smaller = whole.replace(height=side, width=side)
            pictures = [fit_image(box, smaller) for box in boxes]
        ours = np.stack([fit_image(box, whole) for box in pictures])
        expected = classifier.probabilities(ours)
        first = expected.argmax(1)
        for resize in (pillow, tensorflow, android):
            theirs = np.stack([resize(box) for box in pictures])
            scores = classifier.probabilities(theirs)
            drift = np.abs(scores - expected)[np.arange(len(first)), first]
            table[name, resize.__name__] = Moved(
                float(np.abs(theirs.astype(int) - ours).mean()),
                100 * float((scores.argmax(1) != first).mean()),
                float(drift.mean()),
            )
    print(f"\n{len(photographs)} photographs")
    for (name, resizer), row in table.items():
        print(f"{name:18} {resizer:11} {row.pixels:6.2f} {row.classes:6.1f} {row.confidence:7.3f}")
    return table


def test_pillow_resizes_as_we_do(measured):
    for name in SIDES:
        assert measured[name, "pillow"].pixels < 0.6
        assert measured[name, "pillow"].classes <= 2


@pytest.mark.parametrize("resizer", ["tensorflow", "android"])
def test_without_antialiasing_predictions_change_more_the_more_a_picture_shrinks(measured, resizer):
    whole, half, little = (measured[name, resizer] for name in SIDES)
    assert whole.confidence > half.confidence > little.confidence
    assert whole.classes > 10 * max(measured["whole photographs", "pillow"].classes, 1)


def test_the_android_reference_is_bilinear_with_coarse_fractions():
    box = np.random.default_rng(0).integers(0, 256, (75, 90, 3), "uint8")
    difference = np.abs(android(box).astype(int) - tensorflow(box))
    assert 0 < difference.max() <= 2 * 256 / 16 + 1  # a sixteenth of the range along either axis
    flat = np.full((50, 40, 3), 200, "uint8")
    np.testing.assert_array_equal(android(flat), 200)
