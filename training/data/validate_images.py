"""Validation of images before a run, so that none of them can stop it later.

A TensorFlow graph that fails on an image does not name it, and ``Dataset.ignore_errors`` drops
images silently, which makes the number of steps per epoch unknown. So every image is decoded once,
with the decoder of training, before anything depends on their number: order, steps and evaluation
are then those of the readable images, on every host.

It takes about half a millisecond of processor time per photograph. Results that took longer than a
few seconds are cached; they are valid while paths, sizes and modification times are unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_resnet import console
from keras_resnet.files import atomic_write
from keras_resnet.preprocessing import MAX_PIXELS
from keras_resnet.subprocess_call import is_of_machine
from keras_resnet.weights.download import cache_folder
from training.config import DataConfig

Say = Callable[[str], None]

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
TOO_LARGE = f"has more than {MAX_PIXELS:,} pixels"
# A progress bar appears after this time.
QUIET_SECONDS = 2.0
# Results are cached if they took at least this time.
CACHE_FROM_SECONDS = 5.0
# Unreadable images that a message names.
NAMED = 3
# Images that are read ahead of the one that is awaited.
AHEAD = 256


def find_problem(image: bytes) -> str | None:
    """Why an image cannot be read, such as ``"is empty"``; ``None`` if it can.

    Raises:
        OSError: The machine failed, which says nothing about the image.
    """
    from PIL import Image, UnidentifiedImageError

    if not image:
        return "is empty"
    try:
        with Image.open(io.BytesIO(image)) as picture:  # no more than its header
            kind, width, height = picture.format, picture.width, picture.height
    except UnidentifiedImageError:
        return "is not a readable picture"
    except Image.DecompressionBombError:
        return TOO_LARGE
    except (OSError, SyntaxError, ValueError) as error:
        if is_of_machine(error):
            raise
        return f"has no readable header ({' '.join(str(error).split())})"
    if kind not in FORMATS:
        return f"is a {kind}; supported are {', '.join(FORMATS)}"
    if width * height > MAX_PIXELS:
        return TOO_LARGE
    return None if _decodes(image) else f"is cut off or broken inside ({kind})"


def find_problems(files: Sequence[str]) -> dict[int, str]:
    """Why files cannot be read, by the index of each unreadable one.

    Raises:
        OSError: The machine failed (a bad disk, too many open files, too little memory), which
            says nothing about the image. Nothing is cached then.
    """

    def check(path: str) -> str | None:
        try:
            return find_problem(Path(path).read_bytes())
        except (OSError, MemoryError) as error:
            if is_of_machine(error) and not isinstance(error, PermissionError):
                raise OSError(f"{path} could not be checked: {_why(error)}") from error
            return f"cannot be read ({_why(error)})"

    def find() -> dict[str, str]:
        found = in_threads(check, files, len(files), "checking images")
        return {str(i): problem for i, problem in enumerate(found) if problem}

    def is_valid(found: Any) -> bool:
        return isinstance(found, dict) and all(
            i.isdigit() and int(i) < len(files) and isinstance(problem, str)
            for i, problem in found.items()
        )

    return {int(i): problem for i, problem in cached(find, files, is_valid).items()}


def report(names: dict[str, str], total: int, data: DataConfig, say: Say) -> None:
    """Applies ``data.bad_images`` to images that cannot be read.

    Args:
        names: What is wrong with each of them, by name.
        total: Number of images, these included.
        data: ``bad_images`` and ``max_bad_images``.
        say: Called with a line on the images that are skipped.

    Raises:
        ValueError: ``bad_images`` is ``"error"``, or there are more than ``max_bad_images``.
    """
    if not names:
        return
    first = "; ".join(f"{name} {problem}" for name, problem in list(names.items())[:NAMED])
    more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
    counted = f"{len(names):,} of {total:,} images cannot be read: {first}{more}"
    if data.bad_images == "error":
        raise ValueError(f"{counted}. Repair or remove them, or skip them: data.bad_images=skip")
    if len(names) > data.max_bad_images:
        raise ValueError(
            f"{counted}. At most {data.max_bad_images:,} may be skipped (data.max_bad_images)"
        )
    if len(names) == total:
        raise ValueError(f"{counted}. There are no others")
    say(f"skipping {counted}")


def in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], total: int | None, task: str
) -> list[Any]:
    """Applies a function to every item, in threads; returns the results in order.

    Args:
        function: The function.
        items: Its arguments.
        total: Their number, if it is known.
        task: Title of the progress bar that appears after ``QUIET_SECONDS``.
    """
    results: list[Any] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_after(task) as show:
        for result in _in_order(pool, function, items):
            results.append(result)
            if len(results) % 100 == 0:
                show(len(results), total or len(results))
    return results


@contextlib.contextmanager
def progress_after(task: str) -> Iterator[console.Progress]:
    """A progress bar that appears after ``QUIET_SECONDS``."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar: console.Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - began > QUIET_SECONDS and done < total:
                bar = stack.enter_context(console.progress(task))
            if bar is not None:
                bar(done, total)

        yield show


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """As ``pool.map``, which would load all items into memory at once."""
    pending: deque[Future] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > AHEAD:
            yield pending.popleft().result()
    for future in pending:
        yield future.result()


def cached(
    find: Callable[[], Any],
    files: Sequence[str],
    is_valid: Callable[[Any], bool],
    purpose: str = "checked",
) -> Any:
    """The JSON data that ``find`` returns, from the cache if the files are unchanged.

    Args:
        find: Reads the files.
        files: Their paths.
        is_valid: Whether data from the cache are of the form that ``find`` returns.
        purpose: Folder of the cache: one for each thing that is found out about files.
    """
    path = cache_folder() / purpose / f"{_fingerprint(files)}.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        known = json.loads(path.read_text("utf-8"))
        if is_valid(known):
            return known
    began = time.monotonic()
    found = find()
    if time.monotonic() - began > CACHE_FROM_SECONDS:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found, ensure_ascii=False), "utf-8")
    return found


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _decodes(image: bytes) -> bool:
    try:
        if image.startswith(b"\xff\xd8\xff"):
            # Reads all of the file, but computes only an eighth of each dimension.
            tf.io.decode_jpeg(image, 3, ratio=8)
        else:
            tf.io.decode_image(image, 3, expand_animations=False)
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except tf.errors.OpError:
        return False
    return True


def _fingerprint(files: Sequence[str]) -> str:
    digest = hashlib.sha256(tf.__version__.encode())  # the result depends on its decoders
    for file in files:
        with contextlib.suppress(OSError):
            status = os.stat(file)
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"  # also of permissions
            line = f"{os.path.abspath(file)}\0{status.st_size}\0{times}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
