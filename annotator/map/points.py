"""Rows of an index shown on a map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.indexing.metadata import IndexMetadata
from index import StoredIndex
from index.labels import LabelTable
from index.progress import track
from index.protocols import Index

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Points:
    """Rows of an index as points of a map.

    Attributes:
        stored: Open index.
        rows: int64[n]: the row of each point, ascending.
        labels: Concepts of each point.
    """

    stored: StoredIndex
    rows: NDArray[np.int64]
    labels: LabelTable

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total(self) -> int:
        """Number of images in the index."""
        return len(self.stored)

    @property
    def ids(self) -> list[str]:
        return [self.stored.ids[row] for row in self.rows.tolist()]

    @property
    def fitted(self) -> bool:
        """True if the projection has supervised components."""
        return (IndexMetadata.of(self.stored).adaptation or {}).get("penalty") is not None

    def name(self, cui: str) -> str:
        """Name of a concept; empty if it has none."""
        return self.stored.names.get(cui, "")

    def texts(self, column: str) -> list[str] | None:
        """Text of each point in a column ("captions", "groups"); None without that column."""
        texts = self.stored.columns.get(column)
        return None if texts is None else [texts[row] for row in self.rows.tolist()]

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The vectors in order, in blocks float32[m, dim] of some thousand."""
        read = iter(track(range(len(self)), total=len(self), label="Laying out"))
        while places := list(islice(read, _ROWS_AT_ONCE)):
            yield self.stored.vectors(self.rows[places])

    def pictures(self) -> list[bytes] | None:
        """JPEG thumbnail of each point, b"" if it has none; None if the index has none."""
        if not self.stored.has_thumbnails:
            return None
        return [self.stored.thumbnail(row) or b"" for row in self.rows.tolist()]


def read_points(stored: Index, *, limit: int, seed: int = 0) -> Points:
    """Take all images of an index, or a uniform random sample.

    Args:
        stored: Open index.
        limit: Maximum number of points, at least 1.
        seed: Random seed of the sample.

    Raises:
        AnnotatorError: The index is on a server.
    """
    if not isinstance(stored, StoredIndex):
        raise AnnotatorError(
            "A map reads all vectors, but this index is on a server.",
            "Use an index in a folder.",
        )
    n = len(stored)
    rows = np.arange(n, dtype=np.int64)
    if n > limit:
        rows = np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))
    return Points(stored, rows, stored.labels.take(rows))
