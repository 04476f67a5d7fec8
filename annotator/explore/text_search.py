"""Search by free text, with the text tower of an index's encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.text_tower import make_text_tower
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.projection import Projection, unit
from index.protocols import Index
from index.rows import SearchResult


class TextSearch:
    """Text search of an index.

    If the index stores the encoder's own vectors (`--adaptation none`), similarities are the
    cosines of text and images. With a projection, the ranking approximates that one
    (`project_directions`), and similarities are cosines with the direction of the text.

    Args:
        stored: Open index.
        name: Encoder, if its weights have moved; None for the recorded one.

    Raises:
        AnnotatorError: The index's encoder has no text tower, or it cannot be loaded.
    """

    def __init__(self, stored: Index, name: str | None = None) -> None:
        metadata = IndexMetadata.of(stored)
        self._stored = stored
        self._projection = Projection.from_arrays(stored.arrays)
        self._tower = make_text_tower(name or metadata.encoder, metadata.fingerprint)

    def over(self, stored: Index) -> TextSearch:
        """The same search over the index with other rows or labels."""
        other = copy.copy(self)
        other._stored = stored
        return other

    def find(self, texts: Sequence[str], k: int) -> SearchResult:
        """Find the k images that best match each text.

        Raises:
            AnnotatorError: The model returned a vector that is zero or not finite.
            IndexProblem: As `Index.find`.
        """
        vectors = self._tower.embed(texts)
        if self._projection is not None:
            vectors = project_directions(self._projection, vectors)
        return self._stored.find(vectors, k)


def project_directions(projection: Projection, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project directions, so that projected images are ranked by their extent along them.

    A text vector lies in the encoder's space but far from all images (the modality gap), so that
    projecting it like an image loses its content. Its inner products with image vectors, however,
    can be recovered from the unsupervised components, up to the truncated components, a constant
    that is the same for all images, and the norms of the images' components, which the index does
    not store.

    With x the vector of an image, z = (x - mean) * scale up to norm, and u = z M - shift its
    unsupervised components, v x = (v / scale) z + constant = (v / scale) M⁺ u + constant, where M⁺
    is the pseudo-inverse. The supervised components have no inverse and are not used.

    Args:
        projection: Projection of the index.
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
