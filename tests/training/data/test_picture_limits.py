"""Limits of pictures: refused before their pixels are allocated, or read in bounded memory.

Each way of reading runs in a process of its own, whose peak memory is compared, not its time. It
reads what is to be refused first, since a peak only grows.
"""

import functools
import io
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_resnet import pictures
from tests.peak_memory import PEAK_KIB

MIB = 2**20
# Reads files in one of four ways; prints of each the outcome and the growth of the peak memory
# since the small ones, in MiB.
PROGRAM = (
    PEAK_KIB
    + """
import sys, warnings
warnings.simplefilter("error")  # a warning without the file's name would fail
import numpy as np
import tensorflow as tf
from pathlib import Path
from keras_resnet import load_image
from keras_resnet.contract import Contract

way, folder, *names = sys.argv[1:]
contract = Contract(32, 32, labels=("a", "b"))

if way == "load_image":
    read = lambda path: load_image(path, contract).mean()
elif way == "serve_bytes":
    loaded = tf.saved_model.load(folder + "/model")
    read = lambda path: loaded.serve_bytes(tf.constant([Path(path).read_bytes()]))[
        "probabilities"].numpy().sum()
else:
    from training.config import from_dict
    from training.data.pipeline import evaluation_batches, training_batches
    from training.data.split import file_split

    def read(path):
        split = file_split([path], np.zeros(1, "int64"))
        if way == "evaluation":
            return next(iter(evaluation_batches(split, contract, 1)))[0].numpy().mean()
        experiment = from_dict({"augment": {"crop": "resized"}, "runtime": {"batch_size": 1}})
        return next(iter(training_batches(split, contract, experiment)))[0].numpy().mean()

for small in {Path(name).suffix for name in names}:
    read(f"{folder}/small{small}")
before = peak_kib()
for name in names:
    try:
        outcome = f"read {read(folder + '/' + name)}"
    except Exception as error:
        outcome = "refused " + " ".join(str(error).split())
    grown = (peak_kib() - before) // 1024
    print("RESULT", name, grown, outcome)
"""
)
# Evaluation and training decode JPEG and PNG in the graph of serve_bytes.
WAYS = (
    "load_image",
    pytest.param("evaluation", marks=pytest.mark.slow),
    pytest.param("training", marks=pytest.mark.slow),
    "serve_bytes",
)
# Files that every way reads, and those that load_image reads too, in ascending order of memory.
EVERYWHERE = ("bomb.png", "progressive.jpg")
LOAD_IMAGE = ("screen.gif", "sides.tif", "canvas.webp")
Results = Callable[[str, str], tuple[str, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel and hostile files, beside a small file of each ending."""
    from keras_resnet import ResNet8
    from keras_resnet.contract import Contract
    from training.export import export_saved_model

    folder = tmp_path_factory.mktemp("limits")
    contract = Contract(32, 32, labels=("a", "b"))
    model = ResNet8(input_shape=(32, 32, 3), classes=2, weights=None, contract=contract)
    export_saved_model(model, folder / "model")
    for ending in ("png", "jpg", "gif", "tif", "webp"):
        Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / f"small.{ending}")
    (folder / "bomb.png").write_bytes(png_of_zeros(12_000, 12_000))
    (folder / "frames.gif").write_bytes(gif_of_frames(3000, 300))
    (folder / "screen.gif").write_bytes(gif_of_frames(20_000, 1))
    (folder / "sides.tif").write_bytes(tiff_of_sides(60_000))
    (folder / "canvas.webp").write_bytes(webp_of_sides(16_000))
    jpeg_of_megapixels(folder / "progressive.jpg", 12_000, 9000, progressive=True)
    jpeg_of_megapixels(folder / "photograph.jpg", 16_320, 12_240)
    return folder


def png_of_zeros(width: int, height: int) -> bytes:
    """RGB; compressed row by row, so that making it needs no memory."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "PNG")
    head = small.getvalue()[16:29]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + head[8:13]
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return pictures.PNG_SIGNATURE + b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data in chunks
    )


def gif_of_frames(side: int, count: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "GIF")
    data = file.getvalue()
    start = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    return data[:start] + data[start:-1] * count + b";"


def tiff_of_sides(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "TIFF")
    data = bytearray(file.getvalue())
    begin = int.from_bytes(data[4:8], "little")
    for at in range(begin + 2, len(data) - 11, 12):
        if int.from_bytes(data[at : at + 2], "little") in (256, 257):
            data[at + 2 : at + 12] = b"\x04\0\x01\0\0\0" + side.to_bytes(4, "little")
    return bytes(data)


def webp_of_sides(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP", lossless=True)
    data = bytearray(file.getvalue())
    bits = int.from_bytes(data[21:25], "little") >> 28 << 28 | side - 1 | (side - 1) << 14
    data[21:25] = bits.to_bytes(4, "little")
    return bytes(data)


def jpeg_of_megapixels(path: Path, width: int, height: int, **options: bool) -> None:
    """Left half dark, right half light, without a line of noise: it is small."""
    picture = Image.new("L", (width, height), 40)
    picture.paste(200, (width // 2, 0, width, height))
    picture.save(path, quality=80, **options)


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """By way and file: what happened, and the growth of the peak memory in MiB."""

    @functools.cache
    def of_way(way: str) -> dict[str, tuple[str, int]]:
        found = {}
        names = [*EVERYWHERE, *(LOAD_IMAGE if way == "load_image" else ())]
        names += ["frames.gif"] if way in ("load_image", "evaluation") else []
        names += ["photograph.jpg"]
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, way, str(folder), *names],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert result.returncode == 0, result.stderr
        for line in result.stdout.splitlines():
            if line.startswith("RESULT "):
                _, name, grown, outcome = line.split(" ", 3)
                found[name] = outcome, int(grown)
        return found

    return lambda way, name: of_way(way)[name]


@pytest.mark.parametrize("way", WAYS)
def test_a_png_of_144_megapixels_is_refused_before_its_pixels(results: Results, way: str) -> None:
    outcome, grown = results(way, "bomb.png")
    assert outcome.startswith("refused")
    assert f"has more than {pictures.MAX_PIXELS:,} pixels" in outcome
    assert grown < 100


@pytest.mark.parametrize("name", LOAD_IMAGE)
def test_headers_of_absurd_sizes_are_refused_before_their_pixels(
    results: Results, name: str
) -> None:
    outcome, grown = results("load_image", name)
    assert outcome.startswith("refused")
    assert f"has more than {pictures.MAX_PIXELS:,} pixels" in outcome
    assert grown < 100


@pytest.mark.parametrize("way", WAYS)
def test_a_progressive_jpeg_has_the_limit_of_other_formats(results: Results, way: str) -> None:
    outcome, grown = results(way, "progressive.jpg")
    assert outcome.startswith("refused")
    assert pictures.too_large_in_scans() in outcome
    assert grown < 100


@pytest.mark.parametrize("way", WAYS[:2])
def test_of_a_gif_of_300_frames_one_is_decoded(results: Results, way: str) -> None:
    outcome, grown = results(way, "frames.gif")
    assert outcome == "read 0.0"
    assert grown < 300  # 27 MB are the pixels of a frame, 108 MB as float32


@pytest.mark.parametrize("way", WAYS)
def test_a_photograph_of_200_megapixels_is_read(results: Results, way: str) -> None:
    outcome, grown = results(way, "photograph.jpg")
    assert outcome.startswith("read")
    if way in ("load_image", "evaluation"):
        assert abs(float(outcome.split()[1]) - 120) < 3
    assert grown < 900  # a quarter of the pixels: 150 MB, and 460 MB of a crop as float32


def test_a_text_chunk_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(2**26), 9)
    text = b"Comment\0\0" + packed
    chunk = len(text).to_bytes(4, "big") + b"zTXt" + text
    chunk += zlib.crc32(b"zTXt" + text).to_bytes(4, "big")
    data = png_of_zeros(8, 8)
    end = 8 + 25  # after the header
    assert (pictures.decode(data[:end] + chunk + data[end:]) == np.zeros((8, 8, 3))).all()
