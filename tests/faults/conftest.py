"""One run that nothing disturbed, which every disturbed one is held against."""

from pathlib import Path
from typing import Any

import pytest
from command import run
from state import left_by

from tests.made_once import made_once


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(folder: Path) -> None:
        code, output = run(folder / "run")
        assert code == 0, output

    return left_by(made_once(tmp_path_factory, "undisturbed", make) / "run")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"
