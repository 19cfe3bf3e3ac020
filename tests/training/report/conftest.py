from pathlib import Path

import pytest

from tests.training.report.run_folder import make_run
from training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder with the usual files that the report reads, made by hand."""
    return make_run(tmp_path)
