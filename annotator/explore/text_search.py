"""Search by free text, with the text tower of an index's encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.text_tower import make_text_tower
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.projection import Projection, unit
from index.protocols import Index
from index.rows import SearchResult


class TextSearch:
    """An index, searched by words.

    Where the index holds the encoder's own vectors (`--adaptation none`), similarities are the
    cosines of the text and the images. Where they are projected, the ranking is nearly that one
    (`project_directions`), and similarities are cosines with the direction of the text.

    Args:
        stored: The index.
        name: The encoder, if its weights have moved; None for what the index records.

    Raises:
        AnnotatorError: The index's encoder has no text tower, or it cannot be loaded.
    """

    def __init__(self, stored: Index, name: str | None = None) -> None:
        metadata = IndexMetadata.of(stored)
        self._stored = stored
        self._projection = Projection.from_arrays(stored.arrays)
        self._tower = make_text_tower(name or metadata.encoder, metadata.fingerprint)

    def find(self, texts: Sequence[str], k: int) -> SearchResult:
        """The k images that fit each text best.

        Raises:
            AnnotatorError: The model returned a vector that is zero or not finite.
            IndexProblem: As `Index.find`.
        """
        vectors = self._tower.embed(texts)
        if self._projection is not None:
            vectors = project_directions(self._projection, vectors)
        return self._stored.find(vectors, k)


def project_directions(projection: Projection, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries among projected vectors that rank images by how far they go in given directions.

    A text's vector lies in the encoder's space but among no images: projected as an image is, what
    it says drowns in how it differs from all of them. But only its products with images' vectors
    matter, and these follow from the unsupervised components, but for what those leave out, for a
    number that is the same for all images, and for the lengths of the images' components, which the
    index does not hold.

    With x an image's vector, z = (x - mean) * scale up to length, and u = z M - shift its
    unsupervised components, v x = (v / scale) z + constant = (v / scale) M⁺ u + constant, where M⁺
    is the pseudo-inverse. The supervised components have no inverse and take no part.

    Args:
        projection: Of the index.
        vectors: float32[q, dim], directions in the encoder's space.

    Returns:
        float32[q, out] of unit norm.
    """
    varies, first = projection.scale > 0, projection.unsupervised
    scale = np.where(varies, projection.scale, 1.0).astype(np.float64)
    directions = np.where(varies, vectors.astype(np.float64) / scale, 0.0)
    inverse = np.linalg.pinv(projection.matrix[:, :first].astype(np.float64))
    queries = np.zeros((len(vectors), len(projection.shift)))
    queries[:, :first] = directions @ inverse.T
    return unit(queries).astype(np.float32)
