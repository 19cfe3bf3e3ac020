"""Progress moves while native output is held back, on a real terminal."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.terminal import REPOSITORY, TIMEOUT, Terminal

UPDATES = 6
# Prints from C++ and Python, and waits at each update until the test has seen its frame.
PROGRAM = """
import logging, os, sys, warnings
from keras_resnet.native_stderr import suppressed_native_stderr
{bar}
    with suppressed_native_stderr():
        for i in range(1, {updates} + 1):
            {update}
            os.write(2, b"noise from C++\\n")
            print("noise on stderr", file=sys.stderr)
            print("noise on stdout")
            warnings.warn("noise by a warning", stacklevel=1)
            logging.getLogger("any").warning("noise by a logger")
            sys.stdin.readline()
        {end}
print("after the block", file=sys.stderr)
logging.getLogger("any").warning("a logger still works")
"""
BARS = {
    "progress": (
        "from keras_resnet.console import progress\nwith progress('converting') as bar:",
        "bar(i, {updates})",
        "{i}/{updates}",
    ),
    "training": (
        "from training.display import display\n"
        "with display(1, {updates}, steps=10, batch=1) as screen:",
        "screen.validating(i - 1)",
        "epoch {i}/{updates}, validating",
    ),
}


def run(name: str, end: str, until: Callable[[int], str]) -> tuple[int, str]:
    """Runs the program on a terminal; returns its exit code and all that the terminal showed."""
    bar, update, _ = (part.replace("{updates}", str(UPDATES)) for part in BARS[name])
    program = PROGRAM.format(bar=bar, update=update, end=end, updates=UPDATES)
    terminal = Terminal(100)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=terminal.descriptor,
        text=True,
    )
    assert process.stdin
    with process, process.stdin as stdin:
        for i in range(1, UPDATES + 1):
            assert terminal.wait_for(until(i)), terminal.text
            stdin.write("\n")
            stdin.flush()
        code = process.wait(TIMEOUT)
    return code, terminal.close()


@pytest.mark.parametrize("name", BARS)
def test_every_update_is_drawn_while_native_output_is_held_back(name: str) -> None:
    frame = BARS[name][2]
    code, text = run(name, "pass", lambda i: frame.format(i=i, updates=UPDATES))
    assert code == 0
    assert "noise" not in text
    assert "after the block" in text and "a logger still works" in text


def test_held_back_output_is_shown_if_the_block_fails() -> None:
    frame = BARS["progress"][2]
    end = "raise RuntimeError('it failed')"
    code, text = run("progress", end, lambda i: frame.format(i=i, updates=UPDATES))
    assert code == 1 and "RuntimeError: it failed" in text
    assert text.count("noise from C++") == UPDATES
    assert text.count("noise on stderr") == UPDATES
    assert "noise on stdout" not in text


def test_nothing_is_held_back_for_good_in_a_pipe() -> None:
    program = PROGRAM.format(
        bar=BARS["progress"][0],
        update=f"bar(i, {UPDATES})",
        end="raise RuntimeError('it failed')",
        updates=UPDATES,
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        input="\n" * UPDATES,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stderr.startswith("converting …\n")
    assert done.stderr.count("noise from C++") == UPDATES
