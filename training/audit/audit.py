"""An audit of a source: all findings, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.audit.duplicates import MOST_COMPARED, Group, find_duplicates
from training.audit.kinds import KINDS
from training.audit.labels import (
    Doubt,
    check_channels,
    doubtful_labels,
    embed,
    open_features,
    why_not,
)
from training.audit.quality import poor_pictures
from training.audit.scan import Scan, scan
from training.data.sources import Source
from training.data.split import count_labels

NEEDS_MODEL = (
    "not looked for: give a model whose features tell the classes apart, such as a file of "
    "ImageNet weights: --model FILE"
)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        spec: The source, as the user names it.
        labels: Names of the classes.
        scan: All pictures.
        groups: Duplicates and near duplicates.
        doubts: Doubtful labels, the least likely first.
        poor: Numbers of pictures of poor quality, by kind.
        unreadable: Why, by the name of each file that cannot be read.
        not_done: Why a kind was not looked for, by kind.
    """

    spec: str
    labels: tuple[str, ...]
    scan: Scan
    groups: tuple[Group, ...]
    doubts: tuple[Doubt, ...]
    poor: Mapping[str, tuple[int, ...]]
    unreadable: Mapping[str, str]
    not_done: Mapping[str, str]

    def counts(self) -> dict[str, int | None]:
        """Findings by kind, in the order of ``KINDS``; ``None`` for those not looked for."""
        found: dict[str, int | None] = {
            "unreadable": len(self.unreadable),
            "leaks": len(self.leaks()),
            "conflicts": sum(group.conflict for group in self.groups),
            "duplicates": sum(group.exact for group in self.groups),
            "near-duplicates": sum(not group.exact for group in self.groups),
            "labels": len(self.doubts),
            **{kind: len(numbers) for kind, numbers in self.poor.items()},
        }
        return {kind: None if kind in self.not_done else found[kind] for kind in KINDS}

    def leaks(self) -> list[int]:
        """Numbers of the test pictures with a copy or near duplicate in training."""
        members = (i for group in self.groups if group.across for i in group.members)
        return sorted(i for i in members if not self.scan.in_training(i))

    def class_counts(self) -> list[tuple[int, int]]:
        """Training and test pictures of each class, or of each label of several a picture."""
        parts = np.split(self.scan.labels, [self.scan.training])
        train, test = (count_labels(labels, len(self.labels)).tolist() for labels in parts)
        return list(zip(train, test))

    def split_name(self, index: int) -> str:
        """``"train"`` or ``"test"``."""
        return "train" if self.scan.in_training(index) else "test"

    def to_dict(self) -> dict[str, Any]:
        """All findings with the names of all pictures, ready for JSON."""
        return {
            "source": self.spec,
            "pictures": {
                "train": self.scan.training,
                "test": len(self.scan.names) - self.scan.training,
            },
            "classes": [
                {"label": label, "train": train, "test": test}
                for label, (train, test) in zip(self.labels, self.class_counts())
            ],
            "sizes": self.sizes(),
            "counts": self.counts(),
            "not_done": dict(self.not_done),
            "unreadable": [{"file": name, "reason": why} for name, why in self.unreadable.items()],
            "groups": [
                {
                    **asdict(group),
                    "similarity": round(group.similarity, 4),
                    "members": [self._picture(i) for i in group.members],
                }
                for group in self.groups
            ],
            "labels": [
                {
                    **self._picture(doubt.index),
                    "suggested": self.labels[doubt.suggested],
                    "label_probability": doubt.label_probability,
                    "suggested_probability": doubt.suggested_probability,
                }
                for doubt in self.doubts
            ],
            **{kind: [self._picture(i) for i in numbers] for kind, numbers in self.poor.items()},
        }

    def sizes(self) -> dict[str, dict[str, list[int]]]:
        """Smallest, median and largest height and width in pixels of each split."""
        sizes = {}
        parts = {"train": slice(None, self.scan.training), "test": slice(self.scan.training, None)}
        for name, part in parts.items():
            looks = [look for look in self.scan.looks[part] if look]
            sides = {
                "height": [look.height for look in looks],
                "width": [look.width for look in looks],
            }
            sizes[name] = {
                side: [int(x) for x in np.percentile(values, (0, 50, 100))] if values else []
                for side, values in sides.items()
            }
        return sizes

    def _picture(self, index: int) -> dict[str, Any]:
        look = self.scan.looks[index]
        return {
            "name": self.scan.names[index],
            "split": self.split_name(index),
            "label": self.scan.label_names(index, self.labels),
            "size": [look.width, look.height] if look else None,
        }


def audit(source: Source, spec: str, model: Path | None = None) -> Audit:
    """Looks for duplicates, doubtful labels, pictures of poor quality and unreadable files.

    Args:
        source: Training and test images.
        spec: How the user names it.
        model: A run folder, a ``.keras`` file or a file of weights, whose pooled features tell
            the classes apart; without it, labels are not judged.

    Raises:
        ValueError: The model cannot be read, or takes other channels than the images have.
    """
    features = None if model is None else open_features(model)
    if features is not None:
        check_channels(features, source, spec)
    seen = scan(source)
    groups = find_duplicates(seen)
    not_done: dict[str, str] = {}
    if len(seen.names) > MOST_COMPARED:
        not_done["near-duplicates"] = f"not looked for among more than {MOST_COMPARED:,} pictures"
    unreadable = {x.path: x.reason for x in source.notes if x.status == "unreadable"}
    doubts: tuple[Doubt, ...] = ()
    if reason := why_not(seen.labels) or (NEEDS_MODEL if features is None else None):
        not_done["labels"] = reason
    elif features is not None:
        try:
            doubts = doubtful_labels(embed(features, source), seen.labels, groups)
        except ValueError as error:
            not_done["labels"] = f"not looked for: {error}"
    return Audit(
        spec,
        source.labels,
        seen,
        groups,
        doubts,
        poor_pictures(seen),
        unreadable | seen.problems,
        not_done,
    )
