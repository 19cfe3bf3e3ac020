"""Reads HDF5 in a process of its own, because the library may crash or hang on a damaged file.

Of 10,000 random mutations of two small files, HDF5 1.14.6 looped for ever on twelve and
crashed on one.
The process starts in a few tenths of a second: it imports h5py, and not Keras.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO

import numpy as np

from keras_resnet.subprocess_call import call_in_subprocess
from keras_resnet.weights.formats.hdf5 import Format, read_hdf5
from keras_resnet.weights.formats.limits import reason

START_SECONDS = 30
SLOWEST_DISK = 10_000_000  # bytes a second


def read_hdf5_sandboxed(
    path: str | os.PathLike[str], member: str | None = None
) -> tuple[Format, dict[str, np.ndarray]]:
    """The same as ``read_hdf5``.

    Raises:
        ValueError: Whatever is wrong with the file.
    """
    return call_in_subprocess(
        __name__,
        [os.fspath(path)] if member is None else [os.fspath(path), member],
        START_SECONDS + os.path.getsize(path) / SLOWEST_DISK,
        _parse,
        "it is damaged: the HDF5 library",
    )


def _parse(answered: IO[bytes]) -> tuple[Format, dict[str, np.ndarray]]:
    head = json.loads(answered.readline())
    if "error" in head:
        raise ValueError(head["error"])
    return head["format"], {name: np.load(answered) for name in head["names"]}


def answer(path: str, member: str | None = None) -> None:
    """What the process does: prints a line of JSON, and the arrays as ``.npy`` behind it."""
    out = sys.stdout.buffer
    try:
        form, arrays = read_hdf5(path, member)
    except Exception as error:  # h5py raises half a dozen types for damaged files
        out.write(json.dumps({"error": reason(error)}).encode())
        return
    out.write(json.dumps({"format": form, "names": list(arrays)}).encode() + b"\n")
    for array in arrays.values():
        np.save(out, array, allow_pickle=False)
    out.flush()
