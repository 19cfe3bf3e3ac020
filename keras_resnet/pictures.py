"""Picture files to upright pixels: formats, limits and the words of every refusal.

The format is known by a file's first bytes, never by its name. Of an animation, or of a file of
several pages, the first frame is read. Transparency and colour profiles are ignored: the stored
colours count. 16-bit values are reduced to their upper 8 bits, CMYK becomes RGB by Pillow's
formula, grayscale is the luma of ITU-R BT.601. ``training/data/decode.py`` computes the same in a
TensorFlow graph for JPEG and PNG.

A picture is turned upright by the orientation that is stored with it: EXIF in the application
segments at the beginning of a JPEG, in PNG's ``eXIf`` and in WebP, the tag of TIFF, the rotation
and mirroring of AVIF and HEIC. An orientation given only in XMP is ignored, as browsers do.

Limits are checked against the header, before any pixel is allocated: ``MAX_PIXELS`` for every
format. A baseline JPEG may have four times as many, because it can be decoded at a half, a
quarter or an eighth of its size in bounded memory; a JPEG of several scans (a progressive one)
cannot, because all of its coefficients are held in memory first.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet.text import path_text

# Pictures with more pixels are refused, or decoded at a fraction of their size (JPEG).
MAX_PIXELS = 100_000_000
# Of a baseline JPEG, as a multiple of MAX_PIXELS; 200 megapixels are what cameras of phones give.
JPEG_FACTOR = 4
# libjpeg decodes a JPEG at these fractions of its size.
JPEG_SCALES = (1, 2, 4, 8)
# Files are read into memory.
MAX_BYTES = 2**30
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WebP", "TIFF", "AVIF", "HEIC")
ORIENTATION_TAG = 0x0112
# Bytes that identify() needs.
HEAD = 64

# In the reserved field of a BMP that as_bmp writes, before the orientation.
BMP_MARK = b"kr"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_HEADER = b"Exif\0\0"
# EXIF of a JPEG is looked for if its header is in so many bytes from the beginning, where the
# standard wants it; a search of whole files would cost training some percent.
EXIF_WITHIN = 2**14
# Chunks of a PNG that define its pixels; no other chunk reaches the decoder.
PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
# Beginnings of files that are found among pictures and are not read.
FOREIGN = (
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"P4\n", "a PBM"),
    (b"P5\n", "a PGM"),
    (b"P6\n", "a PPM"),
    (b"<svg", "an SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype", "a web page (HTML)"),
    (b"<html", "a web page (HTML)"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file: git lfs pull"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"),
)


@dataclass(frozen=True)
class JpegHeader:
    """What is read of a JPEG before its first scan.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        components: 1 for grayscale, 3 for colour, 4 for CMYK.
        several_scans: Whether decoding needs all coefficients in memory: a progressive JPEG, or a
            sequential one whose components follow each other.
    """

    width: int
    height: int
    components: int
    several_scans: bool


# --- Formats ------------------------------------------------------------------------------------


def identify(data: bytes) -> str | None:
    """The format of a file, one of ``FORMATS``; ``None`` if it is none of them.

    Args:
        data: The file's content, or its first 64 bytes.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    if data.startswith(b"BM") and data[14:18] in _BITMAP_HEADERS:
        return "BMP"
    return None


# Lengths of the second header of a BMP.
_BITMAP_HEADERS = {struct.pack("<I", n) for n in (12, 16, 40, 52, 56, 64, 108, 124)}


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a picture of one of ``FORMATS``.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        return identify(file.read(HEAD)) is not None


def _of_brands(data: bytes) -> str | None:
    """AVIF or HEIC by the brands of an ISO base media file: the major one, then the others."""
    length = min(int.from_bytes(data[:4], "big"), len(data))
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))]
    for brand in brands:
        if brand in AVIF_BRANDS:
            return "AVIF"
        if brand in HEIC_BRANDS:
            return "HEIC"
    return None


def not_read(data: bytes) -> str:
    """Why a file of no supported format is refused, in words that follow its name."""
    start = data[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, kind in FOREIGN:
        if start.startswith(magic.lower()) or data.startswith(magic):
            return f"is {kind}; {SUPPORTED}"
    if data[4:8] == b"ftyp":
        return f"is a video (MP4, MOV or the like); {SUPPORTED}"
    return "is not a readable picture"


SUPPORTED = f"supported are {', '.join(FORMATS)}"


# --- Headers ------------------------------------------------------------------------------------


def find_problem(data: bytes) -> str | None:
    """Why a picture is refused by its header; its pixels are not decoded.

    Args:
        data: The file's content.

    Returns:
        Words that follow a file's name, such as "is empty", "is a PDF; supported are …" or
        "has more than 100,000,000 pixels"; ``None`` if the header is fine.
    """
    if not data:
        return "is empty"
    kind = identify(data)
    if kind is None:
        return not_read(data)
    try:
        return _problem_of_format(data, kind)
    except MemoryError:
        raise
    except Exception as error:  # whatever a plugin raises on a broken header
        return too_large() if _is_bomb(error) else broken(kind, error)


def _problem_of_format(data: bytes, kind: str) -> str | None:
    if kind == "JPEG":
        return _problem_of_jpeg(read_jpeg_header(data))
    if kind in _SIZES and _pixels(_SIZES[kind](data)) > MAX_PIXELS:
        return too_large()  # before WebP's decoder, which allocates its canvas at once
    if kind == "PNG":
        return None
    if missing := _missing_decoder(kind):
        return missing
    with _opened(data, kind) as picture:
        if _pixels(picture.size) > MAX_PIXELS:
            return too_large()
        if kind == "TIFF" and _is_raw_photograph(data, picture):
            return "is a raw photograph, of which only a preview can be read; export it as JPEG"
        if picture.mode not in _MODES:
            return (
                f"has pixels of a kind that is not read (Pillow's mode {picture.mode}); supported "
                "are 8 and 16 bits, grayscale, RGB or CMYK"
            )
    return None


def _problem_of_jpeg(header: JpegHeader) -> str | None:
    pixels = header.width * header.height
    if not pixels or header.components not in (1, 3, 4):
        return f"is cut off or broken inside (JPEG of {header.components} components)"
    if header.several_scans and pixels > MAX_PIXELS:
        return too_large_in_scans()
    return too_large(JPEG_FACTOR) if pixels > JPEG_FACTOR * MAX_PIXELS else None


def too_large(factor: int = 1) -> str:
    """The refusal of a picture above the limit: of a JPEG ``JPEG_FACTOR`` times ``MAX_PIXELS``."""
    return f"has more than {factor * MAX_PIXELS:,} pixels"


def too_large_in_scans() -> str:
    """The refusal of a progressive JPEG above the limit."""
    return f"has more than {MAX_PIXELS:,} pixels in several scans (a progressive JPEG)"


def broken(kind: str, error: Exception | None = None) -> str:
    """The refusal of a file that begins as its format and cannot be decoded."""
    reason = f": {' '.join(str(error).split())[:100]}" if error and str(error) else ""
    return f"is cut off or broken inside ({kind}{reason})"


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels as stored, before any turning, from the header.

    Raises:
        ValueError: ``find_problem`` finds one.
    """
    if problem := find_problem(data):
        raise ValueError(problem)
    kind = identify(data)
    if kind == "JPEG":
        header = read_jpeg_header(data)
        return header.width, header.height
    with _opened(data, str(kind)) as picture:
        return picture.size


def jpeg_scale(pixels: int) -> int:
    """The fraction at which a JPEG is decoded: 1, 2, 4 or 8, so that it keeps the limit."""
    return next(
        (scale for scale in JPEG_SCALES if pixels <= scale * scale * MAX_PIXELS), JPEG_SCALES[-1]
    )


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Size and kind of a JPEG.

    Raises:
        ValueError: It ends before its first scan.
    """
    frame = None
    for marker, segment in _jpeg_segments(data):
        if marker == 0xDA and frame:
            several = frame[0] in (0xC2, 0xC6, 0xCA, 0xCE) or segment[0] < frame[3]
            return JpegHeader(frame[2], frame[1], frame[3], several)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = (marker, *struct.unpack(">HHB", segment[1:6]))
    raise ValueError("it has no image")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment, up to the first scan."""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            at += 2
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            yield marker, data[at + 4 : at + 2 + length]
            if marker == 0xDA:
                return
            at += 2 + length


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("it has no header")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of each chunk, the last one possibly cut off."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("it has no image")


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


_SIZES = {"PNG": _png_size, "WebP": _webp_size, "GIF": _gif_size}


def _is_bomb(error: Exception) -> bool:
    """Whether Pillow's own limit, which is above ours, refused a frame."""
    from PIL import Image

    return isinstance(error, Image.DecompressionBombError)


def _is_raw_photograph(data: bytes, picture: Any) -> bool:
    """Whether a TIFF is a camera's raw file (DNG, CR2, NEF, ARW) that begins with a preview."""
    reduced = int(picture.tag_v2.get(254, 0)) & 1  # NewSubfileType
    return bool(reduced) or 50706 in picture.tag_v2 or data[8:10] == b"CR"  # DNGVersion; Canon


# --- Orientation --------------------------------------------------------------------------------


def stored_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG or PNG, 1 to 8; 1 if there is none or it is damaged."""
    if identify(data) == "JPEG":
        return exif_orientation(_jpeg_exif(data))
    for name, begin, end in _png_chunks(data):
        if name == b"eXIf":
            return exif_orientation(data[begin + 8 : end - 4])
        if name == b"IEND":
            break
    return 1


def _jpeg_exif(data: bytes) -> bytes:
    """Its first EXIF block, among the application segments and comments at the beginning."""
    if EXIF_HEADER not in data[:EXIF_WITHIN]:
        return b""
    for marker, segment in _jpeg_segments(data):
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            return b""
        if marker == 0xE1 and segment.startswith(EXIF_HEADER):
            return segment[len(EXIF_HEADER) :]
    return b""


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block; 1 if there is none or it is damaged.

    Args:
        exif: A TIFF structure: byte order, 42, and the position of the first directory, which
            holds entries of 12 bytes: tag, type, count, value. EXIF 2.32, section 4.6.2.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (begin,) = struct.unpack_from(f"{order}I", exif, 4)
    if begin + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, begin)
    orientation = 1
    for at in range(begin + 2, min(begin + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if (tag, kind, values) == (ORIENTATION_TAG, 3, 1):  # one SHORT
            orientation = value
    return orientation if 1 <= orientation <= 8 else 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns a stored picture ``(height, width, channels)`` upright.

    Args:
        pixels: Any type.
        orientation: EXIF's, 1 to 8: 1 is upright, 6 is to be turned a quarter clockwise.

    Returns:
        A view; height and width are exchanged from 5 on.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


# --- Pixels -------------------------------------------------------------------------------------

# Modes of Pillow that become RGB; others (float, 32-bit integers, Lab) are refused.
_MODES = (
    "1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr",
    "I;16", "I;16L", "I;16B",
)  # fmt: skip


def decode(
    source: str | os.PathLike[str] | bytes,
    channels: int = 3,
    orientation: str = "apply",
    name: str | None = None,
) -> np.ndarray:
    """The pixels of a picture file.

    Args:
        source: Path or content.
        channels: 3 for RGB or 1 for grayscale.
        orientation: ``"apply"`` turns the picture upright; ``"ignore"`` leaves it as it is stored
            (HEIC, whose rotation belongs to its decoding, is always upright).
        name: The source's name in messages: the path by default.

    Returns:
        uint8 ``(height, width, channels)``. A JPEG above ``MAX_PIXELS`` is decoded at a half, a
        quarter or an eighth of its size.

    Raises:
        ValueError: The file is missing, too large, broken or of a format that is not read; the
            message begins with its name.
    """
    pixels, stored = _decode_stored(source, channels, name)
    return turn(pixels, stored) if orientation == "apply" else pixels


def _decode_stored(
    source: str | os.PathLike[str] | bytes, channels: int, name: str | None
) -> tuple[np.ndarray, int]:
    """The pixels as they are stored, and the orientation by which ``turn`` makes them upright."""
    if name is None:
        name = "the given picture" if isinstance(source, bytes) else path_text(source)
    data = source if isinstance(source, bytes) else _read(source, name)
    if problem := find_problem(data):
        raise ValueError(f"{name} {problem}")
    kind = str(identify(data))
    try:
        return _decoded(data, kind, channels)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder raises on a broken file
        raise ValueError(f"{name} {broken(kind, error)}") from None


def as_bmp(source: str | os.PathLike[str] | bytes) -> bytes:
    """A picture file as a 24-bit BMP of the same stored pixels.

    A BMP has no orientation; it is written into a field that programs leave empty, where
    ``decode`` finds it.

    Args:
        source: As for ``decode``, which says what is raised.
    """
    from PIL import Image

    pixels, orientation = _decode_stored(source, 3, None)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "BMP")
    data = file.getvalue()
    return data[:6] + BMP_MARK + bytes([orientation, 0]) + data[10:]


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(HEAD)
            if identify(data):  # a video under a picture's name is not read whole
                data += file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ValueError(f"There is no file {name}") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder, not a picture") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} has more than {MAX_BYTES:,} bytes")
    return data


def _decoded(data: bytes, kind: str, channels: int) -> tuple[np.ndarray, int]:
    with _opened(data, kind) as picture:
        stored = _orientation_of(data, kind, picture)
        if kind == "JPEG" and (scale := jpeg_scale(_pixels(picture.size))) > 1:
            width, height = picture.size
            picture.draft(None, (width // scale, height // scale))
        picture.load()
        pixels = np.asarray(_to_channels(picture, channels))
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if kind == "TIFF":  # which Pillow has turned
        pixels = turn(pixels, _REVERSE.get(stored, stored))
    return pixels, stored


def _to_channels(picture: Any, channels: int) -> Any:
    from PIL import Image

    # The stored colours count; Pillow would warn of, or mix in, what is transparent.
    picture.info.pop("transparency", None)
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype("uint8"))
    rgb = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    return rgb.convert("L" if channels == 1 else "RGB")


# The orientations that turn a picture back; the others are their own reverse.
_REVERSE = {6: 8, 8: 6}


def _orientation_of(data: bytes, kind: str, picture: Any) -> int:
    if kind in ("JPEG", "PNG"):
        return stored_orientation(data)
    if kind in ("WebP", "AVIF"):
        return exif_orientation(picture.info.get("exif", b"").removeprefix(EXIF_HEADER))
    if kind == "TIFF":
        value = picture.tag_v2.get(ORIENTATION_TAG, 1)
        return value if value in range(1, 9) else 1
    if kind == "BMP" and data[6:8] == BMP_MARK and data[8] in range(1, 9):
        return data[8]
    return 1


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


@contextmanager
def _opened(data: bytes, kind: str) -> Iterator[Any]:
    """Opens a file through the plugin of its format: no pixels are decoded.

    ``Image.open`` would try other formats too, and compare with a limit of its own.
    """
    if kind == "PNG":
        # The name, length and checksum of other chunks, and what they unpack to, do not matter.
        chunks = (data[begin:end] for n, begin, end in _png_chunks(data) if n in PNG_CRITICAL)
        data = PNG_SIGNATURE + b"".join(chunks)
    plugin = _plugin(kind)
    with _without_warnings(kind):
        picture = plugin(io.BytesIO(data))
        if kind == "TIFF":
            dict(picture.tag_v2)  # each tag is parsed, and warned of, when it is first read
            _forget_metadata(picture)
    try:
        yield picture
    finally:
        picture.close()


def _forget_metadata(picture: Any) -> None:
    """Leaves a TIFF only the orientation, by which Pillow turns it, of its EXIF and XMP."""
    from PIL import Image

    exif = Image.Exif()
    exif._loaded = True
    if ORIENTATION_TAG in picture.tag_v2:
        exif[ORIENTATION_TAG] = picture.tag_v2[ORIENTATION_TAG]
    picture._exif = exif


@functools.cache
def _plugin(kind: str) -> Any:
    """The class of Pillow that opens a format."""
    from PIL import (
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    if kind == "HEIC":
        from pillow_heif import HeifImageFile

        return HeifImageFile

    class Jpeg(JpegImagePlugin.JpegImageFile):
        """Without the resolution that EXIF gives, whose parsing warns."""

        def _read_dpi_from_exif(self) -> None:
            pass

    return {
        "JPEG": Jpeg,
        "PNG": PngImagePlugin.PngImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
    }[kind]


def _missing_decoder(kind: str) -> str | None:
    """What is to be installed to read a format."""
    from PIL import features

    if kind == "HEIC":
        try:
            import pillow_heif  # noqa: F401
        except ImportError:
            return "is a HEIC, which needs pillow-heif: pip install 'keras-resnet[heif]'"
    if kind in ("WebP", "AVIF") and not features.check(kind.lower()):
        return f"is a {kind}, which this build of Pillow cannot read: pip install --upgrade pillow"
    return None


_WARNINGS = threading.Lock()
# Their headers are read with warnings that name no file.
_WARNED_OF = ("GIF", "TIFF")


@contextmanager
def _without_warnings(kind: str) -> Iterator[None]:
    """Drops Pillow's warnings while a header is parsed; others are passed on.

    Filters of warnings belong to the process: one thread at a time changes them, for a moment.
    """
    if kind not in _WARNED_OF:
        yield
        return
    with _WARNINGS, warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if f"{os.sep}PIL{os.sep}" not in warning.filename:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
