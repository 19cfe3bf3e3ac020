"""Pages that are written by a program are what it writes."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_models_page_is_what_the_tables_say() -> None:
    page = runpy.run_path(str(DOCS / "make_models_page.py"))["page"]
    written = (DOCS / "models.md").read_text("utf-8")
    assert written == page(), "run: python docs/make_models_page.py"
