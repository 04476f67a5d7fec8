"""A second, closer look at the pairs that small pictures hold for one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from annotator.audit.align import fit_closely
from annotator.audit.candidates import Pairs
from index.progress import track

PROMISING = 0.8  # correlation of the small pictures with which a pair gets a closer look
_PAIRS_AT_ONCE = 64

#: A picture uint8[128, 128] by its row.
Look = Callable[[int], NDArray[np.uint8]]


def confirm(pairs: Pairs, first: Look, second: Look, *, workers: int = 1) -> Pairs:
    """The promising ones of `pairs`, with the correlation of larger pictures as their score.

    Args:
        pairs: As the small pictures compare.
        first: Pictures of `pairs.rows`.
        second: Pictures of `pairs.others`.
        workers: Threads.
    """
    kept = pairs.take(np.flatnonzero(pairs.scores >= PROMISING))
    starts = range(0, len(kept.rows), _PAIRS_AT_ONCE)

    def looked(start: int) -> NDArray[np.float32]:
        part = slice(start, start + _PAIRS_AT_ONCE)
        # Neighbouring pairs share their first image: each is decoded once.
        pictures = {row: first(row) for row in np.unique(kept.rows[part]).tolist()}
        others = {row: second(row) for row in np.unique(kept.others[part]).tolist()}
        a = np.stack([pictures[row] for row in kept.rows[part].tolist()])
        b = np.stack([others[row] for row in kept.others[part].tolist()])
        return fit_closely(a, np.where(kept.mirrored[part, None, None], b[:, :, ::-1], b))

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="confirm") as pool:
        scores = list(track(pool.map(looked, starts), total=len(starts), label="Confirming"))
    joined = np.concatenate([np.zeros(0, np.float32), *scores])
    return Pairs(kept.rows, kept.others, kept.mirrored, joined)
