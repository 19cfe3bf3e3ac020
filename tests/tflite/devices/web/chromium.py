"""Runs a script of this folder on Node, which drives Chromium; skips the test without them."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tflite.devices import demo

HERE = Path(__file__).parent
WEB = demo.PAGE.parent


def find_chromium() -> str:
    """The browser; skips the test without it, or without the libraries that drive it."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium (Debian: apt-get install chromium)")
    if not (WEB / "node_modules").is_dir():
        pytest.skip("the page's libraries are not installed: make web (needs npm)")
    return chromium


def drive(script: str, folder: Path, **settings: Any) -> Any:
    """What a script prints as JSON.

    Args:
        script: Its name.
        folder: Where its settings are written.
        settings: Other settings than the browser's and the libraries' paths.
    """
    given: Mapping[str, Any] = {"web": str(WEB), "chromium": find_chromium(), **settings}
    (folder / "settings.json").write_text(json.dumps(given))
    done = subprocess.run(
        ["node", str(HERE / script), str(folder / "settings.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return json.loads(done.stdout)
