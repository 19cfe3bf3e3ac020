"""What the name of a file says: that it is a picture, or hidden. Content decides the rest."""

from __future__ import annotations

import os

# Endings that say that a file is a picture.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif",
    ".tiff", ".avif", ".heic", ".heif",
    # Not supported, but pictures all the same: they are refused and not left out.
    ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".svg", ".psd", ".jp2", ".jxl", ".tga", ".dng", ".cr2",
    ".nef", ".arw",
)  # fmt: skip
# Left by Windows, macOS archives and network storage; names that begin with a dot are hidden, too.
SYSTEM_NAMES = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin")
)


def has_picture_suffix(name: str) -> bool:
    """Whether a file, a name or a path, is meant to be a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES
