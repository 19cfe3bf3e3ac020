"""The demo in headless Chromium: the same outputs as in Python, by mouse, keyboard and touch."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_resnet.preprocessing import load_image
from tests.tflite.devices.web.chromium import drive, find_chromium
from tests.tflite.devices.web.conftest import TASK_KINDS, TASKS
from tflite.classifier import Classifier
from tflite.devices import demo
from tflite.evidence.golden import golden, textures
from tflite.model.metadata import read_contract

# In `make test-all`, as it needs npm and a browser.
pytestmark = pytest.mark.slow

KINDS = ("float32", "float16", "dynamic", "int8")
# Every resize rule of a contract; the first is the model's own.
RULES: dict[str, dict[str, Any]] = {
    "own": {},
    "bicubic": {"interpolation": "bicubic", "crop_fraction": 1.0},
    "stretched": {"resize": "stretch"},
    "as stored": {"orientation": "ignore"},
}


@pytest.fixture(scope="module")
def files(flowers_run: Path) -> dict[str, Path]:
    return {kind: flowers_run / "tflite" / f"model_{kind}.tflite" for kind in KINDS}


@pytest.fixture(scope="module")
def photographs(test_data: Path, files: dict[str, Path]) -> list[Path]:
    """Three photographs of flowers, not all of one predicted class."""
    paths = sorted((test_data / "flowers/val").glob("*/*.jpg"))
    answers = Classifier(files["float32"]).predict(paths[::5], top=1)
    by_answer: dict[str, Path] = {}
    for path, [(label, probability)] in zip(paths[::5], answers):
        if probability > 0.5:
            by_answer.setdefault(label, path)
    assert len(by_answer) >= 2
    return [*by_answer.values(), *paths][:3]


@pytest.fixture(scope="module")
def pictures(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG, whose pixels are the same for every decoder; the last one is to be turned by EXIF."""
    folder = tmp_path_factory.mktemp("pictures")
    first, second = (Image.open(path).convert("RGB") for path in photographs[:2])
    made = [first, second, first.resize((50, 37)), second.convert("L")]
    paths = [folder / f"{i}.png" for i in range(len(made))]
    for picture, path in zip(made, paths):
        picture.save(path)
    turned = Image.Exif()
    turned[0x0112] = 6
    paths.append(folder / "turned.png")
    first.save(paths[-1], exif=turned)
    return paths


@pytest.fixture(scope="module")
def seen(
    files: dict[str, Path],
    task_files: dict[str, dict[str, Path]],
    photographs: list[Path],
    pictures: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """What the page showed, in one session for all tests: starting a browser takes time."""
    find_chromium()
    if not (demo.PAGE / "index.html").is_file():
        pytest.skip("the page is not built: make web (needs npm)")
    folder = tmp_path_factory.mktemp("browser")
    unreadable = folder / "notes.jpg"
    unreadable.write_text("not a picture")
    contract = read_contract(files["float32"])
    inputs = golden(files, textures(contract, 4), of="textures")
    site = demo.site("flowers <i>&", files, inputs)
    static = functools.partial(_Quiet, directory=str(demo.export(site, folder / "exported")))
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(_running(demo.server(site)))
        exported = stack.enter_context(_running(ThreadingHTTPServer((demo.LOOPBACK, 0), static)))
        tasks = {}
        for task, paths in task_files.items():
            some = golden(paths, textures(read_contract(paths["float32"]), 4), of="textures")
            page = demo.server(demo.site(task, paths, some))
            tasks[task] = stack.enter_context(_running(page))
        yield drive(
            "drive.mjs",
            folder,
            served=served,
            exported=exported,
            kinds=KINDS,
            photographs=list(map(str, photographs)),
            pictures=list(map(str, pictures)),
            tasks=tasks,
            unreadable=str(unreadable),
            rules=RULES,
            screenshots=str(folder),
        )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield demo.address(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_nothing_failed(seen: dict[str, Any]) -> None:
    failures = {k: v["failure"] for k, v in seen.items() if isinstance(v, dict) and "failure" in v}
    assert not failures
    assert seen["complaints"] == []


def test_nothing_comes_from_another_host(seen: dict[str, Any]) -> None:
    assert seen["foreign"] == []


def test_served_page_has_threads_and_describes_the_run(seen: dict[str, Any]) -> None:
    page = seen["light"]
    assert page["isolated"]
    assert page["title"].startswith("flowers <i>&")
    assert page["about"].startswith("5 classes, 80 × 96 pixels")
    assert page["inputs"] == "4 textures"
    assert [row[3] for row in page["photographs"][0]["facts"]] == ["CPU, threads"] * 2


@pytest.mark.parametrize("number", range(3))
def test_predictions_for_photographs_are_those_of_python(
    seen: dict[str, Any], files: dict[str, Path], photographs: list[Path], number: int
) -> None:
    shown = seen["light"]["photographs"][number]
    for kind, column in (("float32", "first"), ("int8", "second")):
        expected = dict(Classifier(files[kind]).predict(photographs[number])[0])
        in_page = dict(zip(shown["labels"], shown[column]))
        assert max(in_page, key=in_page.__getitem__) == max(expected, key=expected.__getitem__)
        # JPEG decoders differ a little; figures are shown to a tenth of a percent.
        for label, p in expected.items():
            assert in_page[label] == pytest.approx(100 * p, abs=1)


def test_difference_is_that_of_the_two_kinds(seen: dict[str, Any]) -> None:
    shown = seen["light"]["photographs"][0]
    for first, second, text in zip(shown["first"], shown["second"], shown["differences"]):
        points = float(text.removesuffix(" points").replace("−", "-"))
        assert points == pytest.approx(second - first, abs=0.11)
    assert "int8 is at most" in shown["verdict"]
    assert shown["verdict"].startswith(f"Both predict {shown['labels'][0]};")
    assert len(shown["labels"]) == 5


@pytest.mark.parametrize("where", ("light", "exported"))
def test_golden_outputs_are_within_one_quantization_step(seen: dict[str, Any], where: str) -> None:
    rows = seen[where]["golden"]
    assert [row[0] for row in rows] == list(KINDS)
    for _, same, apart, verdict in rows:
        assert same == "4 of 4"
        assert float(apart.removesuffix("/256")) <= 1
        assert verdict == "✓ same"


def test_check_finds_another_output_and_shows_the_remark_of_the_kind(seen: dict[str, Any]) -> None:
    assert [row[3] for row in seen["cheating"]["rows"]] == ["✗ differs"] * 2
    assert seen["cheating"]["remarks"] == [demo.REMARKS["dynamic"]]


def test_model_runs_on_a_gpu_with_the_same_outputs(seen: dict[str, Any]) -> None:
    page = _on_gpu(seen, "sound")
    assert [row[3] for row in page["facts"]] == ["WebGPU", "CPU, threads"]
    [note] = page["notes"]
    assert note.startswith("On WebGPU float16 differs from Python by ")
    expected = seen["light"]["dropped"]
    assert dict(zip(page["labels"], page["first"])) == pytest.approx(
        dict(zip(expected["labels"], expected["first"])), abs=0.1
    )


def test_gpu_that_fails_leaves_the_cpu(seen: dict[str, Any]) -> None:
    page = _on_gpu(seen, "broken")
    assert [row[3] for row in page["facts"]] == ["CPU, threads"]
    assert page["error"] == ""
    assert page["first"] == seen["light"]["dropped"]["first"]


def _on_gpu(seen: dict[str, Any], name: str) -> dict[str, Any]:
    page = seen["gpu"][name]
    if not page["there"]:
        pytest.skip("this Chromium has no WebGPU on SwiftShader")
    return page


@pytest.mark.parametrize("rule", RULES)
def test_page_fits_pictures_as_python_does(
    seen: dict[str, Any], files: dict[str, Path], pictures: list[Path], rule: str
) -> None:
    contract = read_contract(files["float32"]).replace(**RULES[rule])
    for picture, shown in zip(pictures, seen["fitted"][rule], strict=True):
        in_page = np.reshape(shown["pixels"], (*shown["size"], 4))[..., :3]
        expected = load_image(picture, contract)
        assert in_page.shape == expected.shape
        assert np.abs(in_page - expected.astype(int)).max() <= 1


def _labelled(shown: dict[str, Any], column: str) -> dict[str, float]:
    return dict(zip(shown["labels"], shown[column], strict=True))


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(("place", "kind"), enumerate(TASK_KINDS))
@pytest.mark.parametrize("task", TASKS)
def test_page_predicts_labels_by_task_and_thresholds(
    seen: dict[str, Any],
    task_files: dict[str, dict[str, Path]],
    pictures: list[Path],
    task: str,
    place: int,
    kind: str,
    number: int,
) -> None:
    path = task_files[task][kind]
    contract = read_contract(path)
    image = load_image(pictures[number], contract)
    [outputs] = Classifier(path).probabilities(image[None])
    shown = seen["tasks"][task]["pictures"][number]
    assert shown["error"] == ""
    probabilities = [1 - outputs[0], outputs[0]] if task == "binary" else outputs
    thresholds = [1 - contract.thresholds[0], contract.thresholds[0]]
    if task == "multi":
        thresholds = list(contract.thresholds)
    # Python's and the page's pixels differ by at most 1 where they are resized.
    in_page = _labelled(shown, ("first", "second")[place])
    lines = {label: row["thresholds"][place] for label, row in zip(shown["labels"], shown["ticks"])}
    ticked = {label: row["predicted"][place] for label, row in zip(shown["labels"], shown["ticks"])}
    assert sorted(in_page) == sorted(contract.labels)
    for label, p, threshold in zip(contract.labels, probabilities, thresholds, strict=True):
        assert in_page[label] == pytest.approx(100 * p, abs=1)
        assert lines[label] == pytest.approx(100 * threshold, abs=1e-4)
        assert abs(p - threshold) > 0.01  # or the pictures do not tell
        assert ticked[label] == (p > threshold)
    if task == "binary":
        assert sum(ticked.values()) == 1


@pytest.mark.parametrize("task", TASKS)
def test_predicted_labels_come_first(seen: dict[str, Any], task: str) -> None:
    predictions = set()
    for shown in seen["tasks"][task]["pictures"]:
        predicted = [row["predicted"][0] for row in shown["ticks"]]
        assert predicted == sorted(predicted, reverse=True)
        count = sum(predicted)
        predictions.add(frozenset(shown["labels"][:count]))
        for some in (shown["first"][:count], shown["first"][count:]):
            assert some == sorted(some, reverse=True)
        words = shown["verdict"].split("; ")[0]
        names = ", ".join(shown["labels"][:count]) or "no label"
        same = [row["predicted"] for row in shown["ticks"]]
        if all(first == second for first, second in same):
            assert words == f"Both predict {names}"
        else:
            assert words.startswith(f"float32 predicts {names}, int8 ")
    assert task == "binary" or len(predictions) > 1


def test_page_explains_what_it_shows(seen: dict[str, Any]) -> None:
    binary, multi = seen["tasks"]["binary"], seen["tasks"]["multi"]
    assert binary["help"].startswith("The model gives the probability of dog: from 40.0 % on")
    assert "at or above their threshold" in multi["help"]
    assert binary["about"].startswith("2 classes") and multi["about"].startswith("5 labels")
    assert binary["overflow"] <= 0 and multi["overflow"] <= 0


@pytest.mark.parametrize("task", TASKS)
def test_golden_outputs_of_any_width_are_compared(seen: dict[str, Any], task: str) -> None:
    rows = seen["tasks"][task]["golden"]
    assert [row[0] for row in rows] == list(TASK_KINDS)
    assert [row[1] for row in rows] == ["4 of 4"] * 2
    assert [row[3] for row in rows] == ["✓ same"] * 2


def test_bad_picture_is_refused_and_the_next_one_is_read(seen: dict[str, Any]) -> None:
    assert seen["light"]["unreadable"]["error"].startswith("notes.jpg is not a readable picture")
    assert seen["light"]["dropped"]["error"] == ""


def test_damaged_model_is_refused(seen: dict[str, Any]) -> None:
    assert seen["damaged"]["error"].startswith("model_float32.tflite is damaged")
    assert seen["damaged"]["status"] == "Not ready."


def test_narrow_screen_is_not_wider_than_it_is(seen: dict[str, Any]) -> None:
    assert seen["narrow"]["overflow"] <= 0
    assert seen["narrow"]["tables"] == [0, 0]
    assert min(seen["narrow"]["buttons"]) >= 44  # a fingertip: WCAG 2.5.5


def test_keyboard_does_everything(seen: dict[str, Any]) -> None:
    keyboard = seen["keyboard"]
    assert keyboard["order"] == ["choose", "photograph", "check"]
    assert keyboard["rings"] == ["solid"] * 3  # where the focus is can be seen
    assert keyboard["inCamera"] == "take"
    assert len(keyboard["photograph"]["labels"]) == 5
    assert keyboard["golden"] == 2
    assert all(keyboard["names"])  # for those who hear the page


def test_dropped_picture_is_classified(seen: dict[str, Any], pictures: list[Path]) -> None:
    assert seen["light"]["dropped"]["labels"] == seen["exported"]["labels"]
    assert seen["light"]["dropped"]["first"] == pytest.approx(seen["exported"]["first"], abs=0.2)


def test_exported_page_works_without_isolation(seen: dict[str, Any]) -> None:
    assert not seen["exported"]["isolated"]
    assert [row[3] for row in seen["exported"]["facts"]] == ["CPU, one thread"] * 2
