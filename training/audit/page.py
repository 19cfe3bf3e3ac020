"""The page of an audit: a single HTML file that needs neither network nor script."""

from __future__ import annotations

import base64
import datetime
import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.files import atomic_write
from training.audit.audit import Audit
from training.audit.duplicates import Group
from training.audit.kinds import KINDS, QUALITY
from training.audit.scan import read_pixels
from training.data.sources import Source, Split
from training.report.run_page import environment

# Pictures on the page are bounded; the JSON has the names of all.
GROUPS, MEMBERS = 40, 6
DOUBTS = 48
POOR = 16
ROWS = 50  # of the tables of classes and of unreadable files
PICTURE = 128  # pixels of a thumbnail's longer side
QUALITY_OF_JPEG = 75


def write_page(audit: Audit, source: Source, path: Path) -> Path:
    """Writes the page atomically; returns its path.

    Args:
        audit: The findings.
        source: Its images, of which the page shows some.
        path: Of the HTML file.
    """
    text = environment().get_template("audit.html.j2").render(_contents(audit, source))
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def _contents(audit: Audit, source: Source) -> dict[str, Any]:
    counts = audit.counts()
    by_size = sorted(zip(audit.labels, audit.class_counts()), key=lambda row: sum(row[1]))
    return {
        "spec": audit.spec,
        "command": f"keras-resnet audit {shlex.quote(audit.spec)}",
        "written": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "training": audit.scan.training,
        "test": len(audit.scan.names) - audit.scan.training,
        "class_count": len(audit.labels),
        "sizes": audit.sizes(),
        "findings": [
            (kind, counts[kind], what, audit.not_done.get(kind)) for kind, what in KINDS.items()
        ],
        "groups": [_group(audit, source, group) for group in audit.groups[:GROUPS]],
        "more_groups": max(len(audit.groups) - GROUPS, 0),
        "doubts": [
            _figure(audit, source, doubt.index)
            | {
                "suggested": audit.labels[doubt.suggested],
                "probability": doubt.suggested_probability,
            }
            for doubt in audit.doubts[:DOUBTS]
        ],
        "more_doubts": max(len(audit.doubts) - DOUBTS, 0),
        "not_done": audit.not_done,
        "poor": [
            {
                "kind": kind,
                "what": what,
                "figures": [_figure(audit, source, i) for i in audit.poor[kind][:POOR]],
                "more": max(len(audit.poor[kind]) - POOR, 0),
            }
            for kind, what in QUALITY.items()
            if audit.poor[kind]
        ],
        "classes": [(label, train, test) for label, (train, test) in by_size[:ROWS]],
        "more_classes": max(len(by_size) - ROWS, 0),
        "unreadable": list(audit.unreadable.items())[:ROWS],
        "more_unreadable": max(len(audit.unreadable) - ROWS, 0),
    }


def _group(audit: Audit, source: Source, group: Group) -> dict[str, Any]:
    members = shown_members(audit, group)
    return {
        "title": "Equal pixels" if group.exact else f"Similarity {group.similarity:.3f}",
        "across": group.across,
        "conflict": group.conflict,
        "figures": [_figure(audit, source, i) for i in members],
        "more": len(group.members) - len(members),
    }


def shown_members(audit: Audit, group: Group) -> list[int]:
    """The members of a group on the page: of both splits and all labels, where there is room."""
    first: dict[tuple[str, str], int] = {}
    for i in group.members:
        key = (audit.split_name(i), audit.scan.label_names(i, audit.labels))
        first.setdefault(key, i)
    chosen = [*first.values(), *(i for i in group.members if i not in first.values())]
    return sorted(chosen[:MEMBERS])


def _figure(audit: Audit, source: Source, index: int) -> dict[str, Any]:
    look = audit.scan.looks[index]
    pixels = _pixels(source, index)
    return {
        "url": _data_uri(pixels) if pixels is not None else None,
        "tiny": max(pixels.shape[:2]) < PICTURE // 2 if pixels is not None else False,
        "name": audit.scan.names[index],
        "split": audit.split_name(index),
        "label": audit.scan.label_names(index, audit.labels),
        "size": f"{look.width} × {look.height}" if look else "",
    }


def _pixels(source: Source, index: int) -> np.ndarray | None:
    split: Split = source.train
    if index >= split.count:
        split, index = source.test, index - split.count
    picture: Any = split.files[index] if split.files else _example(split, index)
    try:
        return read_pixels(picture, source.channels)
    except ValueError:  # it has changed since
        return None


def _example(split: Split, index: int) -> Any:
    return split.at(tf.constant(index, "int64"))[0].numpy()


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    picture.thumbnail((PICTURE, PICTURE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY_OF_JPEG)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
