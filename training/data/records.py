"""Random access to TFRecord files, for a global shuffle.

A record is its length (8 bytes, little-endian), a checksum of the length (4), the data and a
checksum of the data (4): https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

HEADER, FOOTER = 12, 4


@dataclass(frozen=True)
class Part:
    """Consecutive records of one file: ``take`` records after the first ``skip``."""

    path: str
    skip: int
    take: int


def record_reader(parts: Iterable[Part]) -> Callable[[int], bytes]:
    """Locates every record without reading its data.

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
        with _open(part.path) as file:
            found.append(np.insert(_places(file, part), 0, len(paths), axis=1))
        paths.append(part.path)
    table = np.concatenate(found)

    def read(number: int) -> bytes:
        index, start, length = table[number]
        # Opened for each read: ImageNet's thousand files are more than a process may keep open.
        with _open(paths[index]) as file:
            return _read(file, int(start), int(length))

    return read


def _open(path: str) -> BinaryIO:
    return open(path, "rb", buffering=0)


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _places(file: BinaryIO, part: Part) -> np.ndarray:
    """Start and length of each record's data, int64 ``(take, 2)``."""
    size, at = os.fstat(file.fileno()).st_size, 0
    places = np.empty((part.take, 2), "int64")
    for number in range(part.skip + part.take):
        header = _read(file, at, HEADER)
        length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else 0
        if len(header) < HEADER or at + HEADER + length + FOOTER > size:
            raise ValueError(f"{part.path} is cut off in record {number}. Prepare it again")
        if number >= part.skip:
            places[number - part.skip] = at + HEADER, length
        at += HEADER + length + FOOTER
    return places
