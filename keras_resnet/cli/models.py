"""``keras-resnet models`` and ``weights``: lists of networks and published weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from tyro.conf import Positional, arg

from keras_resnet.cli.app import command
from keras_resnet.cli.arguments import JsonOption
from keras_resnet.cli.formats import multiply_adds
from keras_resnet.console import file_size, show_json, show_table


@command
def models(
    pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "", /, json: JsonOption = False
) -> None:
    """List the networks.

    Args:
        pattern: Only those whose name or paper contains this text; * and ? are wildcards.
    """
    from keras_resnet.architectures import ARCHITECTURES

    rows = [row for row in ARCHITECTURES.values() if _matches(pattern, row.name, row.paper)]
    _list(
        rows,
        f"No network matches {pattern!r}. See them all: keras-resnet models",
        json,
        {
            "name": lambda row: row.name,
            "parameters": lambda row: f"{row.parameters:,}",
            "multiply-adds": lambda row: multiply_adds(row.multiply_adds),
            "input": lambda row: "×".join(map(str, row.input_shape)),
            "classes": lambda row: str(row.classes),
            "variant": lambda row: row.variant,
            "paper": lambda row: row.paper.split(",")[0],
        },
    )


@command
def weights(
    pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "", /, json: JsonOption = False
) -> None:
    """List the published weights that weights= of the constructors takes by a tag.

    Args:
        pattern: Only those whose network or tag contains this text; * and ? are wildcards.
    """
    from keras_resnet.weights.catalog import CATALOG

    rows = [row for row in CATALOG if _matches(pattern, row.architecture, row.tag)]
    _list(
        rows,
        f"No weights match {pattern!r}. See them all: keras-resnet weights",
        json,
        {
            "weights": lambda row: f"{row.architecture} {_tag(row)}",
            "variant": lambda row: row.variant,
            "top-1, %": lambda row: "" if row.top1 is None else f"{row.top1:.2f}",
            "pixels": lambda row: str(row.resolution),
            "licence": lambda row: row.licence,
            "size": lambda row: "" if row.size is None else file_size(row.size),
        },
    )


def _tag(row: Any) -> str:
    return row.tag if row.include_top else f"{row.tag} (no top)"


def _matches(pattern: str, *texts: str) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(text.lower(), f"*{pattern.lower()}*") for text in texts)


def _list(
    rows: list[Any], refusal: str, json: bool, columns: dict[str, Callable[[Any], str]]
) -> None:
    """Prints rows, each cell computed by its column; raises ValueError if there are none."""
    if not rows:
        raise ValueError(refusal)
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    show_table(tuple(columns), cells, prose=("paper", "licence"))
