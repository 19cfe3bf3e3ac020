"""The source ``folder:<path>``: a folder of image files.

It has subfolders ``train`` and ``val``, ``test`` or ``validation``, or one subfolder per class,
which is split by the seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.config import DataConfig
from training.data.split import CHANNELS, Source, Split, file_split, first_labelled, stratified
from training.data.validate_images import Say, find_problems, report

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
HELD_OUT_FOLDERS = ("val", "test", "validation")


def open_folder(path: str, data: DataConfig, seed: int, say: Say) -> Source:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}")
    if not _has_splits(root):
        labels, train, test = _split_by_class(root, data, seed)
    elif held_out := first_labelled(
        [root / name for name in HELD_OUT_FOLDERS if (root / name).is_dir()],
        lambda folder: range(len(_class_folders(folder))),
        say,
    ):
        labels, train = _scan(root / "train")
        test_labels, test = _scan(held_out, classes=1)
        if unknown := sorted(set(test_labels) - set(labels)):
            raise ValueError(f"{held_out} has classes that {root / 'train'} lacks: {unknown}")
        test = [(file, labels.index(test_labels[label])) for file, label in test]
    else:
        labels, train, test = _split_by_class(root / "train", data, seed)

    everything = [file for file, _ in train + test]
    bad = {everything[i]: problem for i, problem in find_problems(everything).items()}
    report(bad, len(everything), data, say)

    def split(files: list[tuple[str, int]]) -> Split:
        good = [(file, label) for file, label in files if file not in bad]
        return file_split([file for file, _ in good], np.array([label for _, label in good]))

    return Source(labels, CHANNELS[data.color], split(train), split(test))


def _has_splits(root: Path) -> bool:
    """Whether the subfolders are splits, not classes, one of which may be called "train"."""
    names = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    if "train" not in names:
        return False
    if names & set(HELD_OUT_FOLDERS):
        return True
    return names == {"train"} and bool(_class_folders(root / "train"))


def _split_by_class(
    folder: Path, data: DataConfig, seed: int
) -> tuple[tuple[str, ...], list[tuple[str, int]], list[tuple[str, int]]]:
    labels, files = _scan(folder)
    chosen = stratified(np.array([label for _, label in files]), data.test_fraction, seed)
    train, test = ([files[i] for i in indices] for indices in chosen)
    return labels, train, test


def _class_folders(root: Path) -> list[tuple[str, list[str]]]:
    """Subfolders that contain images: name and image files of each."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    found = [
        (folder.name, sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES))
        for folder in folders
    ]
    return [(name, files) for name, files in found if files]


def _scan(root: Path, classes: int = 2) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Names of the classes, and each image file with the number of its class."""
    found = _class_folders(root)
    if len(found) < classes:
        raise ValueError(
            f"{root} needs a subfolder of pictures ({', '.join(SUFFIXES)}) for each of at least "
            f"two classes. Found: {', '.join(name for name, _ in found) or 'none'}"
        )
    labels = tuple(name for name, _ in found)
    return labels, [(file, number) for number, (_, files) in enumerate(found) for file in files]
