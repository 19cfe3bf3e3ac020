"""Random crops of training images: resized, or padded."""

from __future__ import annotations

import tensorflow as tf

from training.config import AugmentConfig
from training.data.decode import decode, is_usual_jpeg, readable_jpeg, to_channels
from training.data.orientation import (
    jpeg_orientation,
    names_exif,
    rarely,
    stored_box,
    turn,
    upright_shape,
)

# Aspect ratios of Szegedy et al. 2014, arXiv:1409.4842, section 6.
ASPECT_RATIOS = (3 / 4, 4 / 3)
# libjpeg decodes a JPEG faster at a half, a quarter or an eighth of its size.
SCALES = (2, 4, 8)
# From 0.8 of a scale on, decoding at that scale and enlarging is nearer to the antialiased result
# than decoding at the scale before and skipping pixels: their errors cross there on photographs.
SCALE_FROM = 0.8


def random_resized_crop(
    image: tf.Tensor,
    channels: int,
    size: int,
    config: AugmentConfig,
    seed: tf.Tensor,
    orientation: str = "apply",
) -> tf.Tensor:
    """A box of random area and aspect ratio, resized.

    Szegedy et al. 2014, arXiv:1409.4842, section 6. Areas are between ``config.min_area`` and
    all of the image, aspect ratios uniform between 3/4 and 4/3. TensorFlow draws the height of the
    box uniformly, which favours small areas: their mean is 0.45 of the image for a ``min_area`` of
    0.08; torchvision's is 0.54. If no such box fits, it is the whole image.

    Of a JPEG only the box is decoded; a box far larger than needed at a half, a quarter or an
    eighth of its size, which is faster, because the discrete cosine transform does the averaging.
    The rest is bilinear without antialiasing, in a seventh of the time: on photographs the result
    differs from the antialiased one by 2 to 5 grey levels (root mean square). Other formats, and
    JPEGs that are enlarged, have no such error.

    The box is drawn on the upright picture. Of a JPEG that is stored turned, the place of the box
    is computed, and only the small result is turned.

    Args:
        image: The bytes of an image file, or uint8 ``(height, width, channels)``.
        channels: 3 for RGB or 1 for grayscale.
        size: Height and width of the result in pixels.
        config: ``min_area``.
        seed: int64 ``(2,)``.
        orientation: ``"apply"`` or ``"ignore"``, as in the contract.

    Returns:
        uint8 ``(size, size, channels)``.
    """

    def random_box(shape: tf.Tensor) -> tf.Tensor:
        return _random_box(shape, config.min_area, seed)

    def from_pixels(pixels: tf.Tensor) -> tf.Tensor:
        return crop_pixels(pixels, random_box(tf.shape(pixels)), size)

    def from_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(image)
        usual = is_usual_jpeg(shape)
        if orientation == "apply":
            usual &= tf.logical_not(names_exif(image))
        # One condition for all, as each costs a hundredth of the time.
        return tf.cond(
            usual, lambda: crop_jpeg(image, random_box(shape), size), rarely(from_unusual_jpeg)
        )

    def from_unusual_jpeg() -> tf.Tensor:
        file, shape = readable_jpeg(image)
        stored = jpeg_orientation(image) if orientation == "apply" else tf.constant(1)
        upright = tf.concat([upright_shape(shape, stored), shape[2:]], 0)
        box = stored_box(random_box(upright), shape[:2], stored)
        return turn(crop_jpeg(file, box, size), stored)

    if image.dtype != tf.string:
        return from_pixels(image)
    no_jpeg = rarely(lambda: from_pixels(decode(image, 3, orientation)))
    cropped = tf.cond(tf.io.is_jpeg(image), from_jpeg, no_jpeg)
    return to_channels(tf.ensure_shape(cropped, (size, size, 3)), channels)


def crop_jpeg(image: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes one box of a JPEG, at the scale nearest to the target size, and resizes it.

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
        begin, end = box[:2] // scale, -(-(box[:2] + box[2:]) // scale)  # rounded outwards
        return read(tf.concat([begin, end - begin], 0), scale)

    def read_smaller() -> tf.Tensor:
        which = tf.add_n([tf.cast(shrink >= SCALE_FROM * scale, "int32") for scale in SCALES[1:]])
        return tf.switch_case(which, [lambda scale=scale: read_at(scale) for scale in SCALES])

    shrink = tf.sqrt(tf.cast(tf.reduce_prod(box[2:]), "float32")) / size
    # Most boxes are read at full size: one condition spares them the choice of a scale.
    pixels = tf.cond(shrink < SCALE_FROM * SCALES[0], lambda: read(box, 1), read_smaller)
    return _resize(pixels, size)


def crop_pixels(image: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """The same for pixels, uint8 ``(height, width, channels)``; antialiased when it shrinks."""
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


def pad_crop(image: tf.Tensor, size: int, padding: int, seed: tf.Tensor) -> tf.Tensor:
    """Pads with zeros on each side and takes a random window of the original size.

    He et al. 2015, arXiv:1512.03385, section 4.2: 4 pixels for images of 32.
    """
    padded = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    return tf.image.stateless_random_crop(padded, (size, size, image.shape[-1]), seed)
