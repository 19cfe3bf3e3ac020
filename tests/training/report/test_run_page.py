"""The report: one file, everything escaped, the numbers of the JSON and no others."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.evaluate import summarize
from training.experiment_file import load_experiment, save_experiment
from training.report.run_page import write_report
from training.run import Run

HOSTILE = "<script>alert('$x_1$ & \"')</script>"
LABELS = ("cat", HOSTILE)
TRUTH = np.array([0, 0, 0, 0, 1, 1])
PROBABILITIES = np.array([(0.9, 0.1), (0.8, 0.2), (0.4, 0.6), (0.7, 0.3), (0.25, 0.75), (0.2, 0.8)])
MISSING = ("evaluate", "train", "convert", "verify", "benchmark")


class Page(HTMLParser):
    """What a browser would load, and the text that it would show outside ``<style>``."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(re.sub(r"\.chart[^{]*{[^}]*}", "", self.text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        sources = ("src", "href", "xlink:href", "srcset", "data", "action")
        self.loads += [value or "" for name, value in attrs if name in sources]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder with all that the report reads, made by hand."""
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
    """What verify, benchmark, inspect, layers and convert leave beside the usual figures."""
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
    finding = {"rule": "pad", "operation": "PAD", "layer": "stem", "message": "padded", "mend": "x"}
    inspection = {
        "bytes": 1_234_567,
        "weight_bytes": 1_000_000,
        "arena_bytes": 49_200,
        "multiply_adds": 12_200_000,
        "operations": {"CONV_2D": 9},
        "lint": [finding],
        "preflight": [line | {"source": "coral.ai"}],
    }
    run.write("tflite/inspect.json", {"int8": inspection})
    layers = [
        {"layer": "stem", "signal_to_noise_db": None},
        {"layer": "stage1", "signal_to_noise_db": 31.25},
    ]
    run.write("tflite/layers_int8.json", {"images": 20, "layers": layers})
    point = {"blocks": ["a"], "shift": 0.1, "drop": 0.25, "bytes": 9, "latency": 1.0}
    mixed = {"chosen": 1, "points": [point | {"blocks": []}, point, point]}
    run.write("tflite/model_mixed.json", mixed)


def test_the_evidence_on_the_tflite_files_is_shown(run: Run) -> None:
    write_evidence(run)
    page = page_of(run)
    assert "Google Pixel 8, benchmark_model Kind Threads median p95 load memory" in page.text
    assert "int8 4 1.85 ms 3.25 ms 20.50 ms 6.50 MB" in page.text
    assert "IGEMM 9× 1.50 ms 81.2 %" in page.text
    assert f"int8 {HOSTILE} 40 90.0 % 85.0 % −5.00" in page.text
    assert "int8: the 1 images that changed most" in page.text
    assert f"{HOSTILE} – Keras cat 87.5 % is cat, no. 7" in page.text
    assert page.tags.count("img") == 7 and "script" not in page.tags
    assert "int8 1.00 MB 49.2 kB 12.2 M 9 CONV_2D" in page.text
    assert "int8 stempad padded x" in page.text
    assert "Edge TPU coral.ai will not too wide" in page.text
    assert "Worst: int8 behind stage1, 31.2 dB." in page.text
    assert "1 of 2 blocks in float32, 0.25 % of answers expected to change" in page.text
    assert "Accuracy against latency" in page.text


def test_what_was_not_measured_on_the_files_has_no_part(run: Run) -> None:
    text = page_of(run).text
    for title in ("Inside the files", "Error behind each layer", "How the mixed file was chosen"):
        assert title not in text
    (run.folder / "tflite/benchmark.json").unlink()
    text = page_of(run).text
    assert "Accuracy against latency" not in text and "Latency and memory" not in text


def test_the_report_says_where_the_model_was_trained(run: Run) -> None:
    facts = {"versions": {"keras": "3.15.1"}, "cpu": "AMD EPYC", "gpus": [], "platform": "Linux"}
    run.write("run.json", {"environment": facts | {"git": {"commit": "88b68b5"}}})
    text = page_of(run).text
    assert "Versions keras 3.15.1 Processor AMD EPYC GPUs none System Linux Code 88b68b5" in text


def page_of(run: Run) -> Page:
    return Page(write_report(run).read_text("utf-8"))


def test_the_report_is_one_file_that_loads_nothing(run: Run) -> None:
    path = write_report(run)
    page = Page(path.read_text("utf-8"))
    assert path == run.report_file
    assert [p for p in run.folder.iterdir() if p.name.startswith(".")] == []
    assert all(load.startswith(("data:image/", "#")) for load in page.loads)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "http://" not in path.read_text("utf-8")
    assert "https://" not in path.read_text("utf-8")
    assert not re.search(r"url\((?!#)|@import", path.read_text("utf-8"))


def test_its_numbers_are_those_of_the_files(run: Run) -> None:
    text = page_of(run).text
    assert "83.33 % 95 % interval 43.65 % – 96.99 % 6 images" in text
    assert "1 min 30 s 3 epochs" in text
    assert "cat 4 75.0 % 30.1 % – 95.4 % 100.0 % 43.9 % – 100.0 %" in text
    assert "cat dog 1 of 4" in text
    assert "float32 1.23 MB 91.50 % 91.50 % 0.00 −1.23 … +1.19 98.25 % 7.42 ms p90 8.64" in text
    assert "int8 1.23 MB 90.00 % 91.50 % −1.50 −2.73 … −0.31 98.25 %" in text
    assert "3.71 ms p90 4.32" in text
    assert "int8 failed its verification: it agrees too little" in text


def test_it_shows_the_hardest_images_as_the_model_saw_them(run: Run) -> None:
    page = page_of(run)
    assert page.tags.count("img") == 6
    assert "dog 60.0 % is cat no. 2" in page.text
    assert "cat 70.0 % right no. 3" in page.text


def test_pictures_that_are_gone_are_left_out_with_the_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").rename(tmp_path / "moved")
    page = page_of(run)
    assert "img" not in page.tags
    assert "The pictures are left out: There is no folder" in page.text
    assert "dog 60.0 % is cat no. 2" in page.text


def test_other_pictures_than_those_evaluated_are_not_shown(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "pictures/val/cat/extra.png")
    page = page_of(run)
    assert "img" not in page.tags
    assert "is not what the evaluation was made on" in page.text


def test_class_names_and_paths_are_text(run: Run) -> None:
    run.write("evaluation.json", summarize(PROBABILITIES, TRUTH, LABELS).to_dict())
    hostile = Run(run.folder.rename(run.folder.with_name("<img src=x onerror=alert(1)>")))
    page = page_of(hostile)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.text.count(HOSTILE) >= 2
    assert "<script>alert('$x…" in page.text  # shortened, in the confusion matrix
    assert "<img src=x onerror=alert(1)>" in page.text


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    run = Run(tmp_path / "my run")
    run.folder.mkdir()
    text = page_of(run).text
    assert "there is no experiment.yaml" in text
    for command in MISSING:
        assert f"keras-resnet {command}" in text
    assert f"keras-resnet evaluate '{run.folder}'" in text  # quoted for the shell


@pytest.mark.parametrize(
    ("file", "command"),
    [("tflite/verify.json", "verify"), ("tflite/benchmark.json", "benchmark")],
)
def test_one_half_of_the_tflite_figures_will_do(run: Run, file: str, command: str) -> None:
    (run.folder / file).unlink()
    text = page_of(run).text
    assert f"keras-resnet {command}" in text
    assert "1.23 MB" in text


@pytest.mark.parametrize("count", [2, 13, 30, 100])
def test_any_number_of_classes(run: Run, count: int) -> None:
    labels = tuple(f"class {i}" for i in range(count))
    truth = np.arange(count)
    probabilities = np.eye(count)[np.roll(truth, 1)]
    run.write("evaluation.json", summarize(probabilities, truth, labels).to_dict())
    text = page_of(run).text
    assert ("predicted" in text) and all(f"class {i} 1 0.0 %" in text for i in range(count))
    assert ("The other 80 classes" in text) == (count == 100)
    assert ("Among the five likeliest" in text) == (count > 10)


def test_a_class_without_images_and_figures_that_are_not_finite(run: Run) -> None:
    run.write("evaluation.json", summarize(PROBABILITIES[:4], TRUTH[:4], LABELS).to_dict())
    row = epoch(1) | {"loss": float("nan"), "val_loss": float("nan")}
    run.write("metrics.json", {"epochs": 1, "history": [row]})
    assert "– no images" in page_of(run).text


def test_a_new_report_replaces_the_old_one(run: Run) -> None:
    run.report_file.write_text("old")
    assert "my run" in page_of(run).text
