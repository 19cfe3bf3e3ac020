"""The page reads the pixels that Python reads: every format, mode and orientation, in Chromium."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_resnet.contract import Contract
from tests.tflite.devices.web.pictures import table
from tflite.devices import demo

# In `make test-all`, as it needs npm and a browser.
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TABLE = table()


def whole(size: tuple[int, ...], **changes: Any) -> Contract:
    """The whole picture, not resized."""
    return Contract(size[0], size[1], resize="stretch", crop_fraction=1.0, **changes)


def in_chromium(folder: Path, pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page makes of files: for each ``{pixels, size, error}``."""
    chromium = shutil.which("chromium")
    web = demo.PAGE.parent
    if not chromium:
        pytest.skip("there is no chromium (Debian: apt-get install chromium)")
    if not (web / "node_modules").is_dir():
        pytest.skip("the page's libraries are not installed: make web (needs npm)")
    settings = {"web": str(web), "chromium": chromium, "pages": pages}
    (folder / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        ["node", str(HERE / "drive_pixels.mjs"), str(folder / "settings.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pixels(shown: dict[str, Any], channels: int = 3) -> np.ndarray:
    return np.frombuffer(base64.b64decode(shown["pixels"]), "uint8").reshape(
        *shown["size"], channels
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """By the picture's name and the contract's orientation."""
    folder = tmp_path_factory.mktemp("pixels")
    files, keys = [], []
    for number, (name, picture) in enumerate(TABLE.items()):
        (folder / f"{number}").write_bytes(picture.content)
        for orientation, expected in (("apply", picture.upright), ("ignore", picture.stored)):
            contract = whole(expected.shape, orientation=orientation)
            keys.append((name, orientation))
            files.append(
                {"file": str(folder / f"{number}"), "name": name, "contract": asdict(contract)}
            )
    return dict(zip(keys, in_chromium(folder, [{"removed": [], "files": files}]), strict=True))


@pytest.mark.parametrize("orientation", ("apply", "ignore"))
@pytest.mark.parametrize("name", TABLE)
def test_pixels_are_those_of_the_file(
    seen: dict[tuple[str, str], dict[str, Any]], name: str, orientation: str
) -> None:
    picture = TABLE[name]
    expected = picture.upright if orientation == "apply" else picture.stored
    shown = seen[name, orientation]
    assert shown["error"] == ""
    difference = np.abs(pixels(shown).astype(int) - expected)
    assert difference.max() <= picture.tolerance
