"""Planted faults that an audit finds, with precision and recall, beside simpler methods.

    python benchmarks/audit.py FOLDER --model WEIGHTS [--seeds 5] [--only PART ...] [--json FILE]
    python benchmarks/audit.py tfds:cifar10 --data-dir DIR --images 2000 --only labels …

``duplicates``: copies of files of the folder are added, exact and altered, within the training
images and across the splits. Found is a copy whose group has its original; false is every pair of
a group that is neither planted nor among the folder's own, which are listed to be looked at. Beside
it: imagehash's phash, equal (as cleanvision compares) and within 8 bits, mirrored pictures too.

``labels``: 5 % of the labels are changed to another class. Beside it: every label that the same
predictions contradict (argmax).

``quality``: darkened, bleached and blurred copies in place of a twentieth of the files each. Beside
it: cleanvision with its own thresholds.

The thresholds of ``training/audit/`` were chosen on ImageNet's photographs and CIFAR-10; other
pictures are for judging.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from keras_resnet.console import say, show_table
from training.audit.duplicates import find_duplicates
from training.audit.labels import FOLDS, doubtful_labels, embed, open_features, out_of_fold
from training.audit.quality import poor_pictures
from training.audit.scan import Scan, read_pixels, scan
from training.config import DataConfig
from training.data.sources import Source, array_split, labels_of, open_source

WRONG = 0.05  # of the labels
COPIES = 10  # of each kind and placement
PHASH_BITS = 8  # no two of 1,000 different photographs of ImageNet were that close
Picture = Image.Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, help="take only that many training images")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--only", nargs="+", default=["duplicates", "labels", "quality"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    if "duplicates" in arguments.only:
        found["duplicates"] = judge_duplicates(Path(arguments.source), arguments.seeds)
    if "labels" in arguments.only:
        spec = arguments.source if ":" in arguments.source else f"folder:{arguments.source}"
        source = open_source(DataConfig(spec, data_dir=arguments.data_dir), 0)
        found["labels"] = judge_labels(
            _part(source, arguments.images), arguments.model, arguments.seeds
        )
    if "quality" in arguments.only:
        found["quality"] = judge_quality(Path(arguments.source), arguments.seeds)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


# --- Duplicates -------------------------------------------------------------------------------


def jpeg(picture: Picture, quality: int = 85) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def crop(picture: Picture, share: float, rng: np.random.Generator) -> Picture:
    """A box with a share of the sides taken off, anywhere."""
    width, height = (round(side * (1 - share)) for side in picture.size)
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


Alter = Callable[[Picture, np.random.Generator], Picture]
ALTERED: dict[str, Alter] = {
    "quality 75": lambda p, _: jpeg(p, 75),
    "quality 50": lambda p, _: jpeg(p, 50),
    "resized to 60 %": lambda p, _: jpeg(p.resize((p.width * 3 // 5, p.height * 3 // 5))),
    "cropped by 5 %": lambda p, rng: jpeg(crop(p, 0.05, rng)),
    "brightness +10 %": lambda p, _: jpeg(ImageEnhance.Brightness(p).enhance(1.1)),
    "brightness −10 %": lambda p, _: jpeg(ImageEnhance.Brightness(p).enhance(0.9)),
    "mirrored": lambda p, _: jpeg(ImageOps.mirror(p)),
}


def judge_duplicates(folder: Path, seeds: int) -> dict[str, Any]:
    """Recall of each kind of copy, and false pairs, of each method over all seeds."""
    own = _own_pairs(folder)
    say(f"{len(own)} pairs of the folder's own, to be looked at:")
    for one, other in sorted(own):
        say(f"  {one}  {other}")
    methods = ("audit", f"phash ≤ {PHASH_BITS}", "phash equal")
    found: dict[str, Counter[str]] = {name: Counter() for name in methods}
    planted_kinds: Counter[str] = Counter()
    false: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as work:
            planted = _plant_copies(folder, Path(work), np.random.default_rng(seed))
            planted_kinds.update(kind for kind, _, _ in planted)
            seen = scan(open_source(DataConfig(f"folder:{work}"), 0))
            names = [os.path.relpath(name, work) for name in seen.names]
            truth = _closure(own, [(one, other) for _, one, other in planted])
            hashes = _hashes(seen)
            pairs = {
                "audit": _pairs_of(names, [g.members for g in find_duplicates(seen)]),
                methods[1]: _within(names, hashes, PHASH_BITS),
                methods[2]: _within(names, hashes[:1], 0),
            }
            for method, these in pairs.items():
                false[method] += len(these - truth)
                true[method] += len(these & truth)
                for kind, one, other in planted:
                    found[method][kind] += tuple(sorted((one, other))) in these
                for pair in sorted(these - truth):
                    say(f"seed {seed}, {method}: neither planted nor the folder's own: {pair}")
    rows = [
        (kind, *(f"{found[m][kind] / count:.1%} of {count}" for m in methods))
        for kind, count in planted_kinds.items()
    ]
    rows.append(("false pairs", *(str(false[m]) for m in methods)))
    rows.append(("precision of pairs", *(f"{true[m] / (true[m] + false[m]):.2%}" for m in methods)))
    show_table(("copies", *methods), rows, title=f"duplicates, {seeds} seeds")
    return {
        "planted": planted_kinds,
        "found": found,
        "false": false,
        "true": true,
        "own": sorted(own),
    }


def _own_pairs(folder: Path) -> set[tuple[str, str]]:
    seen = scan(open_source(DataConfig(f"folder:{folder}"), 0))
    names = [os.path.relpath(name, folder) for name in seen.names]
    return _pairs_of(names, [group.members for group in find_duplicates(seen)])


def _plant_copies(folder: Path, work: Path, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Copies the folder and adds copies; returns kind, original and copy of each."""
    shutil.copytree(folder, work, dirs_exist_ok=True, symlinks=True)
    held_out = next(x for x in ("val", "test", "validation") if (work / x).is_dir())
    originals = sorted((work / "train").rglob("*.jpg"))
    kinds = ["same bytes", *ALTERED]
    chosen = rng.permutation(len(originals))[: 2 * COPIES * len(kinds)]
    planted = []
    for number, index in enumerate(chosen):
        original, kind = originals[index], kinds[number % len(kinds)]
        split = ("train", held_out)[number // len(kinds) % 2]
        copy = work / split / original.parent.name / f"copy-{number}.jpg"
        if kind == "same bytes":
            shutil.copyfile(original, copy)
        else:
            with Image.open(original) as picture:
                ALTERED[kind](picture.convert("RGB"), rng).save(copy, quality="keep")
        name = f"{kind}, {'across' if split == held_out else 'within'}"
        planted.append((name, str(original.relative_to(work)), str(copy.relative_to(work))))
    return sorted(planted)


def _closure(*pairs: Any) -> set[tuple[str, str]]:
    """All pairs of names that are connected by pairs."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            name = above
        return name

    for one, other in itertools.chain(*pairs):
        parent[root(one)] = root(other)
    members: dict[str, list[str]] = {}
    for name in list(parent):
        members.setdefault(root(name), []).append(name)
    return {pair for group in members.values() for pair in itertools.combinations(sorted(group), 2)}


def _pairs_of(names: list[str], groups: list[tuple[int, ...]]) -> set[tuple[str, str]]:
    return {
        tuple(sorted((names[i], names[j])))
        for group in groups
        for i, j in itertools.combinations(group, 2)
    }


def _hashes(seen: Scan) -> list[np.ndarray]:
    """imagehash's phash of each picture and of its mirror image, bool ``(count, 64)``."""
    import imagehash

    pictures = [Image.fromarray(read_pixels(name, 3)) for name in seen.names]
    mirrored = [ImageOps.mirror(picture) for picture in pictures]
    return [
        np.array([imagehash.phash(p).hash.ravel() for p in some]) for some in (pictures, mirrored)
    ]


def _within(names: list[str], hashes: list[np.ndarray], bits: int) -> set[tuple[str, str]]:
    pairs = set()
    for other in hashes:
        distance = (hashes[0][:, None] != other[None]).sum(-1)
        first, second = np.nonzero(np.triu(distance <= bits, 1))
        pairs |= {tuple(sorted((names[i], names[j]))) for i, j in zip(first, second)}
    return pairs


# --- Labels -----------------------------------------------------------------------------------


def judge_labels(source: Source, model: Path, seeds: int) -> list[dict[str, Any]]:
    """Precision and recall of planted wrong labels, for each seed."""
    features = embed(open_features(model), source)
    labels = np.concatenate([labels_of(source.train), labels_of(source.test)])
    classes = len(source.labels)
    names = [*source.train.files, *source.test.files]
    for doubt in doubtful_labels(features, labels):
        name = names[doubt.index] if names else doubt.index
        label, suggested = source.labels[doubt.label], source.labels[doubt.suggested]
        say(f"doubtful before any is changed: {name}: {label}, predicted {suggested}")
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        wrong = np.zeros(len(labels), bool)
        wrong[rng.permutation(len(labels))[: round(WRONG * len(labels))]] = True
        noisy = np.where(wrong, (labels + rng.integers(1, classes, len(labels))) % classes, labels)
        doubts = np.zeros(len(labels), bool)
        doubts[[doubt.index for doubt in doubtful_labels(features, noisy)]] = True
        predicted = out_of_fold(features, noisy, np.arange(len(noisy))).argmax(1)
        for method, flagged in (("audit", doubts), ("argmax", predicted != noisy)):
            hits = int((flagged & wrong).sum())
            precision, recall = hits / max(flagged.sum(), 1), hits / wrong.sum()
            rows.append(
                {
                    "seed": seed,
                    "method": method,
                    "flagged": int(flagged.sum()),
                    "planted": int(wrong.sum()),
                    "precision": precision,
                    "recall": recall,
                    "f1": 2 * precision * recall / max(precision + recall, 1e-9),
                }
            )
    show_table(
        ("method", "flagged", "precision", "recall", "F1"),
        [
            (method, *(_spread([r[key] for r in rows if r["method"] == method]) for key in keys))
            for method in ("audit", "argmax")
            for keys in [("flagged", "precision", "recall", "f1")]
        ],
        title=f"labels: {len(labels):,} images, {WRONG:.0%} wrong, {seeds} seeds, {FOLDS} folds",
    )
    return rows


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def _part(source: Source, count: int | None) -> Source:
    """The source with its first training images only, in memory, if a count is given."""
    if count is None:
        return source
    taken = list(source.train.examples.take(count + 50).as_numpy_iterator())
    images = np.stack([image for image, _ in taken])
    labels = np.array([label for _, label in taken], "int64")
    first, rest = slice(None, count), slice(count, None)
    return Source(
        source.labels,
        source.channels,
        array_split(images[first], labels[first]),
        array_split(images[rest], labels[rest]),
    )


# --- Quality ----------------------------------------------------------------------------------


def blur(picture: Picture, radius: float) -> Picture:
    return picture.filter(ImageFilter.GaussianBlur(radius * min(picture.size) / 256))


FAULTS: dict[str, Callable[[Picture], Picture]] = {
    "dark": lambda p: ImageEnhance.Brightness(p).enhance(0.15),
    "bright": lambda p: Image.blend(p, Image.new("RGB", p.size, "white"), 0.85),
    "blurred": lambda p: blur(p, 3),
}
CLEANVISION = {"dark": "is_dark_issue", "bright": "is_light_issue", "blurred": "is_blurry_issue"}


def judge_quality(folder: Path, seeds: int) -> dict[str, Any]:
    """Recall of each planted fault, and flagged pictures that are none of it."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("audit", "cleanvision")}
    planted: Counter[str] = Counter()
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory() as work:
            shutil.copytree(folder, work, dirs_exist_ok=True)
            files = sorted(Path(work).rglob("*.jpg"))
            chosen = rng.permutation(len(files))
            each = len(files) // 20
            truth = {}
            for number, (fault, change) in enumerate(FAULTS.items()):
                these = [files[i] for i in chosen[number * each : (number + 1) * each]]
                truth[fault] = {str(file) for file in these}
                for file in these:
                    with Image.open(file) as picture:
                        changed = change(picture.convert("RGB"))
                    changed.save(file, quality=85)
            seen = scan(open_source(DataConfig(f"folder:{work}"), 0))
            poor = poor_pictures(seen)
            flagged = {
                "audit": {f: {seen.names[i] for i in poor[f]} for f in FAULTS},
                "cleanvision": _cleanvision(work),
            }
            for fault in FAULTS:
                planted[fault] += len(truth[fault])
                for method, found in flagged.items():
                    counts[method][f"{fault} found"] += len(found[fault] & truth[fault])
                    counts[method][f"{fault} others"] += len(found[fault] - truth[fault])
    show_table(
        ("fault", "planted", *(f"{m}: {what}" for m in counts for what in ("recall", "others"))),
        [
            (
                fault,
                str(planted[fault]),
                *itertools.chain(
                    *(
                        (f"{c[f'{fault} found'] / planted[fault]:.1%}", str(c[f"{fault} others"]))
                        for c in counts.values()
                    )
                ),
            )
            for fault in FAULTS
        ],
        title=f"quality, {seeds} seeds; others: flagged, not planted",
    )
    return {"planted": planted, **counts}


def _cleanvision(folder: str) -> dict[str, set[str]]:
    import contextlib

    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()):
        lab = Imagelab(data_path=folder)
        lab.find_issues({"dark": {}, "light": {}, "blurry": {}}, n_jobs=1, verbose=False)
    issues = lab.issues
    return {
        fault: {os.path.abspath(name) for name in _true(issues, column)}
        for fault, column in CLEANVISION.items()
    }


def _true(issues: Any, column: str) -> Iterator[str]:
    return iter(issues.index[issues[column]])


if __name__ == "__main__":
    main()
