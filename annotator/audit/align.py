"""Align two small pictures by scale and shift, and correlate their fine structure.

A copy that was cropped, scaled, compressed or brightened becomes the original again by a shift and
a scale along each axis. These four numbers are fitted (Gauss-Newton on pictures of mean 0 and norm
1, from coarse to fine: Lucas and Kanade 1981; Evangelidis and Psarakis 2008), then the fine
structure is compared: radiographs of two people are alike in the large and differ in the small.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Levels = Sequence[tuple[int, int, int, float | None]]

SIDE, VERIFY_SIDE = 64, 128  # pixels of the pictures of `fit_pairs` and of `fit_closely`
# Side of the pictures, steps, reach of the local mean that is subtracted for the fine structure,
# and the least correlation with which a pair goes on. At 8 pixels nothing is fitted yet: copies
# cropped by 5 % had at least 0.77 there, half of those cropped by 15 % less than 0.72, few less
# than 0.4. At 16 and at 32 copies had at least 0.7.
_QUICK_LEVELS = ((8, 0, 2, 0.4), (16, 4, 2, 0.65), (32, 3, 2, 0.65), (64, 3, 4, None))
_CLOSE_LEVELS = ((16, 4, 2, 0.5), (32, 3, 2, 0.5), (64, 3, 4, 0.5), (128, 3, 6, None))
# Scale and shift along x, then along y, of coordinates from -1 to 1, from which fitting starts:
# none, and as if the second was cropped, because one stripe may be taken for the next.
_FIRST_SIDE = 16
_STARTS = np.array([[0, 0, 0, 0], [0.05, 0, 0.05, 0]], np.float32)
_PAIRS_AT_ONCE = 256
_LEAST_SCALE, _MOST_SHIFT = 0.8, 0.2  # of a copy, as shares of the side
_CONTRAST, _FAINT = 50.0, 10.0  # grey levels: of a whole picture, and of noise
_FLAT = 1.0  # grey levels of standard deviation; with less there is nothing to compare


def fit_pairs(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    mirrored: NDArray[np.bool_],
    *,
    workers: int = 1,
) -> Floats:
    """Correlate picture `rows[i]` of `first` and, aligned with it, `others[i]` of `second`.

    Args:
        first: uint8[n, 64, 64].
        second: uint8[m, 64, 64].
        rows: int64[p].
        others: int64[p].
        mirrored: bool[p], whether the second picture is mirrored first.
        workers: Threads.

    Returns:
        float32[p]: the correlation of the two fine structures, -1..1; 0 for pairs given up early
        at a coarse level, and where a picture is of one colour.
    """
    parts = [slice(i, i + _PAIRS_AT_ONCE) for i in range(0, len(rows), _PAIRS_AT_ONCE)]

    def fitted(part: slice) -> Floats:
        a = first[rows[part]].astype(np.float32)
        b = second[others[part]].astype(np.float32)
        b = np.where(mirrored[part, None, None], b[:, :, ::-1], b)
        return _fit_both(a, b, _QUICK_LEVELS)

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="align") as pool:
        values = list(pool.map(fitted, parts))
    return np.concatenate([np.zeros(0, np.float32), *values])


def fit_closely(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    """As `fit_pairs` for pictures uint8[p, 128, 128], with local contrast evened out."""
    return _fit_both(first.astype(np.float32), second.astype(np.float32), _CLOSE_LEVELS)


def _fit_both(a: Floats, b: Floats, levels: Levels) -> Floats:
    """The better of aligning the second with the first and the first with the second."""
    best: Floats = np.maximum(_fit(a, b, levels), _fit(b, a, levels))
    return best


def _fit(a: Floats, b: Floats, levels: Levels) -> Floats:
    result = np.zeros(len(a), np.float32)
    left = np.flatnonzero((a.std(axis=(1, 2)) > _FLAT) & (b.std(axis=(1, 2)) > _FLAT))
    warp = np.zeros((len(left), 4), np.float32)
    for side, steps, reach, least in levels:
        if not len(left):
            break
        small_a, small_b = _downsampled(a[left], side), _downsampled(b[left], side)
        starts = [warp + start for start in _STARTS] if side == _FIRST_SIDE else [warp]
        value, warp = np.full(len(left), -np.inf, np.float32), starts[0]
        for tried in starts:
            for _ in range(steps):
                tried = _step(small_a, small_b, tried)
            laid, inside = _warped(small_b, tried)
            seen = _evened_structure if side == VERIFY_SIDE else _fine_structure
            fits = _correlation(seen(small_a, reach), seen(laid, reach), inside)
            better = fits > value
            value = np.where(better, fits, value)
            warp = np.where(better[:, None], tried, warp)
        if least is None:
            result[left] = value
        else:
            going_on = value >= least
            left, warp = left[going_on], warp[going_on]
    return result


def _downsampled(pictures: Floats, side: int) -> Floats:
    """float32[p, side, side]: means of square blocks."""
    n, large = len(pictures), pictures.shape[1]
    block = large // side
    if block == 1:
        return pictures
    means: Floats = pictures.reshape(n, side, block, side, block).mean(axis=(2, 4))
    return means


def _coordinates(warp: Floats, side: int) -> Floats:
    """float32[p, 2, side]: pixel in the second picture of each column and row of the first.

    `warp` holds scale and shift along x, then along y, of coordinates from -1 to 1.
    """
    x = np.linspace(-1, 1, side, dtype=np.float32)
    axes = warp.reshape(-1, 2, 2)
    there = (1 + axes[:, :, :1]) * x + axes[:, :, 1:]
    return ((there + 1) * np.float32((side - 1) / 2)).astype(np.float32)


def _warped(pictures: Floats, warp: Floats) -> tuple[Floats, Floats]:
    """Pictures resampled by a warp, and 1 for pixels from inside the picture, else 0."""
    side = pictures.shape[1]
    places = _coordinates(warp, side)
    within = places.clip(0, side - 1)  # edge pixels repeat beyond the edge
    distance = np.abs(within[..., None] - np.arange(side, dtype=np.float32))
    weights = np.maximum(1 - distance, 0, dtype=np.float32)  # linear interpolation
    covered = ((places >= -0.01) & (places <= side - 0.99)).astype(np.float32)
    laid = weights[:, 1] @ pictures @ weights[:, 0].transpose(0, 2, 1)
    return laid, covered[:, 1, :, None] * covered[:, 0, None, :]


def _centred(pictures: Floats, inside: Floats) -> Floats:
    count = np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)
    mean = (pictures * inside).sum(axis=(1, 2), keepdims=True) / count
    centred: Floats = ((pictures - mean) * inside).astype(np.float32)
    return centred


def _correlation(a: Floats, b: Floats, inside: Floats) -> Floats:
    a, b = _centred(a, inside), _centred(b, inside)
    norms = np.sqrt(np.einsum("pij,pij->p", a, a) * np.einsum("pij,pij->p", b, b))
    product = np.einsum("pij,pij->p", a, b)
    return np.where(norms > 1e-6, product / np.maximum(norms, 1e-6), 0).astype(np.float32)


def _step(a: Floats, b: Floats, warp: Floats) -> Floats:
    """One Gauss-Newton step of the warp that aligns b with a."""
    side = a.shape[1]
    laid, inside = _warped(b, warp)
    dx, dy = np.gradient(laid, axis=2), np.gradient(laid, axis=1)
    x = np.linspace(-1, 1, side, dtype=np.float32)
    half = np.float32((side - 1) / 2)
    scale = half / (1 + warp.reshape(-1, 2, 2)[:, :, 0])  # of pixels there to coordinates here
    dx = dx * scale[:, 0, None, None]
    dy = dy * scale[:, 1, None, None]
    slopes = np.stack([dx * x, dx, dy * x[:, None], dy], axis=1)
    a, laid = _centred(a, inside), _centred(laid, inside)
    gain = np.einsum("pij,pij->p", a, laid) / np.maximum(np.einsum("pij,pij->p", laid, laid), 1e-6)
    rest = (a - gain[:, None, None] * laid).reshape(len(a), side * side)
    slopes = slopes * (gain[:, None, None, None] * inside[:, None])
    slopes = slopes.reshape(len(a), 4, side * side)
    slopes = slopes - slopes.mean(axis=2, keepdims=True)
    gram = slopes @ slopes.transpose(0, 2, 1)
    damping = 1e-3 * np.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-3
    move = np.linalg.solve(gram + damping * np.eye(4, dtype=np.float32), slopes @ rest[..., None])
    moved = (warp + move[..., 0]).reshape(-1, 2, 2)
    least, most = _LEAST_SCALE - 1, 1 / _LEAST_SCALE - 1
    moved[:, :, 0] = moved[:, :, 0].clip(least, most)
    moved[:, :, 1] = moved[:, :, 1].clip(-2 * _MOST_SHIFT, 2 * _MOST_SHIFT)
    return moved.reshape(-1, 4).astype(np.float32)


def _fine_structure(pictures: Floats, reach: int) -> Floats:
    """Pictures less their local mean, taken over `reach` pixels to each side."""
    side, width = pictures.shape[1], 2 * reach + 1
    # The mean as one matrix for each axis; beyond the edge the picture is mirrored.
    near = np.zeros((side, side), np.float32)
    for i in range(side):
        for j in range(i - reach, i + reach + 1):
            near[i, -j if j < 0 else min(j, 2 * side - 2 - j)] += 1 / width
    return (pictures - near @ pictures @ near.T).astype(np.float32)


def _evened_structure(pictures: Floats, reach: int) -> Floats:
    """Fine structure divided by its local strength: a skull does not outvote a brain."""
    deviation = np.maximum(pictures.std(axis=(1, 2), keepdims=True), _FLAT)
    fine = _fine_structure(pictures * (_CONTRAST / deviation), reach)
    squares = fine * fine
    around = np.maximum(squares - _fine_structure(squares, 2 * reach), 0)
    evened: Floats = (fine / np.sqrt(around + _FAINT**2)).astype(np.float32)
    return evened
