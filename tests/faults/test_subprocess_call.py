"""A failure in a subprocess is told from how it ended, and only a refusal is about damage."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import misbehaving
import numpy as np
import pytest

from keras_resnet.subprocess_call import SubprocessError, call_in_subprocess

LIBRARY = "the library"


def call(function: Callable[..., object], *arguments: str, cpu_seconds: float = 20):
    return call_in_subprocess(function, list(arguments), cpu_seconds, LIBRARY)


def test_what_it_returns_arrives_unchanged() -> None:
    value, arrays = call(misbehaving.fine, "a\nb", "é")
    expected_value, expected = misbehaving.fine("a\nb", "é")
    assert value == expected_value
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_it_starts_without_keras() -> None:
    assert not {"keras", "tensorflow", "torch"} & set(call(misbehaving.modules)[0])


def test_what_a_library_prints_is_dropped() -> None:
    assert call(misbehaving.chatter)[0] == "done"


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (misbehaving.refuses, ValueError, "it is damaged: a superblock of nothing"),
        (misbehaving.loop, ValueError, "the library used more than 1 s of processor time on it"),
        (misbehaving.segfault, ValueError, "the library crashed on it (SIGSEGV)"),
        (
            misbehaving.abort,
            ValueError,
            "the library crashed on it (SIGABRT: terminate called after throwing an instance "
            "of 'std::length_error')",
        ),
        (misbehaving.half_a_reply, ValueError, "the library crashed on it (SIGABRT)"),
        (misbehaving.all_memory, SubprocessError, "there is not enough memory for the library"),
        (misbehaving.bad_alloc, SubprocessError, "there is not enough memory for the library"),
        (misbehaving.bad_disk, SubprocessError, "Input/output error"),
        (misbehaving.no_library, ImportError, "libGL.so.1: cannot open shared object file"),
        (
            misbehaving.killed,
            SubprocessError,
            "the subprocess of the library was killed (SIGKILL), as happens when memory runs out",
        ),
        (
            misbehaving.ended,
            SubprocessError,
            "the subprocess of the library was ended by SIGTERM",
        ),
        (
            misbehaving.unexpected,
            SubprocessError,
            "the subprocess of the library failed with exit code 1: KeyError: 'a fault of ours'",
        ),
        (
            misbehaving.exits,
            SubprocessError,
            "the subprocess of the library failed with exit code 3",
        ),
        (misbehaving.missing, ModuleNotFoundError, "No module named 'no_such_runtime'"),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else "",
)
def test_each_failure_is_told_apart(
    function: Callable[..., object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as error:
        call(function, cpu_seconds=1 if function is misbehaving.loop else 20)
    assert str(error.value) == message
    assert type(error.value) is kind


def test_a_full_disk_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(SubprocessError) as error:
        call(misbehaving.no_room)
    assert str(error.value) == f"there is no room left in TMPDIR ({tmp_path})"


def test_the_limit_holds_where_its_signal_is_ignored() -> None:
    with pytest.raises(SubprocessError, match="SIGKILL"):
        call(misbehaving.loop_on, cpu_seconds=1)


def test_a_program_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SubprocessError, match="no subprocess could be started: No such file"):
        call(misbehaving.fine)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Path]:
    """Stops a subprocess, keeps it waiting for longer than its limit, and lets it continue."""
    place = tmp_path / "pid"

    def stop_for_a_while() -> None:
        while not (place.exists() and place.read_text()):
            time.sleep(0.01)
        process = int(place.read_text())
        os.kill(process, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(process, signal.SIGCONT)
        place.with_suffix(".go").touch()

    thread = threading.Thread(target=stop_for_a_while)
    thread.start()
    yield place
    thread.join()


def test_a_machine_that_gives_it_no_time_is_no_failure(stopped: Path) -> None:
    """The limit is 2 s of processor time; the subprocess stands still for longer than that."""
    began = time.monotonic()
    assert call(misbehaving.wait_for, str(stopped), cpu_seconds=2)[0] == "waited"
    assert time.monotonic() - began > 2.5
