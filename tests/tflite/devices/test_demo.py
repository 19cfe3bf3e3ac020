"""The server and the exported page: a run's files and nothing else, to this machine alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tflite.classifier import Classifier
from tflite.devices import demo
from tflite.evidence.golden import golden, textures
from tflite.model.metadata import read_contract


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A stand-in for what `make web` builds."""
    folder = tmp_path / "dist"
    (folder / "wasm").mkdir(parents=True)
    (folder / "index.html").write_text("the page")
    (folder / "wasm/runtime.wasm").write_bytes(b"\0asm")
    return folder


@pytest.fixture
def model_file(files: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a model, for tests that damage it."""
    copy = tmp_path / "run" / "model_int8.tflite"
    copy.parent.mkdir()
    copy.write_bytes(files["int8"].read_bytes())
    return copy


@pytest.fixture
def site(model_file: Path, page: Path) -> demo.Site:
    made = golden({"int8": model_file}, textures(read_contract(model_file)))
    return demo.site("digits", {"int8": model_file}, made, page)


@contextlib.contextmanager
def served(site: demo.Site) -> Iterator[ThreadingHTTPServer]:
    with demo.server(site) as server:
        server.daemon_threads = False  # so that closing the server waits for every connection
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def running(site: demo.Site) -> Iterator[ThreadingHTTPServer]:
    with served(site) as server:
        yield server


def ask(
    server: ThreadingHTTPServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=240)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    response = connection.getresponse()
    return response, response.read()


def test_page_and_model_are_served_in_isolation(
    running: ThreadingHTTPServer, model_file: Path
) -> None:
    for path, expected in (
        ("/", b"the page"),
        ("/index.html?x=1", b"the page"),
        ("/wasm/runtime.wasm", b"\0asm"),
        ("/model_int8.tflite", model_file.read_bytes()),
    ):
        response, content = ask(running, path)
        assert (response.status, content) == (200, expected)
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(running, "/wasm/runtime.wasm")[0].headers["Content-Type"] == "application/wasm"


def test_head_has_the_size_and_no_content(running: ThreadingHTTPServer, model_file: Path) -> None:
    response, content = ask(running, "/model_int8.tflite", method="HEAD")
    assert response.headers["Content-Length"] == str(model_file.stat().st_size)
    assert content == b""


def test_manifest_has_the_contract_of_the_file(
    running: ThreadingHTTPServer, model_file: Path, site: demo.Site
) -> None:
    manifest = json.loads(ask(running, "/demo.json")[1])
    [entry] = manifest["models"]
    assert entry["contract"] == json.loads(json.dumps(read_contract(model_file).to_dict()))
    assert entry["bytes"] == model_file.stat().st_size
    images = np.frombuffer(ask(running, "/golden/images.bin")[1], "uint8").reshape(-1, 32, 32, 1)
    answers = np.frombuffer(ask(running, "/golden/int8.bin")[1], "<f4").reshape(len(images), -1)
    assert manifest["golden"]["count"] == len(images)
    np.testing.assert_array_equal(Classifier(model_file).probabilities(images), answers)


@pytest.mark.parametrize(
    "path",
    (
        "/../run/model_int8.tflite",
        "/wasm/../../run/model_int8.tflite",
        "/%2e%2e/run/model_int8.tflite",
        "/..%2frun%2fmodel_int8.tflite",
        "/%252e%252e/run/model_int8.tflite",
        "/..\\run\\model_int8.tflite",
        "//etc/passwd",
        "/etc/passwd",
        "/model_int8.tflite%00.html",
        "/%6dodel_int8.tflite",
        "/wasm",
        "/wasm/",
        "/model.keras",
        "/experiment.yaml",
        "http://elsewhere/model_int8.tflite",
    ),
)
def test_any_other_path_is_not_found(running: ThreadingHTTPServer, path: str) -> None:
    response, content = ask(running, path)
    assert response.status == 404
    assert content == b"404 Not Found\n"


@pytest.mark.parametrize(
    "host",
    (
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1:1",
        "[::1]:{port}",
        "localhost.evil.example:{port}",
    ),
)
def test_other_names_of_this_address_are_refused(running: ThreadingHTTPServer, host: str) -> None:
    response, content = ask(running, "/model_int8.tflite", host.format(port=running.server_port))
    assert response.status == 421
    assert b"TFL3" not in content


def test_localhost_is_served(running: ThreadingHTTPServer) -> None:
    assert ask(running, "/", f"localhost:{running.server_port}")[0].status == 200


def test_no_host_and_two_hosts_are_refused(running: ThreadingHTTPServer) -> None:
    ours = f"Host: 127.0.0.1:{running.server_port}\r\n"
    for headers in ("", ours + "Host: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", running.server_port), timeout=240) as stream:
            stream.sendall(f"GET / HTTP/1.0\r\n{headers}\r\n".encode())
            assert b" 421 " in stream.recv(64)


def test_other_methods_are_refused(running: ThreadingHTTPServer) -> None:
    assert ask(running, "/model_int8.tflite", method="PUT")[0].status == 501


def test_server_listens_on_the_loopback_address_only(running: ThreadingHTTPServer) -> None:
    assert running.server_address[0] == "127.0.0.1"


def test_links_in_the_page_are_left_out(model_file: Path, page: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (page / "link.html").symlink_to(secret)
    made = golden({"int8": model_file}, textures(read_contract(model_file)))
    site = demo.site("digits", {"int8": model_file}, made, page)
    assert "link.html" not in site.files
    assert "index.html" in site.files


def test_file_that_becomes_a_link_is_no_longer_served(
    running: ThreadingHTTPServer, model_file: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    model_file.unlink()
    model_file.symlink_to(secret)
    assert ask(running, "/model_int8.tflite")[0].status == 404


def test_port_in_use_is_refused(site: demo.Site, running: ThreadingHTTPServer) -> None:
    with pytest.raises(ValueError, match=f"Port {running.server_port} cannot be listened on"):
        demo.server(site, running.server_port)
    with pytest.raises(ValueError, match=r"within 0 and 65535\. Received: 70000"):
        demo.server(site, 70000)


def test_missing_page_is_refused(model_file: Path, tmp_path: Path) -> None:
    made = golden({"int8": model_file}, textures(read_contract(model_file)))
    with pytest.raises(ValueError, match=r"not built.*make web"):
        demo.site("digits", {"int8": model_file}, made, tmp_path / "nothing")


def test_missing_page_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """By the command itself, in a process of its own."""
    program = """
import sys
from pathlib import Path
sys.argv = ["keras-resnet", "demo", "no-such-run"]  # by that name keras_resnet imports no Keras
from keras_resnet.cli import main
from tflite.devices import demo
demo.require_page.__defaults__ = (Path("nowhere"),)
try:
    main()
finally:
    print(sorted({"keras", "tensorflow", "ai_edge_litert"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(demo.__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "[]\n")
    [line] = done.stderr.splitlines()
    assert "The demo page is not built" in line and "make web" in line


def connect(server: ThreadingHTTPServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=240)


def reset(stream: socket.socket) -> None:
    """Closes with RST instead of FIN, as the system does for a killed browser."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


PARTS_OF_A_REQUEST = {
    "connected": b"",
    "request line": b"GET / HT",
    "headers": b"GET / HTTP/1.1\r\nHost: 127.0",
    "body": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nab",
    "garbage": bytes(range(256)) * 8,
    "line without end": b"A" * 70_000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("end", ("reset", "closed", "half-closed"))
@pytest.mark.parametrize("sent", PARTS_OF_A_REQUEST)
def test_connection_that_breaks_prints_nothing(
    site: demo.Site, capfd: pytest.CaptureFixture[str], sent: str, end: str
) -> None:
    with served(site) as server:
        stream = connect(server)
        with contextlib.suppress(ConnectionError):  # the server may have refused it by then
            stream.sendall(PARTS_OF_A_REQUEST[sent])
            if end == "half-closed":
                stream.shutdown(socket.SHUT_WR)
                while stream.recv(4096):
                    pass
        stream.close() if end == "closed" else reset(stream)
        assert ask(server, "/")[0].status == 200
    assert capfd.readouterr() == ("", "")


def test_download_that_breaks_prints_nothing(
    site: demo.Site, capfd: pytest.CaptureFixture[str]
) -> None:
    # More than the buffers of both sockets hold, so that the server is still writing.
    large = demo.Site({**site.made, "large.bin": bytes(1 << 25)}, site.files)
    with served(large) as server:
        stream = connect(server)
        host = f"127.0.0.1:{server.server_port}"
        stream.sendall(f"GET /large.bin HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        assert stream.recv(100)
        reset(stream)
        assert ask(server, "/")[0].status == 200
    assert capfd.readouterr() == ("", "")


def test_silent_connection_times_out_and_prints_nothing(
    site: demo.Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(site) as server:
        monkeypatch.setattr(server.RequestHandlerClass, "timeout", 0.05)
        with connect(server) as stream:
            stream.sendall(b"GET / HTTP/1.1\r\nHost:")
            assert stream.recv(1) == b""
    assert capfd.readouterr() == ("", "")


def test_other_exceptions_are_still_printed(
    site: demo.Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ArithmeticError("our own")

    monkeypatch.setattr(demo, "_content", broken)
    with served(site) as server, pytest.raises(ConnectionError):
        ask(server, "/")
    assert "ArithmeticError: our own" in capfd.readouterr().err


def test_damaged_model_is_refused(model_file: Path) -> None:
    model_file.write_bytes(model_file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model_int8\.tflite"):
        golden({"int8": model_file}, [np.zeros((32, 32, 1), "uint8")])


def test_export_is_what_is_served(
    site: demo.Site, running: ThreadingHTTPServer, tmp_path: Path
) -> None:
    out = demo.export(site, tmp_path / "new" / "page")
    paths = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    assert sorted(paths) == sorted([*site.made, *site.files])
    for path in paths:
        assert ask(running, f"/{path}")[1] == (out / path).read_bytes()


def test_export_replaces_its_own_and_nothing_else(site: demo.Site, tmp_path: Path) -> None:
    out = demo.export(site, tmp_path / "page")
    (out / "left.over").write_text("")
    demo.export(site, out)
    assert not (out / "left.over").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not replaced"):
        demo.export(site, other)
    assert os.listdir(other) == ["thesis.tex"]


def test_failed_export_leaves_nothing(site: demo.Site, model_file: Path, tmp_path: Path) -> None:
    model_file.unlink()
    with pytest.raises(OSError):
        demo.export(site, tmp_path / "out" / "page")
    assert os.listdir(tmp_path / "out") == []
