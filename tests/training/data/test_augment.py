"""Augmentation: each image draws its own, and draws fairly; operations are the ones they claim."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import beta as beta_distribution
from scipy.stats import chisquare, kstest

from training.config import AugmentConfig
from training.data.augment import augment, mix, tone
from training.data.augment.erasing import random_erasing
from training.data.augment.geometry import (
    FILL,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)
from training.data.augment.jitter import color_jitter
from training.data.augment.mix import beta, cutmix, mixup
from training.data.augment.policies import (
    Operation,
    _apply_one,
    randaugment,
    randaugment_operations,
    trivialaugment,
    trivialaugment_operations,
)
from training.data.augment.tone import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    posterize,
    saturation,
    sharpness,
    solarize,
)

SURE = 1e-6  # a fair draw fails a test of this p once in a million; seeds are fixed besides


def over_seeds(function: Callable[[tf.Tensor], tf.Tensor], count: int) -> np.ndarray:
    """The function of ``count`` different seeds."""
    drawn = tf.data.Dataset.range(count).map(
        lambda i: function(tf.stack([tf.constant(11, "int64"), i])), num_parallel_calls=2
    )
    return next(drawn.batch(count).as_numpy_iterator())


def noise(height: int = 40, width: int = 48, channels: int = 3) -> np.ndarray:
    """Smooth enough to have edges, with every value in it."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (8, 8, 3), "uint8")
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    fine = np.asarray(picture).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return np.clip(fine, 0, 255).astype("uint8")[..., :channels]


def dot(size: int = 33) -> np.ndarray:
    """Grey, with one white block of 3 × 3 right of the centre."""
    image = np.full((size, size, 1), FILL, "uint8")
    centre = size // 2
    image[centre - 1 : centre + 2, centre + 9 : centre + 12] = 255
    return image


def place(images: np.ndarray) -> np.ndarray:
    """Where the white block lies, from the centre: (count, 2) of right and down."""
    weight = (images[..., 0] > 200).astype(float)
    total = weight.sum((1, 2))
    assert (total > 0).all()
    axis = np.arange(images.shape[1]) - images.shape[1] // 2
    x = (weight.sum(1) * axis).sum(1) / total
    y = (weight.sum(2) * axis).sum(1) / total
    return np.stack([x, y], 1)


# Geometry


def test_directions_of_the_geometry() -> None:
    image = tf.constant(dot())
    moved = lambda function, by: place(function(image, tf.constant(by)).numpy()[np.newaxis])[0]  # noqa: E731
    np.testing.assert_allclose(moved(rotate, 90.0), (0, -10), atol=0.5)  # counter-clockwise
    np.testing.assert_allclose(moved(rotate, -90.0), (0, 10), atol=0.5)
    np.testing.assert_allclose(moved(translate_x, 5.9), (15, 0))
    np.testing.assert_allclose(moved(translate_x, -4.0), (6, 0))
    np.testing.assert_allclose(moved(translate_y, 7.0), (10, 7))
    np.testing.assert_allclose(moved(translate_y, -7.0), (10, -7))


@pytest.mark.parametrize("level", [-0.27, 0.2])
def test_geometry_is_pillows(level: float) -> None:
    pixels = noise()
    fill = (FILL, FILL, FILL)
    image = Image.fromarray(pixels)

    def pillow(coefficients: tuple) -> np.ndarray:
        affine = Image.Transform.AFFINE
        return np.asarray(image.transform(image.size, affine, coefficients, fillcolor=fill))

    # Pillow's affine coordinates are of pixel corners, ours of centres: half a row's difference.
    for ours, theirs in (
        (shear_x, pillow((1, level, -level / 2, 0, 1, 0))),
        (shear_y, pillow((1, 0, 0, level, 1, -level / 2))),
    ):
        found = ours(tf.constant(pixels), tf.constant(level)).numpy()
        assert (found != theirs).mean() < 0.002  # ties of the rounding
    turned = np.asarray(image.rotate(level * 100, fillcolor=fill))
    found = rotate(tf.constant(pixels), tf.constant(level * 100)).numpy()
    assert (found != turned).mean() < 0.002


def test_what_leaves_the_image_is_gone_and_grey_takes_its_place() -> None:
    image = tf.constant(noise())
    for function in (translate_x, translate_y):
        for by in (-100.0, 100.0):
            assert (function(image, tf.constant(by)).numpy() == FILL).all()


# Tone


PILLOW = [
    (lambda x: autocontrast(x), ImageOps.autocontrast),
    (lambda x: equalize(x), ImageOps.equalize),
    *[
        (lambda x, b=b: posterize(x, tf.constant(b)), lambda p, b=b: ImageOps.posterize(p, b))
        for b in (1, 2, 4, 8)
    ],
    *[
        (lambda x, t=t: solarize(x, tf.constant(float(t))), lambda p, t=t: ImageOps.solarize(p, t))
        for t in (0, 1, 128, 255, 256)
    ],
]
ENHANCE = [
    (brightness, ImageEnhance.Brightness),
    (contrast, ImageEnhance.Contrast),
    (saturation, ImageEnhance.Color),
    (sharpness, ImageEnhance.Sharpness),
]


def pictures(channels: int) -> list[np.ndarray]:
    flat = np.full((10, 12, channels), 77, "uint8")
    two = flat.copy()
    two[3:, 4:] = 90
    dark = (noise(channels=channels) // 3).astype("uint8")
    return [noise(channels=channels), dark, flat, two]


def as_pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", range(len(PILLOW)))
def test_histogram_operations_are_pillows(number: int, channels: int) -> None:
    ours, theirs = PILLOW[number]
    for pixels in pictures(channels):
        expected = np.asarray(theirs(as_pillow(pixels))).reshape(pixels.shape)
        found = ours(tf.constant(pixels)).numpy()
        assert np.abs(found.astype(int) - expected).max() <= (1 if number == 0 else 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.7, 1.0, 1.4, 1.9])
@pytest.mark.parametrize("number", range(len(ENHANCE)))
def test_enhancements_are_pillows(number: int, factor: float, channels: int) -> None:
    ours, theirs = ENHANCE[number]
    for pixels in pictures(channels):
        expected = np.asarray(theirs(as_pillow(pixels)).enhance(factor)).reshape(pixels.shape)
        found = ours(tf.constant(pixels), tf.constant(factor)).numpy()
        assert np.abs(found.astype(int) - expected).max() <= 1


# Policies


def identify(operations: tuple[Operation, ...], strength: float = 0.6) -> tuple[tf.Tensor, dict]:
    """An image on which no two operations, nor the two signs of one, give the same."""
    image = tf.constant(noise(32, 32) // 2 + 30)
    known = {}
    for operation in operations:
        for sign in (1.0, -1.0) if operation.signed else (1.0,):
            changed = operation.apply(image, tf.constant(sign * strength * operation.reach))
            known[changed.numpy().tobytes()] = (operation.name, sign)
    assert len(known) == 5 + 2 * 9
    return image, known


def test_randaugment_draws_operations_and_signs_evenly() -> None:
    operations = randaugment_operations(32)
    image, known = identify(operations)
    count = 2800
    drawn = over_seeds(lambda seed: randaugment(image, 1, 18.0, seed), count)
    names = [known[one.tobytes()] for one in drawn]
    assert chisquare(np.unique([n for n, _ in names], return_counts=True)[1]).pvalue > SURE
    assert {n for n, _ in names} == {operation.name for operation in operations}
    for operation in operations:
        if operation.signed:
            signs = [s for n, s in names if n == operation.name]
            assert chisquare([signs.count(1.0), signs.count(-1.0)]).pvalue > SURE


def test_layers_are_drawn_independently() -> None:
    operations = tuple(
        Operation(str(i), lambda image, _, i=i: image * 14 + tf.constant(i, "uint8"))
        for i in range(14)
    )
    draws = over_seeds(lambda seed: tf.random.stateless_uniform((2, 2), seed), 2800)
    image = tf.zeros((1, 1, 1), "uint8")

    def two(draw: tf.Tensor) -> tf.Tensor:
        first = _apply_one(image, operations, draw[0, 0], draw[0, 1], tf.constant(1.0))
        return _apply_one(first, operations, draw[1, 0], draw[1, 1], tf.constant(1.0))

    codes = np.array([two(draw).numpy().item() for draw in draws[:600]])
    pairs = np.bincount(codes // 14 * 14 + codes % 14, minlength=196)
    assert chisquare(pairs).pvalue > SURE


def test_rotation_goes_both_ways_to_the_asked_angle() -> None:
    rotation = next(o for o in randaugment_operations(33) if o.name == "Rotate")
    image = tf.constant(dot())

    def turned(seed: tf.Tensor) -> tf.Tensor:
        choice, sign = tf.unstack(tf.random.stateless_uniform((2,), seed))
        return _apply_one(image, (rotation,), choice, sign, tf.constant(0.9))

    x, y = place(over_seeds(turned, 400)).T
    angles = np.degrees(np.arctan2(-y, x))
    assert chisquare([(angles > 0).sum(), (angles < 0).sum()]).pvalue > SURE
    np.testing.assert_allclose(np.abs(angles), 27, atol=3)


def test_trivialaugment_draws_strengths_evenly_up_to_its_wide_ranges() -> None:
    reach = {o.name: o.reach for o in trivialaugment_operations()}
    assert reach["Rotate"] == 135 and reach["TranslateX"] == 32 and reach["ShearX"] == 0.99
    # The one operation of these that leaves a mark from which its strength can be read.
    image = tf.constant(np.arange(256, dtype="uint8").repeat(3).reshape(16, 16, 3))
    drawn = over_seeds(lambda seed: trivialaugment(image, seed), 6000)
    values = drawn[..., 0].reshape(len(drawn), 256).astype(int)
    solarized = values[(values[:, 0] == 0) & (values[:, 255] == 0)]
    first = (solarized != np.arange(256)).argmax(1)  # the threshold
    steps = np.round((255 - first) / 8.5).astype(int)
    assert len(steps) > 250
    assert chisquare(np.bincount(steps, minlength=31)).pvalue > SURE


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_batch_draw_each_their_own(policy: str, channels: int) -> None:
    config = AugmentConfig(policy=policy, color_jitter=(0.4, 0.4, 0.4, 0.1), erasing=0.5)  # type: ignore[arg-type]
    image = tf.constant(noise(32, 32, channels))
    drawn = over_seeds(lambda seed: augment(image, 32, config, seed % 64), 128)
    assert drawn.shape == (128, 32, 32, channels) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[:64], drawn[64:])  # the same seeds again
    assert len({one.tobytes() for one in drawn}) == 64


def test_each_image_draws_its_own_shift_and_shifts_reach_every_place() -> None:
    image = np.zeros((32, 32, 1), "uint8")
    image[16, 16] = 255
    config = AugmentConfig(crop="pad", padding=3, flip=False)
    drawn = over_seeds(lambda seed: augment(tf.constant(image), 32, config, seed), 2000)
    places = np.argwhere(drawn[..., 0] == 255)[:, 1:] - 16
    counts = np.unique(places, axis=0, return_counts=True)[1]
    assert len(counts) == 49
    assert chisquare(counts).pvalue > SURE


def test_half_of_the_images_are_flipped() -> None:
    image = np.zeros((32, 32, 1), "uint8")
    image[:, 0] = 255
    config = AugmentConfig(crop="none", flip=True)
    drawn = over_seeds(lambda seed: augment(tf.constant(image), 32, config, seed), 1000)
    flipped = (drawn[:, 0, -1, 0] > 0).sum()
    assert chisquare([flipped, 1000 - flipped]).pvalue > SURE


# Colour jitter


@pytest.mark.parametrize("which", [0, 1, 2])
def test_jitter_factors_are_uniform_around_one(which: int) -> None:
    image = tf.constant(noise(24, 24) // 4 + 96)  # so that nothing is cut off
    reach = [0.0] * 4
    reach[which] = 0.4
    drawn = over_seeds(lambda seed: color_jitter(image, tuple(reach), seed), 1000).astype(float)
    before = image.numpy().astype(float)
    luma = before @ np.array([0.299, 0.587, 0.114])
    anchor = (
        np.zeros_like(before),
        np.full_like(before, luma.mean()),
        luma[..., None] + 0 * before,
    )
    away = before - anchor[which]
    factors = ((drawn + 0.5 - anchor[which]) * away).sum((1, 2, 3)) / (away**2).sum()
    assert kstest(factors, "uniform", args=(0.6, 0.8)).pvalue > SURE


def test_hue_turns_both_ways_and_keeps_greys() -> None:
    pixels = np.zeros((4, 4, 3), "uint8")
    pixels[:2] = (200, 50, 50)
    pixels[2:] = 120
    reach = (0.0, 0.0, 0.0, 0.1)
    drawn = over_seeds(lambda seed: color_jitter(tf.constant(pixels), reach, seed), 500)
    assert (drawn[:, 2:] == 120).all()
    hues = np.array(
        [Image.fromarray(one[:1, :1]).convert("HSV").getpixel((0, 0))[0] for one in drawn]
    )
    turns = (hues + 128) % 256 - 128
    assert chisquare([(turns > 0).sum(), (turns < 0).sum()]).pvalue > SURE
    assert 22 <= turns.max() <= 27 and -27 <= turns.min() <= -22  # 0.1 of 256


def test_jitter_comes_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        # Each leaves its digit in base 4.
        monkeypatch.setattr(tone, name, lambda image, _, n=number: image * 4 + n)
    image = tf.zeros((1, 1, 1), "uint8")
    drawn = over_seeds(lambda seed: color_jitter(image, (0.4, 0.4, 0.4, 0.1), seed), 2400)
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > SURE


# Random erasing


def erased_boxes(probability: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of each box, of those images that lost one; and all images."""
    image = tf.constant(np.full((64, 64, 3), 7, "uint8"))
    drawn = over_seeds(lambda seed: random_erasing(image, probability, seed), count)
    changed = (drawn != 7).any(-1)
    hit = changed[changed.any((1, 2))]
    return np.stack([hit.any(2).sum(1), hit.any(1).sum(1)], 1), drawn


def test_erasing_keeps_to_its_probability_area_and_shape() -> None:
    boxes, drawn = erased_boxes(0.25, 2000)
    assert chisquare([len(boxes), 2000 - len(boxes)], [500, 1500]).pvalue > SURE
    area, ratio = boxes.prod(1) / 64**2, boxes[:, 0] / boxes[:, 1]
    assert 0.015 < area.min() < 0.04 and 0.30 < area.max() < 0.345
    assert 0.25 < ratio.min() < 0.4 and 2.5 < ratio.max() < 4.0
    assert kstest(area, "uniform", args=(0.02, 1 / 3 - 0.02)).pvalue > 1e-4
    assert abs(np.log(ratio).mean()) < 5 * 0.7 / np.sqrt(len(ratio))  # as often tall as wide
    values = drawn[drawn != 7]
    assert abs(values.mean() - 128) < 1 and values.min() == 0 and values.max() == 255


def test_erasing_reaches_everywhere_and_is_one_box() -> None:
    boxes, drawn = erased_boxes(1.0, 600)
    assert len(boxes) == 600
    changed = (drawn != 7).any(-1)
    assert changed.any(0).all()
    filled = changed.sum((1, 2)) / boxes.prod(1)
    assert filled.min() > 0.99


# MixUp and CutMix


def batch(count: int = 6, size: int = 32) -> tuple[tf.Tensor, tf.Tensor]:
    """Image i has the value 10·i everywhere, and the class i."""
    images = np.arange(count, dtype="float32")[:, None, None, None] * np.full(
        (1, size, size, 3), 10.0
    )
    return tf.constant(images, "float32"), tf.eye(count)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = over_seeds(lambda seed: beta(alpha, seed), 2000).astype(float)
    # float32 has no numbers just below 1, where a small alpha has much of its mass.
    inner = shares[(shares > 0.01) & (shares < 0.99)]
    known = beta_distribution(alpha, alpha)
    mass = known.cdf(0.99) - known.cdf(0.01)
    assert kstest(inner, lambda x: (known.cdf(x) - known.cdf(0.01)) / mass).pvalue > SURE
    assert abs(len(inner) / 2000 - mass) < 5 * np.sqrt(mass * (1 - mass) / 2000) + 1e-9
    assert abs(shares.mean() - 0.5) < 5 * known.std() / np.sqrt(2000)


def test_a_tiny_alpha_still_gives_numbers() -> None:
    assert np.isfinite(over_seeds(lambda seed: beta(0.001, seed), 500)).all()


def test_mixup_mixes_images_and_labels_alike() -> None:
    images, labels = batch()
    for i in range(20):
        mixed, soft = (t.numpy() for t in mixup(images, labels, 0.8, tf.constant([2, i], "int64")))
        np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed[:, 3, 4, 0], soft @ (10 * np.arange(6)), rtol=1e-5)
        share = soft[0, 0]
        np.testing.assert_allclose(soft, share * np.eye(6) + (1 - share) * np.roll(np.eye(6), 1, 0))


def test_cutmix_takes_one_box_and_counts_its_pixels() -> None:
    images, labels = batch()

    def both(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return cutmix(images, labels, 1.0, seed)

    shares, covered = [], np.zeros((32, 32))
    for i in range(300):
        mixed, soft = (t.numpy() for t in both(tf.constant([3, i], "int64")))
        np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
        other = mixed[2, ..., 0] == 10
        assert set(np.unique(mixed[2])) <= {10.0, 20.0}
        np.testing.assert_allclose(soft[2, 1], other.mean(), atol=1e-6)
        if other.any():
            rows, columns = other.any(1), other.any(0)
            assert other.sum() == rows.sum() * columns.sum()  # a rectangle
        covered += other
        shares.append(soft[2, 2])
    assert covered.min() > 0
    assert covered[16, 16] > covered[0, 0]
    # Half of a box of a corner's centre is cut off: shares lean to 1, and reach from end to end.
    assert min(shares) < 0.2 and max(shares) > 0.95 and np.mean(shares) > 0.55


def test_a_batch_gets_mixup_or_cutmix_by_chance() -> None:
    images, labels = batch()
    config = AugmentConfig(mixup=1.0, cutmix=1.0)
    cut = 0
    for i in range(200):
        mixed, soft = mix(images, labels, config, tf.constant([4, i], "int64"))
        np.testing.assert_allclose(soft.numpy().sum(1), 1, rtol=1e-6)
        cut += set(np.unique(mixed[2])) <= {10.0, 20.0}
    assert chisquare([cut, 200 - cut]).pvalue > SURE


def test_nothing_is_mixed_unasked() -> None:
    images, labels = batch()
    mixed, same = mix(images, labels, AugmentConfig(), tf.constant([0, 0], "int64"))
    assert mixed is images and same is labels


def test_augmented_photographs_keep_their_content(test_data: Path) -> None:
    """RandAugment of ordinary strength leaves most of a photograph where it was."""
    path = min((test_data / "flowers" / "train" / "roses").glob("*.jpg"))
    pixels = tf.constant(np.asarray(Image.open(path).convert("RGB").resize((64, 64))))
    drawn = over_seeds(lambda seed: randaugment(pixels, 2, 9.0, seed), 200).astype(float)
    reference = pixels.numpy().astype(float).ravel()
    alike = [np.corrcoef(one.ravel(), reference)[0, 1] for one in drawn]
    assert np.median(alike) > 0.5
