"""The page reads the pixels that Python reads: every format, mode and orientation, in Chromium."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_resnet import pictures
from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from tests.tflite.devices.web.chromium import drive
from tests.tflite.devices.web.pictures import (
    ORIENTATIONS,
    SIZE,
    large_bmp,
    large_gif,
    large_jpeg,
    large_png,
    large_webp,
    table,
)

# In `make test-all`, as it needs npm and a browser.
pytestmark = pytest.mark.slow

TABLE = table()


def whole(size: tuple[int, ...], **changes: Any) -> Contract:
    """The whole picture, not resized."""
    return Contract(size[0], size[1], resize="stretch", crop_fraction=1.0, **changes)


def in_chromium(folder: Path, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page makes of files: for each ``{pixels, size, error}``."""
    return drive("drive_pixels.mjs", folder, pages=pages)


def pixels(shown: dict[str, Any], channels: int = 3) -> np.ndarray:
    return np.frombuffer(base64.b64decode(shown["pixels"]), "uint8").reshape(
        *shown["size"], channels
    )


@dataclass(frozen=True)
class Case:
    """A file given to the page.

    Attributes:
        removed: What the browser lacks.
    """

    content: bytes
    contract: Contract
    name: str = "a.picture"
    removed: tuple[str, ...] = ()


def _turned() -> dict[str, Case]:
    """Every picture, in both orientations of a contract, whole."""
    cases = {}
    for name, picture in TABLE.items():
        for orientation, expected in (("apply", picture.upright), ("ignore", picture.stored)):
            contract = whole(expected.shape, orientation=orientation)
            cases[f"{name}, {orientation}"] = Case(picture.content, contract)
    return cases


# Turned, then cropped off centre and resized: a box that is not the whole picture.
FITS = {
    "crop": Contract(9, 5, crop_fraction=0.875),
    "bicubic": Contract(7, 12, crop_fraction=0.6, interpolation="bicubic"),
    "grey": Contract(8, 8, 1, mean=(0.0,), std=(1.0,)),
    "as stored": Contract(10, 5, orientation="ignore"),
}
FITTED = {
    f"{kind}, {orientation}, {rule}": Case(TABLE[f"{kind}, {orientation}"].content, contract)
    for kind in ("PNG RGBA", "JPEG colour", "WebP RGBA lossless", "AVIF RGBA", "JPEG CMYK")
    for orientation in ORIENTATIONS
    for rule, contract in FITS.items()
}
ANY = whole(SIZE)
# Without WebCodecs, and without WebGL too.
FALLBACKS = {
    f"{name}, {' and '.join(removed)}": Case(TABLE[name].content, ANY, name, removed)
    for removed in (("ImageDecoder",), ("ImageDecoder", "WebGL"))
    for name in ("PNG RGBA, 1", "WebP RGBA, 1", "AVIF RGBA, 1", "WebP RGBA lossless, 1")
}
# Files that Python refuses too, in the same words.
FOREIGN_FILES = {
    **{f"{kind}, {magic!r}": magic + bytes(100) for magic, kind in pictures.FOREIGN},
    "empty": b"",
    "text": b"not a picture",
    "a video": b"\0\0\0\x18ftypmp42" + bytes(100),
    "SVG after a mark": b"\xef\xbb\xbf  <SVG xmlns='a'>",
    "too large a PNG": large_png(20_000, 5_001),
    "too large a GIF": large_gif(20_000, 5_001),
    "too large a BMP": large_bmp(20_000, 5_001),
    "too large a WebP": large_webp(10_001, 10_001),
    "too large a JPEG": large_jpeg(20_001, 20_000),
    "too large a progressive JPEG": large_jpeg(10_001, 10_000, progressive=True),
}
# Formats that Python reads and browsers do not.
ONLY_PYTHON = {
    "TIFF": b"II*\0" + bytes(60),
    "big TIFF": b"MM\0+" + bytes(60),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60),
    "HEIC by another brand": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(60),
}
WHOLE_FILES = (
    "JPEG colour, 1", "JPEG progressive, 1", "PNG RGB, 1", "PNG P, 1", "BMP RGB, 1", "BMP P, 1",
    "BMP of runs", "GIF P, 1", "WebP RGB, 1", "WebP RGB lossless, 1", "AVIF RGB, 1",
)  # fmt: skip
CUT_OFF = {
    f"{name}, {percent} %": TABLE[name].content[: len(TABLE[name].content) * percent // 100]
    for name in WHOLE_FILES
    for percent in (20, 50, 80, 95)
}


def _changed() -> dict[str, bytes]:
    """Files with a byte or two changed, most of them near the beginning."""
    random = np.random.default_rng(0)
    changed = {}
    for number in range(600):
        name = WHOLE_FILES[number % len(WHOLE_FILES)]
        content = bytearray(TABLE[name].content)
        for _ in range(random.integers(1, 3)):
            near = min(len(content), int(random.choice((64, 200, 5000))))
            content[random.integers(near)] = random.choice((0, 1, 255, random.integers(256)))
        changed[f"{name}, changed {number}"] = bytes(content)
    return changed


CHANGED = _changed()


def _all() -> dict[str, Case]:
    others = {**FOREIGN_FILES, **ONLY_PYTHON, **CUT_OFF, **CHANGED}
    return {
        **_turned(),
        **FITTED,
        **FALLBACKS,
        **{name: Case(content, ANY) for name, content in others.items()},
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the page makes of every case, in one session: starting a browser takes time."""
    folder = tmp_path_factory.mktemp("pixels")
    cases = _all()
    pages: dict[tuple[str, ...], dict[str, Any]] = {}
    names = []
    for removed in sorted({case.removed for case in cases.values()}):
        files = []
        for name, case in cases.items():
            if case.removed == removed:
                path = folder / str(len(names))
                path.write_bytes(case.content)
                contract = asdict(case.contract)
                files.append({"file": str(path), "name": case.name, "contract": contract})
                names.append(name)
        pages[removed] = {"removed": removed, "files": files}
    return dict(zip(names, in_chromium(folder, list(pages.values())), strict=True))


Seen = dict[str, dict[str, Any]]


@pytest.mark.parametrize("orientation", ("apply", "ignore"))
@pytest.mark.parametrize("name", TABLE)
def test_pixels_are_those_of_the_file(seen: Seen, name: str, orientation: str) -> None:
    picture = TABLE[name]
    expected = picture.upright if orientation == "apply" else picture.stored
    shown = seen[f"{name}, {orientation}"]
    assert shown["error"] == ""
    difference = np.abs(pixels(shown).astype(int) - expected)
    assert difference.max() <= picture.tolerance


@pytest.mark.parametrize("orientation", ("apply", "ignore"))
@pytest.mark.parametrize("name", TABLE)
def test_pixels_are_those_that_python_reads(seen: Seen, name: str, orientation: str) -> None:
    picture = TABLE[name]
    shown = seen[f"{name}, {orientation}"]
    contract = whole(tuple(shown["size"]), orientation=orientation)
    difference = np.abs(pixels(shown).astype(int) - load_image(picture.content, contract))
    assert difference.max() <= picture.tolerance


@pytest.mark.parametrize("name", FITTED)
def test_box_of_the_upright_picture_is_cut_and_resized(seen: Seen, name: str) -> None:
    case, shown = FITTED[name], seen[name]
    assert shown["error"] == ""
    expected = load_image(case.content, case.contract)
    assert tuple(shown["size"]) == expected.shape[:2]
    difference = np.abs(pixels(shown, case.contract.channels).astype(int) - expected)
    # A JPEG's decoder may differ by 1, and the resized values by their rounding.
    assert difference.max() <= (2 if name.startswith(("JPEG", "AVIF")) else 1)


@pytest.mark.parametrize("name", FALLBACKS)
def test_browser_without_decoders_reads_the_same_or_says_so(seen: Seen, name: str) -> None:
    case, shown = FALLBACKS[name], seen[name]
    if "WebP RGBA lossless" in name and "WebGL" in case.removed:
        assert shown["error"] == (
            f"{case.name} has colours that this browser cannot give exactly. "
            "Save it without transparency"
        )
        return
    assert shown["error"] == ""
    picture = TABLE[case.name]
    assert np.abs(pixels(shown).astype(int) - picture.upright).max() <= picture.tolerance


@pytest.mark.parametrize("name", FOREIGN_FILES)
def test_refusals_are_those_of_python(seen: Seen, name: str) -> None:
    with pytest.raises(ValueError) as error:
        pictures.decode(FOREIGN_FILES[name], name="a.picture")
    words = str(error.value)
    if "too large a" in name:  # JPEGs of up to four times as many pixels are scaled by Python
        words = f"a.picture has more than {pictures.MAX_PIXELS:,} pixels"
        assert str(error.value).startswith("a.picture has more than ")
    else:
        words = words.replace(pictures.SUPPORTED, HERE_SUPPORTED)
    assert seen[name]["error"] == words


@pytest.mark.parametrize("name", ONLY_PYTHON)
def test_formats_that_browsers_cannot_read_are_refused_by_their_name(seen: Seen, name: str) -> None:
    kind = pictures.identify(ONLY_PYTHON[name])
    assert seen[name]["error"] == f"a.picture is a {kind}; {HERE_SUPPORTED}"


HERE_SUPPORTED = "supported are JPEG, PNG, BMP, GIF, WebP, AVIF"


@pytest.mark.parametrize("name", CUT_OFF)
def test_file_that_is_cut_off_is_refused_as_by_python(seen: Seen, name: str) -> None:
    with pytest.raises(ValueError, match="is cut off or broken inside"):
        pictures.decode(CUT_OFF[name], name="a.picture")
    kind = name.split()[0]
    assert seen[name]["error"].startswith(f"a.picture is cut off or broken inside ({kind}")


def test_changed_file_never_gives_other_pixels(seen: Seen) -> None:
    """Either may refuse a broken file that the other one still reads."""
    both = 0
    for name, content in CHANGED.items():
        shown = seen[name]
        try:
            expected = load_image(content, ANY)
        except ValueError:
            continue
        if not shown["error"]:
            both += 1
            difference = np.abs(pixels(shown).astype(int) - expected)
            assert difference.max() <= TABLE[name.rpartition(",")[0]].tolerance, name
    assert both > 100
