"""Rows that stand for all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sample_rows(n: int, most: int) -> NDArray[np.int64]:
    """An evenly spread sample of n rows: int64[min(n, most)], ascending."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
