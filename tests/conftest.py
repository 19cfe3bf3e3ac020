"""Settings and fixtures that every test shares."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import pytest


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
