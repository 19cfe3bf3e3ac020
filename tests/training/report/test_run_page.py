"""The report: one file, everything escaped, with the numbers of the JSON files."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.report.run_folder import (
    HOSTILE,
    PROBABILITIES,
    TRUTH,
    binary_evaluation,
    epoch,
    multi_evaluation,
    write_evidence,
)
from training.evaluate import ImageFacts, summarize
from training.report.run_page import write_report
from training.run import Run

LABELS = ("cat", HOSTILE)
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


def test_the_evidence_on_the_tflite_files_is_shown(run: Run) -> None:
    write_evidence(run)
    page = page_of(run)
    assert "Google Pixel 8, benchmark_model Kind Threads median p95 load memory" in page.text
    assert "int8 4 1.85 ms 3.25 ms 20.50 ms 6.50 MB" in page.text
    assert "IGEMM 9× 1.50 ms 81.2 %" in page.text
    assert f"int8 {HOSTILE} 40 90.0 % 85.0 % −5.00" in page.text
    assert "int8: images that changed most (1)" in page.text
    assert f"{HOSTILE} – Keras: cat 87.5 % true: cat, no. 7" in page.text
    assert page.tags.count("img") == 7 and "script" not in page.tags
    assert "int8 1.00 MB 49.2 kB 12.2 M 9 CONV_2D" in page.text
    assert "What to change not folded. Change: fold it. int8: stem Notes" in page.text
    assert "Notes padded by design. float32, int8: stage1, stage2, stem Runtimes" in page.text
    assert "Edge TPU coral.ai does not load too wide" in page.text
    assert "Lowest: int8 31.2 dB after stage1." in page.text
    assert "1 of 2 blocks in float32, 0.25 % of predictions expected to change" in page.text
    assert "Accuracy against latency" in page.text


def test_what_was_not_measured_on_the_files_has_no_part(run: Run) -> None:
    text = page_of(run).text
    for title in ("Inspection of the files", "Error after each layer", "Choice of the mixed file"):
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
    assert "cat 4 75.0 % 30.1 – 95.4 % 100.0 % 43.9 – 100.0 %" in text
    assert "cat dog 1 of 4" in text
    assert "float32 1.23 MB 91.50 % 91.50 % 0.00 −1.23 … +1.19 98.25 % 7.42 ms p90 8.64" in text
    assert "int8 1.23 MB 90.00 % 91.50 % −1.50 −2.73 … −0.31 98.25 %" in text
    assert "3.71 ms p90 4.32" in text
    assert "int8 failed its verification: it agrees too little" in text


def test_it_shows_the_hardest_images_as_the_model_saw_them(run: Run) -> None:
    page = page_of(run)
    assert page.tags.count("img") == 6
    assert "dog 60.0 % true: cat no. 2" in page.text
    assert "cat 70.0 % correct no. 3" in page.text


def test_pictures_that_are_gone_are_left_out_with_the_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").rename(tmp_path / "moved")
    page = page_of(run)
    assert "img" not in page.tags
    assert "Without pictures: There is no folder" in page.text
    assert "dog 60.0 % true: cat no. 2" in page.text


def test_other_pictures_than_those_evaluated_are_not_shown(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "pictures/val/cat/extra.png")
    page = page_of(run)
    assert "img" not in page.tags
    assert "no longer holds the evaluated images" in page.text


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
    assert ("Top-5 accuracy" in text) == (count > 5)


def test_of_many_classes_the_worst_twenty_and_the_totals_are_shown(run: Run) -> None:
    count = 3000
    labels = tuple(f"class {i}" for i in range(count))
    rng = np.random.default_rng(0)
    truth = np.arange(count).repeat(2)
    predicted = np.where(np.arange(2 * count) % 7, truth, (truth + 1) % count)
    probabilities = np.eye(count, dtype="float32")[predicted]
    counts = rng.integers(1, 5, count)
    facts = ImageFacts(training_counts=counts)
    evaluation = summarize(probabilities, truth, labels, facts=facts)
    run.write("evaluation.json", evaluation.to_dict())
    page = page_of(run)
    assert "The other 2,980 classes are in evaluation.json." in page.text
    assert f"All 3,000 classes {counts.sum():,} 6,000 85.7 %" in page.text
    assert (
        "Confusion matrix" not in page.text and "All mistakes are in evaluation.json" in page.text
    )
    assert page.tags.count("tr") < 60
    assert run.report_file.stat().st_size < 300_000
    recalls = sorted(c.recall.value or 0 for c in evaluation.classes)[:20]
    (table,) = re.findall("Class Training Test Recall Precision (.*) All 3,000", page.text)
    assert table.count(f" {100 * recalls[0]:.1f} %") >= 20


def test_a_binary_task_is_shown_with_its_curves_and_threshold(run: Run) -> None:
    evaluation = binary_evaluation()
    run.write("evaluation.json", evaluation.to_dict())
    page = page_of(run)
    assert evaluation.binary is not None and evaluation.without_duplicates is not None
    assert f"Accuracy, test images {100 * evaluation.top1.value:.2f} %" in page.text
    assert f"ROC AUC {evaluation.binary.roc_auc:.3f}" in page.text
    assert "Threshold 0.470 F1 of dog" in page.text
    assert f"duplicates of training images {100 * evaluation.without_duplicates.value:.2f} %" in (
        page.text
    )
    assert "ROC curve" in page.text and "Precision-recall curve" in page.text
    assert "cross-fitted" in page.text and "Top-5" not in page.text
    assert f"of/{evaluation.hardest[0].index}.png" in page.text
    assert "cat 1,400" in page.text and "dog 600" in page.text


def test_several_labels_are_shown_with_their_thresholds(run: Run) -> None:
    evaluation = multi_evaluation()
    run.write("evaluation.json", evaluation.to_dict())
    text = page_of(run).text
    assert evaluation.multi is not None
    assert f"All labels right, test images {100 * evaluation.top1.value:.2f} %" in text
    assert f"Mean average precision {evaluation.multi.mean_average_precision:.3f}" in text
    assert "F1 Average precision Threshold" in text
    water = evaluation.classes[1]
    assert re.search(f"water 300 {water.test_images} .* {water.f1:.3f} 0.... 0.520", text)
    assert "snow 2 0 – no images" in text
    assert "Confusion matrix" not in text and "cross-fitted" not in text


def test_an_evaluation_of_an_earlier_version_is_still_shown(run: Run) -> None:
    old = summarize(PROBABILITIES, TRUTH, ("cat", "dog")).to_dict()
    known = ("top1", "top5", "confusion", "hardest", "classes")
    old = {key: old[key] for key in known} | {"top5": old["top1"]}
    old["classes"] = [{k: c[k] for k in ("label", "precision", "recall")} for c in old["classes"]]
    run.write("evaluation.json", old)
    text = page_of(run).text
    assert "cat dog 1 of 4" in text and "Damaged" not in text and "Top-5" not in text


def test_a_class_without_images_and_figures_that_are_not_finite(run: Run) -> None:
    run.write("evaluation.json", summarize(PROBABILITIES[:4], TRUTH[:4], LABELS).to_dict())
    row = epoch(1)  # training leaves out what is not finite
    del row["loss"], row["val_loss"]
    run.write("metrics.json", {"epochs": 1, "history": [row]})
    assert "– no images" in page_of(run).text


def test_a_new_report_replaces_the_old_one(run: Run) -> None:
    run.report_file.write_text("old")
    assert "my run" in page_of(run).text


STRANGE = ("a\x1b[31mb\nc", "x" * 200, "\u202egpj.exe", "🦊👩\u200d🚀", "\x00\x07\r\t", "")


def test_names_of_any_kind_are_shown_escaped_and_shortened(run: Run) -> None:
    probabilities = np.eye(len(STRANGE))[[1, 0, 3, 2, 5, 4]]
    evaluation = summarize(probabilities, np.arange(len(STRANGE)), STRANGE)
    run.write("evaluation.json", evaluation.to_dict())
    write_evidence(run)
    for name in ("verify", "inspect", "layers_int8", "model_mixed", "benchmark", "benchmark_phone"):
        path = run.folder / f"tflite/{name}.json"
        # As labels, kinds, layers and devices alike.
        text = path.read_text()
        for i, word in enumerate(("int8", "stem", "stage1", "float32", "Google Pixel 8", "cat")):
            text = text.replace(json.dumps(word), json.dumps(STRANGE[i]))
        path.write_text(text)
    html = write_report(run).read_text("utf-8")
    unprintable = {c for c in html if not c.isprintable()} - {"\n", "\u200d"}
    assert unprintable == set()
    page = Page(html)
    assert "a\\x1b[31mb\\nc" in page.text and "\\u202egpj.exe" in page.text
    assert STRANGE[3] in page.text
    # In full in a tooltip, and nowhere in the text.
    assert "x" * 200 not in page.text and "x" * 39 + "…" in page.text
    assert 'title="' + "x" * 200 in html
