"""A direction in the encoder's space, seen among projected vectors.

A text's vector lies in the encoder's space but among no images: projected as an image is, what it
says drowns in how it differs from all of them. But only its products with images' vectors matter,
and the first part of a projected vector is their principal components. The products follow from
these but for what the projection leaves out, for a number that is the same for all images, and for
the lengths of the images' components, which the index does not hold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annotator.knn.projection import Projection, unit


def towards(projection: Projection, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What to search among projected vectors for, to find those that go furthest in a direction.

    With x an image's vector, z = (x - mean) * scale up to length, and u = z M - shift its "looks",
    v x = (v / scale) z + constant = (v / scale) M⁺ u + constant, where M⁺ is the pseudo-inverse.
    The "meaning" part has no inverse and takes no part.

    Args:
        projection: Of the index.
        vectors: float32[q, dim], directions in the encoder's space.

    Returns:
        float32[q, out] of unit norm.
    """
    varies = projection.scale > 0
    scale = np.where(varies, projection.scale, 1.0).astype(np.float64)
    directions = np.where(varies, vectors.astype(np.float64) / scale, 0.0)
    inverse = np.linalg.pinv(projection.matrix[:, : projection.looks].astype(np.float64))
    seen = np.zeros((len(vectors), len(projection.shift)))
    seen[:, : projection.looks] = directions @ inverse.T
    return unit(seen).astype(np.float32)
