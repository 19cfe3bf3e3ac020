"""``kill -9`` while a file or a folder is written: old or new, and the next write tidies up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_resnet.files import WRITING, atomic_write, atomic_write_folder, remove_leftovers

WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from command import Moment, strike_at
from keras_resnet import files
if not {exchange}:
    files._exchange = lambda one, other: False
strike_at({moment})
target = Path({target!r})
if {folder}:
    with files.atomic_write_folder(target) as whole:
        whole.mkdir()
        for name in "abc":
            (whole / name).write_text("new")
else:
    with files.atomic_write(target) as whole:
        whole.write_text("new")
"""
FILE = (
    "Moment('tempfile:mkdtemp', after=True)",
    "Moment('keras_resnet.files:_locked', 1, after=True)",
    "Moment('pathlib:Path.write_text')",
    "Moment('keras_resnet.files:_to_disk', 1)",
    "Moment('pathlib:Path.replace')",
    "Moment('pathlib:Path.replace', after=True)",
    "Moment('keras_resnet.files:_to_disk', 2)",
    "Moment('shutil:rmtree')",
)
FOLDER = (
    "Moment('tempfile:mkdtemp', after=True)",
    "Moment('pathlib:Path.write_text', 2)",
    "Moment('keras_resnet.files:_to_disk', 3)",
    "Moment('keras_resnet.files:_exchange')",
    "Moment('keras_resnet.files:_exchange', after=True)",
    "Moment('shutil:rmtree')",
    "Moment('os:rmdir')",  # the old folder is half removed
)
RENAMES = tuple(
    f"Moment('pathlib:Path.rename', {nth}, after={after})"
    for nth in (1, 2)
    for after in (False, True)
)


def kill(target: Path, moment: str, *, folder: bool, exchange: bool = True) -> None:
    program = WRITE.format(
        here=str(Path(__file__).parent),
        moment=moment,
        target=str(target),
        folder=folder,
        exchange=exchange,
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == -signal.SIGKILL, f"{moment} was never reached: {process.stderr}"


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def assert_nothing_left(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("moment", FILE)
@pytest.mark.parametrize("there", [True, False])
def test_a_file_is_old_or_new(moment: str, there: bool, tmp_path: Path) -> None:
    target = tmp_path / "model.keras"
    if there:
        target.write_text("old")
    kill(target, moment, folder=False)
    if target.exists():
        assert target.read_text() in (("old", "new") if there else ("new",))
    else:
        assert not there
    with atomic_write(tmp_path / "another") as whole:
        whole.touch()
    assert_nothing_left(tmp_path, "another", *(["model.keras"] if target.exists() else []))


@pytest.mark.parametrize("name", ["saved_model", "old"])
@pytest.mark.parametrize("moment", FOLDER)
def test_a_folder_is_old_or_new_at_every_moment(moment: str, name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    target.mkdir()
    (target / "a").write_text("old")
    kill(target, moment, folder=True)
    assert content(target) in ({"a": "old"}, dict.fromkeys("abc", "new"))
    with atomic_write_folder(target) as whole:
        whole.mkdir()
    assert content(target) == {}
    assert_nothing_left(tmp_path, name)


@pytest.mark.parametrize("moment", RENAMES)
def test_without_an_exchange_the_next_write_puts_the_old_folder_back(
    moment: str, tmp_path: Path
) -> None:
    target = tmp_path / "saved_model"
    target.mkdir()
    (target / "a").write_text("old")
    kill(target, moment, folder=True, exchange=False)
    with atomic_write(tmp_path / "another") as whole:
        whole.touch()
    done = moment == RENAMES[-1]
    assert content(target) == (dict.fromkeys("abc", "new") if done else {"a": "old"})
    assert_nothing_left(tmp_path, "another", "saved_model")


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as a, atomic_write_folder(tmp_path / "b") as b:
        b.mkdir()
        a.touch()
        program = "import sys; from pathlib import Path; from keras_resnet import files\n"
        program += "files.remove_leftovers(Path(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-c", program, tmp_path],
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        remove_leftovers(tmp_path)
        assert a.exists() and b.exists()
    assert_nothing_left(tmp_path, "a", "b")


def test_links_called_like_a_leftover_are_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    (outside / "kept").touch()
    (inside / f"{WRITING}link").symlink_to(outside)
    remove_leftovers(inside)
    assert (outside / "kept").exists()
