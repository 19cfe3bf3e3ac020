"""Downloads a weights file into the cache: resumed where it broke off, and checked before use.

With ``KERAS_RESNET_OFFLINE=1`` nothing is downloaded. The Hugging Face hub states
``X-Linked-ETag``, the SHA-256 of a file in large-file storage, ``X-Linked-Size`` and
``X-Repo-Commit``.

``keras.utils.get_file`` and ``huggingface_hub`` are not used. Neither gives up a transfer that
sends a byte now and then; the former does not resume and leaves part of a file under its final
name if it is killed, the latter uses a file whose content is not the one that the hub stated.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import time
import urllib.parse
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO

from keras_resnet.console import Progress, progress, say
from keras_resnet.subprocess_call import NO_ROOM
from keras_resnet.weights import catalog
from keras_resnet.weights.addresses import hub_file, objection, web_address
from keras_resnet.weights.cache import (
    beside,
    cache_folder,
    cached_as,
    discard,
    length,
    locked,
    offline,
    open_regular,
    read_record,
    write_record,
)
from keras_resnet.weights.catalog import Published
from keras_resnet.weights.connection import DownloadError, Stale, Temporary, message, open_url

TRIES = 5
PAUSE = 1.0  # seconds before the second try; doubles with each
MAX_BYTES = 4 << 30  # where the size is not known

_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub reads them


@dataclass(frozen=True)
class _Expected:
    """What is known of a file before it is here; empty and ``None`` for unknown."""

    sha256: str = ""
    md5: str = ""
    size: int | None = None
    commit: str = ""

    @property
    def hashed(self) -> bool:
        return bool(self.sha256 or self.md5)

    def mismatch(self, path: Path) -> str:
        """What is wrong with a file; empty if nothing is."""
        sha256, md5, size = catalog.digests(path)
        if self.size not in (None, size):
            return f"it has {size:,} bytes where {self.size:,} are published"
        if not sha256.startswith(self.sha256):
            return f"its SHA-256 is {sha256} where {self.sha256} is published"
        if self.md5 not in ("", md5):
            return f"its MD5 is {md5} where {self.md5} is published"
        return ""


def fetch(what: Published | str, timeout: float = 30.0) -> Path:
    """A weights file on this machine: from the cache, or downloaded into it.

    The hash is checked each time. Of two processes that ask for a file at once, one downloads
    and the other waits.

    Args:
        what: A row of the catalog, ``"hf://owner/name[@revision][/file]"`` (the file is
            ``model.safetensors`` unless named), or an ``https://`` address whose file name
            ends in digits of its SHA-256, as torch.hub's do.
        timeout: Seconds without a byte, or below 1,024 bytes a second, headers included, after
            which a connection is given up.

    Raises:
        ValueError: The address is none of these.
        DownloadError: The file cannot be downloaded, or is not the published one.
    """
    urls, expected = _resolve(what)
    target = cache_folder() / cached_as(urls[0])
    try:
        if _is_good(target, expected):
            return target
        if offline():
            raise DownloadError(
                f"KERAS_RESNET_OFFLINE is set and {_title(urls[0])} is not in the cache. "
                + _by_hand(urls[0], target)
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not _is_good(target, expected):
                if target.exists():
                    say(f"{target} is damaged or another file, and is downloaded again")
                _download_from_any(urls, target, expected, timeout)
        return target
    except DownloadError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DownloadError(
            f"Cannot keep {target.name} in {target.parent}: "
            f"{'there is no room left' if error.errno in NO_ROOM else reason}. "
            "Set KERAS_RESNET_CACHE to a folder that can be written to and has room"
        ) from error


def _resolve(what: Published | str) -> tuple[tuple[str, ...], _Expected]:
    row = what if isinstance(what, Published) else _row_at(what)
    if row is not None:
        return row.urls, _Expected(row.sha256, row.md5, row.size)
    address = str(what)
    if hub_file(address):
        return (address,), _Expected()
    if why := objection(address):
        raise ValueError(f"{why}. Received: {address!r}")
    digits = _DIGITS_IN_NAME.search(urllib.parse.urlsplit(address).path)
    if digits is None:
        raise ValueError(
            "A file is only downloaded if its hash is known: from the catalog, from the Hugging "
            "Face hub (hf://owner/name), or from digits of its SHA-256 in its name, such as "
            f"resnet50-0676ba61.pth. Download it yourself and give its path. Received: {address!r}"
        )
    return (address,), _Expected(sha256=digits[1])


def _row_at(address: str) -> Published | None:
    row = catalog.at(address)
    # The catalog does not know a revision or file of the user's own choice.
    plain = "@" not in address and address.count("/") == 3  # hf://owner/name
    return row if row is not None and (plain or address in row.urls) else None


def _title(url: str) -> str:
    """The file's name; on the hub, where all have the same, with the repository's."""
    file = hub_file(url)
    return f"{file.name}/{file.file}" if file else cached_as(url).name


def _by_hand(url: str, target: Path) -> str:
    return f"Fetch {web_address(url)} by other means and put it at {target}"


def _is_good(target: Path, expected: _Expected) -> bool:
    """Whether the file is in the cache and is the published one.

    Raises:
        DownloadError: It is another, and may not be downloaded again.
    """
    if not target.is_file():
        return False
    if not expected.hashed:
        expected = _Expected(sha256=read_record(beside(target, ".json")).get("sha256", ""))
    if not expected.hashed:
        say(f"{target} was put there by hand, and its hash is not known here: it is not checked")
        return True
    mismatch = expected.mismatch(target)
    if mismatch and offline():
        raise DownloadError(
            f"{target} is damaged or another file: {mismatch}. KERAS_RESNET_OFFLINE is set, so "
            "it is not downloaded again"
        )
    return not mismatch


def _download_from_any(
    urls: tuple[str, ...], target: Path, expected: _Expected, timeout: float
) -> None:
    failures = []
    for url in urls:
        try:
            with progress(f"Downloading {_title(urls[0])} (kB)") as show:
                _download(url, target, expected, timeout, show)
            return
        except Temporary as failure:
            failures.append(f"{failure}. {_by_hand(url, target)}")
        except DownloadError as failure:
            failures.append(str(failure))
    raise DownloadError(f"Cannot download {_title(urls[0])}: {'; '.join(failures)}")


def _download(url: str, target: Path, expected: _Expected, timeout: float, show: Progress) -> None:
    partial = beside(target, ".partial")
    for left in reversed(range(TRIES)):
        resumed = length(partial) > 0
        try:
            found = _transfer(url, partial, expected, timeout, show)
            if mismatch := found.mismatch(partial):
                if resumed:
                    raise Stale(f"the parts of {url} do not fit together: {mismatch}")
                discard(partial)
                raise DownloadError(f"{url} does not give the published file: {mismatch}")
            break
        except Temporary as failure:
            if isinstance(failure, Stale):
                discard(partial)
            if not left:
                raise
            say(f"{failure}: trying again")
            time.sleep(PAUSE * 2 ** (TRIES - 1 - left))
    sha256 = catalog.digests(partial)[0]
    write_record(beside(target, ".json"), {"url": url, "commit": found.commit, "sha256": sha256})
    os.replace(partial, target)
    discard(partial)


def _transfer(
    url: str, partial: Path, expected: _Expected, timeout: float, show: Progress
) -> _Expected:
    """Brings ``partial`` to its full length; returns all that is known of the file by then."""
    state = beside(partial, ".json")
    validator = read_record(state).get("validator", "")
    offset = length(partial) if validator else 0
    headers = {"User-Agent": "keras-resnet", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    response, stated = open_url(url, headers, timeout)
    with response:
        expected = _agreed(url, expected, _stated(stated))
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _total_of_rest(response, offset)
            if total is None:
                raise Stale(f"{url} does not continue where its first part ends")
        else:
            offset, total = 0, _integer(response.headers.get("Content-Length"))
        if expected.size is not None and total not in (None, expected.size):
            raise DownloadError(f"{url} has {total:,} bytes where {expected.size:,} are published")
        limit = expected.size or total
        if limit and shutil.disk_usage(partial.parent).free < limit - offset:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_record(state, {"validator": _validator(response)})
        with open_regular(partial, "ab" if offset else "wb") as file:
            done = _copy(response, file, offset, limit, show)
            os.fsync(file.fileno())
    if done > (limit or MAX_BYTES):
        discard(partial)
        raise DownloadError(
            f"{url} sends more than the {limit or MAX_BYTES:,} bytes that it should have"
        )
    if total is not None and done < total:
        raise Temporary(f"{url} broke off after {done:,} of {total:,} bytes")
    return expected


def _agreed(url: str, expected: _Expected, stated: _Expected) -> _Expected:
    """What the catalog and the hub say of a file together."""
    if expected.sha256 and stated.sha256 and not stated.sha256.startswith(expected.sha256):
        raise DownloadError(
            f"{url} is now a file with the SHA-256 {stated.sha256}, "
            f"where {expected.sha256} is published"
        )
    if not expected.hashed and not stated.hashed:
        raise DownloadError(f"the hub states no SHA-256 for {url}, so it is not downloaded")
    sha256, size = stated.sha256 or expected.sha256, expected.size or stated.size
    return _Expected(sha256, expected.md5, size, stated.commit)


def _stated(headers: Message) -> _Expected:
    """What the hub stated of a file."""
    etag = headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"').lower()
    return _Expected(
        sha256=etag if re.fullmatch(r"[0-9a-f]{64}", etag) else "",
        size=_integer(headers.get("X-Linked-Size")),
        commit=re.sub(r"[^0-9a-f]", "", headers.get("X-Repo-Commit", "")),
    )


def _total_of_rest(response: http.client.HTTPResponse, offset: int) -> int | None:
    """The file's size, if the response continues where the part ends; else ``None``."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", text)
    return int(match[2]) if match and int(match[1]) == offset else None


def _validator(response: http.client.HTTPResponse) -> str:
    """The tag or date that identifies one state of a file (RFC 9110, 13.1.5: no weak tags)."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return "" if etag else response.headers.get("Last-Modified", "")


def _integer(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    limit: int | None,
    show: Progress,
) -> int:
    """Writes what arrives, up to just over ``limit``; returns the file's length then."""
    while done <= (limit or MAX_BYTES):
        try:
            chunk = response.read1(1 << 20)
        except (OSError, http.client.HTTPException) as failure:
            raise Temporary(
                f"the transfer failed after {done:,} bytes ({message(failure)})"
            ) from failure
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        show(done // 1000, (limit or done) // 1000)
    return done
