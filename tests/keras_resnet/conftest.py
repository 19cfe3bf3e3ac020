"""What several tests of the models share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.models import Constructor

Python = Callable[..., str]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Constructor]:
    """Gives a network fewer blocks during a test: one a stage, and two in the last.

    It has every kind of block that the full network has, which only repeats them. Blocks of
    ImageNet's networks have half the width too.
    """

    def constructor(name: str) -> Constructor:
        for row in [row for row in ARCHITECTURES.values() if row.name in (name, f"{name}V2")]:
            depths = (*(1 for _ in row.depths[1:]), 2)
            halved = 2 if row.family == "imagenet" else 1
            widths = tuple(width // halved for width in row.widths)
            smaller = replace(row, depths=depths, widths=widths)
            monkeypatch.setitem(ARCHITECTURES, row.name, smaller)
        return Constructor(ARCHITECTURES[name])

    return constructor


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
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
