"""Downloads against a server on loopback that misbehaves in every way that a network does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from keras_resnet.weights import connection, download
from keras_resnet.weights.cache import cache_folder, cached_as
from keras_resnet.weights.catalog import CATALOG, Evaluation, Published
from keras_resnet.weights.download import DownloadError, fetch

CONTENT = bytes(range(256)) * 800  # 204,800 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TIMEOUT = 0.4

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        answers = self.server.routes.get(self.path, [refuse(404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def start(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers each path with the next of its answers, and the last for ever after."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.stop = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def headers(self, path: str) -> list[dict[str, str]]:
        return [headers for requested, headers in self.requests if requested == path]


def refuse(code: int) -> Answer:
    return lambda handler: handler.start(code, Content_Length=0)


def redirect(location: str, code: int = 302, **headers: object) -> Answer:
    return lambda handler: handler.start(code, Location=location, Content_Length=0, **headers)


def serve(
    content: bytes = CONTENT, etag: str = '"one"', ranges: bool = True, **more: object
) -> Answer:
    """A proper server of static files, with or without ranges."""

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if not ranges or handler.headers.get("If-Range") != etag:
            start = 0
        size = len(content)
        if start >= size:
            handler.start(416, Content_Length=0)
            return
        if start:
            more["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
        handler.start(206 if start else 200, Content_Length=size - start, ETag=etag, **more)
        handler.wfile.write(content[start:])

    return answer


def break_off(after: int, content: bytes = CONTENT, etag: str = '"one"') -> Answer:
    """Announces all, sends some, and hangs up."""

    def answer(handler: Handler) -> None:
        handler.start(200, Content_Length=len(content), ETag=etag)
        handler.wfile.write(content[:after])
        handler.close_connection = True

    return answer


def stall(after: int) -> Answer:
    """Announces the full length, sends a part, and then stalls."""

    def answer(handler: Handler) -> None:
        handler.start(200, Content_Length=len(CONTENT), ETag='"one"')
        handler.wfile.write(CONTENT[:after])
        handler.wfile.flush()
        handler.server.stop.wait(20)

    return answer


def drip(start: bytes, drop: bytes = b"x") -> Answer:
    """Sends a byte now and then: never silent for long, and never done."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(start)
        handler.wfile.flush()
        while not handler.server.stop.wait(TIMEOUT / 8):
            handler.wfile.write(drop)
            handler.wfile.flush()

    return answer


IN_BODY = b"HTTP/1.0 200 OK\r\nContent-Length: 204800\r\n\r\n"
IN_CHUNK_SIZE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0"
IN_HEADER = b"HTTP/1.0 200 OK\r\nX-Header: "
IN_REDIRECT = b"HTTP/1.0 302 Found\r\nLocation: /"


def flood(handler: Handler) -> None:
    """Announces nothing and never ends."""
    handler.start(200, ETag='"one"')
    while not handler.server.stop.is_set():
        handler.wfile.write(b"x" * 65536)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KERAS_RESNET_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    return tmp_path / "cache"


def row(*urls: str, sha256: str = SHA256, md5: str = "", size: int | None = None) -> Published:
    return Published(
        architecture="ResNet20",
        variant="v1.5",
        tag="test",
        urls=urls,
        evaluations=(Evaluation(32, 1.0, 90.0),),
        interpolation="bilinear",
        licence="MIT",
        source="here",
        sha256=sha256,
        md5=md5,
        size=size,
    )


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def leftovers(cache: Path) -> list[str]:
    """Files in the cache other than locks, which are never removed."""
    return sorted(
        path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def test_a_complete_download_is_kept_and_not_repeated(server: Server, cache: Path) -> None:
    server.routes["/w.h5"] = [serve()]
    published = row(server.url("/w.h5"), size=len(CONTENT))
    path = fetch(published)
    assert path.read_bytes() == CONTENT
    assert cache in path.parents
    assert leftovers(cache) == ["w.h5", "w.h5.json"]
    assert json.loads(path.with_name("w.h5.json").read_text())["sha256"] == SHA256
    assert fetch(published) == path
    assert len(server.requests) == 1


def test_md5_and_leading_digits_are_enough(server: Server) -> None:
    server.routes["/w.h5"] = [serve()]
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch(row(server.url("/w.h5"), sha256="", md5=md5)).read_bytes() == CONTENT
    server.routes["/v.h5"] = [serve()]
    assert fetch(row(server.url("/v.h5"), sha256=SHA256[:8])).read_bytes() == CONTENT
    server.routes["/u.h5"] = [serve()]
    with pytest.raises(DownloadError, match="MD5"):
        fetch(row(server.url("/u.h5"), sha256="", md5="0" * 32))


def test_a_broken_transfer_goes_on_where_it_broke_off(server: Server, cache: Path) -> None:
    server.routes["/w.h5"] = [break_off(70_000), serve()]
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
    first, second = server.headers("/w.h5")
    assert "Range" not in first
    assert second["Range"] == "bytes=70000-"
    assert second["If-Range"] == '"one"'
    assert leftovers(cache) == ["w.h5", "w.h5.json"]


def test_a_later_call_goes_on_too(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.routes["/w.h5"] = [break_off(70_000), serve()]
    with monkeypatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        with pytest.raises(DownloadError, match=r"broke off after 70,000 of 204,800"):
            fetch(row(server.url("/w.h5")))
    assert "w.h5.partial" in leftovers(cache)
    assert "w.h5" not in leftovers(cache)
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
    assert server.headers("/w.h5")[1]["Range"] == "bytes=70000-"


@pytest.mark.parametrize(
    ("before", "etag", "rest"),
    [(CONTENT, '"one"', serve(ranges=False)), (CONTENT[::-1], '"old"', serve(etag='"new"'))],
    ids=["no ranges", "another file"],
)
def test_a_server_may_send_all_again(
    server: Server, before: bytes, etag: str, rest: Answer
) -> None:
    server.routes["/w.h5"] = [break_off(70_000, before, etag), rest]
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
    assert server.headers("/w.h5")[1]["Range"] == "bytes=70000-"


@pytest.mark.parametrize("start", [70_000, 60_000])
def test_a_wrong_rest_is_thrown_away(server: Server, start: int) -> None:
    """It is of another file, which only the hash tells, or does not begin where it should."""
    before = bytes(reversed(CONTENT))

    def rest(handler: Handler) -> None:
        if "Range" not in handler.headers:
            serve()(handler)
            return
        size = len(CONTENT)
        handler.start(
            206, Content_Length=size - start, Content_Range=f"bytes {start}-{size - 1}/{size}"
        )
        handler.wfile.write(CONTENT[start:])

    server.routes["/w.h5"] = [break_off(70_000, before), rest]
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, cache: Path) -> None:
    server.routes["/w.h5"] = [serve()]
    target = cache / cached_as(server.url("/w.h5"))
    target.parent.mkdir(parents=True)
    target.with_name("w.h5.partial").write_bytes(CONTENT + b"more")
    target.with_name("w.h5.partial.json").write_text('{"validator": "\\"one\\""}')
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[]",
        "{",
        '{"validator": 7}',
        '{"validator": "a\\r\\nb"}',
        '{"validator": NaN}',
        "[" * 10**5,
    ],
)
def test_a_damaged_record_of_a_part_does_no_harm(server: Server, cache: Path, state: str) -> None:
    server.routes["/w.h5"] = [serve()]
    target = cache / cached_as(server.url("/w.h5"))
    target.parent.mkdir(parents=True)
    target.with_name("w.h5.partial").write_bytes(b"something else")
    target.with_name("w.h5.partial.json").write_text(state)
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT


def test_a_corrupted_download_is_refused_and_not_kept(server: Server, cache: Path) -> None:
    spoiled = b"!" + CONTENT[1:]
    server.routes["/w.h5"] = [serve(spoiled), serve()]
    with pytest.raises(DownloadError) as error:
        fetch(row(server.url("/w.h5")))
    message = one_line(error)
    assert SHA256 in message
    assert hashlib.sha256(spoiled).hexdigest() in message
    assert leftovers(cache) == []
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server) -> None:
    server.routes["/w.h5"] = [serve()]
    path = fetch(row(server.url("/w.h5")))
    path.write_bytes(CONTENT[:-1])
    assert fetch(row(server.url("/w.h5"))) == path
    assert path.read_bytes() == CONTENT


def test_another_size_than_published_is_not_even_downloaded(server: Server, cache: Path) -> None:
    server.routes["/w.h5"] = [serve()]
    with pytest.raises(DownloadError, match=r"204,800 bytes where 1,000 are published") as error:
        fetch(row(server.url("/w.h5"), size=1000))
    one_line(error)
    assert leftovers(cache) == []


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_flood_is_cut_off(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 3_000_000)
    server.routes["/w.h5"] = [flood]
    with pytest.raises(DownloadError, match=f"more than the {size or 3_000_000:,} bytes"):
        fetch(row(server.url("/w.h5"), size=size))
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    "answer",
    [
        stall(70_000),
        stall(0),
        drip(IN_BODY),
        drip(IN_CHUNK_SIZE, b"0"),
        drip(b"HT", b"T"),
        drip(IN_HEADER),
        drip(IN_HEADER, b"x\r\nY: y"),
        drip(IN_REDIRECT),
    ],
    ids=["half", "start", "body", "chunk size", "status", "header", "headers", "redirect"],
)
def test_a_stalled_or_slow_transfer_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(download, "TRIES", 2)
    server.routes["/w.h5"] = [answer]
    with pytest.raises(DownloadError, match=r"timed out|slower than 1,024 bytes") as error:
        fetch(row(server.url("/w.h5")), timeout=TIMEOUT)
    assert server.url("/w.h5") in one_line(error)
    assert len(server.requests) == 2


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/w.h5"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(row(url), timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("code", "phrase", "tries"), [(404, "Not Found", 1), (503, "Service Unavailable", 5)]
)
def test_only_a_server_in_trouble_is_asked_again(
    server: Server, code: int, phrase: str, tries: int
) -> None:
    server.routes["/w.h5"] = [refuse(code)]
    with pytest.raises(DownloadError, match=f"{code} {phrase}") as error:
        fetch(row(server.url("/w.h5")))
    one_line(error)
    assert len(server.requests) == tries


def test_a_server_that_recovers_is_used(server: Server) -> None:
    server.routes["/w.h5"] = [refuse(500), refuse(503), refuse(429), serve()]
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_an_unreachable_server_says_where_to_put_the_file(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/w.h5"
    with pytest.raises(DownloadError, match="refused") as error:
        fetch(row(url))
    message = one_line(error)
    assert f"Fetch {url} by other means" in message
    assert message.endswith(f"put it at {cache / cached_as(url)}")


def test_mirrors_are_tried_in_turn(server: Server) -> None:
    server.routes["/spoiled.h5"] = [serve(b"!" + CONTENT)]
    server.routes["/good.h5"] = [serve()]
    urls = [server.url(path) for path in ("/none.h5", "/spoiled.h5", "/good.h5")]
    path = fetch(row(*urls))
    assert path.read_bytes() == CONTENT
    assert path.name == "none.h5"


def test_offline_names_the_file_its_address_and_its_place(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "1")
    url = server.url("/folder/w.h5")
    with pytest.raises(DownloadError) as error:
        fetch(row(url))
    message = one_line(error)
    assert "KERAS_RESNET_OFFLINE" in message
    assert "w.h5 is not in the cache" in message
    assert url in message
    place = Path(message.rpartition("put it at ")[2])
    assert cache in place.parents
    assert not cache.exists()

    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert fetch(row(url)) == place
    place.write_bytes(CONTENT[1:])
    with pytest.raises(DownloadError, match="damaged") as error:
        fetch(row(url))
    one_line(error)
    assert place.read_bytes() == CONTENT[1:]
    assert server.requests == []


def test_offline_can_be_switched_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_RESNET_OFFLINE", "0")
    server.routes["/w.h5"] = [serve()]
    assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT


def test_redirects_are_followed(server: Server) -> None:
    server.routes["/w.h5"] = [redirect("/b.h5", 301)]
    server.routes["/b.h5"] = [redirect(server.url("/c.h5", "localhost"), 307)]
    server.routes["/c.h5"] = [serve()]
    path = fetch(row(server.url("/w.h5")))
    assert path.read_bytes() == CONTENT
    assert path.name == "w.h5"


@pytest.mark.parametrize(
    "location",
    ["file:///etc/hostname", "ftp://127.0.0.1/w.h5", "http://example.com/w.h5", "http://["],
)
def test_redirects_to_elsewhere_are_not_followed(server: Server, location: str) -> None:
    server.routes["/w.h5"] = [redirect(location)]
    with pytest.raises(DownloadError, match="leads to") as error:
        fetch(row(server.url("/w.h5")))
    one_line(error)
    assert len(server.requests) == 1


def test_a_circle_of_redirects_ends(server: Server) -> None:
    server.routes["/w.h5"] = [redirect("/w.h5")]
    with pytest.raises(DownloadError, match="more than 10 redirects"):
        fetch(row(server.url("/w.h5")))


def test_https_never_leads_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opener:
        def open(self, request, timeout):
            headers = {"Location": "http://127.0.0.1/w.h5"}
            raise urllib.error.HTTPError(request.full_url, 302, "Found", headers, None)

    monkeypatch.setattr(connection, "_opener", Opener)
    with pytest.raises(DownloadError, match="leads from https:// to an address that is not"):
        fetch(row("https://example.com/w.h5"))


HUB_PATH = "/owner/name/resolve/main/model.safetensors"


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A hub that redirects to its storage on another host, as the real one does."""
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.routes[HUB_PATH] = [
        redirect(
            server.url("/storage", "localhost"),
            X_Linked_ETag=f'"{SHA256}"',
            X_Linked_Size=len(CONTENT),
            X_Repo_Commit="0123456789abcdef0123456789abcdef01234567",
        )
    ]
    server.routes["/storage"] = [serve()]
    return server


def test_the_hub_states_the_hash_and_alone_gets_the_token(hub: Server, cache: Path) -> None:
    path = fetch("hf://owner/name")
    assert path == cache / "hf/owner/name/main/model.safetensors"
    assert path.read_bytes() == CONTENT
    origin = json.loads(path.with_name("model.safetensors.json").read_text())
    assert origin["commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert hub.headers(HUB_PATH)[0]["Authorization"] == "Bearer hf_secret"
    assert "Authorization" not in hub.headers("/storage")[0]
    # What the hub stated is remembered, and the file held to it.
    path.write_bytes(CONTENT[1:])
    assert fetch("hf://owner/name").read_bytes() == CONTENT


def test_the_token_goes_to_no_other_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.routes["/w.h5"] = [serve()]
    fetch(row(server.url("/w.h5")))
    assert "Authorization" not in server.headers("/w.h5")[0]


def test_a_broken_transfer_from_the_hub_goes_on(hub: Server) -> None:
    hub.routes["/storage"] = [break_off(70_000), serve()]
    assert fetch("hf://owner/name").read_bytes() == CONTENT
    assert [h.get("Range") for h in hub.headers("/storage")] == [None, "bytes=70000-"]


def test_a_file_that_is_not_what_the_hub_states_is_refused(hub: Server, cache: Path) -> None:
    hub.routes["/storage"] = [serve(b"!" + CONTENT[1:])]
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch("hf://owner/name")
    assert leftovers(cache) == []


def test_a_hub_file_other_than_the_catalog_s_is_refused(hub: Server, cache: Path) -> None:
    with pytest.raises(DownloadError, match="is now a file with the SHA-256") as error:
        fetch(row("hf://owner/name", sha256="f" * 64))
    one_line(error)
    assert leftovers(cache) == []


def test_a_hub_file_without_a_hash_is_refused(hub: Server) -> None:
    hub.routes[HUB_PATH] = [redirect("/storage", X_Linked_ETag='"0123456789abcdef"')]
    with pytest.raises(DownloadError, match="states no SHA-256"):
        fetch("hf://owner/name")


def test_only_the_hub_itself_states_hashes(hub: Server) -> None:
    """Storage on another host could state the hash of anything it sends."""
    hub.routes[HUB_PATH] = [redirect(hub.url("/storage", "localhost"))]
    hub.routes["/storage"] = [serve(X_Linked_ETag=f'"{SHA256}"')]
    with pytest.raises(DownloadError, match="states no SHA-256"):
        fetch("hf://owner/name")


def test_a_private_repository_asks_for_a_token(hub: Server) -> None:
    hub.routes[HUB_PATH] = [refuse(401)]
    with pytest.raises(DownloadError, match="set HF_TOKEN") as error:
        fetch("hf://owner/name")
    assert "hf_secret" not in one_line(error)


def test_a_revision_and_a_file_can_be_named(hub: Server, cache: Path) -> None:
    path = "/owner/name/resolve/v1.0/sub/w.safetensors"
    hub.routes[path] = hub.routes[HUB_PATH]
    fetched = fetch("hf://owner/name@v1.0/sub/w.safetensors")
    assert fetched == cache / "hf/owner/name/v1.0/sub/w.safetensors"


@pytest.mark.parametrize("token", ["a\nb", "a\x00b", "é"])
def test_a_token_that_is_none_is_not_sent(
    hub: Server, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    if "\x00" in token:
        monkeypatch.setattr(download.os, "environ", {**download.os.environ, "HF_TOKEN": token})
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match="HF_TOKEN") as error:
        fetch("hf://owner/name")
    assert token not in one_line(error)


def test_an_address_of_the_catalog_brings_the_catalog_s_hash(
    hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = next(row for row in CATALOG if "@" in row.urls[0])
    plain, _, commit = published.urls[0].partition("@")
    name = plain.removeprefix("hf://")
    hub.routes[f"/{name}/resolve/{commit}/model.safetensors"] = hub.routes[HUB_PATH]
    with pytest.raises(DownloadError, match="is published"):
        fetch(plain)
    # Another revision is the user's own choice, and the hub's word is enough.
    hub.routes[f"/{name}/resolve/main/model.safetensors"] = hub.routes[HUB_PATH]
    assert fetch(f"{plain}@main").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "address",
    [
        "",
        "resnet50.pth",
        "file:///etc/hostname",
        "ftp://example.com/w-0676ba61.pth",
        "http://example.com/w-0676ba61.pth",
        "https://user:secret@example.com/w-0676ba61.pth",
        "https://example.com/w 1-0676ba61.pth",
        "https://example.com:port/w-0676ba61.pth",
        "https://[/w-0676ba61.pth",
        "https://example.com/no-digits.pth",
        "hf://",
        "hf://owner",
        "hf://owner/..",
        "hf://../name",
        "hf://owner/name/../../other",
        "hf://owner/name@",
        "hf://owner/name?download=true",
    ],
)
def test_other_addresses_are_refused(address: str, cache: Path) -> None:
    with pytest.raises(ValueError) as error:
        fetch(address)
    assert address in one_line(error)
    assert not cache.exists()


def test_digits_in_the_name_are_a_hash(server: Server) -> None:
    server.routes["/w-01234567.pth"] = [serve()]
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server.url("/w-01234567.pth"))
    server.routes[f"/w-{SHA256[:8]}.pth"] = [serve()]
    assert fetch(server.url(f"/w-{SHA256[:8]}.pth")).read_bytes() == CONTENT


def test_every_file_of_the_catalog_has_a_place_of_its_own() -> None:
    places = [cached_as(row.urls[0]) for row in CATALOG]
    assert len(set(places)) == len(places)
    for place in places:
        assert not place.is_absolute()
        assert ".." not in place.parts
    assert cached_as("https://a.org/../../w.h5") == Path("a.org/w.h5")
    assert cached_as("https://a.org/w.h5?v=1") != cached_as("https://a.org/w.h5?v=2")


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("KERAS_RESNET_CACHE")
    assert cache_folder() == tmp_path / "xdg/keras-resnet"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/keras-resnet"


def test_a_cache_that_cannot_be_written_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(DownloadError, match="Set KERAS_RESNET_CACHE to") as error:
        fetch(row(server.url("/w.h5")))
    one_line(error)
    assert server.requests == []


def test_a_disk_that_fills_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    monkeypatch.setenv("KERAS_RESNET_CACHE", str(disk))
    server.routes["/w.h5"] = [flood]  # of no stated length, so that it is not refused beforehand
    try:
        with pytest.raises(DownloadError, match="no room left") as error:
            fetch(row(server.url("/w.h5")))
        assert "Set KERAS_RESNET_CACHE to a folder" in one_line(error)
        assert not (disk / cached_as(server.url("/w.h5"))).exists()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("suffix", [".partial", ".lock", ".partial.json", ".json"])
@pytest.mark.parametrize("kind", ["file", "nowhere", "fifo"])
def test_links_in_the_cache_are_not_followed(
    server: Server, cache: Path, tmp_path: Path, suffix: str, kind: str
) -> None:
    """In a folder that others can write to, a link could lead to any file of the user."""
    server.routes["/w.h5"] = [serve()]
    target, victim = cache / cached_as(server.url("/w.h5")), tmp_path / "victim"
    target.parent.mkdir(parents=True)
    planted = target.with_name(target.name + suffix)
    if kind == "fifo":
        os.mkfifo(planted)
    else:
        planted.symlink_to(victim)
        if kind == "file":
            victim.write_text("precious")
    if suffix.endswith(".json"):  # replaced, as is a damaged one
        assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
        assert leftovers(cache) == ["w.h5", "w.h5.json"]
    else:
        with pytest.raises(DownloadError, match="is a link or no regular file; remove it") as error:
            fetch(row(server.url("/w.h5")))
        assert planted.name in one_line(error)
        planted.unlink()
        assert fetch(row(server.url("/w.h5"))).read_bytes() == CONTENT
    assert victim.exists() == (kind == "file")
    assert kind != "file" or victim.read_text() == "precious"


def test_a_disk_without_room_is_told_beforehand(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.routes["/w.h5"] = [serve()]
    usage = type(download.shutil.disk_usage("/"))(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match="no room left"):
        fetch(row(server.url("/w.h5")))
    assert leftovers(cache) == []


ANOTHER_PROCESS = """
import sys
from keras_resnet.weights.download import fetch
print(fetch(sys.argv[1]).read_bytes() == bytes(range(256)) * 800)
"""


def fetch_elsewhere(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ANOTHER_PROCESS, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_two_processes_at_once_download_one_file(server: Server, cache: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def in_two_parts(handler: Handler) -> None:
        asked.set()
        handler.start(200, Content_Length=len(CONTENT), ETag='"one"')
        handler.wfile.write(CONTENT[:1000])
        handler.wfile.flush()
        go_on.wait(120)
        handler.wfile.write(CONTENT[1000:])

    path = f"/w-{SHA256[:8]}.pth"
    server.routes[path] = [in_two_parts]
    with fetch_elsewhere(server.url(path)) as first:
        assert asked.wait(120)
        with fetch_elsewhere(server.url(path)) as second:
            assert second.stderr is not None
            assert "waiting for it" in second.stderr.readline()
            go_on.set()
            printed = [process.communicate()[0] for process in (first, second)]
    assert printed == ["True\n", "True\n"]
    assert len(server.requests) == 1
    assert len(leftovers(cache)) == 2


def test_a_killed_download_leaves_a_part_that_is_used(server: Server, cache: Path) -> None:
    path = f"/w-{SHA256[:8]}.pth"
    server.routes[path] = [stall(70_000), serve()]
    target = cache / cached_as(server.url(path))
    partial = target.with_name(target.name + ".partial")
    with fetch_elsewhere(server.url(path)) as process:
        while not partial.exists() or partial.stat().st_size < 60_000:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert not target.exists()
    have = partial.stat().st_size
    assert fetch(server.url(path)).read_bytes() == CONTENT
    assert server.headers(path)[1]["Range"] == f"bytes={have}-"
