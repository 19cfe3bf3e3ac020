"""Settings and fixtures that every test shares."""

import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.made_once import made_once

if TYPE_CHECKING:
    from training.run import Run


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data and checkpoints; tests that need it skip without it."""
    folder = os.environ.get("KERAS_RESNET_TEST_DATA")
    if not folder:
        pytest.skip("KERAS_RESNET_TEST_DATA is not set; see CONTRIBUTING.md")
    path = Path(folder).resolve()
    if not path.is_dir():
        pytest.fail(f"KERAS_RESNET_TEST_DATA={folder} is not a folder")
    return path


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A short training run on real digits, for the tests that look at what it left."""
    from training.experiment_file import load_experiment
    from training.run import Run
    from training.train import train

    experiment = load_experiment("digits-resnet8", {"schedule.epochs": 8})
    folder = made_once(
        tmp_path_factory,
        "digits-run",
        lambda folder: train(experiment, folder / "digits", say=lambda _: None, verbose=0),
    )
    return Run(folder / "digits")


@pytest.fixture(autouse=True, scope="module")
def _free_memory() -> Iterator[None]:
    """Keras remembers what every model of a process was built from."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()


def pytest_collection_finish() -> None:
    """Spares the garbage collector the million objects of imported libraries, which stay."""
    gc.collect()
    gc.freeze()
