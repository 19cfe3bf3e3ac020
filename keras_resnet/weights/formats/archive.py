"""Zip archives, in which Keras and PyTorch keep models: checks before one is opened."""

from __future__ import annotations

import os
import zipfile
from pathlib import PurePosixPath

from keras_resnet.weights.formats.limits import check_count, check_size

# Where Keras 3 keeps the weights in a .keras file.
KERAS_WEIGHTS = "model.weights.h5"
ENCRYPTED = 0x1
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_archive(path: str | os.PathLike[str]) -> list[zipfile.ZipInfo]:
    """Reads the table of contents, then every member once against its checksum.

    Returns:
        The members, in the order of the table of contents.

    Raises:
        ValueError: The archive asks for too much memory, is encrypted, or has members of
            the same name, of an unknown compression, or named outside the archive.
        zipfile.BadZipFile: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_count(len(members))
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ValueError("two members of the archive have the same name")
        for member in members:
            _check_member(member)
        check_size(sum(member.file_size for member in members), os.path.getsize(path))
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged!r} in the archive is wrong")
    return members


def _check_member(member: zipfile.ZipInfo) -> None:
    # zipfile changes the name; other programs see the original.
    name = member.orig_filename
    if "\\" in name or "\0" in name or ":" in name or name.startswith("/"):
        raise ValueError(f"the archive has a member with the unsafe name {name!r}")
    if ".." in PurePosixPath(name).parts:
        raise ValueError(f"the archive has a member outside of itself, {name!r}")
    if member.flag_bits & ENCRYPTED:
        raise ValueError(f"{name!r} in the archive is encrypted")
    if member.compress_type not in COMPRESSIONS:
        raise ValueError(f"{name!r} in the archive is compressed by a method that is not supported")
