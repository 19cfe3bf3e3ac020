"""Throughput of input pipelines, ours and others', interleaved: JPEG files to batches of pixels.

    python benchmarks/input_pipeline.py FOLDER [--batch 50] [--size 224] [--rounds 5] [--json]

FOLDER holds one subfolder of JPEGs per class. Each pipeline runs in a separate process, so that its
memory can be measured, and is stopped between its turns, so that it cannot fill its buffers while
another is timed.

Throughput is the median of the rounds. The ratio to the limit is computed in each round; its median
is printed. CPU is the processor time per image: on a machine with other work, the more reliable
figure. Memory is the process's peak above its value after the import of TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

from interleaved import Peer, interleaved, peak_bytes

BASE = "limit: decode_and_crop_jpeg alone"


# --- The pipelines, each from a folder to endless batches ------------------------------------


def ours(folder: str, batch: int, size: int, **augment: Any) -> Any:
    """The pipeline of ``training``: order by seed, one-hot labels, uint8 batches."""
    from keras_resnet.contract import Contract
    from training.config import from_dict
    from training.data.pipeline import training_batches
    from training.data.sources import open_source

    experiment = from_dict(
        {
            "data": {"source": f"folder:{folder}", "test_fraction": 0.01},
            "augment": augment,
            "runtime": {"batch_size": batch},
        }
    )
    source = open_source(experiment.data, 0)
    return training_batches(source.train, Contract(size, size, labels=source.labels), experiment)


def ours_as_floats(folder: str, batch: int, size: int) -> Any:
    """The same with float32 batches, as the others give; ``training`` casts on the device."""
    import tensorflow as tf

    batches = ours(folder, batch, size)
    return batches.map(lambda x, y: (tf.cast(x, "float32"), y), num_parallel_calls=2).prefetch(2)


def keras_loader(folder: str, batch: int, size: int, warp: bool) -> Any:
    """Keras's directory loader with Keras's augmentation layers, as in its guides."""
    import keras

    layers = [keras.layers.RandomFlip("horizontal")]
    if warp:
        layers += [keras.layers.RandomRotation(0.1), keras.layers.RandomZoom(0.2)]
    augment = keras.Sequential(layers)
    dataset = keras.utils.image_dataset_from_directory(
        folder, label_mode="categorical", batch_size=batch, image_size=(size, size), verbose=False
    )
    import tensorflow as tf

    return (
        dataset.repeat()
        .map(lambda x, y: (augment(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def plain(folder: str, batch: int, size: int) -> Any:
    """A random resized crop and flip as in tutorials: decode, crop, resize, flip."""
    import tensorflow as tf

    def load(path: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), 3)
        box = _box(tf.shape(image), number)
        image = tf.image.crop_to_bounding_box(image, box[0], box[1], box[2], box[3])
        image = tf.image.resize(image, (size, size))
        return tf.image.random_flip_left_right(image)

    return _mapped(folder, load).batch(batch).prefetch(tf.data.AUTOTUNE)


def decode_alone(folder: str, batch: int, size: int) -> Any:
    """Reads and decodes whole files, and returns only their sizes."""
    import tensorflow as tf

    def load(path: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.size(tf.io.decode_jpeg(tf.io.read_file(path), 3))

    return _mapped(folder, load).batch(batch).prefetch(2)


def crop_alone(folder: str, batch: int, size: int) -> Any:
    """Reads files and decodes a random box of each: the limit of any pipeline."""
    import tensorflow as tf

    def load(path: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        file = tf.io.read_file(path)
        box = _box(tf.io.extract_jpeg_shape(file), number)
        return tf.size(tf.image.decode_and_crop_jpeg(file, box, 3))

    return _mapped(folder, load).batch(batch).prefetch(2)


def _mapped(folder: str, load: Callable) -> Any:
    import tensorflow as tf

    files = [str(path) for path in sorted(Path(folder).rglob("*.jpg"))]
    paths = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=0).repeat()
    numbered = tf.data.Dataset.zip(paths, tf.data.Dataset.range(2**62))
    return numbered.map(load, num_parallel_calls=tf.data.AUTOTUNE)


def _box(shape: Any, number: Any) -> Any:
    """A random box as in Szegedy et al. 2014, by TensorFlow's implementation."""
    import tensorflow as tf

    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        tf.stack([number, number]),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


WAYS: dict[str, tuple[Callable, dict[str, Any]]] = {
    BASE: (crop_alone, {}),
    "limit: decode_jpeg alone": (decode_alone, {}),
    "ours: crop, flip": (ours, {}),
    "ours: crop, flip, as float32": (ours_as_floats, {}),
    "ours: crop, flip, RandAugment": (ours, {"policy": "randaugment"}),
    "ours: crop, flip, TrivialAugment": (ours, {"policy": "trivialaugment"}),
    "ours: crop, flip, jitter": (ours, {"color_jitter": [0.4, 0.4, 0.4, 0.1]}),
    "tf.data: crop, flip": (plain, {}),
    "Keras loader: flip": (keras_loader, {"warp": False}),
    "Keras loader: flip, rotation, zoom": (keras_loader, {"warp": True}),
}


# --- Measuring ---------------------------------------------------------------------------------


def set_up(name: str, folder: str, batch: int, size: int, images: int) -> Callable[[], Any]:
    """A pipeline's turn: seconds and processor seconds for some images, and peak memory."""
    import tensorflow as tf

    tf.constant(0) + 1
    before = peak_bytes()
    way, options = WAYS[name]
    batches: Iterator = iter(way(folder, batch, size, **options))
    for _ in range(3):
        next(batches)

    def turn() -> tuple[float, float, int]:
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(images // batch):
            next(batches)
        elapsed, used = time.perf_counter() - began, time.process_time() - cpu
        return elapsed, used, peak_bytes() - before

    return turn


def measure(names: list[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    images = max(options.images // options.batch, 1) * options.batch
    same = (options.folder, options.batch, options.size, images)
    rounds = interleaved({name: Peer(set_up, (name, *same)) for name in names}, options.rounds)
    return {name: figures(turns, rounds[BASE], images) for name, turns in rounds.items()}


def figures(
    turns: list[tuple[float, float, int]], base: list[tuple[float, float, int]], images: int
) -> dict[str, float]:
    seconds, cpu, memory = zip(*turns)
    return {
        "images_per_second": images / statistics.median(seconds),
        "of_limit": statistics.median(b[0] / s for b, s in zip(base, seconds)),
        "cpu_ms_per_image": 1000 * statistics.median(cpu) / images,
        "peak_mib": max(memory) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="JPEGs, in one subfolder per class")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=1000, help="images per turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only pipelines whose name contains this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    if not any(Path(options.folder).glob("*/*.jpg")):
        parser.error(f"{options.folder} has no JPEGs in subfolders")
    names = [name for name in WAYS if options.only in name or name == BASE]
    result = {
        "images": sum(1 for _ in Path(options.folder).rglob("*.jpg")),
        "batch": options.batch,
        "size": options.size,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0],
        "ways": measure(names, options),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'':36} {'images/s':>9} {'of limit':>9} {'CPU ms':>7} {'memory':>9}")
    for name, row in result["ways"].items():
        print(
            f"{name:36} {row['images_per_second']:9,.0f} {row['of_limit']:9.2f} "
            f"{row['cpu_ms_per_image']:7.2f} {row['peak_mib']:5,.0f} MiB"
        )
    print(f"{result['cores']} cores; load before {result['load']:.1f}; {options.rounds} rounds")


if __name__ == "__main__":
    main()
