"""Validation of images before a run, so that none of them can stop it later.

A TensorFlow graph that fails on an image does not name it, and ``Dataset.ignore_errors`` drops
images silently, which makes the number of steps per epoch unknown. So every image is decoded once,
before anything depends on their number: order, steps and evaluation are then those of the readable
images, on every host.

Files are screened in blocks (``screening.py``): most are pictures that TensorFlow decodes. Each of
the others is examined by itself, which gives the reason. What decoders print on stderr is
captured, and the file that made them print it is found by checking parts of its block again.

It takes about half a millisecond of processor time per photograph. Results that took longer than a
few seconds are cached; they are valid while paths, sizes and modification times are unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import pictures
from keras_resnet.console import progress_after
from keras_resnet.files import atomic_write
from keras_resnet.native_stderr import captured_native_stderr
from keras_resnet.picture_names import has_picture_suffix
from keras_resnet.subprocess_call import is_of_machine
from keras_resnet.text import printable, shorten
from keras_resnet.weights.download import cache_folder
from training.data.screening import FILE_BYTES, screen

Say = Callable[[str], None]

# Formats that TensorFlow decodes; Pillow decodes the others.
DECODED = ("JPEG", "PNG")
# Results are cached if they took at least this time.
CACHE_FROM_SECONDS = 5.0
# Images that are read ahead of the one that is awaited.
AHEAD = 256
# Files that are screened at once, and parts in which a block is checked again.
BLOCK, PARTS = 4096, 16
# Characters of what a decoder prints that a message repeats.
REMARK = 160


@dataclass(frozen=True)
class Checked:
    """What is to be known about files before they are used; each by its index.

    Attributes:
        problems: Why a picture cannot be read, such as ``"is empty"``.
        others: What a file is that is no picture, neither by content nor by name, such as
            ``"text file"``.
        remarks: What a decoder says of a picture that it reads all the same.
        by_pillow: JPEGs and PNGs that TensorFlow does not decode, or not without printing, and
            Pillow does; int64 ``(count,)``, ascending. Other formats are always decoded by Pillow.
    """

    problems: dict[int, str]
    others: dict[int, str]
    remarks: dict[int, str]
    by_pillow: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """On one file that is not plainly a picture for TensorFlow; see ``Checked``."""

    problem: str = ""
    other: str = ""
    remark: str = ""
    by_pillow: bool = False


def check_files(files: Sequence[str]) -> Checked:
    """Finds out which files are pictures that can be read, and how.

    Raises:
        OSError: The machine failed (a bad disk, too many open files, too little memory), which
            says nothing about the image. Nothing is cached then.
    """

    def find() -> dict[str, Any]:
        verdicts = _check(files)
        kinds = ("problem", "other", "remark")
        texts = {
            kind: {str(i): text for i, v in verdicts.items() if (text := getattr(v, kind))}
            for kind in kinds
        }
        return {**texts, "by_pillow": [i for i, v in verdicts.items() if v.by_pillow]}

    found = cached(find, files, lambda known: _is_checked(known, len(files)))
    problems, others, remarks = (
        {int(i): text for i, text in found[kind].items()} for kind in ("problem", "other", "remark")
    )
    return Checked(problems, others, remarks, np.array(sorted(found["by_pillow"]), "int64"))


def find_problem(image: bytes) -> str | None:
    """Why an image cannot be read while training, such as ``"is empty"``; ``None`` if it can.

    Raises:
        OSError: The machine failed, which says nothing about the image.
    """
    if problem := pictures.find_problem(image):
        return problem
    if (kind := pictures.identify(image)) in DECODED:
        return None if _decodes(image) else pictures.broken(str(kind))
    return _problem_for_pillow(image)


# --- Blocks of files --------------------------------------------------------------------------


def _check(files: Sequence[str]) -> dict[int, Verdict]:
    """Verdicts on the files that are not plainly pictures for TensorFlow, by index, ascending."""
    verdicts: dict[int, Verdict] = {}
    with progress_after("checking images") as show:
        for start in range(0, len(files), BLOCK):
            numbers = range(start, min(start + BLOCK, len(files)))
            verdicts |= _check_block(files, numbers)
            show(numbers.stop, len(files))
    return dict(sorted(verdicts.items()))


def _check_block(files: Sequence[str], numbers: range) -> dict[int, Verdict]:
    """Checks files; what decoders print becomes the remark on the file that made them print it."""
    verdicts, printed = _check_quietly(files, numbers)
    if not printed:
        return verdicts
    if len(numbers) == 1:
        with _captured():
            verdict = examine(files[numbers[0]], by_pillow=True)
        if not verdict.problem and not verdict.other:
            verdict = replace(verdict, remark=printed)
        return {numbers[0]: verdict}
    step = -(-len(numbers) // PARTS)
    for start in range(0, len(numbers), step):
        verdicts |= _check_block(files, numbers[start : start + step])
    return verdicts


def _check_quietly(files: Sequence[str], numbers: range) -> tuple[dict[int, Verdict], str]:
    """Verdicts, and what decoders printed meanwhile."""
    with _captured() as printed:
        paths = [files[number] for number in numbers]
        small = [i for i, path in enumerate(paths) if _size(path) <= FILE_BYTES]
        decoded = np.zeros(len(paths), bool)
        decoded[small] = screen([paths[i] for i in small])
        suspects = np.flatnonzero(~decoded).tolist()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            verdicts = list(_in_order(pool, examine, (paths[i] for i in suspects)))
        found = {numbers[i]: verdict for i, verdict in zip(suspects, verdicts)}
        return {number: v for number, v in found.items() if v != Verdict()}, printed()


@contextlib.contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Keeps what decoders print off the screen; yields a function that returns it.

    Printed on descriptor 2 by libjpeg and others, logged by TensorFlow, or warned of by Pillow.
    What is not about pictures is printed afterwards.
    """
    with warnings.catch_warnings(record=True) as caught, captured_native_stderr() as written:
        warnings.simplefilter("always")
        others: list[str] = []

        def printed() -> str:
            lines = written().decode("utf-8", "replace").splitlines()
            lines += [str(w.message) for w in caught if "PIL" in Path(w.filename).parts]
            of_pictures = [text for line in lines if (text := _of_picture(line))]
            others[:] = [line for line in lines if line and not _of_picture(line)]
            return shorten("; ".join(dict.fromkeys(of_pictures)), REMARK)

        yield printed
        printed()
    if others and sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("\n".join(others), file=sys.stderr, flush=True)


# "2026-11-25 21:00:00.123456: W tensorflow/core/lib/png/png_io.cc:88] PNG warning: …", or with
# absl's prefix "W0000 00:00:1795642576.424269    1433 png_io.cc:88] PNG warning: …".
_LOGGED = re.compile(r"^(?:\d{4}-\d\d-\d\d \S+: )?[IWEF]\S* .*?(\w+)\.(?:cc|h):\d+\] (.*)$")


def _of_picture(line: str) -> str:
    """What a line says of a picture, without the prefix of a log; empty if it is about others."""
    logged = _LOGGED.match(line)
    if not logged:
        return line.strip()
    module, text = logged.groups()
    return text.strip() if re.search("jpeg|png|gif|bmp|webp|image", module) else ""


# --- One file ---------------------------------------------------------------------------------


def examine(path: str, by_pillow: bool = False) -> Verdict:
    """Finds out what one file is.

    Args:
        path: The file.
        by_pillow: Do not try TensorFlow.

    Raises:
        OSError: The machine failed.
    """
    try:
        image = _read(path)
        kind, problem = pictures.identify(image), pictures.find_problem(image)
        if kind is None:
            return _named_as_picture(path, str(problem), image)
        if problem:
            return Verdict(problem=problem)
        if kind in DECODED and not by_pillow and _decodes(image):
            return Verdict()
        problem = _problem_for_pillow(image)
    except (OSError, MemoryError) as error:
        if is_of_machine(error) and not isinstance(error, PermissionError):
            raise OSError(f"{printable(path)} could not be checked: {_why(error)}") from error
        return Verdict(problem=f"cannot be read ({_why(error)})")
    return Verdict(problem=problem) if problem else Verdict(by_pillow=kind in DECODED)


def _read(path: str) -> bytes:
    """A file's content; only its beginning if it is too large to be a picture."""
    if _size(path) <= pictures.MAX_BYTES:
        return Path(path).read_bytes()
    with open(path, "rb") as file:
        head = file.read(pictures.HEAD)
    if pictures.identify(head):
        raise OSError(errno.EFBIG, f"it has more than {pictures.MAX_BYTES:,} bytes")
    return head


def _problem_for_pillow(image: bytes) -> str | None:
    try:
        pictures.decode(image, name="")
    except ValueError as error:
        return str(error).strip()
    return None


def _named_as_picture(path: str, problem: str, content: bytes) -> Verdict:
    """The problem if the name says that the file is a picture; otherwise what else it may be."""
    if has_picture_suffix(path):
        return Verdict(problem=problem)
    if problem == "is empty":
        return Verdict(other="empty file")
    if content and _is_text(content[:1024]):
        return Verdict(other="text file")
    suffix = Path(path).suffix.lower()
    return Verdict(other=f"{suffix} file" if suffix else "file of an unknown format")


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character is cut off at the end
    return True


def _size(path: str) -> int:
    """Bytes; 0 if the file is not there any more."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


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
            tf.io.decode_png(image, 3)
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except tf.errors.OpError:
        return False
    return True


# --- Threads, progress, cache -----------------------------------------------------------------


def in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], total: int | None, task: str
) -> list[Any]:
    """Applies a function to every item, in threads; returns the results in order.

    Args:
        function: The function.
        items: Its arguments.
        total: Their number, if it is known.
        task: Title of the progress bar that appears after two seconds.
    """
    results: list[Any] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_after(task) as show:
        for result in _in_order(pool, function, items):
            results.append(result)
            if len(results) % 100 == 0:
                show(len(results), total or len(results))
    return results


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
                temporary.write_text(json.dumps(found), "utf-8")
    return found


def _is_checked(known: Any, count: int) -> bool:
    """Whether data from the cache are of the form that ``check_files`` caches."""
    try:
        texts = [item for kind in ("problem", "other", "remark") for item in known[kind].items()]
        return all(
            i.isdigit() and int(i) < count and isinstance(text, str) for i, text in texts
        ) and all(type(i) is int and 0 <= i < count for i in known["by_pillow"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _fingerprint(files: Sequence[str]) -> str:
    # The result depends on the decoders.
    digest = hashlib.sha256(f"{tf.__version__} {pictures.FORMATS}".encode())
    here = os.getcwd()
    for file in files:
        with contextlib.suppress(OSError):
            status = os.stat(file)
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"  # also of permissions
            line = f"{os.path.join(here, file)}\0{status.st_size}\0{times}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()
