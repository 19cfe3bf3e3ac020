"""Folders of synthetic photographs: blurred noise, each unlike the others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakePicture = Callable[[int], Image.Image]


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Coarse noise in colour with fine grain: structure at all scales, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 40):
        noise = rng.integers(0, 256, (cells, cells, 3)).astype("uint8")
        total += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(total.astype("uint8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``train`` with 12 and ``val`` with 4 pictures of each of the classes ``a`` and ``b``."""
    root = tmp_path / "pictures"
    seed = 0
    for split, count in (("train", 12), ("val", 4)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                picture(seed).save(root / split / label / f"{number:02}.jpg", quality=90)
                seed += 1
    return root
