"""Duplicates in a source: in a scan of all pictures, or cheaply, of the bytes of its files."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet.console import progress_after
from training.audit.near import Pairs, near_pairs
from training.audit.scan import Look, Scan, look_at, pictures
from training.data.sources import Source
from training.data.validate_images import Say, cached, in_threads

# Above, near duplicates are not looked for: all pairs are compared, which takes minutes.
MOST_COMPARED = 100_000
# Above, ``evaluate`` does not look for test pictures in the training split by itself.
MOST_SEEN = 50_000
# Files of equal size above which ``train`` does not compare bytes.
MOST_HASHED = 200_000
# Below, pictures have too few pixels to tell similar ones from copies: digits of 8×8, say.
LEAST_SIDE = 16
# Bytes of a file's end that are compared before all of it is.
TAIL = 4096


@dataclass(frozen=True)
class Group:
    """Pictures that are copies of each other.

    Attributes:
        members: Their numbers in the scan, ascending.
        similarity: The smallest of the cosines that join them; 1 if all have equal pixels.
        exact: Whether all have equal pixels.
        across: Whether some are training and some test pictures.
        conflict: Whether they have different labels.
    """

    members: tuple[int, ...]
    similarity: float
    exact: bool
    across: bool
    conflict: bool


def find_duplicates(scan: Scan) -> tuple[Group, ...]:
    """Groups of pictures with equal pixels, or of near duplicates; across splits first.

    Of more than ``MOST_COMPARED`` pictures only those with equal pixels are found.
    """
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for index, look in enumerate(scan.looks):
        if look:
            by_digest[look.digest].append(index)
    copies = list(by_digest.values())
    pairs = _near([indices[0] for indices in copies], scan.looks)
    groups = [
        _group(scan, sorted(i for k in joined for i in copies[k]), similarity, len(joined) == 1)
        for joined, similarity in _components(len(copies), pairs)
        if len(joined) > 1 or len(copies[joined[0]]) > 1
    ]
    order = sorted(groups, key=lambda g: (not g.across, not g.conflict, not g.exact, g.members))
    return tuple(order)


def is_compared(look: Look | None) -> bool:
    """Whether a picture has enough pixels for near duplicates."""
    return look is not None and min(look.height, look.width) >= LEAST_SIDE


def seen_in_training(source: Source) -> np.ndarray | None:
    """Whether each test picture has a duplicate or near duplicate in the training split.

    The result is cached where it took seconds; progress is shown after two.

    Returns:
        bool ``(source.test.count,)``; ``None`` if the pictures are no files, or more than
        ``MOST_SEEN``.
    """
    train, test = source.train.files, source.test.files
    if not train or not test or len(train) + len(test) > MOST_SEEN:
        return None

    def find() -> dict[str, Any]:
        return {"training": len(train), "seen": _find_seen(source)}

    def is_valid(known: Any) -> bool:
        if not isinstance(known, dict) or known.get("training") != len(train):
            return False  # the same files may have been split in another way
        return isinstance(known.get("seen"), list) and all(
            isinstance(i, int) and 0 <= i < len(test) for i in known["seen"]
        )

    seen = np.zeros(len(test), bool)
    found = cached(find, (*train, *test), is_valid, "seen-in-training")
    seen[np.array(found["seen"], "int64")] = True
    return seen


def _find_seen(source: Source) -> list[int]:
    splits = (source.train, source.test)
    items = (picture for split in splits for picture in pictures(split))
    total = sum(split.count for split in splits)
    looks = in_threads(
        lambda item: _look(item, source.channels), items, total, "comparing test with training"
    )
    train, test = looks[: source.train.count], looks[source.train.count :]
    known = {look.digest for look in train if look}
    seen = {i for i, look in enumerate(test) if look and look.digest in known}
    left = [i for i, look in enumerate(test) if is_compared(look) and i not in seen]
    thumbnails = _thumbnails(look for look in train if is_compared(look))
    found = near_pairs(_thumbnails(test[i] for i in left), thumbnails).first
    return sorted(seen | {left[i] for i in found})


def say_copies(source: Source, spec: str, say: Say) -> None:
    """Says in one line whether test files are byte for byte copies of training files.

    Files of one size that are in both splits are compared, first by their ends. No-op for sources
    without files.

    Args:
        source: Training and test images.
        spec: How the user names it, for the command that shows all.
        say: Called with the line.
    """
    train, test = source.train.files, source.test.files
    if not train or not test:
        return
    candidates = _same_size(train, test)
    if len(candidates) > MOST_HASHED:
        say(
            f"{len(candidates):,} training and test files have sizes of the other split and were "
            f"not compared. To find copies: keras-resnet audit {shlex.quote(spec)}"
        )
        return
    copies = _copies(candidates, len(train), (*train, *test))
    if not copies:
        say("no test file is a copy of a training file")
        return
    original, copy = copies[0]
    verb = "test file is a copy" if len(copies) == 1 else "test files are copies"
    say(
        f"{len(copies):,} {verb} of training files, such as {copy} of {original}. "
        f"See all: keras-resnet audit {shlex.quote(spec)}"
    )


def _copies(
    candidates: Sequence[int], training: int, files: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs of a training file and a test file of the same bytes, one for each such test file.

    Args:
        candidates: Numbers of the files that may have copies, ascending.
        training: Number of training files; the others are test files.
        files: Paths of all.
    """
    originals: dict[bytes, int] = {}
    copies: list[tuple[int, bytes]] = []
    for hashed in (_tail_hash, _file_hash):
        paths = [files[i] for i in candidates]
        digests = in_threads(hashed, paths, len(paths), "looking for copies")
        found = [(i, digest) for i, digest in zip(candidates, digests) if digest]
        originals = {digest: i for i, digest in reversed(found) if i < training}
        copies = [(i, digest) for i, digest in found if i >= training and digest in originals]
        shared = {digest for _, digest in copies}
        candidates = [i for i, digest in found if digest in shared]
    return [(files[originals[digest]], files[i]) for i, digest in copies]


def _same_size(train: Sequence[str], test: Sequence[str]) -> list[int]:
    """Numbers of the files, training first, whose size occurs in both splits."""
    sizes = np.array([_size(file) for file in (*train, *test)])
    both = np.intersect1d(sizes[: len(train)], sizes[len(train) :])
    return np.flatnonzero(np.isin(sizes, both[both > 0])).tolist()


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # it is reported where it is read
        return -1


def _tail_hash(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(size - TAIL, 0))
            return hashlib.blake2b(f"{size}\0".encode() + opened.read(), digest_size=16).digest()
    except OSError:
        return b""


def _file_hash(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "blake2b").digest()
    except OSError:
        return b""


def _look(picture: Any, channels: int) -> Look | None:
    try:
        return look_at(picture, channels)
    except ValueError:
        return None


def _near(indices: Sequence[int], looks: Sequence[Look | None]) -> Pairs:
    """Near duplicates among pictures of different pixels; pairs of positions in ``indices``."""
    if len(indices) > MOST_COMPARED:
        indices = ()
    chosen = np.array([k for k, i in enumerate(indices) if is_compared(looks[i])], "int64")
    with progress_after("looking for near duplicates") as show:
        pairs = near_pairs(_thumbnails(looks[indices[k]] for k in chosen), progress=show)
    return Pairs(chosen[pairs.first], chosen[pairs.second], pairs.similarity)


def _thumbnails(looks: Iterable[Look | None]) -> np.ndarray:
    found = [look.thumbnail for look in looks if look]
    return np.stack(found) if found else np.zeros((0, 1, 1), "uint8")


def _components(count: int, pairs: Pairs) -> list[tuple[list[int], float]]:
    """Connected components, each with the smallest similarity of its pairs (1 without any)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((pairs.similarity, (pairs.first, pairs.second)), shape=(count, count))
    number, component = connected_components(graph, directed=False)
    smallest = np.ones(number)
    np.minimum.at(smallest, component[pairs.first], pairs.similarity)
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(component, minlength=number))[:-1])
    return [(part.tolist(), float(smallest[i])) for i, part in enumerate(parts)]


def _group(scan: Scan, members: list[int], similarity: float, exact: bool) -> Group:
    first, others = members[0], members[1:]
    return Group(
        tuple(members),
        similarity,
        exact,
        across=scan.in_training(first) and not scan.in_training(members[-1]),
        conflict=not all(scan.same_label(first, other) for other in others),
    )
