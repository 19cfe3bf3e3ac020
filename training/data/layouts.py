"""Layouts: which folders hold the training and the test images, and which of them are classes.

``docs/data.md`` shows the layouts that are read. What looks like a split, like groups of classes or
like a folder too many, and is not clear, is an error that says what to type.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keras_resnet.text import path_text
from training.data.listing import Folder
from training.data.split import some
from training.data.split_names import HELD_OUT, TRAIN, split_words
from training.data.validate_images import Say

Classes = dict[str, Folder]


@dataclass(frozen=True)
class Layout:
    """Class folders by the names of the classes, which are sorted.

    Attributes:
        train: Of the training images, all of whose files below are the class's.
        test: Of the test images, with no other classes; ``None`` if a share of the training images
            is to be held out.
    """

    train: Classes
    test: Classes | None = None


def find_layout(root: Folder, say: Say) -> Layout:
    """The layout of a folder.

    Args:
        root: The folder.
        say: Called with a line on each folder with pictures that is not used, and on pictures that
            are not where a class's pictures usually are.

    Raises:
        ValueError: There are no classes, or it is not clear which folders they are.
    """
    root = _without_wrappers(root, say)
    words = split_words(folder.name for folder in root.folders)
    splits = [folder for folder in root.filled if folder.name in words]
    groups = _groups(root)
    if any(folder in groups for folder in splits):
        return _of_splits(root, words, say)
    if len(splits) > 1:
        raise ValueError(
            f"In {root.path}, {_names(splits)} look like splits, but do not have a folder for each "
            "of at least two classes. Sort the pictures into class folders, or list them in a "
            f"file: --data csv:FILE. If {_names(root.filled)} are the classes: "
            f"{_train_option(root)}"
        )
    classes = _class_folders(root, say)
    _check_enough(root, classes)
    return Layout(classes)


def given_layout(train: Folder, test: Folder | None, say: Say) -> Layout:
    """The layout of folders each of whose subfolders is a class, whatever its name.

    Args:
        train: Folder of the training images.
        test: Folder of the test images; ``None`` to hold out a share of the training images.
        say: As for ``find_layout``.

    Raises:
        ValueError: There are no classes, or the test images have others.
    """
    classes = _given_classes(train, say)
    _check_enough(train, classes)
    if test is None:
        return Layout(classes)
    test_classes = _given_classes(test, say)
    if not test_classes:
        raise ValueError(f"{test.path} needs a folder of pictures for each class")
    _check_known(test, test_classes, train, classes)
    return Layout(classes, test_classes)


def _of_splits(root: Folder, words: dict[str, str], say: Say) -> Layout:
    """The layout of a folder with splits, at least one of which has class folders."""
    training = [folder for folder in root.filled if words.get(folder.name) in TRAIN]
    if len(training) != 1:
        raise ValueError(
            f"{root.path} needs one folder of training images, such as train. Found: "
            f"{_names(root.filled)}. Name it: --train DIR --test DIR"
        )
    (train,) = training
    held_out = sorted(
        (folder for folder in root.folders if words.get(folder.name) in HELD_OUT),
        key=lambda folder: HELD_OUT.index(words[folder.name]),
    )
    others = [f for f in root.filled if f is not train and f not in held_out]
    if unclear := [folder for folder in others if _has_classes(folder)]:
        test = held_out[0].path if held_out else "DIR"
        raise ValueError(
            f"{root.path} holds {train.name} and {_names(held_out) or 'no test split'}; what are "
            f"{_names(unclear)}? To leave them out: {_train_option(train, test)}"
        )
    _report_strays(root, say)
    for folder in others:
        say(f"{folder.path} is no split and has no class folders, so it is not used")
    classes = _class_folders(train, say)
    _check_enough(train, classes)
    return Layout(classes, _first_labelled(train, classes, held_out, say))


def _first_labelled(
    train: Folder, classes: Classes, held_out: Sequence[Folder], say: Say
) -> Classes | None:
    """The classes of the first split that has any; ``None`` if there is none."""
    used, found = None, None
    for folder in held_out:
        if used:
            say(
                f"{used.path} is the test split, so {folder.path} is not used. To test on it "
                f"instead: {_train_option(train, folder.path)}"
            )
        elif not folder.pictures and not folder.below:
            say(f"the split {folder.path} holds no pictures, so it is not used")
        elif labelled := _labelled_classes(folder, classes, say):
            _check_known(folder, labelled, train, classes)
            used, found = folder, labelled
        else:
            say(f"the split {folder.path} has no labels, so it is not used")
    return found


def _labelled_classes(folder: Folder, known: Classes, say: Say) -> Classes:
    """The class folders of a split; none if its pictures have no labels.

    One folder of pictures, such as ``test/images``, is not a class if training has none like it.
    """
    inner = _without_wrappers(folder, _no_line)
    if not inner.filled or inner.pictures > inner.below:
        return {}
    if len(inner.filled) == 1 and inner.filled[0].name not in known:
        return {}
    return _class_folders(folder, say)


def _class_folders(folder: Folder, say: Say) -> Classes:
    """The subfolders of a folder that are classes.

    Raises:
        ValueError: Some of them are groups of folders.
    """
    folder = _without_wrappers(folder, say)
    if groups := _groups(folder):
        raise ValueError(_what_groups_may_be(folder, groups))
    return _classes(folder, say)


def _given_classes(folder: Folder, say: Say) -> Classes:
    folder = _without_wrappers(folder, say)
    splits = split_words(group.name for group in _groups(folder))
    if len(splits) > 1:
        raise ValueError(
            f"{folder.path} holds the splits {' and '.join(splits)}, not classes. Give it whole "
            f"({_data_option(folder)}), or its splits: --train DIR --test DIR"
        )
    return _classes(folder, say)


def _classes(folder: Folder, say: Say) -> Classes:
    """The subfolders that hold pictures by their names, with lines on what is unusual."""
    _report_strays(folder, say)
    if folder.empty and folder.filled:
        say(f"folders without pictures in {folder.path} are no classes: {_names(folder.empty)}")
    parts = [sub for sub in folder.filled if sub.below]
    if parts and not _same_inner_folder(folder.filled):
        first = parts[0]
        say(
            f"pictures in deeper folders count for their class in {folder.path}: {_names(parts)}, "
            f"such as {_names(first.filled)} in {first.name}"
        )
    for sub in folder.filled:
        _check_name(sub)
    return {sub.name: sub for sub in folder.filled}


def _report_strays(folder: Folder, say: Say) -> None:
    if folder.pictures and folder.filled:
        say(
            f"not read, as in none of the folders of {folder.path} but beside them: "
            f"{folder.pictures:,} {'picture' if folder.pictures == 1 else 'pictures'}"
        )


def _without_wrappers(folder: Folder, say: Say) -> Folder:
    """The folder below those that hold nothing but one folder of folders of pictures."""
    inner = folder
    while not inner.pictures and len(inner.filled) == 1 and _is_group(inner.filled[0]):
        (inner,) = inner.filled
    if inner is not folder:
        say(f"images are read from {inner.path}, as {folder.path} holds no others")
    return inner


def _has_classes(folder: Folder) -> bool:
    """Whether a folder that is no known split looks like one: several folders of pictures."""
    inner = _without_wrappers(folder, _no_line)
    return _is_group(inner) and len(inner.filled) > 1


def _groups(folder: Folder) -> list[Folder]:
    """Subfolders that hold folders of pictures, as splits and groups of classes do.

    If each holds one folder of the same name, as in ``CLASS/images``, there are none.
    """
    groups = [sub for sub in folder.filled if _is_group(sub)]
    return [] if _same_inner_folder(folder.filled) else groups


def _is_group(folder: Folder) -> bool:
    return folder.below > folder.pictures


def _same_inner_folder(folders: Sequence[Folder]) -> bool:
    if len(folders) < 2 or any(sub.pictures or len(sub.filled) != 1 for sub in folders):
        return False
    inner = [sub.filled[0] for sub in folders]
    return len({sub.name for sub in inner}) == 1 and not any(sub.below for sub in inner)


# --- Messages ---------------------------------------------------------------------------------


def _what_groups_may_be(folder: Folder, groups: list[Folder]) -> str:
    """The error for folders that are neither classes nor known splits."""
    first, *others = groups
    names = {sub.name for sub in first.filled}
    found = f"{first.path} holds folders of pictures ({_names(first.filled)})"
    as_classes = f"If {_names(folder.filled)} are the classes: {_train_option(folder)}"
    for other in others:
        if len(names & {sub.name for sub in other.filled}) > 1:
            return (
                f"{found}, and so does {other.name}. If they are the splits: "
                f"{_train_option(first, other.path)}. {as_classes}"
            )
    return (
        f"{found} and no pictures itself: a split, a group of classes or one class? If the "
        f"classes are in it: {_data_option(first)}. {as_classes}"
    )


def _check_enough(folder: Folder, classes: Classes) -> None:
    if len(classes) > 1:
        return
    needs = f"{folder.path} needs a folder of pictures for each of at least two classes. Found: "
    if not folder.pictures and not folder.below:
        raise ValueError(f"{needs}no picture at all")
    if classes:
        raise ValueError(f"{needs}{', '.join(classes)}")
    parent = os.path.dirname(os.path.abspath(folder.path))
    raise ValueError(
        f"{needs}{folder.pictures:,} pictures in no folder. Sort them into class folders, or list "
        f"them in a file: --data csv:FILE. If {folder.name} is one class: "
        f"--data {shlex.quote(f'folder:{parent}')}"
    )


def _check_known(test: Folder, test_classes: Classes, train: Folder, classes: Classes) -> None:
    if unknown := [name for name in test_classes if name not in classes]:
        raise ValueError(
            f"{test.path} has classes that {train.path} lacks: {some(unknown)}. It has: "
            f"{some(list(classes))}{_almost_equal(unknown, classes)}"
        )


def _almost_equal(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Names that look alike, as of a folder from another system, with what tells them apart."""

    def plain(name: str) -> str:
        return " ".join(unicodedata.normalize("NFC", name).casefold().split())

    by_plain = {plain(name): name for name in known}
    for name in unknown:
        if other := by_plain.get(plain(name)):
            return (
                f". {name!a} and {other!a} differ in case, spaces or Unicode form only: "
                "rename one of them"
            )
    return ""


def _check_name(folder: Folder) -> None:
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"The name of the class folder {path_text(folder.path)} is not UTF-8. Rename the folder"
        ) from None


def _train_option(train: Folder, test: str | None = None) -> str:
    option = f"--train {shlex.quote(train.path)}"
    return option if test is None else f"{option} --test {shlex.quote(test)}"


def _data_option(folder: Folder) -> str:
    return f"--data {shlex.quote(f'folder:{folder.path}')}"


def _names(folders: Iterable[Folder]) -> str:
    return some([folder.name for folder in folders])


def _no_line(_: str) -> None:
    """For a folder that is looked at twice."""
