"""``keras-resnet models`` and ``weights``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from tyro.conf import Positional, arg

from keras_resnet.cli.app import command, light
from keras_resnet.cli.formats import work
from keras_resnet.console import file_size, show_json, show_table


@command
@light
def models(
    pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "", /, json: bool = False
) -> None:
    """List the networks.

    Args:
        pattern: Only those whose name or paper has these letters; * and ? stand for any.
        json: Print a JSON list.
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
            "multiply-adds": lambda row: work(row.multiply_adds),
            "input": lambda row: "×".join(map(str, row.input_shape)),
            "classes": lambda row: str(row.classes),
            "variant": lambda row: row.variant,
            "paper": lambda row: row.paper.split(",")[0],
        },
    )


@command
@light
def weights(
    pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "", /, json: bool = False
) -> None:
    """List the published weights that weights= of the constructors takes by a tag.

    Args:
        pattern: Only those whose network or tag has these letters; * and ? stand for any.
        json: Print a JSON list.
    """
    from keras_resnet.weights.catalog import CATALOG

    rows = [row for row in CATALOG if _matches(pattern, row.architecture, row.tag)]
    _list(
        rows,
        f"No weights match {pattern!r}. See them all: keras-resnet weights",
        json,
        {
            "network": lambda row: row.architecture,
            "variant": lambda row: row.variant,
            "tag": lambda row: row.tag if row.include_top else f"{row.tag} (no classifier)",
            "top-1": lambda row: "" if row.top1 is None else f"{row.top1:.2f} %",
            "at": lambda row: f"{row.resolution} px",
            "licence": lambda row: row.licence,
            "size": lambda row: "" if row.size is None else file_size(row.size),
        },
    )


def _matches(pattern: str, *texts: str) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(text.lower(), f"*{pattern.lower()}*") for text in texts)


def _list(
    rows: list[Any], refusal: str, json: bool, columns: dict[str, Callable[[Any], str]]
) -> None:
    """Prints rows, each cell made by its column; refuses to print none."""
    if not rows:
        raise ValueError(refusal)
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    show_table(tuple(columns), [[cell(row) for cell in columns.values()] for row in rows])
