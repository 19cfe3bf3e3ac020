"""Processor time of this code's input path against another version's, turn by turn in one process.

    python benchmarks/decode_versions.py FOLDER OTHER_CHECKOUT [--rounds 9] [--json]

FOLDER holds JPEGs in subfolders. OTHER_CHECKOUT is a checkout of an earlier version, such as
`git worktree add` makes. Both versions are imported into the same process, decode the same files
on one thread, and take turns; the ratio of each round is computed within it, and its median is
printed. Processor time is counted, not elapsed time, and not that of making a pipeline.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = Path(__file__).parents[1]
PACKAGES = ("keras_resnet", "training", "tflite")


def load(checkout: Path) -> dict[str, Any]:
    """The modules of one version; those of another are forgotten first."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    try:
        names = ("keras_resnet.contract", "training.config", "training.data.pipeline")
        loaded = {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(checkout))
    assert str(checkout) in str(loaded["training.data.pipeline"].__file__)
    return loaded


def turns(version: dict[str, Any], files: list[bytes], repeats: int) -> dict[str, Callable]:
    """By path of the pipeline: one pass over the files, in seconds of processor time."""
    import tensorflow as tf

    contract = version["keras_resnet.contract"].Contract(224, 224, labels=("a", "b"))
    pipeline = version["training.data.pipeline"]
    augment = version["training.config"].AugmentConfig(crop="resized")
    seeded = tf.data.Dataset.from_tensor_slices(files).repeat().enumerate()

    def crop(number: tf.Tensor, file: tf.Tensor) -> tf.Tensor:
        return pipeline._augmented(file, contract, augment, tf.stack([number, number]))

    def fit(_: tf.Tensor, file: tf.Tensor) -> tf.Tensor:
        return pipeline.fit_image(file, contract)

    def timed(function: Callable) -> Callable[[], float]:
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        options.autotune.enabled = False
        mapped = seeded.map(function, num_parallel_calls=1).batch(10).with_options(options)
        batches = iter(mapped)  # one for all turns, as in training

        def turn() -> float:
            began = time.process_time()
            for _ in range(len(files) * repeats // 10):
                next(batches)
            return (time.process_time() - began) / (len(files) * repeats // 10 * 10)

        return turn

    return {"training crop": timed(crop), "evaluation": timed(fit)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=2, help="passes over the files in a turn")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    files = [path.read_bytes() for path in sorted(options.folder.rglob("*.jpg"))]
    if not files:
        parser.error(f"{options.folder} has no JPEGs")
    ours = turns(load(HERE), files, options.repeats)
    theirs = turns(load(options.other.resolve()), files, options.repeats)
    result = {}
    for way in ours:
        ours[way](), theirs[way]()  # tracing and caches
        rounds = []
        for number in range(options.rounds):
            pair = [ours[way], theirs[way]]
            first, second = (turn() for turn in (pair if number % 2 else pair[::-1]))
            rounds.append((first, second) if number % 2 else (second, first))
        ratios = [own / other for own, other in rounds]
        result[way] = {
            "microseconds": 1e6 * statistics.median(own for own, _ in rounds),
            "microseconds_other": 1e6 * statistics.median(other for _, other in rounds),
            "ratio": statistics.median(ratios),
            "ratios": [min(ratios), max(ratios)],
        }
    if options.json:
        print(json.dumps(result))
        return
    for way, row in result.items():
        print(
            f"{way:14} {row['microseconds']:7.0f} µs of processor time per image, the other "
            f"version {row['microseconds_other']:7.0f}: {row['ratio']:.3f} "
            f"({row['ratios'][0]:.3f} to {row['ratios'][1]:.3f}, {options.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
