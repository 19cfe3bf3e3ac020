"""The release: built with its page, installed into an empty environment, run from elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("keras_resnet", "training", "tflite")
PAGE = "tflite/devices/web"
SMOKE = """
import keras, keras_resnet
model = keras_resnet.ResNet8()
print(model(keras.ops.zeros((1, 32, 32, 3))).shape)
"""

pytestmark = pytest.mark.slow


def call(*command: object, folder: Path) -> str:
    """Runs a program that sees nothing of this process's settings; returns what it printed."""
    own = ("PYTHON", "VIRTUAL_ENV", "KERAS_", "TF_", "MAKE", "MFLAGS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("make", "npm"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not available; a release is built with it")
    folder = tmp_path_factory.mktemp("wheel")
    call(
        "make",
        "wheel",
        f"VENV={folder}/venv",
        f"PYTHON={sys.executable}",
        f"DIST={folder}",
        folder=ROOT,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_holds_all_files_of_the_packages_and_the_built_page(wheel: Path) -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.*")]
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if not path.is_relative_to(ROOT / PAGE) and "__pycache__" not in path.parts
    }
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / PAGE / "dist").rglob("*.*")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == sources | page
    assert {Path(name).suffix for name in page} == {".html", ".js", ".css", ".wasm"}


def interpreter(version: str) -> str:
    """A Python of that version on this machine."""
    own = ".".join(map(str, sys.version_info[:2]))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = (
        [sys.executable]
        if version == own
        else [f"python{version}", *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    )
    for candidate in map(str, candidates):
        # pyenv's own `python3.12` is there for a version that is not chosen, and then fails.
        asked = [candidate, "-c", "import ensurepip"]
        if shutil.which(candidate) and not subprocess.run(asked, capture_output=True).returncode:
            return candidate
    pytest.skip(f"there is no Python {version}")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "environment"
    shutil.rmtree(tmp_path / "environment")  # of three gigabytes


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_installed_wheel_runs_from_another_folder(
    wheel: Path, version: str, environment: Path, tmp_path: Path
) -> None:
    call(interpreter(version), "-m", "venv", environment, folder=tmp_path)
    programs = environment / "bin"
    call(programs / "pip", "install", "--quiet", "--no-compile", wheel, folder=tmp_path)
    assert "No broken requirements" in call(programs / "pip", "check", folder=tmp_path)
    assert call(programs / "python", "-c", SMOKE, folder=tmp_path).strip() == "(1, 10)"

    printed = call(
        programs / "keras-resnet", "quickstart", "--out", "run", "--json", folder=tmp_path
    )
    result = json.loads(printed)
    assert result["accuracy"] > 0.9 and set(result["kinds"]) >= {"float32", "int8"}
    assert (tmp_path / "run" / "report.html").is_file()
    call(programs / "keras-resnet", "demo", "--export", "page", "run", folder=tmp_path)
    assert len(json.loads((tmp_path / "page" / "demo.json").read_text())["models"]) == 4
    assert (tmp_path / "page" / "index.html").is_file()
    assert list((tmp_path / "page" / "wasm").glob("*.wasm"))
