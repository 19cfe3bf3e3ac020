"""Near duplicates: pictures re-encoded, resized, brightened, mirrored or slightly cropped.

The luma thumbnail of each picture is described by its low frequencies (DCT-II), without their mean
and weighted so that no frequency dominates; a description is a unit vector, and the similarity of
two pictures is their cosine. A perceptual hash is the sign of the same numbers, and tells crops
less well (``benchmarks/audit.py`` compares them).

1. Candidates: all pairs of descriptions by matrix products, mirrored pictures as well. This is
   quadratic, at 286 multiplications a pair: seconds for 50,000 pictures.
2. Of each candidate, one picture is compared with 49 boxes of the other and vice versa: whole, or
   95 or 90 % of a side, at its beginning, middle or end.

The thresholds were chosen on 1,000 photographs of ImageNet and are judged on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from training.audit.scan import SIDE

# Pictures are near duplicates from this cosine on. Of 499,500 pairs of different photographs
# the largest was 0.84; of 9,000 altered copies the smallest was 0.93.
SIMILAR = 0.92
CANDIDATE = 0.55
# Frequencies of each axis.
FREQUENCIES = 12
# Shares of a side that a crop may have left.
CROPS = (0.95, 0.9)
# Pictures are compared if their thumbnails have at least this standard deviation (0–255): those
# of one colour are all alike.
LEAST_CONTRAST = 3.0
# Rows of a matrix product, and pairs that are compared by boxes at a time.
ROWS, PAIRS = 1024, 1024


@dataclass(frozen=True)
class Pairs:
    """Near duplicates.

    Attributes:
        first: Number of one picture of each pair, int64 ``(pairs,)``.
        second: Number of the other.
        similarity: Their cosine, ``SIMILAR`` to 1.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def near_pairs(
    thumbnails: np.ndarray,
    others: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """All pairs of near duplicates.

    Args:
        thumbnails: uint8 ``(count, SIDE, SIDE)``.
        others: Those to compare them with, likewise; by default with each other.
        progress: Called with the number of thumbnails that are compared, and their count.

    Returns:
        Pairs of a number in ``thumbnails`` and one in ``others``; without ``others`` the first is
        the smaller one.
    """
    columns = thumbnails if others is None else others
    ready = _described(columns)
    empty: tuple[list[np.ndarray], ...] = ([], [], [])
    for start in range(0, len(thumbnails), ROWS):
        rows = thumbnails[start : start + ROWS]
        for first, second, flipped in _candidates(rows, ready, start if others is None else None):
            similarity = _compare(rows, columns, first, second, flipped)
            kept = similarity >= SIMILAR
            for values, found in zip(empty, (first + start, second, similarity)):
                values.append(found[kept])
        if progress:
            progress(min(start + ROWS, len(thumbnails)), len(thumbnails))
    first, second, similarity = (
        np.concatenate([np.zeros(0, dtype), *values]).astype(dtype)
        for values, dtype in zip(empty, ("int64", "int64", "float32"))
    )
    return _best_of_each(first, second, similarity)


def describe(thumbnails: np.ndarray) -> np.ndarray:
    """Unit vectors, float32 ``(count, FREQUENCIES²)``; zero for pictures of no contrast."""
    return _descriptions(thumbnails, _bases()[:1], weight=0.5)[:, 0]


def _described(thumbnails: np.ndarray) -> np.ndarray:
    blocks = [describe(thumbnails[i : i + ROWS]) for i in range(0, len(thumbnails), ROWS)]
    return np.concatenate([np.zeros((0, FREQUENCIES**2), "float32"), *blocks])


def _candidates(
    rows: np.ndarray, columns: np.ndarray, start: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pairs of a row and a column, at most ``PAIRS`` at a time, and whether the row is mirrored.

    With ``start``, the number of the first row among the columns, only columns behind a row.
    """
    for flipped in (False, True):
        described = describe(rows[:, :, ::-1] if flipped else rows)
        for left in range(0 if start is None else start, len(columns), 8 * ROWS):
            cosines = described @ columns[left : left + 8 * ROWS].T
            first, second = np.nonzero(cosines >= CANDIDATE)
            second += left
            if start is not None:
                behind = second > first + start
                first, second = first[behind], second[behind]
            for i in range(0, len(first), PAIRS):
                yield first[i : i + PAIRS], second[i : i + PAIRS], flipped


def _compare(
    rows: np.ndarray, columns: np.ndarray, first: np.ndarray, second: np.ndarray, flipped: bool
) -> np.ndarray:
    """The similarity of each pair over all crops of one of them."""
    lefts, left = np.unique(first, return_inverse=True)
    rights, right = np.unique(second, return_inverse=True)
    own = rows[lefts][:, :, ::-1] if flipped else rows[lefts]
    boxes, others = (_descriptions(x, _bases(), weight=1.0) for x in (own, columns[rights]))
    one = np.einsum("pd,pbd->pb", boxes[left, 0], others[right]).max(1)
    other = np.einsum("pbd,pd->pb", boxes[left], others[right, 0]).max(1)
    return np.maximum(one, other)


def _descriptions(thumbnails: np.ndarray, bases: np.ndarray, weight: float) -> np.ndarray:
    """Unit vectors ``(count, boxes, FREQUENCIES²)``: a box for each pair of bases.

    Args:
        thumbnails: ``(count, SIDE, SIDE)``.
        bases: ``(cuts, FREQUENCIES, SIDE)``: of each axis.
        weight: Power of the frequency that multiplies its coefficient.
    """
    pixels = thumbnails.astype("float32")
    flat = bases.reshape(-1, SIDE)
    spectrum = (flat @ pixels @ flat.T).reshape(
        len(pixels), len(bases), FREQUENCIES, len(bases), FREQUENCIES
    )
    vectors = spectrum.transpose(0, 1, 3, 2, 4).reshape(len(pixels), len(bases) ** 2, -1)
    y, x = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    factors = np.hypot(y, x).ravel() ** weight
    factors[0] = 0  # the mean: brightness
    vectors = vectors * factors.astype("float32")
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
    vectors[pixels.std(axis=(1, 2)) < LEAST_CONTRAST] = 0
    return vectors


def _bases() -> np.ndarray:
    """Cosine transforms of one axis, of the whole and of each of its crops.

    Returns:
        float32 ``(1 + 3 · crops, FREQUENCIES, SIDE)``.
    """
    positions = (np.arange(SIDE) + 0.5) / SIDE
    cosines = np.cos(np.pi * np.arange(FREQUENCIES)[:, np.newaxis] * positions)
    cuts = [(1.0, 0.0)] + [(f, o * (1 - f)) for f in CROPS for o in (0, 0.5, 1)]
    return np.stack([cosines @ _stretch(o + f * positions) for f, o in cuts]).astype("float32")


def _stretch(positions: np.ndarray) -> np.ndarray:
    """The matrix that samples ``SIDE`` pixels at positions of 0 to 1, linearly interpolated."""
    place = np.clip(positions * SIDE - 0.5, 0, SIDE - 1)
    left = np.minimum(place.astype(int), SIDE - 2)
    rows = np.arange(SIDE)
    matrix = np.zeros((SIDE, SIDE))
    matrix[rows, left] = left + 1 - place
    matrix[rows, left + 1] = place - left
    return matrix


def _best_of_each(first: np.ndarray, second: np.ndarray, similarity: np.ndarray) -> Pairs:
    """Each pair once: as it is or mirrored, whichever is more similar."""
    order = np.lexsort((-similarity, second, first))
    first, second, similarity = first[order], second[order], similarity[order]
    new = np.ones(len(first), bool)
    new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return Pairs(first[new], second[new], similarity[new])
