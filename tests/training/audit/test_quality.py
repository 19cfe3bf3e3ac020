"""Poor pictures by kind; good ones by none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from tests.training.audit.conftest import picture
from training.audit.kinds import QUALITY
from training.audit.quality import poor_pictures
from training.audit.scan import Scan, look_at, scan
from training.config import DataConfig
from training.data.sources import open_source


def grain(seed: int) -> Image.Image:
    """A picture with sharp edges."""
    image = picture(seed, (320, 240))
    image.paste((20, 20, 20), (40, 40, 120, 200))
    return image


FAULTS = {
    "dark": lambda: ImageEnhance.Brightness(grain(1)).enhance(0.1),
    "bright": lambda: Image.blend(grain(1), Image.new("RGB", (320, 240), "white"), 0.9),
    "plain": lambda: Image.new("RGB", (320, 240), (90, 120, 80)),
    "blurred": lambda: grain(1).filter(ImageFilter.GaussianBlur(4)),
    "tiny": lambda: grain(1).resize((40, 30)),
    "odd-shaped": lambda: grain(1).crop((0, 0, 320, 100)),
}


def poor(images: list[Image.Image], folder: Path) -> dict[str, tuple[int, ...]]:
    looks = []
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
        looks.append(look_at(str(folder / f"{number}.png")))
    labels = np.zeros(len(looks), "int64")
    return poor_pictures(Scan(("",) * len(looks), len(looks), labels, tuple(looks), {}))


@pytest.mark.parametrize("kind", QUALITY)
def test_a_fault_is_found_and_good_pictures_are_not(kind: str, tmp_path: Path) -> None:
    good = [grain(seed) for seed in range(8)]
    found = poor([*good, FAULTS[kind]()], tmp_path)
    assert found == {other: ((8,) if other == kind else ()) for other in QUALITY}


def test_small_pictures_are_tiny_only_beside_larger_ones() -> None:
    seen = scan(open_source(DataConfig("digits"), 0))
    assert poor_pictures(seen)["tiny"] == ()
