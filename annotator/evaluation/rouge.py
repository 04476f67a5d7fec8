"""ROUGE-1 of captions, with the normalisation and tokenisation of the task.

The steps and their order follow the official evaluators of 2025 and 2026 (docs/captions.md).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DIGITS = re.compile(r"\d+")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile("[a-z0-9]+")


def normalise(caption: str) -> str:
    """Lower-case a caption, replace digits by `number`, and remove ASCII punctuation."""
    return _DIGITS.sub("number", caption.lower()).translate(_PUNCTUATION)


def words(caption: str) -> list[str]:
    """Tokenise a caption after `normalise` like ROUGE: runs of `a-z0-9`, without stemming."""
    return _WORD.findall(normalise(caption).lower())


def rouge1(truth: str, caption: str) -> float:
    """Compute the ROUGE-1 F1 of two captions, 0..1, with clipped word counts.

    Two empty captions score 1, as in the task.
    """
    if not truth and not caption:
        return 1.0
    wanted, found = Counter(words(truth)), Counter(words(caption))
    shared = (wanted & found).total()
    if not shared:
        return 0.0
    precision, recall = shared / found.total(), shared / wanted.total()
    return 2 * precision * recall / (precision + recall)


def similarities(captions: Sequence[str]) -> NDArray[np.float64]:
    """Compute `rouge1` of all pairs of n captions, float64[n, n]; 0 for captions without words."""
    # Repeated words are numbered, so that multisets are compared as sets.
    columns: dict[tuple[str, int], int] = {}
    rows: list[int] = []
    held: list[int] = []
    for row, caption in enumerate(captions):
        times: Counter[str] = Counter()
        for word in words(caption):
            held.append(columns.setdefault((word, times[word]), len(columns)))
            rows.append(row)
            times[word] += 1
    has = np.zeros((len(captions), len(columns)), np.float32)
    has[rows, held] = 1
    shared = (has @ has.T).astype(np.float64)
    sizes = shared.diagonal()
    total = sizes[:, None] + sizes
    return np.divide(2 * shared, total, out=np.zeros_like(shared), where=total > 0)
