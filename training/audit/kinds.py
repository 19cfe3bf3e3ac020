"""The kinds of findings of an audit."""

from __future__ import annotations

ODD_SHAPED = 3  # times longer than wide, or wider than long
LEAST_SIDE = 16  # pixels
TINY = 5  # times smaller than the median of the shorter sides

QUALITY: dict[str, str] = {
    "dark": "almost black",
    "bright": "almost white",
    "plain": "one colour, or almost so",
    "blurred": "no sharp region",
    "tiny": f"shorter side under {LEAST_SIDE} pixels, or a fifth of the usual",
    "odd-shaped": f"more than {ODD_SHAPED} times longer than wide, or wider than long",
}
KINDS: dict[str, str] = {
    "unreadable": "files that cannot be read, and are left out of all else",
    "leaks": "test pictures with a copy or near duplicate in training",
    "conflicts": "groups of copies or near duplicates with different labels",
    "duplicates": "groups of pictures with equal pixels",
    "near-duplicates": "groups re-encoded, resized, brightened, cropped a little or mirrored",
    "labels": "labels that predictions from the other pictures contradict",
    **QUALITY,
}
