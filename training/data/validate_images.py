"""Which images can be read: found out before a run, not in the middle of its third night.

A graph that fails on an image does not say on which, and ``Dataset.ignore_errors`` drops images
without a word, after which nobody knows how many steps make an epoch. So every image is decoded
once, by the decoder that training uses, before anything depends on their number: the order, the
steps and the figures of evaluation are then those of the readable ones, on every machine alike.

It costs about half a millisecond of processor time a photograph. Verdicts that took longer than a
few seconds are kept, and hold as long as paths, sizes and times of change stay the same.
"""

from __future__ import annotations

import contextlib
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
from keras_resnet.weights.download import cache_folder
from training.config import DataConfig

Say = Callable[[str], None]

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
TOO_LARGE = f"has more pixels than the {MAX_PIXELS:,} that are read"
QUIET_SECONDS = 2.0
KEPT_FROM_SECONDS = 5.0
NAMED = 3
AHEAD = 256


def complaint(image: bytes) -> str | None:
    """What keeps a file's bytes from being read, such as ``"is empty"``; ``None`` if nothing."""
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
        return f"has no readable header ({' '.join(str(error).split())})"
    if kind not in FORMATS:
        return f"is a {kind}; {', '.join(FORMATS)} are read"
    if width * height > MAX_PIXELS:
        return TOO_LARGE
    return None if _decodes(image) else f"is cut off or broken inside ({kind})"


def complaints(files: Sequence[str]) -> dict[int, str]:
    """What is wrong with which of the files, by their index."""

    def check(path: str) -> str | None:
        try:
            return complaint(Path(path).read_bytes())
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    def find() -> dict[str, str]:
        found = in_threads(check, files, len(files), "checking pictures")
        return {str(i): problem for i, problem in enumerate(found) if problem}

    return {int(i): problem for i, problem in kept(find, files).items()}


def report(names: dict[str, str], total: int, data: DataConfig, say: Say) -> None:
    """Does as ``data.bad_images`` says about images that cannot be read.

    Args:
        names: What is wrong with each of them, by name.
        total: How many images there are, these included.
        data: The policy and its limit.
        say: Told how many are left out, and why.

    Raises:
        ValueError: The policy is ``"error"``, or there are more than may be skipped.
    """
    if not names:
        return
    first = "; ".join(f"{name} {problem}" for name, problem in list(names.items())[:NAMED])
    more = f"; and {len(names) - NAMED} more" if len(names) > NAMED else ""
    counted = f"{len(names):,} of {total:,} images cannot be read: {first}{more}"
    if data.bad_images == "error":
        raise ValueError(f"{counted}. Mend or remove them, or leave them out: data.bad_images=skip")
    if len(names) > data.max_bad_images:
        raise ValueError(
            f"{counted}. At most {data.max_bad_images:,} may be left out (data.max_bad_images)"
        )
    if len(names) == total:
        raise ValueError(f"{counted}. There is no other")
    say(f"leaving out {counted}")


def in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], total: int | None, task: str
) -> list[Any]:
    """The function of every item, in order; progress is shown once it takes a while."""
    results: list[Any] = []
    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.ExitStack() as stack:
        bar: console.Progress | None = None
        for result in _in_order(pool, function, items):
            results.append(result)
            if bar is None and time.monotonic() - began > QUIET_SECONDS:
                bar = stack.enter_context(console.progress(task))
            if bar is not None and len(results) % 100 == 0:
                bar(len(results), total or len(results))
    return results


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """As ``pool.map``, which would take all items into memory at once."""
    pending: deque[Future] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > AHEAD:
            yield pending.popleft().result()
    for future in pending:
        yield future.result()


def kept(find: Callable[[], Any], files: Sequence[str]) -> Any:
    """JSON that ``find`` returns, or returned before for the same files unchanged."""
    path = cache_folder() / "checked" / f"{_fingerprint(files)}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text("utf-8"))
    began = time.monotonic()
    found = find()
    if time.monotonic() - began > KEPT_FROM_SECONDS:
        with contextlib.suppress(OSError):  # no more than time is lost
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as beside:
                beside.write_text(json.dumps(found, ensure_ascii=False), "utf-8")
    return found


def _decodes(image: bytes) -> bool:
    try:
        if image.startswith(b"\xff\xd8\xff"):
            # All of it is read, but only an eighth of it computed.
            tf.io.decode_jpeg(image, 3, ratio=8)
        else:
            tf.io.decode_image(image, 3, expand_animations=False)
    except tf.errors.OpError:
        return False
    return True


def _fingerprint(files: Sequence[str]) -> str:
    digest = hashlib.sha256(tf.__version__.encode())  # its decoders decide
    for file in files:
        with contextlib.suppress(OSError):
            status = os.stat(file)
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"  # rights are part of the second
            line = f"{os.path.abspath(file)}\0{status.st_size}\0{times}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
