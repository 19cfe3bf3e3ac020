"""Image files to pixels, and the crop and resize of evaluation; training crops: augment/crop.py.

A TensorFlow graph that computes what ``keras_resnet/pictures.py`` computes: the same upright RGB,
the same limits and the same words of refusal. TensorFlow decodes JPEG and PNG; for training, Pillow
decodes every other format.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import tensorflow as tf

from keras_resnet import pictures
from keras_resnet.contract import Contract, crop_box
from training.data.orientation import (
    jpeg_orientation,
    png_orientation,
    rarely,
    stored_box,
    turn,
    upright_shape,
)

# A JPEG segment that says: CMYK is stored inverted, as Adobe's programs do. Pillow assumes it of
# every CMYK JPEG; an own segment of the file comes later and is used instead.
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
# A picture with sides up to this is not above the limit.
USUAL_SIDE = math.isqrt(pictures.MAX_PIXELS)
# Pictures with more values become grayscale row by row: in 32-bit integers, they take gigabytes.
LARGE = 2**24


def decode(image: tf.Tensor, channels: int, orientation: str = "apply") -> tf.Tensor:
    """The whole image, upright.

    Args:
        image: The bytes of an image file, or uint8 ``(height, width, channels)``, which is
            returned unchanged.
        channels: 3 for RGB or 1 for grayscale.
        orientation: ``"apply"`` or ``"ignore"``, as in the contract.

    Returns:
        uint8 ``(height, width, channels)``, as ``keras_resnet.pictures.decode`` returns it.
    """
    if image.dtype != tf.string:
        return image
    pixels, stored = decode_stored(image, orientation)
    return to_channels(turn(pixels, stored), channels)


def fit_image(image: tf.Tensor, contract: Contract, by_pillow: bool = True) -> tf.Tensor:
    """Crops and resizes by the contract; ``keras_resnet.load_image`` as a TensorFlow graph.

    Args:
        image: uint8 ``(height, width, channels)``, or the bytes of an image file.
        contract: That of the model.
        by_pillow: Whether Pillow decodes what is neither JPEG nor PNG; otherwise it is refused,
            and the graph runs without Python.

    Returns:
        uint8 ``(contract.height, contract.width, channels)``.
    """
    if image.dtype != tf.string:
        return _resize(_crop(image, contract), contract)
    pixels, stored = decode_stored(image, contract.orientation, by_pillow)

    def turned() -> tf.Tensor:
        shape = tf.shape(pixels)[:2]
        tall, wide = tf.unstack(upright_shape(shape, stored))
        box = tf.stack(crop_box(tall, wide, contract))
        top, left, height, width = tf.unstack(stored_box(box, shape, stored))
        return turn(pixels[top : top + height, left : left + width], stored)

    box = tf.cond(tf.equal(stored, 1), lambda: _crop(pixels, contract), rarely(turned))
    return _resize(to_channels(box, contract.channels), contract)


def decode_stored(
    image: tf.Tensor, orientation: str, by_pillow: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels of a file as they are stored, and how to turn them upright.

    Args:
        image: The bytes of an image file.
        orientation: ``"apply"`` or ``"ignore"``.
        by_pillow: As for ``fit_image``.

    Returns:
        uint8 ``(height, width, 3)``, and an int32 scalar for ``orientation.turn``: 1 if they are
        upright, or orientation is ignored.
    """
    ignored = orientation == "ignore"

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        return _decode_jpeg(image), _upright() if ignored else jpeg_orientation(image)

    def png() -> tuple[tf.Tensor, tf.Tensor]:
        return _decode_png(image), _upright() if ignored else png_orientation(image)

    def other() -> tuple[tf.Tensor, tf.Tensor]:
        if not by_pillow:
            return _refuse(image), _upright()
        decode = partial(_decode_by_pillow, orientation=orientation)
        pixels = tf.numpy_function(decode, [image], "uint8", stateful=False)
        return tf.ensure_shape(pixels, (None, None, 3)), _upright()

    is_png = starts(image, pictures.PNG_SIGNATURE)
    no_jpeg = rarely(lambda: tf.cond(is_png, png, rarely(other)))
    pixels, stored = tf.cond(tf.io.is_jpeg(image), jpeg, no_jpeg)
    pixels.set_shape((None, None, 3))
    return pixels, stored


def readable_jpeg(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes of a JPEG such that TensorFlow's decoder gives Pillow's colours.

    Returns:
        The bytes, and its shape as stored, int32 ``(height, width, channels)``.

    Raises:
        tf.errors.InvalidArgumentError: In the graph: it is above the limits.
    """
    shape = tf.io.extract_jpeg_shape(image)

    def unusual() -> tf.Tensor:
        with tf.control_dependencies([_check_jpeg(image, shape)]):
            return tf.cond(
                tf.equal(shape[2], 4),
                lambda: tf.strings.join([b"\xff\xd8", ADOBE, tf.strings.substr(image, 2, -1)]),
                lambda: tf.identity(image),
            )

    return tf.cond(is_usual_jpeg(shape), lambda: image, rarely(unusual)), shape


def is_usual_jpeg(shape: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG is surely not CMYK and not above the limit of pixels.

    Args:
        shape: int32 height, width and channels, from ``tf.io.extract_jpeg_shape``.
    """
    # Two operations: in an input pipeline the number of operations is what costs time.
    return tf.reduce_all(shape <= (USUAL_SIDE, USUAL_SIDE, 3))


def count_pixels(image: tf.Tensor) -> tf.Tensor:
    """Pixels of a JPEG or PNG by its header, an int64 scalar; 0 for other files."""

    def jpeg() -> tf.Tensor:
        return _pixels(tf.io.extract_jpeg_shape(image))

    def other() -> tf.Tensor:
        is_png = starts(image, pictures.PNG_SIGNATURE) & (tf.strings.length(image) >= 24)
        return tf.cond(is_png, lambda: png_pixels(image), lambda: tf.constant(0, "int64"))

    return tf.cond(tf.io.is_jpeg(image), jpeg, other)


def to_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB ``(height, width, 3)`` as it is for 3 channels, as luma for 1."""
    pixels.set_shape((None, None, 3))
    if channels == 3:
        return pixels
    return tf.cond(
        tf.size(pixels) > LARGE,
        rarely(lambda: tf.map_fn(_luma, pixels, fn_output_signature="uint8")),
        lambda: _luma(pixels),
    )


def _decode_jpeg(image: tf.Tensor) -> tf.Tensor:
    image, shape = readable_jpeg(image)
    limits = [scale * scale * pictures.MAX_PIXELS for scale in pictures.JPEG_SCALES[:-1]]

    def read_at(scale: int) -> tf.Tensor:
        # The accurate DCT is the one that Pillow and phones use.
        return tf.io.decode_jpeg(image, 3, ratio=scale, dct_method="INTEGER_ACCURATE")

    def smaller() -> tf.Tensor:
        which = tf.add_n([tf.cast(_pixels(shape) > limit, "int32") for limit in limits[1:]])
        scales = pictures.JPEG_SCALES[1:]
        return tf.switch_case(which, [partial(read_at, scale) for scale in scales])

    return tf.cond(_pixels(shape) <= limits[0], lambda: read_at(1), rarely(smaller))


def _check_jpeg(image: tf.Tensor, shape: tf.Tensor) -> tf.Operation:
    limit = pictures.MAX_PIXELS
    most = pictures.JPEG_FACTOR * limit
    with tf.control_dependencies(
        [tf.debugging.Assert(_pixels(shape) <= most, [pictures.too_large(pictures.JPEG_FACTOR)])]
    ):
        fine = tf.cond(
            _pixels(shape) <= limit, lambda: True, lambda: tf.logical_not(_several_scans(image))
        )
    return tf.debugging.Assert(fine, [pictures.too_large_in_scans()])


def _decode_png(image: tf.Tensor) -> tf.Tensor:
    whole = tf.debugging.Assert(tf.strings.length(image) >= 24, [pictures.broken("PNG")])
    with tf.control_dependencies([whole]):
        small = png_pixels(image) <= pictures.MAX_PIXELS
    with tf.control_dependencies([tf.debugging.Assert(small, [pictures.too_large()])]):
        return tf.io.decode_png(image, 3)


def png_pixels(image: tf.Tensor) -> tf.Tensor:
    """Width times height by the header of a PNG, an int64 scalar."""
    size = tf.cast(tf.io.decode_raw(tf.strings.substr(image, 16, 8), "uint8"), "int64")
    bytes_of = tf.reshape(size, (2, 4))
    return tf.reduce_prod(tf.reduce_sum(bytes_of * tf.constant([2**24, 2**16, 256, 1], "int64"), 1))


@tf.autograph.experimental.do_not_convert  # keeps the messages of errors
def _decode_by_pillow(image: bytes | np.ndarray, orientation: str) -> np.ndarray:
    data = image if isinstance(image, bytes) else image.item()  # an array, outside of a graph
    return np.ascontiguousarray(pictures.decode(data, 3, orientation))


def _refuse(image: tf.Tensor) -> tf.Tensor:
    """Fails with the words of ``keras_resnet.pictures`` for a file that the graph cannot read."""
    reason = tf.constant("is not a readable picture")
    start = tf.strings.substr(image, 0, 32)
    for magic, words in pictures.FOREIGN:
        begins = tf.equal(tf.strings.lower(tf.strings.substr(start, 0, len(magic))), magic.lower())
        reason = tf.where(begins, f"is {words}; {SERVED}", reason)
    video = tf.strings.regex_full_match(start, r"\C{4}ftyp\C*")
    reason = tf.where(video, f"is a video (MP4, MOV or the like); {SERVED}", reason)
    for kind, beginning in REFUSED.items():
        reason = tf.where(
            tf.strings.regex_full_match(start, beginning + r"\C*"), f"is a {kind}; {SERVED}", reason
        )
    reason = tf.where(tf.equal(image, ""), "is empty", reason)
    with tf.control_dependencies([tf.debugging.Assert(False, [reason])]):
        return tf.zeros((1, 1, 3), "uint8")


SERVED = "supported are JPEG, PNG"
REFUSED = {
    "GIF": "GIF8[79]a",
    "WebP": r"RIFF\C{4}WEBP",
    "BMP": "BM",
    "TIFF": r"(II[*+]\x00|MM\x00[*+])",
    "AVIF": r"\C{4}ftyp(avif|avis|mif1\C*avif)",
    "HEIC": r"\C{4}ftyp(hei|hev|mif1\C*hei)",
}


def _several_scans(image: tf.Tensor) -> tf.Tensor:
    """Whether all coefficients of a JPEG are held in memory, as ``pictures.JpegHeader`` says."""
    size = tf.strings.length(image)

    def more(at: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at >= 0) & (at + 10 <= size)

    def step(at: tf.Tensor, kind: tf.Tensor, components: tf.Tensor, scan: tf.Tensor) -> tuple:
        read = tf.cast(tf.io.decode_raw(tf.strings.substr(image, at, 10), "uint8"), "int32")
        marker = read[1]
        frame = (marker >= 0xC0) & (marker <= 0xCF) & _is_not(marker, 0xC4, 0xC8, 0xCC)
        junk = tf.not_equal(read[0], 0xFF) | tf.equal(marker, 0xFF)
        alone = (marker <= 0x01) | (marker >= 0xD0) & (marker <= 0xD9)
        begins = tf.equal(marker, 0xDA) & tf.logical_not(junk)
        length = tf.where(junk, 1, tf.where(alone, 2, 2 + read[2] * 256 + read[3]))
        return (
            tf.where(begins, -1, at + length),
            tf.where(frame, marker, kind),
            tf.where(frame, read[9], components),
            tf.where(begins, read[4], scan),
        )

    _, kind, components, scan = tf.while_loop(more, step, (2, 0, 0, 0))
    return tf.reduce_any(tf.equal(kind, (0xC2, 0xC6, 0xCA, 0xCE))) | (scan < components)


def _is_not(marker: tf.Tensor, *others: int) -> tf.Tensor:
    return tf.logical_not(tf.reduce_any(tf.equal(marker, others)))


def starts(image: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Whether a file begins with these bytes, a bool scalar."""
    return tf.equal(tf.strings.substr(image, 0, len(magic)), magic)


def _pixels(shape: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(shape[:2], "int64"))


def _upright() -> tf.Tensor:
    return tf.constant(1)


def _crop(image: tf.Tensor, contract: Contract) -> tf.Tensor:
    top, left, height, width = crop_box(tf.shape(image)[0], tf.shape(image)[1], contract)
    return image[top : top + height, left : left + width]


def _resize(box: tf.Tensor, contract: Contract) -> tf.Tensor:
    size = (contract.height, contract.width)

    def resized() -> tf.Tensor:
        floats = tf.image.resize(box, size, method=contract.interpolation, antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(floats), 0, 255), "uint8")

    fits = tf.reduce_all(tf.equal(tf.shape(box)[:2], size))
    return tf.ensure_shape(tf.cond(fits, lambda: box, resized), (*size, contract.channels))


def _luma(rgb: tf.Tensor) -> tf.Tensor:
    """Grayscale by ITU-R BT.601 in integer arithmetic, equal to Pillow's in every pixel."""
    weighted = tf.cast(rgb, "int32") * tf.constant((19595, 38470, 7471))
    luma = tf.reduce_sum(weighted, axis=-1, keepdims=True) + 2**15
    return tf.cast(tf.bitwise.right_shift(luma, 16), "uint8")
