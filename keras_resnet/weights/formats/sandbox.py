"""Reads HDF5 in a subprocess, because the library may crash or hang on a damaged file.

Of 10,000 random mutations of two small files, HDF5 1.14.6 looped for ever on twelve and
crashed on one.
The subprocess starts in a few tenths of a second: it imports h5py, and not Keras.
"""

from __future__ import annotations

import os

import numpy as np

from keras_resnet.subprocess_call import Result, call_in_subprocess, is_of_machine
from keras_resnet.weights.formats.hdf5 import Format, read_hdf5
from keras_resnet.weights.formats.limits import reason

# Processor time for starting and for reading; an ordinary processor needs a hundredth of both.
START_SECONDS = 30
BYTES_PER_SECOND = 10_000_000


def read_hdf5_sandboxed(
    path: str | os.PathLike[str], member: str | None = None
) -> tuple[tuple[Format, str | None], dict[str, np.ndarray]]:
    """The same as ``read_hdf5``.

    Raises:
        ValueError: The file is not one of Keras's, not safe to read, or damaged.
        SubprocessError: It could not be read, for a reason that says nothing about the file.
    """
    (form, config), arrays = call_in_subprocess(
        read,
        [os.fspath(path)] if member is None else [os.fspath(path), member],
        START_SECONDS + os.path.getsize(path) / BYTES_PER_SECOND,
        "the HDF5 library",
    )
    return (form, config), dict(arrays)


def read(path: str, member: str | None = None) -> Result:
    """What the subprocess does."""
    try:
        return read_hdf5(path, member)
    except Exception as error:  # h5py raises half a dozen types for damaged files
        if is_of_machine(error):
            raise
        raise ValueError(reason(error)) from error
