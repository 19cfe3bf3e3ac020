"""Escapes untrusted text, such as the names of classes and files, for display."""

from __future__ import annotations

import os
import unicodedata

# Join emoji and letters of several scripts; invisible by themselves, without side effects.
JOINERS = "\u200c\u200d"
# Controls, invisible formatting (such as the reversal of reading direction), halves of
# surrogate pairs, line and paragraph separators; private and unassigned characters are visible.
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    r"""The text with every control and invisible character escaped, as ``\x1b`` or ``\u202e``.

    So that it stays on one line, keeps its reading direction and cannot control the terminal.
    """
    return "".join(_shown(character) for character in text)


def shorten(text: str, most: int) -> str:
    """The text, ``printable`` and in at most that many characters; ``…`` stands for the rest."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def path_text(path: str | bytes | os.PathLike[str]) -> str:
    r"""A path for messages; bytes of a name that are not UTF-8 appear as ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _shown(character: str) -> str:
    if character in JOINERS or unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
