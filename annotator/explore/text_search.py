"""Search by free text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.text_tower import make_text_tower
from annotator.indexing.metadata import recorded_encoder
from annotator.knn.projection import Projection
from annotator.knn.pullback import towards
from index.cases import SearchResult
from index.protocols import Index


class TextSearch:
    """An index, searched by words.

    Where the index holds the encoder's own vectors (`--adaptation none`), similarities are the
    cosines of the text and the images. Where they are projected, the ranking is nearly that one
    (`adapt.pullback`), and similarities are cosines with the direction of the text.

    Args:
        stored: The index.
        name: The encoder, if its weights have moved; None for what the index records.

    Raises:
        AnnotatorError: The index's encoder has no text tower, or it cannot be loaded.
    """

    def __init__(self, stored: Index, name: str | None = None) -> None:
        recorded, fingerprint = recorded_encoder(stored)
        self._stored = stored
        self._projection = Projection.from_arrays(stored.arrays)
        self._tower = make_text_tower(name or recorded, fingerprint)

    def find(self, texts: Sequence[str], k: int) -> SearchResult:
        """The k images that fit each text best.

        Raises:
            AnnotatorError: The model returned a vector that is zero or not finite.
            IndexProblem: As `Index.find`.
        """
        return self._stored.find(self._vectors(texts), k)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._tower.embed(texts)
        return vectors if self._projection is None else towards(self._projection, vectors)
