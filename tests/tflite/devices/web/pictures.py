"""Picture files with known upright pixels: every format and mode, most written by Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

SIZE = (13, 22)  # height and width as stored; odd, so that halves and padding are met
ORIENTATIONS = range(1, 9)
ORIENTED = ("JPEG", "PNG", "WEBP", "AVIF")

# First column and row of each pass of an interlaced PNG, and the steps.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True)
class Picture:
    """One file.

    Attributes:
        content: Its bytes.
        stored: uint8 ``(height, width, 3)`` as stored, not turned.
        orientation: EXIF's.
        tolerance: Largest difference of two right decoders: 0 if the format is lossless.
    """

    content: bytes
    stored: np.ndarray
    orientation: int = 1
    tolerance: int = 0

    @property
    def upright(self) -> np.ndarray:
        """As Pillow's ``exif_transpose`` turns it."""
        method = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }.get(self.orientation)
        picture = Image.fromarray(self.stored)
        return np.asarray(picture if method is None else picture.transpose(method))


def smooth() -> np.ndarray:
    """Colours that survive subsampling of the chroma: neighbours differ by a few steps."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([40 + 9 * x, 220 - 14 * y, 90 + 3 * x + 5 * y], -1).astype("uint8")


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), "uint8")


def alphas() -> np.ndarray:
    """From transparent to opaque."""
    return np.random.default_rng(1).choice(np.array([0, 1, 128, 254, 255], "uint8"), SIZE)


def with_alpha(colours: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alphas()]))


def palette() -> Image.Image:
    return Image.fromarray(noise()).quantize(64)


def profile() -> bytes:
    """A colour profile that exchanges red and green: who follows it is found out."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


def table() -> dict[str, Picture]:
    """All files by a name that tells format, mode and orientation."""
    pictures = dict(_made_by_hand())
    for name, (image, format, options, tolerance) in _written().items():
        for orientation in ORIENTATIONS if format in ORIENTED else (1,):
            content = _saved(image, format, orientation, options)
            pictures[f"{name}, {orientation}"] = Picture(
                content, _stored_colours(image, content, format, tolerance), orientation, tolerance
            )
    return pictures


def _written() -> dict[str, tuple[Image.Image, str, dict[str, object], int]]:
    """Image, format, options of Pillow's save, tolerance."""
    rgb, flat = Image.fromarray(noise()), Image.fromarray(smooth())
    grey, black = rgb.convert("L"), rgb.convert("L").point(lambda v: 255 * (v > 99), "1")
    both = Image.merge("LA", (grey, Image.fromarray(alphas())))
    deep = Image.fromarray(
        np.random.default_rng(2).integers(0, 65536, SIZE, "uint16").astype("uint16")
    )
    other = Image.fromarray(noise(3))
    clear = {"transparency": bytes(range(0, 256, 4))}
    cmyk = Image.merge("CMYK", [Image.fromarray(smooth()[..., i // 2]) for i in range(4)])
    return {
        "JPEG grey": (flat.convert("L"), "JPEG", {}, 1),
        "JPEG colour": (flat, "JPEG", {"quality": 90}, 1),
        "JPEG whole chroma": (rgb, "JPEG", {"quality": 90, "subsampling": 0}, 1),
        "JPEG as RGB": (rgb, "JPEG", {"quality": 90, "keep_rgb": True}, 1),
        "JPEG progressive": (flat, "JPEG", {"progressive": True}, 1),
        "JPEG CMYK": (cmyk, "JPEG", {"quality": 95}, 1),
        "JPEG with a profile": (flat, "JPEG", {"icc_profile": profile()}, 1),
        "PNG 1": (black, "PNG", {}, 0),
        "PNG L": (grey, "PNG", {}, 0),
        "PNG L keyed": (grey, "PNG", {"transparency": grey.getpixel((0, 0))}, 0),
        "PNG LA": (both, "PNG", {}, 0),
        "PNG P": (palette(), "PNG", {}, 0),
        "PNG P transparent": (palette(), "PNG", clear, 0),
        "PNG P of 2 bits": (rgb.quantize(4), "PNG", {"bits": 2}, 0),
        "PNG RGB": (rgb, "PNG", {}, 0),
        "PNG RGB keyed": (rgb, "PNG", {"transparency": rgb.getpixel((0, 0))}, 0),
        "PNG RGBA": (with_alpha(noise()), "PNG", {}, 0),
        "PNG I;16": (deep, "PNG", {}, 0),
        "PNG with a profile": (rgb, "PNG", {"icc_profile": profile()}, 0),
        "PNG animated": (rgb, "PNG", {"save_all": True, "append_images": [other]}, 0),
        "BMP 1": (black, "BMP", {}, 0),
        "BMP L": (grey, "BMP", {}, 0),
        "BMP P": (palette(), "BMP", {}, 0),
        "BMP RGB": (rgb, "BMP", {}, 0),
        "BMP RGBA": (with_alpha(noise()), "BMP", {}, 0),
        "GIF 1": (black, "GIF", {}, 0),
        "GIF L": (grey, "GIF", {}, 0),
        "GIF P": (palette(), "GIF", {}, 0),
        "GIF P transparent": (palette(), "GIF", {"transparency": 5}, 0),
        "GIF interlaced": (palette(), "GIF", {"interlace": True}, 0),
        "GIF animated": (
            palette(),
            "GIF",
            {"save_all": True, "append_images": [other.quantize(64)], "transparency": 3},
            0,
        ),
        "WebP RGB lossless": (rgb, "WEBP", {"lossless": True}, 0),
        "WebP RGBA lossless": (with_alpha(noise()), "WEBP", {"lossless": True, "exact": True}, 0),
        "WebP RGB": (flat, "WEBP", {"quality": 90}, 1),
        "WebP RGBA": (with_alpha(smooth()), "WEBP", {"quality": 90, "exact": True}, 1),
        "WebP with a profile": (rgb, "WEBP", {"lossless": True, "icc_profile": profile()}, 0),
        "WebP animated": (
            with_alpha(noise()),
            "WEBP",
            {"lossless": True, "exact": True, "save_all": True, "append_images": [other]},
            0,
        ),
        "AVIF RGB": (flat, "AVIF", {"quality": 90}, 1),
        "AVIF RGB whole chroma": (rgb, "AVIF", {"quality": 90, "subsampling": "4:4:4"}, 1),
        "AVIF L": (flat.convert("L"), "AVIF", {"quality": 90}, 1),
        "AVIF RGBA": (with_alpha(smooth()), "AVIF", {"quality": 90}, 1),
        "AVIF with a profile": (flat, "AVIF", {"icc_profile": profile()}, 1),
    }


def _saved(image: Image.Image, format: str, orientation: int, options: dict[str, object]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, format, **options, **({"exif": exif} if format in ORIENTED else {}))
    return file.getvalue()


def _stored_colours(image: Image.Image, content: bytes, format: str, tolerance: int) -> np.ndarray:
    """Of a lossless format those that were written, of others those that Pillow decodes."""
    rewritten = format == "WEBP" and b"ANMF" in content  # transparent pixels, by the encoder
    if tolerance or rewritten:
        image = Image.open(io.BytesIO(content), formats=[format])
        image.load()
    image.info.pop("transparency", None)
    if image.mode.startswith("I"):
        return np.dstack([(np.asarray(image) >> 8).astype("uint8")] * 3)
    return np.asarray(image.convert("RGB"))


# --- What Pillow does not write -------------------------------------------------------------------


def _made_by_hand() -> Iterator[tuple[str, Picture]]:
    deep = np.random.default_rng(4).integers(0, 65536, (*SIZE, 4), "uint16").astype(">u2")
    upper = (deep[..., :3] >> 8).astype("uint8")
    yield "PNG RGB of 16 bits", Picture(png(deep[..., :3].tobytes(), 16, 2), upper)
    yield "PNG RGBA of 16 bits", Picture(png(deep.tobytes(), 16, 6), upper)
    grey = np.dstack([upper[..., 0]] * 3)
    both = np.ascontiguousarray(deep[..., [0, 3]])
    yield "PNG LA of 16 bits", Picture(png(both.tobytes(), 16, 4), grey)
    gamma = ((b"gAMA", struct.pack(">I", 100000)), (b"sBIT", b"\5\5\5"))
    yield "PNG with gamma", Picture(png(noise().tobytes(), 8, 2, gamma), noise())
    yield "PNG interlaced", Picture(interlaced(noise()), noise())
    levels = np.random.default_rng(5).integers(0, 4, SIZE, "uint8")
    packed = np.pad(levels, ((0, 0), (0, -SIZE[1] % 4))).reshape(SIZE[0], -1, 4)
    rows = (packed << np.array([6, 4, 2, 0], "uint8")).sum(-1, dtype="uint8")
    yield "PNG L of 2 bits", Picture(png(rows.tobytes(), 2, 0), np.dstack([levels * 85] * 3))
    for bits, masks in ((555, ()), (565, (0xF800, 0x7E0, 0x1F))):
        content, colours = bmp_of_16_bits(bits, masks)
        yield f"BMP of {bits} bits", Picture(content, colours)
    content, colours = bmp_of_runs()
    yield "BMP of runs", Picture(content, colours)
    upside_down = bytearray(_bmp(noise()[..., ::-1].tobytes(), 24))
    upside_down[22:26] = struct.pack("<i", -SIZE[0])
    yield "BMP from the top", Picture(bytes(upside_down), noise())
    yield from _small_frames()


def png(
    rows: bytes, depth: int, colours: int, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A PNG of raw rows, unfiltered; Pillow's have all filters."""
    stride = len(rows) // SIZE[0]
    lines = b"".join(b"\0" + rows[i : i + stride] for i in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], depth, colours, 0, 0, 0)
    return _png(header, lines, chunks)


def interlaced(colours: np.ndarray) -> bytes:
    lines = b"".join(
        b"\0" + row.tobytes() for x, y, dx, dy in ADAM7 for row in colours[y::dy, x::dx]
    )
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 8, 2, 0, 0, 1)
    return _png(header, lines, ())


def _png(header: bytes, lines: bytes, chunks: tuple[tuple[bytes, bytes], ...]) -> bytes:
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def _bmp(
    rows: bytes, bits: int, compression: int = 0, extra: bytes = b"", colours: int = 0
) -> bytes:
    """Of rows from the top; a BMP holds them as they are, padded to 4 bytes."""
    if compression in (0, 3):
        stride = len(rows) // SIZE[0]
        pad = bytes(-stride % 4)
        rows = b"".join(rows[i : i + stride] + pad for i in range(0, len(rows), stride))
    offset = 54 + len(extra)
    head = struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset)
    info = (40, SIZE[1], SIZE[0], 1, bits, compression, len(rows), 2835, 2835, colours, 0)
    return head + struct.pack("<IiiHHIIiiII", *info) + extra + rows


def bmp_of_16_bits(bits: int, masks: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(6).integers(0, 65536, SIZE, "uint16")
    green = 6 if bits == 565 else 5
    fields = ((pixels >> (5 + green), 31), (pixels >> 5, 2**green - 1), (pixels, 31))
    colours = np.stack([(v & most).astype(int) * 255 // most for v, most in fields], -1)
    extra = struct.pack("<III", *masks) if masks else b""
    content = _bmp(pixels[::-1].astype("<u2").tobytes(), 16, 3 if masks else 0, extra)
    return content, colours.astype("uint8")


def bmp_of_runs() -> tuple[bytes, np.ndarray]:
    """RLE8: runs, and absolute pixels, row by row from the bottom."""
    height, width = SIZE
    indices = np.repeat(np.arange(height, dtype="uint8")[:, None], width, 1)
    indices[:, :5] = np.arange(5)
    rows = b"".join(bytes([0, 5, *row[:5], 0, width - 5, row[5], 0, 0]) for row in indices[::-1])
    colours = np.random.default_rng(7).integers(0, 256, (16, 3), "uint8")
    table = np.pad(colours[:, ::-1], ((0, 0), (0, 1))).tobytes()
    return _bmp(rows + b"\0\1", 8, 1, table, 16), colours[indices]


def _small_frames() -> Iterator[tuple[str, Picture]]:
    """Animations whose first frame is smaller than the canvas."""
    for transparency in (None, 3):
        image = palette()
        options = {} if transparency is None else {"transparency": transparency}
        file = io.BytesIO()
        image.save(file, "GIF", **options)
        content = bytearray(file.getvalue())
        content[6:10] = struct.pack("<HH", SIZE[1] + 3, SIZE[0] + 2)
        at = content.index(b"\x2c\0\0\0\0")
        content[at + 1 : at + 5] = struct.pack("<HH", 1, 2)
        with Image.open(io.BytesIO(content)) as read:
            read.info.pop("transparency", None)
            around = np.asarray(read.convert("RGB"))
        image.info.clear()
        np.testing.assert_array_equal(around[2:, 1:-2], np.asarray(image.convert("RGB")))
        yield f"GIF of a small frame, {transparency}", Picture(bytes(content), around)


# --- Headers of pictures that are too large to be decoded -----------------------------------------


def large_png(width: int, height: int) -> bytes:
    return _png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"", ())


def large_gif(width: int, height: int) -> bytes:
    content = bytearray(_saved(palette(), "GIF", 1, {}))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def large_bmp(width: int, height: int) -> bytes:
    content = bytearray(_bmp(noise().tobytes(), 24))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def large_webp(width: int, height: int) -> bytes:
    content = bytearray(_saved(Image.fromarray(noise()), "WEBP", 6, {"lossless": True}))
    content[24:27] = struct.pack("<I", width - 1)[:3]
    content[27:30] = struct.pack("<I", height - 1)[:3]
    return bytes(content)


def large_jpeg(width: int, height: int, progressive: bool = False) -> bytes:
    options = {"progressive": progressive}
    content = bytearray(_saved(Image.fromarray(smooth()), "JPEG", 1, options))
    at = content.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)
