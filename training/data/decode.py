"""From a file's bytes to pixels: the whole picture, the part evaluation sees, a training crop."""

from __future__ import annotations

import tensorflow as tf

from keras_resnet.contract import Contract, crop_box
from training.config import AugmentConfig

# Box shapes of Szegedy et al. 2014, arXiv:1409.4842, section 6.
ASPECT_RATIOS = (3 / 4, 4 / 3)
# libjpeg reads a JPEG at a half, a quarter or an eighth of its size at less cost.
SCALES = (2, 4, 8)
# From 0.8 of a scale on, reading at that scale and enlarging is nearer to the antialiased result
# than reading at the one before and skipping pixels: both cross there on photographs.
FROM = 0.8


def decode(image: tf.Tensor, channels: int) -> tf.Tensor:
    """The whole picture.

    Args:
        image: The bytes of a JPEG, PNG, BMP or GIF (first frame), or uint8 ``(height, width,
            channels)``, which is returned as it is.
        channels: 3 for RGB or 1 for grayscale.

    Returns:
        uint8 ``(height, width, channels)``. Transparency and the EXIF orientation are ignored, and
        of 16 bits the upper 8 are taken.
    """
    if image.dtype != tf.string:
        return image
    # The accurate transform is the one that Pillow uses, and phones.
    pixels = tf.cond(
        tf.io.is_jpeg(image),
        lambda: tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(image, 3, expand_animations=False),
    )
    return _in_channels(pixels, channels)


def fit_image(image: tf.Tensor, contract: Contract) -> tf.Tensor:
    """Crops and resizes as the contract says; the graph's twin of ``keras_resnet.load_image``.

    Args:
        image: uint8 ``(height, width, channels)``, or the bytes of a JPEG, PNG, BMP or GIF.
        contract: The model's.

    Returns:
        uint8 ``(contract.height, contract.width, channels)``.
    """
    image = decode(image, contract.channels)
    top, left, height, width = crop_box(tf.shape(image)[0], tf.shape(image)[1], contract)
    box = image[top : top + height, left : left + width]
    size = (contract.height, contract.width)
    box = tf.image.resize(box, size, method=contract.interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(box), 0, 255), "uint8")


def decode_training_image(
    image: tf.Tensor, channels: int, size: int, config: AugmentConfig, seed: tf.Tensor
) -> tf.Tensor:
    """A box of random area and shape, resized: the *random resized crop*.

    Szegedy et al. 2014, arXiv:1409.4842, section 6. Areas are between ``config.min_area`` and
    all of the image, aspect ratios uniform between 3/4 and 4/3. TensorFlow draws the box's
    height uniformly, so that areas lean to the small: their mean is 0.45 of the image for a
    ``min_area`` of 0.08, where torchvision's is 0.54. Where no such box fits, it is the whole
    image.

    Of a JPEG only the box is decoded, and where it is far larger than needed, at a half, a
    quarter or an eighth of its size, which the discrete cosine transform averages for less than
    nothing. The rest is bilinear without antialiasing, in a seventh of the time: on photographs
    the result lies 2 to 5 grey levels (root mean square) from the antialiased one. Other
    formats, and JPEGs that are enlarged, have no such error.

    Args:
        image: The bytes of a JPEG, PNG, BMP or GIF, or uint8 ``(height, width, channels)``.
        channels: 3 for RGB or 1 for grayscale.
        size: Height and width of the result in pixels.
        config: ``min_area``.
        seed: int64 ``(2,)``.

    Returns:
        uint8 ``(size, size, channels)``.
    """

    def random_box(shape: tf.Tensor) -> tf.Tensor:
        return _random_box(shape, config.min_area, seed)

    def from_pixels(pixels: tf.Tensor) -> tf.Tensor:
        return crop_pixels(pixels, random_box(tf.shape(pixels)), size)

    def from_jpeg() -> tf.Tensor:
        return crop_jpeg(image, random_box(tf.io.extract_jpeg_shape(image)), size)

    if image.dtype != tf.string:
        return from_pixels(image)
    cropped = tf.cond(tf.io.is_jpeg(image), from_jpeg, lambda: from_pixels(decode(image, 3)))
    return _in_channels(tf.ensure_shape(cropped, (size, size, 3)), channels)


def crop_jpeg(image: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes one box of a JPEG and resizes it, at the scale that leaves least to resize.

    Args:
        image: The bytes.
        box: int32 top, left, height and width.
        size: Height and width of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """

    def read(window: tf.Tensor, scale: int) -> tf.Tensor:
        return tf.image.decode_and_crop_jpeg(
            image, window, 3, ratio=scale, dct_method="INTEGER_ACCURATE"
        )

    def read_at(scale: int) -> tf.Tensor:
        begin, end = box[:2] // scale, -(-(box[:2] + box[2:]) // scale)  # outwards on each side
        return read(tf.concat([begin, end - begin], 0), scale)

    def read_smaller() -> tf.Tensor:
        which = tf.add_n([tf.cast(shrink >= FROM * scale, "int32") for scale in SCALES[1:]])
        return tf.switch_case(which, [lambda scale=scale: read_at(scale) for scale in SCALES])

    shrink = tf.sqrt(tf.cast(tf.reduce_prod(box[2:]), "float32")) / size
    # Most boxes are read as they are, and spared the choice among three.
    pixels = tf.cond(shrink < FROM * SCALES[0], lambda: read(box, 1), read_smaller)
    return _resize(pixels, size)


def crop_pixels(image: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """The same of pixels, uint8 ``(height, width, channels)``; antialiased where it shrinks."""
    top, left, height, width = tf.unstack(box)
    pixels = image[top : top + height, left : left + width]
    pixels.set_shape((None, None, image.shape[-1]))
    return tf.cond(
        tf.maximum(height, width) > size,
        lambda: _shrink(pixels, size),
        lambda: _resize(pixels, size),
    )


def _random_box(shape: tf.Tensor, min_area: float, seed: tf.Tensor) -> tf.Tensor:
    """Top, left, height and width."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIOS,
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    # The raw kernel on float32: tf.image.resize and uint8 each cost a third more.
    resized = tf.raw_ops.ResizeBilinear(
        images=tf.cast(image, "float32")[tf.newaxis], size=(size, size), half_pixel_centers=True
    )[0]
    return tf.cast(resized + 0.5, "uint8")  # a weighted mean stays inside 0–255


def _shrink(image: tf.Tensor, size: int) -> tf.Tensor:
    resized = tf.image.resize(image, (size, size), antialias=True)
    return tf.cast(resized + 0.5, "uint8")


def _in_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    pixels.set_shape((None, None, 3))
    return pixels if channels == 3 else _luma(pixels)


def _luma(rgb: tf.Tensor) -> tf.Tensor:
    """Grayscale by ITU-R BT.601 in the same integers as Pillow, so that no pixel differs."""
    weighted = tf.cast(rgb, "int32") * tf.constant((19595, 38470, 7471))
    luma = tf.reduce_sum(weighted, axis=-1, keepdims=True) + 2**15
    return tf.cast(tf.bitwise.right_shift(luma, 16), "uint8")
