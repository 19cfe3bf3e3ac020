"""What is there before and after a file or a folder is written, and when that fails half-way."""

from pathlib import Path

import pytest

from keras_resnet import files
from keras_resnet.files import atomic_write, atomic_write_folder, check_replaceable


def test_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exchange", [True, False])
def test_folder_takes_the_place_of_the_old_one_at_the_end(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    folder = tmp_path / "saved_model"
    for content in ("old", "new"):
        with atomic_write_folder(folder) as temporary:
            temporary.mkdir()
            (temporary / content).touch()
            assert folder.exists() is (content == "new")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_failure_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "saved_model"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(RuntimeError), atomic_write_folder(folder) as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]


def test_old_folder_is_never_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This system exchanges folders in one step, so that none is ever renamed away."""
    folder = tmp_path / "saved_model"
    folder.mkdir()
    monkeypatch.setattr(files, "_replace_folder", pytest.fail)
    with atomic_write_folder(folder) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, atomic_write(tmp_path / "no" / "model.keras"):
        pass
    assert error.value.filename == str(tmp_path / "no")


def test_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_only_a_new_folder_or_one_of_the_same_sort_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    check_replaceable(folder, "saved_model.pb", "a SavedModel")
    folder.mkdir()
    check_replaceable(folder, "saved_model.pb", "a SavedModel")
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="out is not a SavedModel, and is not replaced"):
        check_replaceable(folder, "saved_model.pb", "a SavedModel")
    with pytest.raises(ValueError, match="not replaced"):
        check_replaceable(folder / "thesis.txt", "saved_model.pb", "a SavedModel")
    (folder / "saved_model.pb").touch()
    check_replaceable(folder, "saved_model.pb", "a SavedModel")
