"""The import graph: no circle, and nothing below imports what stands above it."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("training", "tflite")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("keras_resnet", *WINGS)
    for path in sorted((ROOT / package).rglob("*.py"))
    if "node_modules" not in path.parts
}
# Imports of nothing but types are no dependency; these are the names of that block's condition.
TYPES_ONLY = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imported(module: str) -> set[str]:
    """The modules of ours that a module imports anywhere in it, functions included."""
    found = set()
    pending: list[ast.AST] = [ast.parse(MODULES[module].read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in TYPES_ONLY:
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            name = node.module or ""
            # ``from package import module`` depends on the module.
            inner = {f"{name}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {name}
        pending += ast.iter_child_nodes(node)
    return (found & MODULES.keys()) - {module}


GRAPH = {module: imported(module) for module in MODULES}


def test_there_is_no_circle() -> None:
    graphlib.TopologicalSorter(GRAPH).prepare()


def in_package(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("keras_resnet", "training"),
        ("keras_resnet", "tflite"),
        ("training", "tflite"),
        ("tflite", "training"),
        ("training", "keras_resnet.cli"),
        ("tflite", "keras_resnet.cli"),
        ("keras_resnet", "keras_resnet.cli"),
    ],
)
def test_nothing_below_imports_what_stands_above(below: str, above: str) -> None:
    upward = {
        (module, target)
        for module, targets in GRAPH.items()
        for target in targets
        # The command stands on top; it alone imports both wings.
        if in_package(module, below) and not in_package(module, "keras_resnet.cli")
        if in_package(target, above)
    }
    assert not upward


def test_the_command_imports_the_wings_only_inside_functions() -> None:
    for module, path in MODULES.items():
        if not in_package(module, "keras_resnet.cli"):
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert not ast.unparse(node).split()[1].startswith(WINGS), (module, node.lineno)


def test_this_test_sees_what_it_should() -> None:
    assert "keras_resnet.contract" in GRAPH["keras_resnet.build"]
    assert "training.train" in GRAPH["keras_resnet.cli.training"] | GRAPH.get(
        "keras_resnet.cli.pipeline", set()
    )
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
