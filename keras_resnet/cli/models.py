"""``keras-resnet models`` and ``weights``: what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from tyro.conf import Positional, arg

from keras_resnet.cli.app import command, light
from keras_resnet.cli.formats import size, work
from keras_resnet.console import show_json, show_table


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
    if not rows:
        raise ValueError(f"No network matches {pattern!r}. See them all: keras-resnet models")
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    show_table(
        ("name", "parameters", "multiply-adds", "input", "classes", "variant", "paper"),
        [
            (
                row.name,
                f"{row.parameters:,}",
                work(row.multiply_adds),
                "×".join(map(str, row.input_shape)),
                str(row.classes),
                row.variant,
                row.paper.split(",")[0],
            )
            for row in rows
        ],
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
    if not rows:
        raise ValueError(f"No weights match {pattern!r}. See them all: keras-resnet weights")
    if json:
        show_json([dataclasses.asdict(row) for row in rows])
        return
    show_table(
        ("network", "variant", "tag", "top-1", "at", "licence", "size"),
        [
            (
                row.architecture,
                row.variant,
                row.tag if row.include_top else f"{row.tag} (no classifier)",
                "" if row.top1 is None else f"{row.top1:.2f} %",
                f"{row.resolution} px",
                row.licence,
                "" if row.size is None else size(row.size),
            )
            for row in rows
        ],
    )


def _matches(pattern: str, *texts: str) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(text.lower(), f"*{pattern.lower()}*") for text in texts)
