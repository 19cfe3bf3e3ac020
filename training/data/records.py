"""TFRecord files read at any place, so that their examples can be seen in any order.

A record is its length (8 bytes, little-endian), a checksum of the length (4), the data and a
checksum of the data (4): https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

HEADER, FOOTER = 12, 4


@dataclass(frozen=True)
class Part:
    """A stretch of one file: ``take`` records after the first ``skip``."""

    path: str
    skip: int
    take: int


def record_reader(parts: Iterable[Part]) -> Callable[[int], bytes]:
    """Finds every record without reading it.

    Args:
        parts: Uncompressed TFRecord files.

    Returns:
        A function from a record's number to its data; it may be called from many threads.

    Raises:
        ValueError: A file is cut off, or holds fewer records than it should.
        OSError: A file cannot be read.
    """
    paths: list[str] = []
    found: list[np.ndarray] = []
    for part in parts:
        with _opened(part.path) as file:
            found.append(np.insert(_places(file, part), 0, len(paths), axis=1))
        paths.append(part.path)
    table = np.concatenate(found)

    def read(number: int) -> bytes:
        index, start, length = table[number]
        # Opened anew each time: ImageNet's thousand files are more than a process may keep open.
        with _opened(paths[index]) as file:
            return os.pread(file, int(length), int(start))

    return read


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def _places(file: int, part: Part) -> np.ndarray:
    """Start and length of each record's data, int64 ``(take, 2)``."""
    size, at = os.fstat(file).st_size, 0
    places = np.empty((part.take, 2), "int64")
    for number in range(part.skip + part.take):
        header = os.pread(file, HEADER, at)
        length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else 0
        if len(header) < HEADER or at + HEADER + length + FOOTER > size:
            raise ValueError(f"{part.path} is cut off in record {number}. Prepare it anew")
        if number >= part.skip:
            places[number - part.skip] = at + HEADER, length
        at += HEADER + length + FOOTER
    return places
