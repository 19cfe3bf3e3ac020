"""Names of splits in their usual spellings: ``train``, ``Training``, ``test_set``, ``val2017``."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

TRAIN = ("train", "training", "trainval")
# In order of preference as the test split.
HELD_OUT = (
    *("val", "valid", "test", "testing", "validation", "dev"),
    *("eval", "evaluation", "holdout", "heldout"),
)
# Words that say nothing about a split.
FILLERS = frozenset(
    (
        *("set", "sets", "data", "dataset", "folder", "dir", "split", "jpg", "jpeg", "png"),
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
        *("sample", "samples", "example", "examples"),
    )
)
# "TrainImages2" has three words: Train, Images, 2.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


@functools.cache
def split_word(name: str) -> str | None:
    """The word of ``TRAIN`` or ``HELD_OUT`` that a name stands for; ``None`` for other names."""
    word, rest = _parse(name)
    return None if rest else word


def split_words(names: Iterable[str]) -> dict[str, str]:
    """The names that are splits, with their words.

    A name with another word in it, such as ``seg_train``, is a split if there is one with the same
    other word: ``seg_test``. A class "steam train" is none.
    """
    parsed = {name: _parse(name) for name in names}
    words = {name: (word, rest) for name, (word, rest) in parsed.items() if word}
    return {
        name: word
        for name, (word, rest) in words.items()
        if not rest
        or any(rest == other and word != different for different, other in words.values())
    }


def _parse(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The word for a split in a name, if there is just one, and the words that say more."""
    joined = re.sub(r"(?i)(hold|held)[\W_]*out", "holdout", name)
    words = [_without_filler(word.lower()) for word in WORD.findall(joined)]
    splits = [word for word in words if word in TRAIN or word in HELD_OUT]
    rest = tuple(word for word in words if word not in (*splits, *FILLERS) and not word.isdigit())
    return (splits[0], rest) if len(splits) == 1 else (None, rest)


def _without_filler(word: str) -> str:
    """``trainset`` without ``set``."""
    for split in (*TRAIN, *HELD_OUT):
        if word.startswith(split) and word[len(split) :] in FILLERS:
            return split
    return word
