"""HTTP for downloads: https only, each redirect checked, slow transfers aborted.

``HF_TOKEN`` is sent to the Hugging Face hub alone.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from http import HTTPStatus
from typing import Any

from keras_resnet.weights.addresses import hub, objection, origin, web_address

MIN_SPEED = 1024  # bytes a second; a slower transfer is aborted
MAX_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)
TEMPORARY = (408, 425, 429)


class DownloadError(OSError):
    """A weights file cannot be downloaded; the message is one line that suggests a remedy."""


class Temporary(Exception):
    """Transient failure; retried."""


class Stale(Temporary):
    """The partial file belongs to another version of the remote file."""


def open_url(
    url: str, headers: dict[str, str], timeout: float
) -> tuple[http.client.HTTPResponse, Message]:
    """The response at the end of all redirects.

    Args:
        url: ``https://…`` or ``hf://…``.
        headers: Of the request.
        timeout: Seconds without a byte, or below ``MIN_SPEED``, response headers included.

    Returns:
        The response, and the headers in which the hub stated the file's hash, if it did. Those
        of other servers do not count: they could state the hash of anything that they send.

    Raises:
        DownloadError: The file is refused, or the address redirects to a forbidden one.
        Temporary: The server cannot be reached or reports a transient error.
    """
    opener, address, stated = _opener(), web_address(url), Message()
    for _ in range(MAX_REDIRECTS + 1):
        if why := objection(address):
            raise DownloadError(f"{url} leads to a forbidden address: {why}")
        at_hub = url.startswith("hf://") and origin(address) == origin(hub())
        request = urllib.request.Request(address, headers=headers | (_token() if at_hub else {}))
        response, received = _request(opener, url, request, timeout)
        if at_hub and "X-Linked-ETag" not in stated:
            stated = received
        if response is not None:
            return response, stated
        address = _next(url, address, received.get("Location", ""))
    raise DownloadError(f"{url} leads through more than {MAX_REDIRECTS} redirects")


def _request(
    opener: urllib.request.OpenerDirector, url: str, request: urllib.request.Request, timeout: float
) -> tuple[http.client.HTTPResponse | None, Message]:
    """The response (``None`` for a redirect) and its headers."""
    try:
        response = opener.open(request, timeout=timeout)
        return response, response.headers
    except urllib.error.HTTPError as error:
        with error:
            if error.code in REDIRECTS:
                return None, error.headers
            raise _refused(url, error.code) from None
    except (OSError, http.client.HTTPException, UnicodeError) as failure:
        if isinstance(getattr(failure, "reason", failure), ssl.SSLCertVerificationError):
            raise DownloadError(f"{url} cannot be trusted: {message(failure)}") from failure
        raise Temporary(f"{url} cannot be reached ({message(failure)})") from failure


def _next(url: str, address: str, location: str) -> str:
    """Where a redirect leads."""
    try:
        following = urllib.parse.urljoin(address, location)
        if address.startswith("https:") and urllib.parse.urlsplit(following).scheme != "https":
            raise DownloadError(f"{url} leads from https:// to an address that is not")
    except ValueError:
        raise DownloadError(f"{url} leads to something that is no address") from None
    return following


def _token() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise DownloadError("HF_TOKEN holds characters that no token has")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refused(url: str, code: int) -> Exception:
    phrase = f" {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else ""
    reply = f"{url} answers {code}{phrase}"
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Stale(reply)
    if code in TEMPORARY or code >= 500:
        return Temporary(reply)
    if url.startswith("hf://") and code in (401, 403, 404):
        reply += " (for a private or gated repository, set HF_TOKEN)"
    return DownloadError(reply)


def message(failure: BaseException) -> str:
    """The reason of a failure, as printable text of one line."""
    reason = getattr(failure, "reason", failure)
    words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return "".join(c if c.isprintable() else " " for c in str(words))[:200]


class _Metered(io.RawIOBase):
    """The bytes of a connection, headers included; fails if they arrive slower than MIN_SPEED.

    Only the time spent waiting for them counts, from the first byte on; before that, the
    timeout of the socket applies.
    """

    def __init__(self, raw: io.RawIOBase, timeout: float) -> None:
        self.raw, self.timeout = raw, timeout
        self.waited, self.received, self.started = 0.0, 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        began = time.monotonic()
        count = self.raw.readinto(buffer) or 0  # type: ignore[attr-defined]
        if self.started:
            self.waited += time.monotonic() - began
        self.started = True
        self.received += count
        if count and self.waited > self.timeout:
            if self.received < MIN_SPEED * self.waited:
                raise TimeoutError(errno.ETIMEDOUT, f"slower than {MIN_SPEED:,} bytes a second")
            self.waited, self.received = 0.0, 0
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        raw: Any = self.fp.detach()  # type: ignore[attr-defined]
        self.fp = io.BufferedReader(_Metered(raw, sock.gettimeout()))


class _HTTP(http.client.HTTPConnection):
    response_class = _Response


class _HTTPS(http.client.HTTPSConnection):
    response_class = _Response


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_HTTP, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_HTTPS, request, context=ssl.create_default_context())


def _opener() -> urllib.request.OpenerDirector:
    """HTTP, HTTPS and proxies; it follows no redirect and opens no other scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener
