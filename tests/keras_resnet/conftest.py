"""What several tests of the models share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest

Python = Callable[..., str]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    """Sets the global dtype policy; the test's end restores it."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def python() -> Python:
    """Runs a program in a fresh interpreter and gives what it printed."""

    def run(program: str, *arguments: object, backend: str = "tensorflow") -> str:
        result = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "KERAS_BACKEND": backend},
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
