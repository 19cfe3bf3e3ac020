"""What setup.py declares is what the code imports."""

import ast
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("keras_resnet", "training", "tflite")
# Imports whose distribution has another name.
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Declared for a dependency that imports it and does not declare it.
FOR_OTHERS = {"importlib-resources"}


def distribution(name: str) -> str:
    return DISTRIBUTIONS.get(name, name).replace("_", "-").lower()


def imported() -> set[str]:
    """Distributions that the packages import anywhere, also inside functions."""
    modules = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    return {distribution(name) for name in modules - sys.stdlib_module_names - set(PACKAGES)}


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of ``setup()``."""
    arguments: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **kwargs: arguments.update(kwargs))
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def names(requirements: list[str]) -> set[str]:
    return {distribution(re.match(r"[\w-]+", line)[0]) for line in requirements}


def test_every_import_is_declared_and_every_declaration_imported(metadata: dict[str, Any]) -> None:
    required = names(metadata["install_requires"])
    extras = metadata["extras_require"]
    optional = set().union(*(names(extras[name]) for name in extras if name not in ("test", "dev")))
    assert not required & optional
    assert imported() == (required | optional) - FOR_OTHERS


def test_every_requirement_has_a_lower_bound(metadata: dict[str, Any]) -> None:
    assert [line for line in metadata["install_requires"] if ">=" not in line] == []
