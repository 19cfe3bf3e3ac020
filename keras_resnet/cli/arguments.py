"""The arguments that several subcommands take, named alike in each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

CALIBRATION = 100  # images

RunArgument = Annotated[Path | None, arg(metavar="RUN")]
DataOption = Annotated[str | None, arg(metavar="SPEC")]
FolderOption = Annotated[Path | None, arg(metavar="DIR")]
NumberOption = Annotated[int | None, arg(metavar="N")]
PointsOption = Annotated[float | None, arg(metavar="POINTS")]
