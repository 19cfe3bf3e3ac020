"""Addresses of weights files: ``https://…`` and ``hf://owner/name[@revision][/file]``.

``HF_ENDPOINT`` names another server than https://huggingface.co for ``hf://``.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HUB = re.compile(
    r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?"
)


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face hub."""

    owner: str
    name: str
    revision: str
    file: str


def hub_file(address: str) -> HubFile | None:
    """What an ``hf://`` address names; ``None`` for other addresses.

    Raises:
        ValueError: It begins with ``hf://`` and is not written as it should be.
    """
    if not address.startswith("hf://"):
        return None
    match = _HUB.fullmatch(address)
    if match is None or any(not part.strip(".") for part in address[len("hf://") :].split("/")):
        raise ValueError(
            "An address on the Hugging Face hub is hf://owner/name, perhaps with @revision and "
            f"/file, such as hf://timm/resnet50.a1_in1k. Received: {address!r}"
        )
    revision, file = match["revision"] or "main", match["file"] or "model.safetensors"
    return HubFile(match["owner"], match["name"], revision, file)


def hub() -> str:
    """The address of the Hugging Face hub."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def web_address(address: str) -> str:
    """The address to open."""
    if (file := hub_file(address)) is None:
        return address
    path = f"{file.owner}/{file.name}/resolve/{file.revision}/{file.file}"
    return f"{hub()}/{urllib.parse.quote(path)}"


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port."""
    split = urllib.parse.urlsplit(url)
    return split.scheme, split.hostname, split.port


def objection(url: str) -> str:
    """Why an address is not opened; empty for one that is."""
    try:
        split = urllib.parse.urlsplit(url)
        scheme, host, _ = origin(url)
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url:
        return "This is not an address on the web"
    if split.username or split.password:
        return "An address with a user name in it is not opened"
    if scheme != "https" and not (scheme == "http" and host in LOOPBACK):
        return "Only https:// addresses are opened, and hf://"
    return ""
