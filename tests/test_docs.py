"""Generated pages are current; every file, heading and section that the docs name exists."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
SOURCES = sorted(
    path
    for folder in ("keras_resnet", "training", "tflite", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
)

FOLDERS = "keras_resnet|training|tflite|tests|benchmarks|docs"
# A path from the root, in prose, in code or in a command; no part of a longer path or address.
PATH = re.compile(rf"(?<![\w./:-])(?:{FOLDERS})/[\w./-]*\w/?|(?<=`)(?:{FOLDERS})/(?=`)")
BARE_MODULE = re.compile(r"(?<=`)\w+\.py(?=`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ADDRESS = re.compile(r"^[a-z]+:")


def missing_files(text: str) -> list[str]:
    """The files named in a text that do not exist.

    A module without a folder, as in "`weights/load.py`, `save.py`", is in the folder of the path
    before it on its line, or in the root.
    """
    missing = []
    for line in text.splitlines():
        folder = ROOT
        for found in re.finditer(f"{PATH.pattern}|{BARE_MODULE.pattern}", line):
            name = found[0]
            if "/" not in name:
                places = [folder / name, ROOT / name]
            else:
                places = [ROOT / name]
                folder = ROOT / name if name.endswith("/") else (ROOT / name).parent
            if not any(place.exists() for place in places):
                missing.append(name)
    return missing


def broken_links(text: str, folder: Path) -> list[str]:
    """The relative links of a page in ``folder`` whose file or heading does not exist."""
    return [
        link
        for link in LINK.findall(text)
        if not ADDRESS.match(link) and not _resolves(link, folder)
    ]


def _resolves(link: str, folder: Path) -> bool:
    path, _, anchor = link.partition("#")
    target = folder / path
    if not target.exists():
        return False
    return not anchor or anchor in _anchors(target.read_text("utf-8"))


def _anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_models_page_is_current() -> None:
    page = runpy.run_path(str(DOCS / "make_models_page.py"))["page"]
    written = (DOCS / "models.md").read_text("utf-8")
    assert written == page(), "run: python docs/make_models_page.py"


def test_report_picture_shows_sections_that_exist() -> None:
    shown = runpy.run_path(str(DOCS / "make_report_picture.py"))["SHOWN"]
    templates = (ROOT / "training" / "report" / "templates").glob("*.j2")
    text = "".join(path.read_text("utf-8") for path in templates)
    assert set(shown) <= set(re.findall("<h2>(.+)</h2>", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert missing_files(text) == []
    assert broken_links(text, page.parent) == []


def test_comments_and_docstrings_name_only_files_that_exist() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for name in PATH.findall(path.read_text("utf-8"))
        if name.endswith((".py", ".md")) and not (ROOT / name).exists()
    }
    assert missing == set()


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`training/train.py`, `run.py`; `tests/faults/`", []),
        ("`training/gone.py`, `train.py`, `gone.py`", ["training/gone.py", "gone.py"]),
        ("`training/data/`: `sources.py`, `train.py`", ["train.py"]),
        ("`train.py` on a line without a folder; `setup.py`", ["train.py"]),
        ("    python benchmarks/gone.py see docs/gone.md.", ["benchmarks/gone.py", "docs/gone.md"]),
        ("runs/a/tflite/model.tflite, https://example.org/docs/gone.md", []),
    ],
)
def test_missing_files_are_found(text: str, missing: list[str]) -> None:
    assert missing_files(text) == missing


def test_broken_links_are_found() -> None:
    text = "[a](models.md#weights) [b](gone.md) [c](models.md#gone) [d](https://example.org/x)"
    assert broken_links(text, DOCS) == ["gone.md", "models.md#gone"]
