"""A folder of many tiny pictures: seconds and memory until the first training batch.

    python benchmarks/many_files.py [--files 1000000] [--classes 1000] [--folder /dev/shm] [--json]

Makes the files (real ones, copies of a few JPEGs and PNGs of 8 × 8 pixels) in a file system in
memory, and removes them afterwards. A new process then does what ``train`` does before its first
step: it lists the folders, checks every file, splits them, and computes the order and the first
batch. Nothing is cached from an earlier start.

Processor time is printed beside wall-clock time: on a machine with other work, the more reliable
figure. Memory is the peak of the whole process, TensorFlow included.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BATCH = 64
PICTURES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="many_files.", dir=given.folder) as work:
        data = Path(work) / "data"
        make_files(data, given.files, given.classes)
        figures = in_new_process(data, Path(work) / "cache")
        shutil.rmtree(data)
    if given.json:
        print(json.dumps({"files": given.files, "classes": given.classes, **figures}, indent=2))
    else:
        show(given.files, given.classes, figures)


def make_files(folder: Path, files: int, classes: int) -> None:
    """Files spread evenly over class folders; half of them JPEG, half PNG."""
    contents = [picture(number) for number in range(PICTURES)]
    for number in range(classes):
        sub = folder / f"class_{number:05d}"
        sub.mkdir(parents=True)
        for i in range(number, files, classes):
            suffix, content = contents[i % PICTURES]
            with open(f"{sub}/{i:08d}{suffix}", "wb", buffering=0) as file:
                file.write(content)


def picture(number: int) -> tuple[str, bytes]:
    """Suffix and content of a tiny picture."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if number % 2 else "JPEG")
    return ".png" if number % 2 else ".jpg", file.getvalue()


def in_new_process(data: Path, cache: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(data)]
    environment = {**os.environ, "KERAS_RESNET_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: str) -> dict[str, Any]:
    """Seconds of each stage and of the processor, and the peak of memory in bytes."""
    stages: dict[str, dict[str, float]] = {}
    mark = Clock(stages)
    from keras_resnet.contract import Contract
    from training.config import from_dict
    from training.data.pipeline import training_batches
    from training.data.sources import open_source

    mark("import")
    experiment = from_dict(
        {
            "data": {"source": f"folder:{folder}", "test_fraction": 0.01, "cache_gb": 0.0},
            "runtime": {"batch_size": BATCH},
        }
    )
    source = open_source(experiment.data, 0)
    mark("list, check and split")
    contract = Contract(32, 32, labels=source.labels)
    batches = iter(training_batches(source.train, contract, experiment))
    images, _ = next(batches)
    mark("first batch")
    assert images.shape == (BATCH, 32, 32, 3)
    return {
        "stages": stages,
        "images": source.train.count + source.test.count,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


class Clock:
    """Records wall-clock and processor seconds since the last mark."""

    def __init__(self, stages: dict[str, dict[str, float]]) -> None:
        self.stages = stages
        self.last = time.perf_counter(), 0.0  # the processor time of the interpreter's start counts

    def __call__(self, stage: str) -> None:
        now = time.perf_counter(), time.process_time()
        wall, processor = (b - a for a, b in zip(self.last, now))
        self.stages[stage] = {"seconds": wall, "processor_seconds": processor}
        self.last = now


def show(files: int, classes: int, figures: dict[str, Any]) -> None:
    print(f"{files:,} files in {classes:,} folders, {os.cpu_count()} cores")
    print(f"{'':24}{'seconds':>10}{'processor':>12}")
    stages = figures["stages"]
    total = {key: sum(s[key] for s in stages.values()) for key in ("seconds", "processor_seconds")}
    for stage, cost in {**stages, "total": total}.items():
        print(f"{stage:24}{cost['seconds']:10.1f}{cost['processor_seconds']:12.1f}")
    print(f"peak memory {figures['peak_bytes'] / 1e9:.2f} GB, {figures['images']:,} images")


if __name__ == "__main__":
    main()
