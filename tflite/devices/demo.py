"""The demo: a page that runs a run's own .tflite files in a browser, served or exported.

The page is built from ``tflite/devices/web`` by ``make web``. What it knows of the run stands in
``demo.json``, written here from the contracts inside the files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from keras_resnet.files import atomic_write_folder
from tflite.evidence.golden import Golden
from tflite.model.metadata import read_contract

PAGE = Path(__file__).parent / "web" / "dist"
MANIFEST = "demo.json"
LOOPBACK = "127.0.0.1"

# Isolation (COOP and COEP) is what browsers ask of a page before they give it threads.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# A browser runs no script and compiles no wasm of another type.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
# Shown where the check finds a kind further apart than it may be.
REMARKS = {
    "dynamic": "dynamic chooses the scale of its 8-bit numbers anew for each picture, so that the "
    "last bit of one float can move its answers by a few steps, from one processor to the next "
    "and in Python as well. A few steps with the same top-1 are this kind's own."
}


@dataclass(frozen=True)
class Site:
    """All that a browser can get, by its path below the root, without a leading slash.

    Attributes:
        made: Content that was made for this demo.
        files: Files of the built page and of the run, links resolved.
    """

    made: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


def site(
    name: str,
    models: Mapping[str, str | os.PathLike[str]],
    golden: Golden,
    page: str | os.PathLike[str] = PAGE,
) -> Site:
    """The built page, a run's files, and what the page has to know of them.

    Args:
        name: What the page is headed by.
        models: Path of each kind, as ``tflite.convert`` returns them.
        golden: Inputs and the answers of the same kinds.
        page: Folder of the built page.

    Raises:
        ValueError: The page is not built, there are no models, or one holds no contract.
    """
    if not models:
        raise ValueError("There are no .tflite files to show. Make them: keras-resnet convert")
    paths = {kind: Path(path).resolve() for kind, path in models.items()}
    served = {f"model_{kind}.tflite": path for kind, path in paths.items()}
    answers = {kind: f"golden/{kind}.bin" for kind in paths}
    manifest = {
        "name": name,
        "models": [
            {
                "kind": kind,
                "file": f"model_{kind}.tflite",
                "bytes": path.stat().st_size,
                "contract": read_contract(path).to_dict(),
                "remark": REMARKS.get(kind, ""),
            }
            for kind, path in paths.items()
        ],
        "golden": {
            "count": len(golden.images),
            "of": golden.of,
            "images": "golden/images.bin",
            "answers": answers,
        },
    }
    made = {
        MANIFEST: json.dumps(manifest, ensure_ascii=False).encode(),
        "golden/images.bin": golden.images.tobytes(),
        **{answers[kind]: golden.answers[kind].astype("<f4").tobytes() for kind in paths},
    }
    return Site(made, _built(Path(page)) | served)


def _built(page: Path) -> dict[str, Path]:
    if not (page / "index.html").is_file():
        raise ValueError(f"The page is not built: there is no {page}/index.html. Run: make web")
    page = page.resolve()
    files = (path for path in sorted(page.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(page).as_posix(): path for path in files}


# --- Exported -----------------------------------------------------------------------------


def export(site: Site, out: str | os.PathLike[str]) -> Path:
    """Writes the same page as static files, which any web host serves; returns the folder.

    The folder is whole or not there. One that an earlier export wrote is replaced.

    Raises:
        ValueError: The folder holds something else.
    """
    out = Path(out)
    _keep_what_is_no_export(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write_folder(out) as whole:
        for path, content in site.made.items():
            _place(whole, path).write_bytes(content)
        for path, source in site.files.items():
            shutil.copyfile(source, _place(whole, path))
    return out


def _keep_what_is_no_export(out: Path) -> None:
    if not out.exists():
        return
    if out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir())):
        return
    raise ValueError(f"{out} holds something else than an exported demo. Give a new folder")


def _place(folder: Path, path: str) -> Path:
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


# --- Served -------------------------------------------------------------------------------


def server(site: Site, port: int = 0) -> ThreadingHTTPServer:
    """An HTTP server for this machine alone; the caller runs ``serve_forever`` and closes it.

    Args:
        site: All that it will answer with; any other path is not found.
        port: Where it listens; 0 for any free port, told by ``server_port``.

    Raises:
        ValueError: The port is taken, not allowed, or none.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be within 0 and 65535. Received: {port}")
    try:
        return ThreadingHTTPServer((LOOPBACK, port), _handler(site))
    except OSError as error:
        raise ValueError(
            f"Port {port} cannot be listened on: {error.strerror}. Give another, or 0 for any"
        ) from None


def address(server: ThreadingHTTPServer) -> str:
    """What to open in a browser."""
    return f"http://{LOOPBACK}:{server.server_port}/"


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "keras-resnet"
        sys_version = ""
        timeout = 60

        def do_GET(self) -> None:
            self._answer(self._send)

        def do_HEAD(self) -> None:
            self._answer(lambda content: None)

        def _answer(self, body: Callable[[bytes], None]) -> None:
            # Another name for this address is a foreign page that had its name point here.
            if self.headers.get_all("Host", []) not in _hosts(self.server.server_port):  # type: ignore[attr-defined]
                self._refuse(HTTPStatus.MISDIRECTED_REQUEST, body)
                return
            # As it came, never decoded: a name is one of the site's or it is nothing.
            path = self.path.partition("?")[0].removeprefix("/") or "index.html"
            content = _content(site, path)
            if content is None:
                self._refuse(HTTPStatus.NOT_FOUND, body)
                return
            self._head(HTTPStatus.OK, _type(path), len(content))
            body(content)

        def _refuse(self, status: HTTPStatus, body: Callable[[bytes], None]) -> None:
            content = f"{status.value} {status.phrase}\n".encode()
            self._head(status, "text/plain; charset=utf-8", len(content))
            body(content)

        def _head(self, status: HTTPStatus, kind: str, size: int) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(size)} | HEADERS
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, content: bytes) -> None:
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the browser went elsewhere

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _hosts(port: int) -> list[list[str]]:
    return [[f"{LOOPBACK}:{port}"], [f"localhost:{port}"]]


def _content(site: Site, path: str) -> bytes | None:
    if path in site.made:
        return site.made[path]
    if path not in site.files:
        return None
    try:
        # A file that became a link since is not the file that was meant.
        descriptor = os.open(site.files[path], os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        return file.read()


def _type(path: str) -> str:
    return TYPES.get(Path(path).suffix, "application/octet-stream")
