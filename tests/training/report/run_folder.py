"""A run folder made by hand, with every file that the report reads."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.evaluate import Evaluation, ImageFacts, summarize
from training.experiment_file import load_experiment, save_experiment
from training.run import Run

HOSTILE = "<script>alert('$x_1$ & \"')</script>"
TRUTH = np.array([0, 0, 0, 0, 1, 1])
PROBABILITIES = np.array([(0.9, 0.1), (0.8, 0.2), (0.4, 0.6), (0.7, 0.3), (0.25, 0.75), (0.2, 0.8)])


def make_run(tmp_path: Path) -> Run:
    """A run folder with the usual files that the report reads."""
    pictures = tmp_path / "pictures"
    for split in ("train", "val"):
        for name, count in (("cat", 4), ("dog", 2)):
            (pictures / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 40), (40 * i, 80, 120)).save(
                    pictures / split / name / f"{i}.png"
                )
    run = Run(tmp_path / "my run")
    run.folder.mkdir()
    changes = {"data.source": f"folder:{pictures}", "model.size": 32}
    save_experiment(load_experiment("folder-resnet18", changes), run.experiment_file)
    run.write("metrics.json", {"epochs": 3, "history": [epoch(i) for i in (1, 2, 3)]})
    run.write("evaluation.json", summarize(PROBABILITIES, TRUTH, ("cat", "dog")).to_dict())
    kinds = [comparison("float32", 0.0), comparison("int8", -1.5)]
    run.write("tflite/verify.json", {"images": 200, "passed": True, "kinds": kinds})
    times = [latency(kind, threads) for threads in (1, 2) for kind in ("float32", "int8")]
    run.write("tflite/benchmark.json", times)
    return run


def epoch(number: int) -> dict[str, float]:
    figures = {"loss": 2 / number, "accuracy": 0.3 * number}
    figures |= {f"val_{key}": value for key, value in figures.items()}
    return {"epoch": number, **figures, "learning_rate": 0.1, "seconds": 30.0}


def comparison(kind: str, difference: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "images": 200,
        "keras_top1": 91.5,
        "file_top1": 91.5 + difference,
        "difference": difference,
        "interval": [difference - 1.23, difference + 1.19],
        "agreement": 98.25,
        "max_difference": 0.02,
        "mean_difference": 0.001,
        "bytes": 1_234_567,
        "broken": ["it agrees too little"] if kind == "int8" else [],
        "passed": kind != "int8",
    }


def latency(kind: str, threads: int) -> dict[str, Any]:
    times = {"runs": 50, "median_ms": 7.42 / threads, "p90_ms": 8.64 / threads}
    return {"kind": kind, "threads": threads, **times, "bytes": 1_234_567}


def write_evidence(run: Run) -> None:
    """What verify, benchmark, inspect, layers and convert add."""
    verify = run.read("tflite/verify.json")
    image = {
        "index": 7,
        "label": "cat",
        "keras": "cat",
        "file": HOSTILE,
        "keras_confidence": 0.875,
        "file_confidence": None,
        "difference": 0.5,
        "picture": "data:image/png;base64,AAAA",
    }
    verify["kinds"][1] |= {
        "changed": [image],
        "worst_classes": [
            {"label": HOSTILE, "images": 40, "keras_recall": 90.0, "file_recall": 85.0}
        ],
    }
    run.write("tflite/verify.json", verify)
    phone = {
        **latency("int8", 4),
        "p90_ms": None,
        "p95_ms": 3.25,
        "load_ms": 20.5,
        "memory_bytes": 6_500_000,
        "device": "Google Pixel 8",
        "runtime": "benchmark_model",
        "operations": [
            {"operation": "IGEMM", "count": 9, "milliseconds": 1.5, "percent": 81.2},
        ],
    }
    run.write("tflite/benchmark_phone.json", [phone])
    line = {"runtime": "Edge TPU", "loads": False, "because": "too wide", "measured": False}
    pad = {"rule": "pad", "message": "padded by design", "mend": None, "layers": ["stem", "stage1"]}
    norm = {"rule": "batch-norm", "message": "not folded", "mend": "fold it", "layers": ["stem"]}
    inspection = {
        "bytes": 1_234_567,
        "weight_bytes": 1_000_000,
        "arena_bytes": 49_200,
        "multiply_adds": 12_200_000,
        "operations": {"CONV_2D": 9},
        "lint": [pad, norm],
        "preflight": [line | {"source": "coral.ai"}],
    }
    other = inspection | {"lint": [pad | {"layers": ["stage1", "stage2"]}]}
    run.write("tflite/inspect.json", {"float32": other, "int8": inspection})
    layers = [
        {"layer": "stem", "signal_to_noise_db": None},
        {"layer": "stage1", "signal_to_noise_db": 31.25},
    ]
    run.write("tflite/layers_int8.json", {"images": 20, "layers": layers})
    point = {"blocks": ["a"], "shift": 0.1, "drop": 0.25, "bytes": 9, "latency": 1.0}
    mixed = {"chosen": 1, "points": [point | {"blocks": []}, point, point]}
    run.write("tflite/model_mixed.json", mixed)


def binary_evaluation(images: int = 300) -> Evaluation:
    """Of classes ``cat`` and ``dog``; the thresholds were chosen on the same images."""
    rng = np.random.default_rng(0)
    truth = np.sort(rng.random(images) < 0.3).astype("int64")
    scores = np.clip(rng.normal(0.35 + 0.25 * truth, 0.15), 0, 1)[:, np.newaxis]
    facts = ImageFacts(
        files=[f"/photos/of/{i}.png" for i in range(images)],
        training_counts=np.array([1400, 600]),
        duplicates=np.arange(images) % 10 == 0,
    )
    return summarize(
        scores,
        truth,
        ("cat", "dog"),
        task="binary",
        thresholds=(0.47,),
        facts=facts,
        cross_fit=True,
    )


def multi_evaluation(images: int = 200) -> Evaluation:
    """Of three labels, of which an image has any number; the last one is never there."""
    rng = np.random.default_rng(0)
    truth = (rng.random((images, 3)) < (0.5, 0.2, 0)).astype("uint8")
    scores = np.clip(rng.normal(0.35 + 0.25 * truth, 0.15), 0, 1)
    facts = ImageFacts(training_counts=np.array([700, 300, 2]))
    levels = (0.45, 0.52, 0.5)
    labels = ("sand", "water", "snow")
    return summarize(scores, truth, labels, task="multi", thresholds=levels, facts=facts)
