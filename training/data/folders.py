"""The source ``folder:<path>``: image files in class folders; see ``docs/data.md``.

``folder:<path>/*`` takes each subfolder as a class, whatever its name; ``data.test`` names the
folder of the test images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.config import DataConfig
from training.data.checked_files import LabelledFiles, open_files
from training.data.layouts import Classes, Layout, find_layout, given_layout
from training.data.listing import Folder, list_folder
from training.data.split import Source
from training.data.validate_images import Say

EACH_IS_A_CLASS = "/*"


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
    files, classes = _labelled(layout.train, labels)
    hidden = [file for folder in layout.train.values() for file in folder.hidden_paths()]
    if layout.test is None:
        return open_files(LabelledFiles(files, classes, None, hidden), labels, data, seed, say)
    test_files, test_classes = _labelled(layout.test, labels)
    hidden += [file for folder in layout.test.values() for file in folder.hidden_paths()]
    given = LabelledFiles(
        files + test_files,
        np.concatenate([classes, test_classes]),
        np.arange(len(files) + len(test_files)) >= len(files),
        hidden,
    )
    return open_files(given, labels, data, seed, say)


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
        raise ValueError(f"There is no folder {root}. Name yours: --data folder:DIR")
    return list_folder(str(root))


def _labelled(classes: Classes, labels: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """All files of the class folders, sorted within a class, and int64 class numbers."""
    by_class = [sorted(folder.paths()) for folder in classes.values()]
    numbers = [labels.index(name) for name in classes]
    files = [file for files in by_class for file in files]
    return files, np.repeat(np.array(numbers, "int64"), [len(files) for files in by_class])
