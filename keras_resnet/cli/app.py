"""The command: registers subcommands, prints one-line errors, and sets exit codes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import itertools
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tyro

from keras_resnet.cli.backend import set_environment
from keras_resnet.cli.streams import OutputError, discard_stdout, open_streams
from keras_resnet.console import say

DESCRIPTION = """\
Residual networks for Keras, from images to a phone.

Results go to stdout, progress and errors to stderr. After any subcommand,
--debug shows the traceback of an error.

Exit codes:
  0    done, or a training that SIGTERM stopped after its state was saved
  1    a file exceeds a limit of verify, a training or search failed, or predict
       could not read a picture
  2    an error in the arguments, the files or the system
  70   an internal error: please report it
  130  stopped by Ctrl-C
  141  the reader of stdout closed the pipe"""

LONGEST_REASON = 300  # characters of an internal error; TensorFlow's may have thousands

app = tyro.extras.SubcommandApp()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a subcommand, so that parsing returns it, ready to be called."""
    function.__doc__ = _unwrapped(function.__doc__ or "")

    @functools.wraps(function)
    def ready(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    app.command(ready)
    return function


def _unwrapped(docstring: str) -> str:
    """One line for each argument: tyro keeps line breaks when it wraps their descriptions."""
    return re.sub(r"\n {8}(?=\S)", " ", inspect.cleandoc(docstring))


# Options that take any number of values, and so may be repeated.
LIST_OPTIONS = ("--set", "--kinds", "--threads", "--fail-on")


class Failed(Exception):
    """A file exceeds a limit, or a training or search failed: exit code 1."""


class UsageError(Exception):
    """The arguments cannot be parsed."""


def run_command(arguments: Sequence[str]) -> None:
    """Runs a subcommand and exits with its code; an error is one line on stderr."""
    open_streams()
    set_environment()
    debug = "--debug" in arguments
    try:
        _parsed([word for word in arguments if word != "--debug"])()
        sys.stdout.flush()
    except SystemExit as leave:
        code, message = _flushed(leave.code)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        code, message = _verdict(error)
    else:
        return
    if message:
        say(f"keras-resnet: {' '.join(message.split())}")
    sys.exit(code)


def _parsed(arguments: Sequence[str]) -> Callable[[], None]:
    with _one_line_usage_errors():
        return app.cli(
            prog="keras-resnet",
            description=DESCRIPTION,
            args=_each_once(arguments),
            config=(tyro.conf.FlagCreatePairsOff,),
        )


def _each_once(arguments: Sequence[str]) -> list[str]:
    """The arguments with the values of a repeated list option in one place.

    The parser would keep those of the last one only.

    Raises:
        UsageError: An option of one value is given twice.
    """
    groups: dict[str, list[str]] = {"": []}  # the words of each option, itself included
    current = groups[""]
    for word in arguments:
        option, _, value = word.partition("=")
        if not word.startswith("--"):
            current.append(word)
        elif option not in groups:
            current = groups[option] = [word]
        elif option in LIST_OPTIONS:
            current = groups[option]
            current.extend([value] if value else [])
        else:
            raise UsageError(f"{option} is given twice")
    return [word for group in groups.values() for word in group]


def _flushed(code: Any) -> tuple[int, str]:
    """Exit code and message of a command that calls ``sys.exit``, as ``--help`` does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _verdict(error)
    return (code if isinstance(code, int) else 0), ""


def _verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error."""
    match error:
        case KeyboardInterrupt():
            return 130, str(error) or "stopped"
        case BrokenPipeError():  # the reader of stdout, such as head, closed the pipe
            discard_stdout()
            return 141, ""
        case OutputError():
            discard_stdout()
            return 2, f"error: {error.strerror}"
        case Failed():
            return 1, f"failed: {error}"
        case UsageError():
            return 2, f"error: {error}. See keras-resnet --help"
        case ValueError() | OSError():
            return 2, f"error: {error}"
        case MemoryError():
            return 2, "error: There is not enough memory"
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    reason = textwrap.shorten(reason, LONGEST_REASON, placeholder=" …")
    return 70, f"error: internal error: {reason} (--debug shows the traceback; please report it)"


@contextlib.contextmanager
def _one_line_usage_errors() -> Iterator[None]:
    """tyro draws boxes of several paragraphs around its errors; ours are one line."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as leave:
        if leave.code in (None, 0):
            raise
        raise UsageError(_first_paragraph(drawn.getvalue())) from None


def _first_paragraph(box: str) -> str:
    """The text in the box up to its first rule, and the option meant if one is suggested."""
    lines = [line.strip("│╭╮╰╯|+ ") for line in box.splitlines()[1:]]
    body = itertools.dropwhile(_is_rule, lines)
    words = list(itertools.takewhile(lambda line: not _is_rule(line), body))
    for line, following in itertools.pairwise(lines):
        if line.startswith("Perhaps you meant"):
            words.append(f"(perhaps you meant {following}?)")
    return " ".join(words).rstrip(".:")


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")
