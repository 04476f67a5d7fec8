"""What an audit takes from an index on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.audit.align import CLOSE_SIDE
from annotator.audit.candidates import Views
from annotator.audit.glances import SIDE, glance
from annotator.audit.unlike import evenly
from annotator.encoders.cache import CACHE_FILE, EmbeddingCache
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.cross_validation import LEAST_IMAGES, NeighborLists
from annotator.knn.neighbors import nearest_others
from annotator.knn.projection import Projection
from annotator.knn.voting import Voting
from index import LabelTable, Neighbors, StoredIndex, open_index
from index.locations import is_on_server
from index.rows import SearchResult

_MORE = 50  # neighbours beyond those that vote, to leave out the image's own


def is_index(path: str) -> bool:
    """Whether an index lies there, and not images."""
    return is_on_server(path) or (Path(path) / "current").is_file()


@dataclass(frozen=True)
class Cases:
    """An opened index, as an audit sees it.

    Attributes:
        stored: The index.
        directory: Where it is.
    """

    stored: StoredIndex
    directory: Path

    @classmethod
    def open(cls, directory: Path) -> Cases:
        """Open the index in a folder.

        Raises:
            IndexProblem: There is none, or it is damaged.
        """
        return cls(open_index(directory), directory)

    @property
    def cache(self) -> Path | None:
        """The file of vectors beside it; None where nothing can be written."""
        return self.directory / CACHE_FILE if os.access(self.directory, os.W_OK) else None

    @property
    def has_pictures(self) -> bool:
        """Whether it keeps small pictures."""
        return self.stored.has_thumbnails

    def content(self, row: int) -> bytes | None:
        """The sha256 of the file of a row's image, where it is known."""
        return self.stored.content(row)

    @property
    def ids(self) -> Sequence[str]:
        """Of its rows."""
        return self.stored.ids

    @property
    def labels(self) -> LabelTable:
        """Of its rows."""
        return self.stored.labels

    @property
    def voting(self) -> Voting:
        """How its neighbours vote."""
        return IndexMetadata.of(self.stored).voting

    def vectors(self, fingerprint: str) -> tuple[list[str], NDArray[np.float32]] | None:
        """Ids and vectors of some of its images as the encoder made them, from its cache.

        Args:
            fingerprint: Digest of the encoder's fingerprint.

        Returns:
            float32[m, dim] of unit norm; None with less than 50 of them.
        """
        path = self.directory / CACHE_FILE
        if not path.is_file():
            return None
        ids, vectors = [], []
        with EmbeddingCache(path, fingerprint) as cache:
            for row in evenly(len(self.ids)).tolist():
                content = self.content(row)
                vector = cache.get(content) if content is not None else None
                if vector is not None:
                    ids.append(self.ids[row])
                    vectors.append(vector)
        return (ids, np.stack(vectors)) if len(ids) >= LEAST_IMAGES else None

    @property
    def projection(self) -> Projection | None:
        """What the encoder's vectors go through to become those of the index."""
        return Projection.from_arrays(self.stored.arrays)

    def views(self) -> Views:
        """All of its images; those without a small picture are black."""
        every = np.arange(len(self.ids))
        glances = np.zeros((len(every), SIDE, SIDE), np.uint8)
        for row in every.tolist() if self.has_pictures else ():
            glances[row] = self._glance(row, SIDE)
        return Views(self.stored.vectors(every), glances)

    def look(self, row: int) -> NDArray[np.uint8]:
        """A row's image as `confirm` looks at it; black without a small picture."""
        return self._glance(row, CLOSE_SIDE)

    def _glance(self, row: int, side: int) -> NDArray[np.uint8]:
        picture = self.stored.thumbnail(row)
        return glance(picture, side) if picture else np.zeros((side, side), np.uint8)

    def picture(self, image_id: str) -> bytes:
        """A small JPEG of an image by its id; b"" where there is none."""
        return self.stored.thumbnail(self._row_of[image_id]) or b""

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {id_: row for row, id_ in enumerate(self.ids)}

    def lists(
        self, vectors: NDArray[np.float32], ids: Sequence[str], groups: Sequence[str]
    ) -> NeighborLists | None:
        """Each image's neighbours in the index, without itself and its group; None if none is left.

        Args:
            vectors: float32[n, dim], as the encoder made them.
            ids: Of the images: the index may hold them, too.
            groups: Of the images; "" for none.
        """
        projection = self.projection

        def find(queries: NDArray[np.float32], k: int) -> SearchResult:
            queries = np.array(queries)
            return self.stored.find(projection.apply(queries) if projection else queries, k)

        k = self.voting.k
        found = [
            of_some.neighbors
            for of_some in nearest_others(find, vectors, ids, groups, k, more=_MORE)
        ]
        joined = Neighbors(
            np.concatenate([neighbors.rows for neighbors in found]),
            np.concatenate([neighbors.similarities for neighbors in found]),
        )
        kept = np.flatnonzero(np.isfinite(joined.similarities[:, 0]))
        return NeighborLists(kept, joined.take(kept)) if len(kept) else None
