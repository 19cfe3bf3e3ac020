"""One run that nothing disturbed, which every disturbed one is held against."""

from pathlib import Path
from typing import Any

import pytest
from command import run
from state import left_by


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    code, output = run(folder)
    assert code == 0, output
    return left_by(folder)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
