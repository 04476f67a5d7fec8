"""What to expect of a new source: the images of each source, annotated by those of the others.

Images of one hospital, device or article series are alike in more than their findings, so an
estimate across patients says what to expect of these sources, not of another (Zech et al. 2018,
"Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs", PLOS Medicine 15).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.errors import AnnotatorError
from annotator.evaluation.measures import group_numbers
from annotator.knn.cross_validation import cross_fitted
from annotator.knn.fit import Fitter
from annotator.knn.grid_search import f1_of_lists
from annotator.knn.model import FittedModel
from annotator.knn.projection import Projection
from index import LabelTable


@dataclass(frozen=True)
class SourceF1:
    """F1 of one source, annotated by the others.

    Attributes:
        f1: Mean over its annotated images.
        images: Number of these.
    """

    f1: float
    images: int


@dataclass(frozen=True)
class NewSource:
    """Quality to expect of images of a new source.

    Attributes:
        f1: Mean F1 over all annotated images, each annotated by images of other sources.
        images: Number of annotated images.
        sources: F1 of each source, by its name.
    """

    f1: float
    images: int
    sources: Mapping[str, SourceF1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest of the index."""
        return asdict(self)


def check_sources(sources: Sequence[str]) -> None:
    """Check that there is a source to leave out and one to annotate it.

    Args:
        sources: Source of each image; "" where it is not known.

    Raises:
        AnnotatorError: There are fewer than two sources.
    """
    names = sorted({source for source in sources if source})
    if len(names) < 2:
        found = f"all images are of {names[0]!r}" if names else "no image has one"
        raise AnnotatorError(
            f"What to expect of a new source takes at least two sources, and {found}.",
            "Give --holdout-groups FILE:COLUMN a table that names the source of each image, such "
            "as its hospital or device.",
        )


def refuse_fitted(encoder: str) -> None:
    """Refuse an encoder that was fitted to the sources.

    Args:
        encoder: Its name.

    Raises:
        AnnotatorError: Always.
    """
    raise AnnotatorError(
        f"{encoder} is fitted: its branches have seen images of every source, so they cannot tell "
        "what to expect of a new one.",
        "Leave out --holdout-groups, or build with an encoder that is not fitted.",
    )


def expect_of_new_source(
    vectors: NDArray[np.float32],
    concepts: Sequence[Sequence[str]],
    groups: Sequence[str],
    sources: Sequence[str],
    model: FittedModel,
    *,
    blocks: Sequence[int],
) -> NewSource:
    """Annotate the images of each source by those of the others (leave-one-source-out).

    The projection is fitted to the images of the others alone, with the penalty of the model, and
    the vote is the model's. Images without a source take no part. Of more than 5,000 images, as
    many are annotated. The vectors of the others are held in memory.

    Args:
        vectors: As for `annotator.knn.model.fit_model`, of an encoder that is not fitted.
        concepts: As for `fit_model`.
        groups: As for `fit_model`; images of one group do not annotate each other even if they are
            of several sources.
        sources: Source of each image; "" where it is not known.
        model: Fitted to these vectors.
        blocks: As for `fit_model`.

    Raises:
        AnnotatorError: There are fewer than two sources.
    """
    check_sources(sources)
    known = [i for i, source in enumerate(sources) if source]
    if len(known) < len(vectors):
        vectors = vectors[known]
    names, folds = np.unique([sources[i] for i in known], return_inverse=True)
    sets = [concepts[i] for i in known]

    def project(source: int) -> Projection | None:
        if model.projection is None:
            return None
        others = np.flatnonzero(folds != source)
        labels = LabelTable.from_sets([sets[i] for i in others])
        return Fitter(vectors[others], labels, blocks).projection(model.penalty)

    labels = LabelTable.from_sets(sets)
    lists = cross_fitted(project, vectors, group_numbers([groups[i] for i in known]), folds)
    scores, of_source = f1_of_lists(lists, labels, model.voting), folds[lists.queries]
    return NewSource(
        f1=float(scores.mean()),
        images=len(scores),
        sources={
            str(name): SourceF1(float(own.mean()), len(own))
            for i, name in enumerate(names)
            if len(own := scores[of_source == i])
        },
    )
