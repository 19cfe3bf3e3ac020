"""Arguments that several subcommands take, and checks of their values that need no Keras."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

CALIBRATION = 100  # images
LAYER_IMAGES = 20
STARTS = 3  # of each file, for its loading time, first inference and memory

SOURCES = "digits, tfds:NAME, folder:PATH, csv:FILE or tfrecord:PATTERN"

RunArgument = Annotated[
    Path | None,
    arg(metavar="RUN", help="A run folder or a .keras file; the newest run by default."),
]
DataOption = Annotated[
    str | None, arg(metavar="SPEC", help=f"Images: {SOURCES}; those of the recipe by default.")
]
TrainOption = Annotated[
    Path | None,
    arg(
        metavar="DIR",
        help="Training images instead of --data: a folder whose subfolders are the classes.",
    ),
]
TestOption = Annotated[
    Path | None,
    arg(
        metavar="DIR",
        help="Test images likewise; without it a share of those of --train is held out.",
    ),
]
OtherDataOption = Annotated[
    str | None, arg(metavar="SPEC", help=f"Images other than the run's: {SOURCES}.")
]
DataFolderOption = Annotated[
    Path | None, arg(metavar="DIR", help="Where tensorflow-datasets keeps its data.")
]
SetOption = Annotated[
    tuple[str, ...],
    arg(
        metavar="KEY=VALUE ...",
        help="Other keys of the experiment, such as optimizer.learning_rate=0.05.",
    ),
]
JsonOption = Annotated[bool, arg(help="Print JSON.")]
FolderOption = Annotated[Path | None, arg(metavar="DIR")]
NumberOption = Annotated[int | None, arg(metavar="N")]
PercentOption = Annotated[float | None, arg(metavar="PERCENT")]


def at_least(option: str, value: int | None, least: int) -> None:
    """Raises ValueError if the value of an option is too small; ``None`` is an option left out."""
    if value is not None and value < least:
        raise ValueError(f"{option} must be at least {least}. Received: {value}")


def above_zero(option: str, value: float | None) -> None:
    """Raises ValueError unless the value of an option is a finite number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"{option} must be above 0. Received: {value}")


def in_percent(option: str, value: float | None) -> None:
    """Raises ValueError unless the value of an option is from 0 to 100."""
    if value is not None and not 0 <= value <= 100:
        raise ValueError(f"{option} must be from 0 to 100. Received: {value:g}")


def check_output(option: str, path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Raises ValueError if a file cannot be written there: its suffix or its folder is wrong."""
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}. Received: {path}")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} for {option}")
