"""Decoding of images, and the crop and resize of evaluation; training crops: augment/crop.py."""

from __future__ import annotations

import tensorflow as tf

from keras_resnet.contract import Contract, crop_box


def decode(image: tf.Tensor, channels: int) -> tf.Tensor:
    """The whole image.

    Args:
        image: The bytes of a JPEG, PNG, BMP or GIF (first frame), or uint8 ``(height, width,
            channels)``, which is returned unchanged.
        channels: 3 for RGB or 1 for grayscale.

    Returns:
        uint8 ``(height, width, channels)``. Transparency and EXIF orientation are ignored; 16-bit
        values are reduced to their upper 8 bits.
    """
    if image.dtype != tf.string:
        return image
    # The accurate DCT is the one that Pillow and phones use.
    pixels = tf.cond(
        tf.io.is_jpeg(image),
        lambda: tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(image, 3, expand_animations=False),
    )
    return to_channels(pixels, channels)


def fit_image(image: tf.Tensor, contract: Contract) -> tf.Tensor:
    """Crops and resizes by the contract; ``keras_resnet.load_image`` as a TensorFlow graph.

    Args:
        image: uint8 ``(height, width, channels)``, or the bytes of a JPEG, PNG, BMP or GIF.
        contract: That of the model.

    Returns:
        uint8 ``(contract.height, contract.width, channels)``.
    """
    image = decode(image, contract.channels)
    top, left, height, width = crop_box(tf.shape(image)[0], tf.shape(image)[1], contract)
    box = image[top : top + height, left : left + width]
    size = (contract.height, contract.width)
    box = tf.image.resize(box, size, method=contract.interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(box), 0, 255), "uint8")


def to_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB ``(height, width, 3)`` as it is for 3 channels, as luma for 1."""
    pixels.set_shape((None, None, 3))
    return pixels if channels == 3 else _luma(pixels)


def _luma(rgb: tf.Tensor) -> tf.Tensor:
    """Grayscale by ITU-R BT.601 in integer arithmetic, equal to Pillow's in every pixel."""
    weighted = tf.cast(rgb, "int32") * tf.constant((19595, 38470, 7471))
    luma = tf.reduce_sum(weighted, axis=-1, keepdims=True) + 2**15
    return tf.cast(tf.bitwise.right_shift(luma, 16), "uint8")
