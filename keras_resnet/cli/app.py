"""The command itself: its subcommands, its errors of one line, and its exit codes."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tyro

from keras_resnet.console import say
from keras_resnet.native_stderr import suppressed_native_stderr

app = tyro.extras.SubcommandApp()
_light: set[Callable[..., None]] = set()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a subcommand, so that parsing returns it, ready to be called."""

    @functools.wraps(function)
    def ready(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    app.command(ready)
    return function


def light(function: Callable[..., None]) -> Callable[..., None]:
    """Marks a subcommand that needs no Keras, which takes seconds to import."""
    _light.add(function)
    return function


class Failed(Exception):
    """The command did its work, and the answer is no: exit code 1."""


def main() -> None:
    """The entry point of the command."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    # Before TensorFlow is imported: its start-up chatter is no one's concern here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _one_line_usage_errors():
            run = app.cli(
                prog="keras-resnet",
                description="Residual networks for Keras, from images to a phone. "
                "--debug after any command shows the traceback of an error.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        if run.func not in _light:
            start_keras(run.keywords.get("backend"))
        run()
    except KeyboardInterrupt as stop:
        _leave(str(stop) or "stopped", 130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Failed as failure:
        _leave(f"failed: {failure}", 1)
    except (ValueError, OSError) as error:
        if debug:
            raise
        _leave(f"error: {' '.join(str(error).split())}", 2)


def start_keras(backend: str | None = None) -> None:
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    say("starting TensorFlow …" if backend != "jax" else "starting JAX …")
    # It greets from C++ before any of its settings are heard.
    with suppressed_native_stderr():
        import keras  # noqa: F401


def _leave(message: str, code: int) -> None:
    say(f"keras-resnet: {message}")
    sys.exit(code)


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
        _leave(f"error: {_first_paragraph(drawn.getvalue())}. See keras-resnet --help", 2)


def _first_paragraph(box: str) -> str:
    """What stands in the box up to its first rule, and the option meant if one is suggested."""
    lines = [line.strip("│╭╮╰╯|+ ") for line in box.splitlines()[1:]]
    body = itertools.dropwhile(_is_rule, lines)
    words = list(itertools.takewhile(lambda line: not _is_rule(line), body))
    for line, following in itertools.pairwise(lines):
        if line.startswith("Perhaps you meant"):
            words.append(f"(perhaps you meant {following}?)")
    return " ".join(words).rstrip(".:")


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")
