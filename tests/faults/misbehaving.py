"""Functions for a subprocess that fail in every way a C++ library, or the machine, can."""

import ctypes
import errno
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from keras_resnet.subprocess_call import Result


def fine(*arguments: str) -> Result:
    arrays = {
        "matrix": np.arange(6, dtype=">f4").reshape(2, 3).T,
        "number": np.array(7, "int64"),
        "nothing": np.zeros((0, 3), "float16"),
        "large": np.arange(1 << 20, dtype="float32"),
    }
    return list(arguments), arrays


def modules() -> Result:
    return sorted(sys.modules), {}


def chatter() -> Result:
    """Prints more than a pipe holds, from Python and from below it, before it returns."""
    print("x" * 200_000)
    os.write(1, b"y" * 200_000 + b"\n")
    os.write(2, b"z" * 200_000 + b"\n")
    return "done", {}


def loop(*_: str) -> Result:
    while True:
        pass


def loop_on(*_: str) -> Result:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    return loop()


def wait_for(path: str) -> Result:
    """Says its process id, and waits for a second file, without using processor time."""
    Path(path).write_text(str(os.getpid()))
    while not Path(path).with_suffix(".go").exists():
        time.sleep(0.01)
    return "waited", {}


def segfault(*_: str) -> Result:
    ctypes.string_at(0)
    raise AssertionError


def abort(*_: str) -> Result:
    os.write(2, b"terminate called after throwing an instance of 'std::length_error'\n")
    os.abort()


def bad_alloc(*_: str) -> Result:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.write(2, b"  what():  std::bad_alloc\n")
    os.abort()


def killed(*_: str) -> Result:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def ended(*_: str) -> Result:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError


def half_a_reply(*_: str) -> Result:
    """Dies while the arrays are on their way."""

    class Deadly:
        dtype, shape = np.dtype("float32"), (5,)

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            os.abort()

    return None, {"first": np.ones(1 << 20), "second": Deadly()}  # type: ignore[dict-item]


def all_memory(*_: str) -> Result:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
    return None, {"huge": np.ones(1 << 30)}


def no_room(*_: str) -> Result:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def bad_disk(*_: str) -> Result:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def no_library(*_: str) -> Result:
    raise ImportError("libGL.so.1: cannot open shared object file")


def unexpected(*_: str) -> Result:
    raise KeyError("a fault of ours")


def exits(*_: str) -> Result:
    os._exit(3)


def refuses(*_: str) -> Result:
    raise ValueError("it is damaged: a superblock of nothing")


def missing(*_: str) -> Result:
    import no_such_runtime  # noqa: F401

    raise AssertionError
