"""Peak memory of every command on a folder of many classes with few pictures each.

    python benchmarks/many_classes.py --classes 10000

makes tiny pictures (two for training and one for testing in each class), then trains, evaluates,
converts, verifies and reports with ResNet-8, each in a process of its own whose peak resident
memory the operating system reports. It exits with 1 if one of them exceeds ``--limit``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

TRAINING, TEST = 2, 1  # pictures of each class
SIDE = 8  # pixels
KEYS = (
    *("model.size=32", "schedule.epochs=1", "schedule.warmup_epochs=0"),
    *("data.resize=stretch", "data.crop_fraction=1.0"),
)


def make_pictures(folder: Path, classes: int) -> Path:
    """PNG files of one colour and some noise for each class, under ``train`` and ``val``."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        colour = rng.integers(0, 256, 3)
        for split, count in (("train", TRAINING), ("val", TEST)):
            of_class = folder / split / f"class {number:05d}"
            of_class.mkdir(parents=True)
            for picture in range(count):
                noise = rng.integers(-20, 21, (SIDE, SIDE, 3))
                pixels = np.clip(colour + noise, 0, 255).astype("uint8")
                Image.fromarray(pixels).save(of_class / f"{picture}.png")
    return folder


def commands(pictures: Path, run: Path) -> dict[str, list[str]]:
    """The arguments of ``keras-resnet`` for each step, in order."""
    source = f"data.source=folder:{pictures}"
    settings = ["--set", source, *KEYS]
    return {
        "train": ["train", "--recipe", "digits-resnet8", *settings, "--out", str(run)],
        "evaluate": ["evaluate", str(run)],
        "convert": ["convert", str(run), "--kinds", "float32", "int8"],
        "verify": ["verify", str(run)],
        "report": ["report", str(run)],
    }


# A small process between: the figure of a process begins with the peak of the one that started it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def peak_memory(arguments: list[str], output: Path) -> tuple[int, int]:
    """Runs the command; returns its exit code and its peak resident memory in bytes."""
    peak = output.with_suffix(".peak")
    command = [sys.executable, "-m", "keras_resnet.cli", *arguments]
    with output.open("w") as file:
        code = subprocess.call(
            [sys.executable, "-c", MEASURE, str(peak), *command],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    # Linux reports KiB, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return code, int(peak.read_text()) * unit


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=3.0, help="GiB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, run = make_pictures(folder / "pictures", options.classes), folder / "run"
        worst = 0
        for step, arguments in commands(pictures, run).items():
            output = folder / f"{step}.txt"
            code, peak = peak_memory(arguments, output)
            lines = output.read_text().count("\n")
            print(f"{step:9} exit {code}, {peak / 2**30:.2f} GiB, {lines:,} lines", flush=True)
            if code:
                print(output.read_text()[-2000:])
                return 1
            worst = max(worst, peak)
        for file in ("evaluation.json", "tflite/verify.json", "report.html", "model.keras"):
            print(f"{file:19} {(run / file).stat().st_size / 1e6:.2f} MB")
    return 1 if worst > options.limit * 2**30 else 0


if __name__ == "__main__":
    sys.exit(main())
