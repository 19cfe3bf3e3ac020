"""From examples to batches: pixels as the contract states, and reproducible randomness."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.contract import Contract
from keras_resnet.preprocessing import load_image
from training.config import DataConfig
from training.data.decode import fit_image
from training.data.pipeline import (
    evaluation_batches,
    images,
    memory_note,
    steps_per_epoch,
    training_batches,
)
from training.data.sources import Split, array_split, labels_of, open_source
from training.experiment_file import load_experiment


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


def batches_of(changes: dict, epoch: int = 0, step: int = 0, count: int = 1) -> list:
    experiment = load_experiment("digits-resnet8", changes)
    batches = training_batches(digits(), CONTRACT, experiment, epoch, step)
    return list(batches.take(count).as_numpy_iterator())


def test_training_batches_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    ((x, y),) = batches_of({"runtime.seed": 5})
    assert x.shape == (64, 32, 32, 1) and y.shape == (64, 10)
    assert x.min() >= 0 and x.max() <= 255 and (y.sum(1) == 1).all()
    np.testing.assert_array_equal(x, batches_of({"runtime.seed": 5})[0][0])
    assert (x != batches_of({"runtime.seed": 6})[0][0]).any()


@pytest.mark.parametrize(
    "more", [{"augment.crop": "pad"}, {"augment.crop": "resized"}, {"data.sampling": "balanced"}]
)
def test_from_any_step_on_the_batches_are_those_of_the_whole(more: dict) -> None:
    changes = {"runtime.batch_size": 400} | more  # three steps an epoch
    whole = batches_of(changes, count=9)
    for epoch, step in ((0, 2), (1, 0), (1, 1), (1, 3)):
        rest = batches_of(changes, epoch, step, count=3)
        for (x, y), (expected_x, expected_y) in zip(rest, whole[3 * epoch + step :]):
            np.testing.assert_array_equal(x, expected_x)
            np.testing.assert_array_equal(y, expected_y)


def test_mixed_batches_are_the_same_from_any_step_on_and_each_its_own() -> None:
    changes = {"runtime.batch_size": 400, "augment.mixup": 1.0, "augment.cutmix": 1.0}
    whole = batches_of(changes, count=6)
    ((x, y),) = batches_of(changes, epoch=1, step=1)
    np.testing.assert_array_equal(x, whole[4][0])
    np.testing.assert_array_equal(y, whole[4][1])
    assert x.dtype == np.float32 and batches_of({})[0][0].dtype == np.uint8
    shares = [np.sort(np.unique(y[y > 0]))[0] for _, y in whole]
    assert len(set(shares)) == 6
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)


def test_the_budget_decides_what_stays_in_memory_and_nothing_else() -> None:
    split = digits()  # 1437 images of 1024 bytes: 0.0014 GiB

    def batch_and_note(**changes: object) -> tuple[np.ndarray, str]:
        experiment = load_experiment("digits-resnet8", changes)
        batch = next(training_batches(split, CONTRACT, experiment).as_numpy_iterator())
        return batch[0], memory_note(split, CONTRACT, experiment)

    kept, kept_note = batch_and_note()
    read, read_note = batch_and_note(**{"data.cache_gb": 0.001})
    np.testing.assert_array_equal(kept, read)
    assert "cached in memory" in kept_note and "exceed data.cache_gb=0.001" in read_note
    assert "another crop" in batch_and_note(**{"augment.crop": "resized"})[1]


def test_an_epoch_has_every_image_and_the_next_augments_it_anew() -> None:
    changes = {"runtime.batch_size": 1437, "augment.padding": 0}
    plain = [sorted(image.tobytes() for image in x) for x, _ in batches_of(changes, count=2)]
    assert plain[0] == plain[1] == sorted(x.tobytes() for x in batches_of(changes)[0][0])
    (x1, y1), (x2, y2) = batches_of({"runtime.batch_size": 1437}, count=2)
    assert (y1.sum(0) == y2.sum(0)).all() and (y1 != y2).any()
    shared = {image.tobytes() for image in x1} & {image.tobytes() for image in x2}
    assert len(shared) < 100  # one of 49 shifts: about 29 images draw the same again


def test_an_image_that_comes_again_is_augmented_otherwise() -> None:
    pixels, truth = np.zeros((24, 32, 32, 1), "uint8"), np.arange(24) // 23
    pixels[:, 10, 10] = 255
    changes = {"runtime.batch_size": 24, "data.sampling": "balanced"}
    experiment = load_experiment("digits-resnet8", changes)
    contract = CONTRACT.replace(labels=("many", "one"))
    batches = training_batches(array_split(pixels, truth), contract, experiment)
    ((x, y),) = batches.take(1).as_numpy_iterator()
    assert y.sum(0).tolist() == [12, 12]
    assert len({image.tobytes() for image in x[y[:, 1] == 1]}) > 6  # of 49 shifts


def test_the_classes_are_those_of_the_images() -> None:
    expected = [label for _, label in digits().examples.as_numpy_iterator()]
    assert labels_of(digits()).tolist() == expected


def test_more_images_a_batch_than_there_are_is_an_error() -> None:
    assert steps_per_epoch(digits(), 1437) == 1
    with pytest.raises(ValueError, match="--batch-size 1437"):
        steps_per_epoch(digits(), 1438)


def test_cifar10_is_read_at_any_place_as_the_stream_reads_it(test_data: Path) -> None:
    data = DataConfig(source="tfds:cifar10", data_dir=str(test_data / "tensorflow_datasets"))
    split = open_source(data, seed=0).test  # one file, so the stream has the files' order
    at = tf.data.Dataset.range(9_990, 10_000).map(split.at)
    expected = split.examples.skip(9_990)
    pairs = list(zip(at.as_numpy_iterator(), expected.as_numpy_iterator()))
    assert len(pairs) == 10
    for (image, label), (expected_image, expected_label) in pairs:
        np.testing.assert_array_equal(image, expected_image)
        assert label == expected_label


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
