"""Paths of an experiment, absolute."""

from pathlib import Path

import pytest

from training.config import from_dict
from training.paths import relative_path, with_absolute_paths


def resolved(model_weights: str = "", **data: str) -> tuple[str, ...]:
    experiment = from_dict({"data": data, "model": {"weights": model_weights}})
    found = with_absolute_paths(experiment)
    assert with_absolute_paths(found) == found
    return found.data.source, found.data.test, found.data.data_dir, found.model.weights


def test_relative_paths_are_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    found = resolved(source="folder:photos/", test="../t", data_dir="~/tfds")
    assert found == (f"folder:{tmp_path}/photos", str(tmp_path.parent / "t"), "/home/me/tfds", "")
    assert resolved(source="csv:a.csv")[0] == f"csv:{tmp_path}/a.csv"
    assert resolved(source="tfrecord:r/train-*")[0] == f"tfrecord:{tmp_path}/r/train-*"


@pytest.mark.parametrize("source", ["digits", "tfds:cifar10", "tfrecord:gs://b/train-*"])
def test_names_and_addresses_are_unchanged(source: str) -> None:
    assert resolved(source=source) == (source, "", "", "")


@pytest.mark.parametrize(
    ("weights", "is_path"),
    [
        ("w.safetensors", True),
        ("here/w", True),
        ("imagenet", False),
        ("timm-a1_in1k", False),
        ("hf://timm/resnet18", False),
        ("https://example.org/w.safetensors", False),
    ],
)
def test_weights_are_a_path_whether_or_not_the_file_is_still_there(
    weights: str, is_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolved(weights)[3] == (f"{tmp_path}/{weights}" if is_path else weights)


def test_a_relative_path_is_found_for_the_message() -> None:
    def first(**data: str) -> str | None:
        return relative_path(from_dict({"data": data}).data)

    assert first(source="folder:photos") == "photos"
    assert first(source="folder:/photos/", test="t") == "t"
    assert first(source="folder:~/photos") is None
    assert first(source="tfds:cifar10", data_dir="d") == "d"
    assert first(source="digits") is None
