"""Asks a child process what may crash or hang: a C++ library about a file that may be damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, TypeVar

Answer = TypeVar("Answer")

PROGRAM = """
import sys
from {module} import answer
answer(*sys.argv[1:])
"""


def call_in_subprocess(
    module: str,
    arguments: list[str],
    seconds: float,
    parse: Callable[[IO[bytes]], Answer],
    name: str,
) -> Answer:
    """Calls ``answer(*arguments)`` of a module in a process of its own, which starts fast.

    Args:
        module: Its ``answer`` writes to stdout.
        arguments: What it is called with.
        seconds: How long it may take.
        parse: Reads what it wrote, from the start.
        name: Of the library that may fail, for the message.

    Raises:
        ValueError: The process crashed, or did not come to an end.
    """
    places = [place or os.getcwd() for place in sys.path]
    with tempfile.TemporaryFile() as answered:
        try:
            status = subprocess.run(
                [sys.executable, "-P", "-c", PROGRAM.format(module=module), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=answered,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
                timeout=seconds,
            ).returncode
        except subprocess.TimeoutExpired:
            raise ValueError(f"{name} does not come to an end") from None
        if status:
            raise ValueError(f"{name} ends with status {status}")
        answered.seek(0)
        return parse(answered)
