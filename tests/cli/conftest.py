"""A short run on digits and all files made from it, for the tests of the command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.command_line import run
from training.run import Run


@pytest.fixture(scope="session")
def converted(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with evaluation, SavedModel and TFLite files in it."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    shutil.copytree(digits_run.folder, folder)
    for command in ("evaluate", "export", "convert"):
        assert run(command, folder) == 0
    return folder


@pytest.fixture(scope="session")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of a zero."""
    path = tmp_path_factory.mktemp("digit") / "zero.png"
    pixels = np.rint(load_digits().images[0] * (255 / 16)).astype("uint8")
    Image.fromarray(pixels).save(path)
    return path
