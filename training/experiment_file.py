"""Experiments in YAML files.

A recipe is a YAML file with a complete experiment; those of the package are in ``recipes/``. The
resolved experiment is written to every run folder, and training from that file is the same run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from training.config import Experiment, from_dict, nearest, to_dict

RECIPES = Path(__file__).parent / "recipes"


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_experiment(recipe: str | Path, changes: dict[str, Any] | None = None) -> Experiment:
    """Reads a recipe by name, or any experiment file by path, and applies changes.

    Args:
        recipe: One of ``list_recipes()``, or the path of a YAML file.
        changes: Dotted keys and their values, such as ``{"schedule.epochs": 1}``.

    Raises:
        ValueError: There is no such recipe, the YAML cannot be read, a key is unknown, or a value
            is out of range.
    """
    tree = read_yaml(_recipe_path(recipe))
    if not isinstance(tree, dict) or not tree:
        received = "an empty file" if not tree else type(tree).__name__
        raise ValueError(f"{recipe} must hold keys and values. Received: {received}")
    for key, value in (changes or {}).items():
        _set(tree, key, value)
    return from_dict(tree)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Writes the experiment as YAML, for ``load_experiment``."""
    tree = yaml.safe_dump(to_dict(experiment), sort_keys=False, allow_unicode=True)
    path.write_text(tree, "utf-8")


def read_yaml(path: Path) -> Any:
    """Plain data from a YAML file.

    Raises:
        ValueError: The file is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None


def _recipe_path(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ValueError(f"There is no experiment file {path}")
    if str(recipe) in list_recipes():
        return RECIPES / f"{recipe}.yaml"
    raise ValueError(
        f"No recipe is called {str(recipe)!r}. {nearest(str(recipe), list_recipes())}"
        f"Known: {', '.join(list_recipes())}; or give the path of a .yaml file"
    )


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, key = dotted.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
        if not isinstance(tree, dict):
            raise ValueError(f"{dotted} is not a key of the experiment")
    tree[key] = value
