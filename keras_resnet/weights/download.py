"""Fetches a weights file into the cache: resumed where it broke off, checked, whole or not at all.

The cache is ``$KERAS_RESNET_CACHE``, else ``$XDG_CACHE_HOME/keras-resnet``, else
``~/.cache/keras-resnet``. With ``KERAS_RESNET_OFFLINE=1`` nothing is downloaded.
Beside each file lies a ``.json`` that says where it came from and its SHA-256.

Of the Hugging Face hub: ``HF_ENDPOINT`` names another server, and ``HF_TOKEN`` is sent to that
server alone. The hub's answer carries ``X-Linked-ETag``, the SHA-256 of a file that it keeps in
large-file storage, ``X-Linked-Size`` and ``X-Repo-Commit``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from keras_resnet.console import Progress, progress, say
from keras_resnet.weights import catalog
from keras_resnet.weights.catalog import Published

TRIES = 5
PAUSE = 1.0  # seconds before the second try; doubles with each
MOST_BYTES = 4 << 30  # where nobody says how large the file is
LEAST_SPEED = 1024  # bytes a second; slower is taken for stalled
MOST_REDIRECTS = 10

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HF_ADDRESS = re.compile(
    r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?"
)
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub reads them


class DownloadError(OSError):
    """A weights file could not be had; the message is one line that says what would help."""


class _Passing(Exception):
    """A fault that the next try may not meet."""


class _Stale(_Passing):
    """The part that is here does not belong to the file that is there now."""


@dataclass(frozen=True)
class _Known:
    """What is known of a file before it is here; empty and ``None`` for nothing."""

    sha256: str = ""
    md5: str = ""
    size: int | None = None
    commit: str = ""

    @property
    def hashed(self) -> bool:
        return bool(self.sha256 or self.md5)

    def complaint(self, path: Path) -> str:
        """What is wrong with a file; empty where nothing is."""
        sha256, md5, size = catalog.digests(path)
        if self.size not in (None, size):
            return f"it has {size:,} bytes where {self.size:,} are published"
        if not sha256.startswith(self.sha256):
            return f"its SHA-256 is {sha256} where {self.sha256} is published"
        if self.md5 not in ("", md5):
            return f"its MD5 is {md5} where {self.md5} is published"
        return ""


def cache_folder() -> Path:
    """The folder that downloads are kept in; it need not exist."""
    if chosen := os.environ.get("KERAS_RESNET_CACHE"):
        return Path(chosen).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "keras-resnet"


def offline() -> bool:
    """Whether ``KERAS_RESNET_OFFLINE`` forbids downloads."""
    return os.environ.get("KERAS_RESNET_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def fetch(what: Published | str, timeout: float = 30.0) -> Path:
    """A weights file on this machine: from the cache, or downloaded into it.

    The file is held to its hash each time. Two processes may ask for it at once: one
    downloads and the other waits.

    Args:
        what: A row of the catalog, ``"hf://owner/name[@revision][/file]"`` (the file is
            ``model.safetensors`` unless named), or an ``https://`` address whose file name
            ends in digits of its SHA-256, as torch.hub's do.
        timeout: Seconds after which a connection or a stalled transfer is given up.

    Raises:
        ValueError: The address is none of these.
        DownloadError: The file is not to be had, or is not the published one.
    """
    urls, known = _asked_for(what)
    target = cache_folder() / cached_as(urls[0])
    try:
        if _is_good(target, known):
            return target
        if offline():
            raise DownloadError(
                f"KERAS_RESNET_OFFLINE is set and {_title(urls[0])} is not in the cache. "
                + _by_hand(urls[0], target)
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not _is_good(target, known):
                if target.exists():
                    say(f"{target} is damaged or another file, and is downloaded again")
                _download_from_any(urls, target, known, timeout)
        return target
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(_cache_complaint(error, target)) from error


def cached_as(url: str) -> Path:
    """Where in the cache folder the file of an address lies."""
    if url.startswith("hf://"):
        part = _hf_parts(url)
        parts = ["hf", part["owner"], part["name"], part["revision"], *part["file"].split("/")]
    else:
        split = urllib.parse.urlsplit(url)
        parts = [split.netloc, *split.path.split("/")]
        if split.query:
            parts[-1] = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{parts[-1]}"
    safe = (re.sub(r"[^\w.+-]", "_", part) for part in parts)
    return Path(*(part for part in safe if part.strip(".")))


def _asked_for(what: Published | str) -> tuple[tuple[str, ...], _Known]:
    row = what if isinstance(what, Published) else _row_at(what)
    if row is not None:
        return row.urls, _Known(row.sha256, row.md5, row.size)
    assert isinstance(what, str)
    if what.startswith("hf://"):
        _hf_parts(what)
        return (what,), _Known()
    if complaint := _address_complaint(what):
        raise ValueError(f"{complaint}. Received: {what!r}")
    digits = _DIGITS_IN_NAME.search(urllib.parse.urlsplit(what).path)
    if digits is None:
        raise ValueError(
            "A file is only downloaded if its hash is known: from the catalog, from the Hugging "
            "Face hub (hf://owner/name), or from digits of its SHA-256 in its name, such as "
            f"resnet50-0676ba61.pth. Download it yourself and give its path. Received: {what!r}"
        )
    return (what,), _Known(sha256=digits[1])


def _row_at(address: str) -> Published | None:
    row = catalog.at(address)
    # A revision or file of the user's own choice is not the one that the catalog knows.
    plain = "@" not in address and address.count("/") == 3  # hf://owner/name
    return row if row is not None and (plain or address in row.urls) else None


def _hf_parts(address: str) -> dict[str, str]:
    match = _HF_ADDRESS.fullmatch(address)
    parts = {} if match is None else {k: v or "" for k, v in match.groupdict().items()}
    if not parts or any(not part.strip(".") for part in address[len("hf://") :].split("/")):
        raise ValueError(
            "An address on the Hugging Face hub is hf://owner/name, perhaps with @revision and "
            f"/file, such as hf://timm/resnet50.a1_in1k. Received: {address!r}"
        )
    parts["revision"] = parts["revision"] or "main"
    parts["file"] = parts["file"] or "model.safetensors"
    return parts


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _title(url: str) -> str:
    """The file's name; of the hub's, which are all called alike, with the repository's."""
    part = _hf_parts(url) if url.startswith("hf://") else None
    return f"{part['name']}/{part['file']}" if part else cached_as(url).name


def _web_address(url: str) -> str:
    if not url.startswith("hf://"):
        return url
    part = _hf_parts(url)
    path = f"{part['owner']}/{part['name']}/resolve/{part['revision']}/{part['file']}"
    return f"{_hub()}/{urllib.parse.quote(path)}"


def _address_complaint(url: str) -> str:
    """What forbids to open an address; empty where nothing does."""
    try:
        split = urllib.parse.urlsplit(url)
        host, _ = split.hostname, split.port
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url:
        return "This is not an address on the web"
    if split.username or split.password:
        return "An address with a user name in it is not opened"
    if split.scheme != "https" and not (split.scheme == "http" and host in _LOOPBACK):
        return "Only https:// addresses are opened, and hf://"
    return ""


def _by_hand(url: str, target: Path) -> str:
    return f"Fetch {_web_address(url)} by other means and put it at {target}"


def _cache_complaint(error: OSError, target: Path) -> str:
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "there is no room left"
    return (
        f"Cannot keep {target.name} in {target.parent}: {reason}. "
        "Set KERAS_RESNET_CACHE to a folder that can be written to and has room"
    )


def _is_good(target: Path, known: _Known) -> bool:
    """Whether the file is in the cache and is the published one.

    Raises:
        DownloadError: It is another, and may not be downloaded again.
    """
    if not target.is_file():
        return False
    if not known.hashed:
        known = _Known(sha256=str(_read_json(_record(target)).get("sha256", "")))
    if not known.hashed:
        say(f"{target} was put there by hand, and its hash is not known here: it is not checked")
        return True
    complaint = known.complaint(target)
    if complaint and offline():
        raise DownloadError(
            f"{target} is damaged or another file: {complaint}. KERAS_RESNET_OFFLINE is set, so "
            "it is not downloaded again"
        )
    return not complaint


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keeps other processes away from the file and its parts; the system unlocks on death."""
    with open(target.with_name(target.name + ".lock"), "wb") as file:
        waited = False
        while not _try_lock(file):
            if not waited:
                say(f"Another process downloads {target.name}: waiting for it")
            waited = True
            time.sleep(0.1)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _download_from_any(urls: tuple[str, ...], target: Path, known: _Known, timeout: float) -> None:
    complaints = []
    for url in urls:
        try:
            with progress(f"Downloading {_title(urls[0])} (kB)") as show:
                _download(url, target, known, timeout, show)
            return
        except _Passing as fault:
            complaints.append(f"{fault}. {_by_hand(url, target)}")
        except DownloadError as fault:
            complaints.append(str(fault))
    raise DownloadError(f"Cannot download {_title(urls[0])}: {'; '.join(complaints)}")


def _download(url: str, target: Path, known: _Known, timeout: float, show: Progress) -> None:
    partial = _partial(target)
    for left in reversed(range(TRIES)):
        begun = partial.is_file()
        try:
            found = _transfer(url, partial, known, timeout, show)
            if complaint := found.complaint(partial):
                if begun:
                    raise _Stale(f"the parts of {url} do not fit together: {complaint}")
                _discard(partial)
                raise DownloadError(f"{url} does not give the published file: {complaint}")
            break
        except _Passing as fault:
            if isinstance(fault, _Stale):
                _discard(partial)
            if not left:
                raise
            say(f"{fault}: trying again")
            time.sleep(PAUSE * 2 ** (TRIES - 1 - left))
    sha256, _, size = catalog.digests(partial)
    origin = {"url": url, "commit": found.commit, "sha256": sha256, "size": size}
    _write_json(_record(target), {k: v for k, v in origin.items() if v})
    os.replace(partial, target)
    _discard(partial)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(data), "utf-8")
    os.replace(beside, path)


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _record(partial).unlink(missing_ok=True)


def _transfer(url: str, partial: Path, known: _Known, timeout: float, show: Progress) -> _Known:
    """Brings ``partial`` to its full length; returns all that is known of the file by then."""
    begun = _read_json(_record(partial))
    offset = partial.stat().st_size if begun.get("validator") and partial.is_file() else 0
    headers = {"User-Agent": "keras-resnet", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": str(begun["validator"])}
    response, stated = _open(url, headers, timeout)
    with response:
        known = _agreed(url, known, stated)
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _total_of_rest(response, offset)
            if total is None:
                raise _Stale(f"{url} does not go on where its first part ends")
        else:
            offset, total = 0, _whole_number(response.headers.get("Content-Length"))
        if known.size is not None and total not in (None, known.size):
            raise DownloadError(f"{url} has {total:,} bytes where {known.size:,} are published")
        limit = known.size or total or MOST_BYTES
        if limit != MOST_BYTES:
            _check_room(partial, limit - offset)
        _write_json(_record(partial), {"validator": _validator(response)})
        with open(partial, "ab" if offset else "wb") as file:
            done = _copy(response, file, offset, limit, timeout, show)
            os.fsync(file.fileno())
    if done > limit:
        _discard(partial)
        raise DownloadError(f"{url} sends more than the {limit:,} bytes that it should have")
    if total is not None and done < total:
        raise _Passing(f"{url} broke off after {done:,} of {total:,} bytes")
    return known


def _agreed(url: str, known: _Known, stated: _Known) -> _Known:
    """What the catalog and the hub say of a file together."""
    if known.sha256 and stated.sha256 and not stated.sha256.startswith(known.sha256):
        raise DownloadError(
            f"{url} is now a file with the SHA-256 {stated.sha256}, "
            f"where {known.sha256} is published"
        )
    if not known.hashed and not stated.hashed:
        raise DownloadError(f"the hub states no SHA-256 for {url}, so it is not downloaded")
    return _Known(
        stated.sha256 or known.sha256, known.md5, known.size or stated.size, stated.commit
    )


def _total_of_rest(response: http.client.HTTPResponse, offset: int) -> int | None:
    """The file's size, if the answer goes on where the part ends; else ``None``."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", text)
    return int(match[2]) if match and int(match[1]) == offset else None


def _validator(response: http.client.HTTPResponse) -> str:
    """What tells one state of a file from another (RFC 9110, 13.1.5: no weak tags)."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return "" if etag else response.headers.get("Last-Modified", "")


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _check_room(partial: Path, wanted: int) -> None:
    if shutil.disk_usage(partial.parent).free < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    limit: int,
    timeout: float,
    show: Progress,
) -> int:
    """Writes what arrives, up to just over ``limit``; returns how much is there then."""
    since, lately = time.monotonic(), 0
    while done <= limit:
        try:
            chunk = response.read1(1 << 20)
        except (OSError, http.client.HTTPException) as fault:
            raise _Passing(f"the transfer failed after {done:,} bytes ({_said(fault)})") from fault
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        lately += len(chunk)
        show(done // 1000, (done if limit == MOST_BYTES else limit) // 1000)
        if (elapsed := time.monotonic() - since) > timeout:
            if lately < LEAST_SPEED * elapsed:
                raise _Passing(f"the transfer stalled after {done:,} bytes")
            since, lately = time.monotonic(), 0
    return done


def _said(fault: BaseException) -> str:
    """A fault's own words, fit for one line of a terminal."""
    reason = getattr(fault, "reason", fault)
    words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return "".join(c if c.isprintable() else " " for c in str(words))[:200]


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and proxies, and nothing that follows a redirect unasked or opens another scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _open(
    url: str, headers: dict[str, str], timeout: float
) -> tuple[http.client.HTTPResponse, _Known]:
    """The answer at the end of all redirects, and what the hub stated on the way."""
    opener, address, stated = _opener(), _web_address(url), _Known()
    on_hub = url.startswith("hf://")
    for _ in range(MOST_REDIRECTS + 1):
        if complaint := _address_complaint(address):
            raise DownloadError(f"{url} leads to a forbidden address: {complaint}")
        at_hub = on_hub and _origin(address) == _origin(_hub())
        token = _token() if at_hub else {}
        request = urllib.request.Request(address, headers=headers | token)
        try:
            response = opener.open(request, timeout=timeout)
            answer = response.headers
        except urllib.error.HTTPError as refusal:
            with refusal:
                answer = refusal.headers
            if refusal.code not in (301, 302, 303, 307, 308):
                raise _refused(url, refusal.code) from None
            response = None
        except (OSError, http.client.HTTPException, UnicodeError) as fault:
            if isinstance(getattr(fault, "reason", fault), ssl.SSLCertVerificationError):
                raise DownloadError(f"{url} cannot be trusted: {_said(fault)}") from fault
            raise _Passing(f"{url} cannot be reached ({_said(fault)})") from fault
        if at_hub and not stated.hashed:
            stated = _stated(answer)
        if response is not None:
            return response, stated
        address = _following(url, address, answer.get("Location", ""))
    raise DownloadError(f"{url} leads through more than {MOST_REDIRECTS} redirects")


def _following(url: str, address: str, location: str) -> str:
    try:
        following = urllib.parse.urljoin(address, location)
        if address.startswith("https:") and urllib.parse.urlsplit(following).scheme != "https":
            raise DownloadError(f"{url} leads from https:// to an address that is not")
    except ValueError:
        raise DownloadError(f"{url} leads to something that is no address") from None
    return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    split = urllib.parse.urlsplit(url)
    return split.scheme, split.hostname, split.port


def _token() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()):
        raise DownloadError("HF_TOKEN holds characters that no token has")
    return {"Authorization": f"Bearer {token}"}


def _stated(answer: Any) -> _Known:
    etag = answer.get("X-Linked-ETag", "").removeprefix("W/").strip('"').lower()
    return _Known(
        sha256=etag if re.fullmatch(r"[0-9a-f]{64}", etag) else "",
        size=_whole_number(answer.get("X-Linked-Size")),
        commit=re.sub(r"[^0-9a-f]", "", answer.get("X-Repo-Commit", "")),
    )


def _refused(url: str, code: int) -> Exception:
    try:
        answer = f"{url} answers {code} {HTTPStatus(code).phrase}"
    except ValueError:
        answer = f"{url} answers {code}"
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _Stale(answer)
    if code in (408, 425, 429) or code >= 500:
        return _Passing(answer)
    if url.startswith("hf://") and code in (401, 403, 404):
        answer += " (for a private or gated repository, set HF_TOKEN)"
    return DownloadError(answer)
