"""The demo: a page that runs the .tflite files of a run in a browser, served or exported.

``make web`` builds the page from ``tflite/devices/web``. It reads the run's name, contracts and
golden inputs from ``demo.json``, which is made here from the contracts inside the files.

Imports neither Keras nor a runtime at module level: ``require_page`` is quick.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.files import atomic_write_folder, check_replaceable

if TYPE_CHECKING:
    from tflite.evidence.golden import Golden

PAGE = Path(__file__).parent / "web" / "dist"
MANIFEST = "demo.json"
LOOPBACK = "127.0.0.1"

# Browsers give threads only to pages that are cross-origin isolated (COOP and COEP).
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Browsers run scripts and compile wasm only of these types.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
# Shown if a kind differs by more than the check allows.
REMARKS = {
    "dynamic": "dynamic computes the scale of its 8-bit activations for each picture, so the last "
    "bit of one float can move its probabilities by a few steps, from one processor to the next "
    "and in Python as well. A few steps with the same top-1 are normal for this kind."
}


@dataclass(frozen=True)
class Site:
    """Everything that is served, by path below the root, without a leading slash.

    Attributes:
        made: Content generated for this demo.
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
    """The built page, the run's files, and ``demo.json``, which describes them.

    Args:
        name: The page's title.
        models: Path of each kind, as ``tflite.convert`` returns them.
        golden: Inputs and the outputs of the same kinds.
        page: Folder of the built page.

    Raises:
        ValueError: The page is not built, there are no models, or one holds no contract.
    """
    from tflite.model.metadata import read_contract

    require_page(page)
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


def require_page(page: str | os.PathLike[str] = PAGE) -> None:
    """Checks that the page is built; cheap, for a check before TensorFlow starts.

    Raises:
        ValueError: It is not.
    """
    if not (Path(page) / "index.html").is_file():
        raise ValueError(
            f"The demo page is not built: there is no {page}/index.html. Build it with npm: "
            "make web"
        )


def _built(page: Path) -> dict[str, Path]:
    page = page.resolve()
    files = (path for path in sorted(page.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(page).as_posix(): path for path in files}


# --- Exported -----------------------------------------------------------------------------


def export(site: Site, out: str | os.PathLike[str]) -> Path:
    """Writes the same page as static files, for any web host; returns the folder.

    The folder is written atomically, and replaces an earlier export.

    Raises:
        ValueError: The folder holds something else.
    """
    out = Path(out)
    check_replaceable(out, MANIFEST, "an exported demo")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write_folder(out) as temporary:
        for path, content in site.made.items():
            _target(temporary, path).write_bytes(content)
        for path, source in site.files.items():
            shutil.copyfile(source, _target(temporary, path))
    return out


def _target(folder: Path, path: str) -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


# --- Served -------------------------------------------------------------------------------


def server(site: Site, port: int = 0) -> ThreadingHTTPServer:
    """An HTTP server on the loopback address; the caller runs ``serve_forever`` and closes it.

    Args:
        site: Everything that is served; any other path is 404.
        port: Where it listens; 0 for any free port, see ``server_port``.

    Raises:
        ValueError: The port is in use, not allowed, or out of range.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be within 0 and 65535. Received: {port}")
    try:
        return _Server((LOOPBACK, port), _handler(site))
    except OSError as error:
        raise ValueError(
            f"Port {port} cannot be listened on: {error.strerror}. Give another, or 0 for any"
        ) from None


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """No traceback if a client disconnects, at whatever point of the exchange."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def address(server: ThreadingHTTPServer) -> str:
    """The URL to open in a browser."""
    return f"http://{LOOPBACK}:{server.server_port}/"


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "keras-resnet"
        sys_version = ""
        timeout = 60

        def do_GET(self) -> None:
            self._respond(self.wfile.write)

        def do_HEAD(self) -> None:
            self._respond(lambda content: None)

        def _respond(self, body: Callable[[bytes], object]) -> None:
            # Another host name means DNS rebinding: a foreign page whose name resolves to here.
            if self.headers.get_all("Host", []) not in _hosts(self.server.server_port):  # type: ignore[attr-defined]
                self._refuse(HTTPStatus.MISDIRECTED_REQUEST, body)
                return
            # Never percent-decoded: the path is literally one of the site's, or not found.
            path = self.path.partition("?")[0].removeprefix("/") or "index.html"
            content = _content(site, path)
            if content is None:
                self._refuse(HTTPStatus.NOT_FOUND, body)
                return
            self._head(HTTPStatus.OK, _type(path), len(content))
            body(content)

        def _refuse(self, status: HTTPStatus, body: Callable[[bytes], object]) -> None:
            content = f"{status.value} {status.phrase}\n".encode()
            self._head(status, "text/plain; charset=utf-8", len(content))
            body(content)

        def _head(self, status: HTTPStatus, kind: str, size: int) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(size)} | HEADERS
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

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
        # A file that has since been replaced by a symbolic link is not served.
        descriptor = os.open(site.files[path], os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        return file.read()


def _type(path: str) -> str:
    return TYPES.get(Path(path).suffix, "application/octet-stream")
