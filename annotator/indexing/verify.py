"""Whether an index is sound: its files, and all that using it would open."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotator.encoders.fitted import Fitted
from annotator.errors import AnnotatorError
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.cross_validation import stored_lists
from annotator.knn.joint_projection import stored_projection
from index.errors import IndexProblem
from index.protocols import Index, IndexLocation
from index.search.base import check_unit


def problems_of(place: IndexLocation) -> list[str]:
    """Everything that is wrong with an index, as sentences; empty if it is sound.

    Beyond `IndexLocation.problems`, opens what is stored for use: the records of the encoder, of
    voting and of reliability, the projection, the lists that tuning uses, and what is known of a
    fitted encoder. Finds the neighbours of a vector from beginning to end. Loads no encoder.
    """
    found = place.problems()
    if found:
        return found
    try:
        stored = place.open()
    except IndexProblem as problem:
        return [problem.message]
    checks: list[Callable[[Index], object]] = [
        IndexMetadata.of,
        lambda stored: stored_projection(stored.arrays),
        stored_lists,
        lambda stored: Fitted.from_arrays(stored.arrays),
    ]
    for check in (*checks, _find_something):
        try:
            check(stored)
        except AnnotatorError as problem:
            found.append(problem.message)
    return list(dict.fromkeys(found))


def _find_something(stored: Index) -> None:
    """Search for a vector as the encoder would give it.

    Raises:
        AnnotatorError: The projection does not fit the encoder or the index, or is damaged.
    """
    dim = IndexMetadata.of(stored).fingerprint.dim
    projection = stored_projection(stored.arrays)
    vectors = np.full((1, dim), dim**-0.5, np.float32)
    if projection is not None:
        if projection.dim != dim:
            raise IndexProblem(
                f"The projection takes vectors of length {projection.dim}, the encoder's have "
                f"{dim}."
            )
        with np.errstate(all="ignore"):
            vectors = projection.apply(vectors)
        check_unit(vectors, stored.manifest.dim, "projected vectors")
    stored.find(vectors, 1)
