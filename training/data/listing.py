"""The files of a folder of images: a tree of folders, listed without opening a file that has a
picture's suffix.

Hidden files and folders, and those that systems leave behind, are left out and counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from keras_resnet.picture_names import has_picture_suffix, is_hidden
from keras_resnet.pictures import is_picture

# Files without a picture's suffix that are opened to find out whether a folder holds pictures.
OPENED = 100
DEEPEST = 100


@dataclass(frozen=True)
class Folder:
    """A folder and all that is below it.

    Attributes:
        path: Its path, beginning with the path that was asked for.
        files: Names of the files directly in it, sorted.
        folders: The folders directly in it, sorted by name.
        pictures: Number of the pictures directly in it: files with a picture's suffix, or else
            those of the first ``OPENED`` files whose content is a picture.
        below: Number of the pictures in all its subfolders.
        hidden: Paths of the hidden files directly in it, and of all files in hidden folders.
    """

    path: str
    files: list[str]
    folders: list[Folder]
    pictures: int
    below: int
    hidden: list[str]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(os.path.abspath(self.path))

    @property
    def filled(self) -> list[Folder]:
        """The folders directly in it that hold pictures, at any depth."""
        return [folder for folder in self.folders if folder.pictures or folder.below]

    @property
    def empty(self) -> list[Folder]:
        """The folders directly in it that hold no pictures."""
        return [folder for folder in self.folders if not folder.pictures and not folder.below]

    def paths(self) -> Iterator[str]:
        """Paths of all files in it and below."""
        for name in self.files:
            yield os.path.join(self.path, name)
        for folder in self.folders:
            yield from folder.paths()

    def hidden_paths(self) -> Iterator[str]:
        """Paths of all hidden files in it and below."""
        yield from self.hidden
        for folder in self.folders:
            yield from folder.hidden_paths()


def list_folder(path: str, above: frozenset[tuple[int, int]] = frozenset()) -> Folder:
    """Lists a folder and its subfolders. Links to files and to folders are followed.

    Args:
        path: The folder.
        above: Device and inode of the folders that contain it.

    Raises:
        ValueError: A folder cannot be listed, contains a link to itself, or is nested too deep.
    """
    try:
        status = os.stat(path)
        with os.scandir(path) as entries:
            visible, hidden = _sorted_out(entries)
    except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path} cannot be listed ({error.strerror})") from None
    here = status.st_dev, status.st_ino
    if here in above:
        raise ValueError(f"{path} is a link to a folder that contains it. Remove the link")
    if len(above) >= DEEPEST:
        raise ValueError(f"{path} is {DEEPEST} folders deep. Give a folder nearer to the pictures")
    folders = [
        list_folder(os.path.join(path, name), above | {here})
        for name, is_folder in visible
        if is_folder
    ]
    files = [name for name, is_folder in visible if not is_folder]
    return Folder(
        path,
        files,
        folders,
        _pictures(path, files),
        sum(folder.pictures + folder.below for folder in folders),
        hidden,
    )


def _sorted_out(entries: Iterator[os.DirEntry[str]]) -> tuple[list[tuple[str, bool]], list[str]]:
    """Visible names, sorted, each with whether it is a folder; and the paths of hidden files.

    Sockets, pipes and devices count as hidden. A broken link is a file, which cannot be read.
    """
    visible: list[tuple[str, bool]] = []
    hidden: list[str] = []
    for entry in entries:
        kind = _kind(entry)
        if is_hidden(entry.name) and kind == "folder":
            hidden += _files_below(entry.path)
        elif is_hidden(entry.name) or kind == "device":
            hidden.append(entry.path)
        else:
            visible.append((entry.name, kind == "folder"))
    return sorted(visible), hidden


def _kind(entry: os.DirEntry[str]) -> str:
    """``folder``, ``file`` or ``device``; a link has the kind of its target, if it has one."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "device"
    except OSError:  # a link to itself, for one
        return "file"


def _files_below(path: str) -> list[str]:
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def _pictures(path: str, files: list[str]) -> int:
    named = sum(map(has_picture_suffix, files))
    if named:
        return named
    return sum(_is_readable_picture(os.path.join(path, name)) for name in files[:OPENED])


def _is_readable_picture(path: str) -> bool:
    try:
        return is_picture(path)
    except OSError:
        return False
