"""From examples to batches: the pixels that the contract asks for, and honest randomness."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from training.config import DataConfig, load_experiment
from training.data.decode import fit_image
from training.data.pipeline import evaluation_batches, images, training_batches
from training.data.sources import Split, open_source


def photographs(test_data: Path) -> list[Path]:
    return sorted((test_data / "flowers" / "val").rglob("*.jpg"))[::15]


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_the_graph_and_the_array_code_see_the_same_pixels(test_data: Path, resize: str) -> None:
    contract = Contract(96, 96, resize=resize)  # type: ignore[arg-type]
    for path in photographs(test_data):
        graph = fit_image(tf.constant(path.read_bytes()), contract).numpy()
        np.testing.assert_array_equal(graph, load_image(path, contract))


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_promised_format_is_read(format: str, channels: int) -> None:
    picture = Image.new("RGB", (50, 40), (200, 100, 50))
    file = io.BytesIO()
    picture.save(file, format)
    contract = Contract(32, 32, channels)
    image = fit_image(tf.constant(file.getvalue()), contract).numpy()
    assert image.shape == (32, 32, channels)
    assert np.ptp(image, axis=(0, 1)).max() <= 1
    np.testing.assert_allclose(image, load_image(file.getvalue(), contract), atol=1)


def digits() -> Split:
    return open_source(DataConfig(source="digits"), seed=0).train


CONTRACT = Contract(32, 32, 1, labels=tuple("0123456789"), resize="stretch", crop_fraction=1.0)


def test_training_batches_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    def first(seed: int) -> tuple[np.ndarray, np.ndarray]:
        experiment = load_experiment("digits-resnet8", {"runtime.seed": seed})
        batches, _ = training_batches(digits(), CONTRACT, experiment)
        x, y = next(batches.as_numpy_iterator())
        return x, y

    x, y = first(5)
    assert x.shape == (64, 32, 32, 1) and y.shape == (64, 10)
    assert x.min() >= 0 and x.max() <= 255 and (y.sum(1) == 1).all()
    np.testing.assert_array_equal(x, first(5)[0])
    assert (x != first(6)[0]).any()


def test_an_epoch_has_every_image_and_the_next_augments_it_anew() -> None:
    experiment = load_experiment("digits-resnet8", {"runtime.batch_size": 1437})
    batches, steps = training_batches(digits(), CONTRACT, experiment)
    assert steps == 1
    (x1, y1), (x2, y2) = list(batches.take(2).as_numpy_iterator())
    assert (y1.sum(0) == y2.sum(0)).all()
    assert {i.tobytes() for i in x1}.isdisjoint({i.tobytes() for i in x2[:50]}) or (x1 != x2).any()


def test_more_images_a_batch_than_there_are_is_an_error() -> None:
    experiment = load_experiment("digits-resnet8", {"runtime.batch_size": 2000})
    with pytest.raises(ValueError, match="--batch-size 1437"):
        training_batches(digits(), CONTRACT, experiment)


def test_evaluation_gives_every_image_once_in_order() -> None:
    split = digits()
    batches = list(evaluation_batches(split, CONTRACT, 100).as_numpy_iterator())
    labels = np.concatenate([y for _, y in batches])
    expected = np.array([y for _, y in split.examples.as_numpy_iterator()])
    np.testing.assert_array_equal(labels, expected)
    assert batches[0][0].dtype == np.uint8


def test_a_few_images_are_spread_over_the_split() -> None:
    labels = [label for _, label in images(digits(), CONTRACT, 100)]
    assert len(labels) == 100 and set(labels) == set(range(10))
