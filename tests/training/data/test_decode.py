"""Training crops: position, size, and distance from antialiased resizing."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training.config import AugmentConfig
from training.data.augment.crop import crop_jpeg, crop_pixels, random_resized_crop
from training.data.decode import decode

SEEDS = 2000


def crops(file_or_array, size: int, count: int, channels: int = 3, **config) -> np.ndarray:  # type: ignore[no-untyped-def]
    """One crop a seed."""
    image = tf.constant(file_or_array)
    config = AugmentConfig(**config)
    crop = lambda i: random_resized_crop(image, channels, size, config, tf.stack([3, i]))  # noqa: E731
    return next(
        tf.data.Dataset.range(count)
        .map(crop, num_parallel_calls=2)
        .batch(count)
        .as_numpy_iterator()
    )


def ramp(height: int, width: int) -> np.ndarray:
    """A picture whose pixels say where they are: row, column, column."""
    y, x = np.mgrid[0:height, 0:width]
    return (
        np.stack([y * 255 / (height - 1), x * 255 / (width - 1), x * 0], -1).round().astype("uint8")
    )


def encoded(pixels: np.ndarray, format: str, **options) -> bytes:  # type: ignore[no-untyped-def]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def boxes(found: np.ndarray, height: int, width: int) -> np.ndarray:
    """Top, left, bottom, right of crops of a ramp, to a pixel or two."""
    top, bottom = found[:, 0, :, 0].mean(1), found[:, -1, :, 0].mean(1)
    left, right = found[:, :, 0, 1].mean(1), found[:, :, -1, 1].mean(1)
    scale = np.array([height, width, height, width]) / 255
    return np.stack([top, left, bottom, right], 1) * scale


@pytest.mark.parametrize("format", ["array", "PNG", "JPEG"])
def test_crops_cover_the_image_and_keep_to_area_and_shape(format: str) -> None:
    height, width = 120, 160
    pixels = ramp(height, width)
    source = pixels if format == "array" else encoded(pixels, format, quality=98, subsampling=0)
    found = boxes(crops(source, 32, SEEDS, min_area=0.1), height, width)
    # A resized crop ends half of one of its pixels inside the box: a 32nd in all.
    tall = (found[:, 2] - found[:, 0]) * 32 / 31
    wide = (found[:, 3] - found[:, 1]) * 32 / 31
    area, ratio = tall * wide / (height * width), wide / tall
    assert area.min() > 0.07 and area.max() < 1.02
    assert area.min() < 0.13 and area.max() > 0.85  # and all the way there
    assert 0.70 < ratio.min() < 0.80 and 1.28 < ratio.max() < 1.40
    assert 0.35 < area.mean() < 0.50
    seen = np.zeros((height, width))
    for top, left, bottom, right in found.round().astype(int):
        seen[top : bottom + 1, left : right + 1] += 1
    assert seen[4:-4, 4:-4].min() > 0
    # As often left as right, and above as below, to five standard deviations of a count.
    blocks = seen.reshape(12, 10, 16, 10).mean((1, 3))
    for flipped in (blocks[::-1], blocks[:, ::-1]):
        assert np.abs(blocks - flipped).max() < 5 * np.sqrt(2 * SEEDS / 4)
    assert seen[60, 80] > 0.9 * SEEDS * 0.6 > seen[2, 2]


def test_the_same_seed_gives_the_same_crop_and_another_another() -> None:
    file = encoded(ramp(100, 100), "JPEG")
    first, again = crops(file, 24, 20), crops(file, 24, 20)
    np.testing.assert_array_equal(first, again)
    assert len({crop.tobytes() for crop in first}) == 20


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF"])
def test_every_format_is_cropped_to_the_asked_channels(format: str, channels: int) -> None:
    file = encoded(np.full((50, 40, 3), (200, 100, 50), "uint8"), format)
    found = crops(file, 16, 3, channels)
    assert found.shape == (3, 16, 16, channels) and found.dtype == np.uint8
    expected = (200, 100, 50) if channels == 3 else (124,)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=2)


def strange_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (6, 8, 3), "uint8")).resize((80, 60))
    alpha = np.dstack([np.asarray(smooth), np.full((60, 80), 100, "uint8")])
    sixteen = Image.fromarray(np.asarray(smooth.convert("L")).astype("uint16") * 257)
    files = {
        "CMYK JPEG": smooth.convert("CMYK"),
        "grayscale JPEG": smooth.convert("L"),
        "progressive JPEG": smooth,
        "alpha PNG": Image.fromarray(alpha),
        "palette PNG": smooth.convert("P"),
        "16-bit PNG": sixteen,
    }
    written = {}
    for name, picture in files.items():
        file = io.BytesIO()
        options = {"progressive": True} if name.startswith("progressive") else {}
        picture.save(file, name.split()[-1], **options)
        written[name] = file.getvalue()
    return written


@pytest.mark.parametrize("kind", strange_files())
def test_crops_of_strange_files_are_parts_of_the_whole(kind: str) -> None:
    file = strange_files()[kind]
    # A crop of the whole area and shape is the whole picture, resized.
    whole = decode(tf.constant(file), 3).numpy()
    box = Image.fromarray(whole).resize((60, 60), Image.Resampling.BILINEAR)
    nearest = min(
        np.abs(crop.astype(int) - np.asarray(box)).mean()
        for crop in crops(file, 60, 50, min_area=0.9)
    )
    assert nearest < 12
    mean = crops(file, 60, 50, min_area=0.9).mean((0, 1, 2))
    np.testing.assert_allclose(mean, whole.mean((0, 1)), atol=12)


def boxes_of_photographs(test_data: Path) -> list[tuple[bytes, np.ndarray]]:
    """Each with the pixels of its box of 200 × 200 at (16, 8)."""
    found = []
    for path in sorted((test_data / "flowers" / "train").rglob("*.jpg"))[::20]:
        pixels = decode(tf.constant(path.read_bytes()), 3).numpy()
        if min(pixels.shape[0] - 16, pixels.shape[1] - 8) >= 200:
            found.append((path.read_bytes(), pixels[16:216, 8:208]))
    assert len(found) > 10
    return found


@pytest.mark.parametrize("shrink", [0.7, 1.3, 1.55, 1.9, 2.5, 3.5, 7.0])
def test_crops_of_photographs_are_near_the_antialiased_ones(test_data: Path, shrink: float) -> None:
    size = round(200 / shrink)

    def error(image: tf.Tensor, careful: tf.Tensor) -> float:
        return float(tf.sqrt(tf.reduce_mean((tf.cast(image, "float32") - careful) ** 2)))

    errors, careless = [], []
    for file, pixels in boxes_of_photographs(test_data):
        careful = tf.image.resize(pixels, (size, size), antialias=True)
        box = tf.constant([16, 8, 200, 200])
        errors.append(error(crop_jpeg(tf.constant(file), box, size), careful))
        careless.append(error(tf.image.resize(pixels, (size, size)), careful))
    assert np.mean(errors) < (0.5 if shrink < 1 else 5.5)  # grey levels
    assert shrink < 1.6 or np.mean(errors) < 0.9 * np.mean(careless)


def test_pixels_that_shrink_are_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[:, ::4] = 255  # a quarter of the light, whatever the size
    found = crop_pixels(tf.constant(stripes), tf.constant([0, 0, 64, 64]), 16).numpy()
    assert np.abs(found[:, 1:-1].astype(int) - 64).max() < 8
