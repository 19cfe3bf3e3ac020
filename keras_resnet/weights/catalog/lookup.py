"""From names, addresses and files to rows of the catalog."""

from __future__ import annotations

import hashlib
import os

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.weights.catalog import cifar10, keras_applications, timm, torchvision
from keras_resnet.weights.catalog.records import Published

CATALOG: tuple[Published, ...] = (
    *torchvision.ROWS,
    *keras_applications.ROWS,
    *timm.ROWS,
    *cifar10.ROWS,
    *keras_applications.WITHOUT_CLASSIFIER,
)
NEGLIGIBLE = 0.1  # percent of top-1


def published(
    architecture: str | None = None, variant: str | None = None, tag: str | None = None
) -> tuple[Published, ...]:
    """The rows of the catalog, or those that fit; files without a classifier come last."""
    return tuple(
        row
        for row in CATALOG
        if architecture in (None, row.architecture)
        and variant in (None, row.variant)
        and tag in (None, row.tag)
    )


def find(architecture: str, variant: str, tag: str, *, size: int | None = None) -> Published:
    """The file that ``weights=tag`` means for a network.

    A label set means the best published top-1 among the files that may be used commercially.
    Files are compared by their evaluations at the input size, or at the nearest size that each
    was evaluated at (see ``Published.evaluation_at``). Differences below 0.1 percent are
    negligible: a file that needs no PyTorch is then preferred, and after that the higher top-1,
    and after that the earlier row. A row without a published top-1 counts as 0.

    Args:
        architecture: Name of the architecture's row.
        variant: Name of the variant.
        tag: A row's tag, or a label set: ``"imagenet"``, ``"cifar10"``.
        size: Height of the input in pixels; ``None`` for the architecture's default.

    Raises:
        ValueError: There is no such file; the message lists those there are.
    """
    rows = [row for row in published(architecture, variant) if row.include_top]
    if not rows:
        raise ValueError(_nothing_for(architecture, variant))
    if candidates := [row for row in rows if row.label_set == tag and row.commercial]:
        size = size or ARCHITECTURES[architecture].input_shape[0]
        scores = {row.tag: row.evaluation_at(size).top1 or 0.0 for row in candidates}
        best = max(scores.values())
        equal = [row for row in candidates if best - scores[row.tag] < NEGLIGIBLE]
        return max(equal, key=lambda row: (not row.needs_torch, scores[row.tag]))
    for row in rows:
        if row.tag == tag:
            return row
    tags = dict.fromkeys([*(row.label_set for row in rows), *(row.tag for row in rows)])
    elsewhere = sorted({row.variant for row in published(architecture, tag=tag)})
    hint = f"They are for variant={' or '.join(map(repr, elsewhere))}. " if elsewhere else ""
    raise ValueError(
        f"No weights called {tag!r} are published for {architecture}, variant {variant}. {hint}"
        f"There are: {', '.join(tags)}"
    )


def _nothing_for(architecture: str, variant: str) -> str:
    variants = sorted({row.variant for row in published(architecture)})
    if variants:
        there_is = f"There are for its variant {' and '.join(variants)}"
    else:
        there_is = f"There are for: {', '.join(dict.fromkeys(row.architecture for row in CATALOG))}"
    return f"No weights are published for {architecture}, variant {variant}. {there_is}"


def at(address: str) -> Published | None:
    """The row of the file at an address; of ``hf://`` its revision and file do not count."""
    wanted = _without_revision(address)
    for row in CATALOG:
        if wanted in map(_without_revision, row.urls):
            return row
    return None


def _without_revision(address: str) -> str:
    if not address.startswith("hf://"):
        return address
    return "/".join(address.partition("@")[0].split("/")[:4])


def identify(path: str | os.PathLike[str]) -> Published | None:
    """The row of a local file, recognised by its content; ``None`` where there is none.

    Raises:
        OSError: The file cannot be read.
    """
    sha256, md5, size = digests(path)
    for row in CATALOG:
        if row.matches(sha256, md5, size):
            return row
    return None


def digests(path: str | os.PathLike[str]) -> tuple[str, str, int]:
    """A file's SHA-256 and MD5 (lower-case hex) and its size in bytes.

    Raises:
        OSError: The file cannot be read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
        return sha256.hexdigest(), md5.hexdigest(), file.tell()
