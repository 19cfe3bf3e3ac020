"""Files to pixels, pixels to model input, model output to names."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_resnet import pictures
from keras_resnet.contract import Contract
from keras_resnet.preprocessing import decode_predictions, load_image, preprocess_input

COLORS, DEPTHS = {1: 0, 2: 4, 3: 2, 4: 6}, {"uint8": 8, "uint16": 16}


def exactly(height: int, width: int, channels: int = 3) -> Contract:
    """A contract that leaves pictures of that size alone."""
    return Contract(height, width, channels, crop_fraction=1)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 8 or 16 bits and 1 to 4 channels, written by hand: Pillow writes not all."""
    height, width, channels = pixels.shape
    header = (width, height, DEPTHS[str(pixels.dtype)], COLORS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *header)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
        for tag, data in [*chunks, (b"IEND", b"")]
    )


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    """8 × 12 random RGB pixels."""
    return rng.integers(0, 256, (8, 12, 3), dtype="uint8")


@pytest.fixture(scope="session")
def flowers(test_data: Path) -> list[Path]:
    folders = sorted((test_data / "flowers" / "val").iterdir())
    return [next(iter(sorted(folder.glob("*.jpg")))) for folder in folders]


def test_photographs_are_fitted(flowers: list[Path]) -> None:
    for path in flowers:
        image = load_image(path, Contract(64, 96))
        assert (image.shape, image.dtype) == ((64, 96, 3), np.uint8)
        assert image.std() > 10
        np.testing.assert_array_equal(image, load_image(path.read_bytes(), Contract(64, 96)))


def test_photographs_are_cropped_and_resized_as_pillow_does(flowers: list[Path]) -> None:
    for path in flowers:
        with Image.open(path) as picture:
            side = int(min(picture.size) * 0.875)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            box = (left, top, left + side, top + side)
            expected = picture.resize((224, 224), Image.Resampling.BILINEAR, box)
        difference = load_image(path, Contract(224, 224)) - np.asarray(expected, "float32")
        assert np.abs(difference).mean() < 0.5


def test_photograph_in_grayscale(flowers: list[Path]) -> None:
    image = load_image(flowers[0], Contract(64, 64, 1))
    rgb = load_image(flowers[0], Contract(64, 64)).astype("float32")
    assert image.shape == (64, 64, 1)
    assert np.abs(image[..., 0] - rgb @ [0.299, 0.587, 0.114]).max() < 2


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_are_exact(pixels: np.ndarray, kind: str) -> None:
    data = encoded(Image.fromarray(pixels), kind, lossless=True)
    np.testing.assert_array_equal(load_image(data, exactly(8, 12)), pixels)


def test_first_frame_of_a_gif() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(data, exactly(4, 4)) == [255, 0, 0]).all()


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("channels", COLORS)
def test_every_kind_of_png_is_read_as_tensorflow_reads_it(
    rng: np.random.Generator, channels: int, dtype: str
) -> None:
    tf = pytest.importorskip("tensorflow")
    data = png(rng.integers(0, np.iinfo(dtype).max, (8, 12, channels), dtype, endpoint=True))
    expected = tf.io.decode_png(data, 3).numpy()
    np.testing.assert_array_equal(load_image(data, exactly(8, 12)), expected)


def test_16_bit_grayscale_is_scaled_not_clipped() -> None:
    levels = np.array([0, 255, 256, 0x8000, 0xFFFF], "uint16").reshape(1, 5, 1)
    image = load_image(png(levels), exactly(1, 5, 1))
    assert image.ravel().tolist() == [0, 0, 1, 128, 255]


def test_transparency_is_ignored(pixels: np.ndarray) -> None:
    picture = Image.fromarray(pixels)
    picture.putalpha(0)
    np.testing.assert_array_equal(load_image(encoded(picture, "PNG"), exactly(8, 12)), pixels)


def test_palette_png() -> None:
    picture = Image.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert picture.mode == "P"
    image = load_image(encoded(picture, "PNG", transparency=0), exactly(4, 4))
    assert np.abs(image - np.array([10.0, 200, 30])).max() <= 2


def test_cmyk_jpeg() -> None:
    ink = Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK")
    image = load_image(encoded(ink, "JPEG", quality=95), exactly(16, 16))
    assert np.abs(image - np.array([250.0, 20, 20])).max() < 10


def test_exif_orientation_is_applied_or_ignored(pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90° to view
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    upright = load_image(data, exactly(12, 8))
    np.testing.assert_array_equal(upright, np.rot90(pixels, -1))
    stored = load_image(data, exactly(8, 12).replace(orientation="ignore"))
    np.testing.assert_array_equal(stored, pixels)


@pytest.mark.parametrize("contract", [Contract(8, 8), Contract(8, 8, resize="stretch")])
def test_one_pixel_fills_the_input(contract: Contract) -> None:
    data = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")
    assert (load_image(data, contract) == [1, 2, 3]).all()
    assert load_image(data, contract).shape == (8, 8, 3)


def test_what_is_no_picture_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    data = encoded(Image.fromarray(pixels.repeat(20, 0).repeat(20, 1)), "PNG")
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "picture.ppm").write_bytes(encoded(Image.fromarray(pixels), "PPM"))
    reasons = {
        "text.jpg": "is not a readable picture",
        "empty.jpg": "is empty",
        "cut.png": r"is cut off or broken inside \(PNG",
        "picture.ppm": "is a PPM; supported are JPEG, PNG",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"{name} {reason}"):
            load_image(tmp_path / name, exactly(8, 12))


def test_folder_missing_file_and_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path.name} is a folder"):
        load_image(tmp_path, exactly(8, 8))
    with pytest.raises(ValueError, match=r"no file .*missing\.jpg"):
        load_image(tmp_path / "missing.jpg", exactly(8, 8))
    with pytest.raises(ValueError, match="the given picture is empty"):
        load_image(b"", exactly(8, 8))


def test_huge_picture_is_refused(monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 8 * 12 - 1)
    with pytest.raises(ValueError, match="has more than 95 pixels"):
        load_image(encoded(Image.fromarray(pixels), "PNG"), exactly(8, 12))


def test_no_file_has_four_channels(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"4 channels.*Pass an array"):
        load_image(encoded(Image.fromarray(pixels), "PNG"), exactly(8, 12, 4))


def test_preprocess_input_normalizes_by_the_contract(pixels: np.ndarray) -> None:
    contract = Contract(8, 12, mean=(1, 2, 3), std=(4, 5, 6))
    normalized = preprocess_input(pixels, contract)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, (pixels - np.array([1.0, 2, 3])) / [4, 5, 6], rtol=1e-6)
    inside = preprocess_input(pixels, contract.replace(normalization="inside"))
    np.testing.assert_array_equal(inside, pixels.astype("float32"))


def test_preprocess_input_is_imagenets_by_default() -> None:
    white = preprocess_input(np.full((1, 1, 3), 255, "uint8"))
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(white.ravel(), expected, rtol=1e-5)


def test_preprocess_input_refuses_other_channels() -> None:
    with pytest.raises(ValueError, match=r"3 channels.*\(2, 2, 4\)"):
        preprocess_input(np.zeros((2, 2, 4)))


def test_decode_predictions_names_the_likeliest_first() -> None:
    contract = Contract(8, 8, labels=("cat", "dog", "owl"))
    probabilities = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])
    first, second = decode_predictions(probabilities, contract, top=2)
    assert first == [("dog", 0.5), ("cat", 0.25)]
    assert second == [("owl", 0.75), ("cat", 0.125)]
    assert len(decode_predictions(probabilities, contract)[0]) == 3


def test_decode_predictions_numbers_nameless_classes() -> None:
    assert decode_predictions([[0.25, 0.75]], Contract(8, 8)) == [[("1", 0.75), ("0", 0.25)]]


@pytest.mark.parametrize(
    ("shape", "top", "message"),
    [
        ((3,), 5, r"\(images, classes\).*\(3,\)"),
        ((1, 4), 5, r"2 labels.*\(1, 4\)"),
        ((1, 2), 0, "top=0"),
    ],
)
def test_decode_predictions_refuses(shape: tuple[int, ...], top: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_predictions(np.zeros(shape), Contract(8, 8, labels=("cat", "dog")), top)
