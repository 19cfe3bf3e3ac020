"""The source ``folder:<path>``: image files in class folders; see ``docs/data.md``.

``folder:<path>/*`` takes each subfolder as a class, whatever its name; ``data.test`` names the
folder of the test images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.config import DataConfig
from training.data.layouts import Classes, Layout, find_layout, given_layout
from training.data.listing import Folder, list_folder
from training.data.split import CHANNELS, Source, Split, file_split, stratified
from training.data.validate_images import Say, find_problems, report

EACH_IS_A_CLASS = "/*"

Files = list[tuple[str, int]]


def open_folder(path: str, data: DataConfig, seed: int, say: Say) -> Source:
    """Opens a folder of images.

    Args:
        path: The part of the spec after the colon.
        data: Folder of test images, share to hold out, and how to treat unreadable images.
        seed: Selects the images that are held out.
        say: Called with lines on what is unusual or not used.

    Raises:
        ValueError: There is no such folder, its layout is unclear, or images cannot be read and
            ``bad_images`` is ``"error"``.
    """
    layout = _layout(path, data.test, say)
    labels = tuple(layout.train)
    train = _files(layout.train, labels)
    if layout.test is None:
        chosen = stratified(np.array([label for _, label in train]), data.test_fraction, seed)
        train, test = ([train[i] for i in indices] for indices in chosen)
    else:
        test = _files(layout.test, labels)

    everything = [file for file, _ in train + test]
    bad = {everything[i]: problem for i, problem in find_problems(everything).items()}
    report(bad, len(everything), data, say)

    def split(files: Files) -> Split:
        good = [(file, label) for file, label in files if file not in bad]
        return file_split([file for file, _ in good], np.array([label for _, label in good]))

    return Source(labels, CHANNELS[data.color], split(train), split(test))


def _layout(path: str, test: str, say: Say) -> Layout:
    if test:
        train = path.removesuffix(EACH_IS_A_CLASS)
        return given_layout(_listed(train), _listed(test), say)
    if path.endswith(EACH_IS_A_CLASS):
        return given_layout(_listed(path.removesuffix(EACH_IS_A_CLASS)), None, say)
    return find_layout(_listed(path), say)


def _listed(path: str) -> Folder:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}")
    return list_folder(str(root))


def _files(classes: Classes, labels: tuple[str, ...]) -> Files:
    numbers = {name: number for number, name in enumerate(labels)}
    return [
        (file, numbers[name]) for name, folder in classes.items() for file in sorted(folder.paths())
    ]
