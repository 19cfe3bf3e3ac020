"""One line of error whatever the streams and the environment of the command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from keras_resnet.cli import backend, pipeline
from tests.cli.terminal import (
    REPOSITORY,
    TIMEOUT,
    Ended,
    in_pipe,
    in_shell,
    into,
    on_terminal,
    without_stderr,
)
from tests.command_line import run

FULL = "/dev/full"
NO_ROOM = "keras-resnet: error: The result cannot be written to stdout: No space left on device"

pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full")

# Every subcommand that exits by itself and is cheap. RUN and DIGIT are replaced by a run and a
# picture.
RESULTS: dict[str, tuple[str, ...]] = {
    "models": ("models", "ResNet5*"),
    "weights": ("weights", "ResNet50"),
    "evaluate": ("evaluate", "RUN"),
    "export": ("export", "RUN", "--out", "OUT/saved"),
    "convert": ("convert", "RUN", "--kinds", "float32", "--out", "OUT"),
    "verify": ("verify", "RUN", "--images", "20"),
    "benchmark": ("benchmark", "RUN", "--rounds", "2", "--starts", "1", "--threads", "1"),
    "inspect": ("inspect", "RUN/tflite/model_int8.tflite"),
    "layers": ("layers", "RUN", "--images", "2"),
    "golden": ("golden", "RUN", "--images", "2", "--out", "OUT/golden.zip"),
    "predict": ("predict", "RUN", "DIGIT"),
    "report": ("report", "RUN"),
    "dry-run": ("train", "--dry-run", "--epochs", "1", "--out", "OUT/dry"),
    "train": ("train", "--epochs", "1", "--out", "OUT/run", "--set", "schedule.warmup_epochs=0"),
}
ERRORS: tuple[tuple[str, ...], ...] = (
    ("trian",),
    ("evaluate", "/nowhere"),
    ("predict", "/nowhere", "é\x1b[31m–\udcff.png"),
    ("models", "nothing–\u202e"),
    ("inspect", __file__),
    ("compare", "a", "b"),
    ("train", "--set", "a=[Δ"),
)


@pytest.fixture
def words(converted: Path, digit: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """The words of a command, with this run and a folder for what it writes."""
    (tmp_path / "out").mkdir()
    names = {"RUN": converted, "DIGIT": digit, "OUT": tmp_path / "out"}

    def filled(name: str) -> list[str]:
        return [_filled(word, names) for word in RESULTS[name]]

    return filled


def _filled(word: str, names: dict[str, Path]) -> str:
    for name, path in names.items():
        word = word.replace(name, str(path))
    return word


def _one_line(ended: Ended, code: int) -> None:
    assert ended.code == code, ended
    assert "Traceback" not in ended.err and "Exception ignored" not in ended.err, ended.err
    assert ended.error.startswith("keras-resnet: error: "), ended.err
    assert ended.error.isprintable() or "\ufffd" in ended.error


# --- Results, on every stream ---------------------------------------------------------------


ENCODINGS = [
    *((name, "ascii") for name in RESULTS if name != "train"),
    *(
        pytest.param(name, "cp1252", marks=pytest.mark.slow)
        for name in ("models", "evaluate", "verify")
    ),
]


@pytest.mark.parametrize(("name", "encoding"), ENCODINGS)
def test_no_encoding_costs_the_result(
    name: str, encoding: str, words: Callable[[str], list[str]]
) -> None:
    ended = in_pipe(words(name), encoding)
    assert ended.code == 0, ended.err
    assert ended.out.strip() and "Traceback" not in ended.err
    assert "\\u" not in ended.out  # signs have a substitute


def test_training_ends_well_in_ascii(words: Callable[[str], list[str]]) -> None:
    ended = in_pipe([*words("train"), "--json"], "ascii")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["top1"]["images"] == 360


@pytest.mark.parametrize("name", ["models", "verify", "predict", "inspect", "convert", "dry-run"])
def test_a_full_disk_behind_stdout_is_one_line(
    name: str, words: Callable[[str], list[str]]
) -> None:
    ended = into(FULL, words(name))
    _one_line(ended, 2)
    assert ended.error == NO_ROOM


@pytest.mark.parametrize("name", ["models", "verify", "export", "predict"])
def test_a_closed_stdout_is_a_result_that_is_not_wanted(
    name: str, words: Callable[[str], list[str]]
) -> None:
    ended = into(None, words(name))
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("name", ["models", "convert", "evaluate", "benchmark"])
def test_a_closed_stderr_changes_nothing(
    name: str, words: Callable[[str], list[str]], tmp_path: Path
) -> None:
    ended = without_stderr(words(name))
    assert ended.code == 0
    assert "…" not in ended.out  # remarks are not among the result
    if name == "convert":  # what C++ prints was not written into the file
        assert on_terminal(("inspect", tmp_path / "out" / "model_float32.tflite"), 80).code == 0


# --- Light commands, in shells ----------------------------------------------------------------

SHELLS = {
    "closed stdout": ("$COMMAND {} >&-", 0),
    "closed stderr": ("$COMMAND {} 2>&-", 0),
    "all closed": ("$COMMAND {} <&- >&- 2>&-", 0),
    "full stdout": ("$COMMAND {} >/dev/full", 2),
    "full stderr": ("$COMMAND {} 2>/dev/full", 0),
    "both full": ("$COMMAND {} >/dev/full 2>&1", 2),
    "C locale": ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 $COMMAND {}", 0),
    "ascii": ("PYTHONIOENCODING=ascii $COMMAND {}", 0),
    "cp1252": ("PYTHONIOENCODING=cp1252 $COMMAND {}", 0),
    "utf-16": ("PYTHONIOENCODING=utf-16 $COMMAND {}", 0),
    "strict stderr": ("PYTHONIOENCODING=ascii:strict $COMMAND {}", 0),
    "a reader that reads a line": ("$COMMAND {} | head -1; exit ${{PIPESTATUS[0]}}", None),
    "a reader that reads nothing": ("$COMMAND {} | true; exit ${{PIPESTATUS[0]}}", None),
    "unbuffered": ("PYTHONUNBUFFERED=1 $COMMAND {} | true; exit ${{PIPESTATUS[0]}}", None),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("words", ["weights", "train --help"])
def test_a_light_command_survives_its_shell(shell: str, words: str) -> None:
    line, code = SHELLS[shell]
    ended = in_shell(line.format(words))
    assert ended.code == code if code is not None else ended.code in (0, 141), ended
    assert "Traceback" not in ended.err and "Exception ignored" not in ended.err
    assert len(ended.err.splitlines()) <= 1
    if code == 2 and shell != "both full":
        assert ended.error == NO_ROOM


@pytest.mark.parametrize("words", ERRORS, ids=lambda words: words[0])
def test_an_error_is_one_printable_line_in_any_encoding(words: Sequence[str]) -> None:
    for encoding in ("utf-8", "ascii"):
        ended = in_pipe(words, encoding)
        _one_line(ended, 2)
        assert len(ended.err.splitlines()) == 1 and not ended.out


def test_an_error_with_nowhere_to_go_still_has_its_exit_code() -> None:
    assert in_shell("$COMMAND trian 2>&-").code == 2
    assert in_shell("$COMMAND trian 2>/dev/full >/dev/full").code == 2
    assert in_shell("$COMMAND trian <&- >&- 2>&-").code == 2


# --- Backends and their import ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["foo", "torch", "numpy"])
def test_a_backend_that_the_command_does_not_run_on_is_one_line(
    name: str, converted: Path, digit: Path
) -> None:
    ended = in_shell(f"$COMMAND predict {converted} {digit}", KERAS_BACKEND=name)
    _one_line(ended, 2)
    assert f"Received: KERAS_BACKEND={name}" in ended.error
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["export", "convert", "quickstart --out"])
def test_what_needs_tensorflow_says_so_on_jax(
    command: str, converted: Path, tmp_path: Path
) -> None:
    path = tmp_path / "q" if command.startswith("quickstart") else converted
    ended = in_shell(f"$COMMAND {command} {path}", KERAS_BACKEND="jax")
    _one_line(ended, 2)
    assert len(ended.err.splitlines()) == 1 and "Received: KERAS_BACKEND=jax" in ended.error
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("missing", ["jax", "tensorflow"])
def test_a_backend_that_is_missing_says_what_to_install(
    missing: str,
    converted: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = backend.importlib.util.find_spec
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    monkeypatch.setenv("KERAS_BACKEND", missing)
    assert run("evaluate", converted) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is not installed: pip install" in error and missing in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_amid_the_import_of_tensorflow_ends_it_quietly(
    number: signal.Signals, code: int, converted: Path
) -> None:
    program = "import sys; sys.argv[0] = 'keras-resnet'; from keras_resnet.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "evaluate", str(converted)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background lets them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while "libtensorflow" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    assert not out and "Traceback" not in err
    lines = ["starting TensorFlow …", *(["keras-resnet: stopped"] if code == 130 else [])]
    assert err.splitlines() == lines


# --- Unexpected exceptions -------------------------------------------------------------------


class _TensorFlowError(Exception):
    """Stands for tf.errors.OpError, which is neither a ValueError nor an OSError."""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyError("name"), 70, "internal error: KeyError: 'name' (--debug"),
        (RuntimeError("two\nlines\x1b[31m"), 70, "RuntimeError: two lines\\x1b[31m (--debug"),
        (RecursionError(), 70, "internal error: RecursionError (--debug"),
        (AssertionError(), 70, "internal error: AssertionError (--debug"),
        (_TensorFlowError("node"), 70, "internal error: _TensorFlowError: node"),
        (StopIteration(), 70, "internal error: StopIteration"),
        (RuntimeError("long " * 5000), 70, "long long … (--debug"),
        (MemoryError(), 2, "There is not enough memory"),
        (ValueError("plain"), 2, "error: plain"),
        (PermissionError(13, "Permission denied", "a"), 2, "error: [Errno 13] Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 2, "can't decode byte 0xff"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_of_any_type_is_one_line(
    error: Exception,
    code: int,
    says: str,
    converted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run_export", failing)
    assert run("export", converted) == code
    output = capsys.readouterr()
    assert not output.out and len(output.err.splitlines()) == 1
    assert output.err.startswith("keras-resnet: error: ") and says in output.err


def test_the_exit_codes_are_in_the_help() -> None:
    text = in_shell("$COMMAND --help").out
    for code in ("0 ", "1 ", "2 ", "70 ", "130 ", "141 "):
        assert f"\n  {code}" in text
