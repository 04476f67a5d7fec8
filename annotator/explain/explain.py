"""From an image to the attribution maps of each of its concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.local_runner import embed_frames
from annotator.errors import AnnotatorError
from annotator.explain.attribution import (
    AttributionMap,
    Contributions,
    attribution_maps,
    grid_shape,
    linear_forms,
)
from annotator.explain.cases import Neighborhood, find_neighborhood
from annotator.explain.occlusion import occlusion_maps
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.knn.neighbors import Case
from annotator.pipeline import Annotation, Annotator

if TYPE_CHECKING:
    from PIL import Image

    from annotator.encoders.contributions import ContributionMap
    from annotator.encoders.embedder import Embedder

Method = Literal["exact", "patches", "occlusion"]

_SHOWN_SIDE = 640  # pixels of the picture on a page


@dataclass(frozen=True)
class ConceptExplanation:
    """One concept of an image with its evidence.

    Attributes:
        cui: Of the concept.
        score: Its share of the vote, 0..1.
        vote: The similarities of the cases that voted for it, each times its weight, summed.
        contrast: The mean similarity to the nearest cases with it, less that to the nearest ones
            without it.
        cases_with: Number of cases with it in `contrast`.
        cases_without: Number of cases without it; 0 where all near cases have it.
        voters: The neighbours that voted for it, the heaviest first.
    """

    cui: str
    score: float
    vote: AttributionMap
    contrast: AttributionMap
    cases_with: int
    cases_without: int
    voters: tuple[Case, ...]


@dataclass(frozen=True)
class Explanation:
    """An annotation with its evidence.

    Attributes:
        annotation: As from `Annotator.annotate`.
        picture: The frame that was embedded, to be shown: the middle one of several.
        frames: How many frames were embedded.
        method: How the maps were made; only "exact" is exact.
        concepts: In the annotation's order.
    """

    annotation: Annotation
    picture: Image.Image
    frames: int
    method: Method
    concepts: tuple[ConceptExplanation, ...]


def explain(
    annotator: Annotator, ref: ImageRef, method: Method | Literal["auto"] = "auto"
) -> Explanation:
    """Annotate one image and attribute each concept to places of the image.

    Args:
        annotator: Not used by other threads meanwhile.
        ref: The image.
        method: "auto" is "exact" where the encoder's vector is a sum over positions, else
            "patches" where it is a transformer, else "occlusion".

    Raises:
        ImageError: The image cannot be used.
        AnnotatorError: The encoder does not support the method.
    """
    embedder = annotator.embedder
    data = ref.read()
    frames = decode(data, frames=embedder.frames, at_least=embedder.image_size)
    middle = len(frames) // 2
    vectors = embed_frames([embedder.prepare([f]) for f in frames], embedder, embedder.batch_size)
    # An image's vector is the mean of its frames', brought to unit norm.
    scale = 1 / float(np.linalg.norm(vectors.sum(axis=0))) if len(frames) > 1 else 1.0
    vector = vectors.sum(axis=0) * np.float32(scale)

    near = find_neighborhood(annotator, ref.id, vector)
    cuis = near.annotation.cuis
    contrasts = [near.contrast(cui) for cui in cuis]
    targets = np.array([near.vote(cui) for cui in cuis] + [c.vector for c in contrasts])
    method, positions = _choose_method(embedder, frames[middle], method)
    if not cuis:
        maps: list[AttributionMap] = []
    elif positions is None:
        maps = occlusion_maps(annotator, frames, middle, vector, targets)
    else:
        positions = [map_.within(0, scale) for map_ in positions]
        others = (vectors.sum(axis=0, dtype=np.float64) - vectors[middle]) * scale
        size = frames[middle].size
        maps = _position_maps(annotator, vector, others, targets, positions, size)

    picture = decode(data, frames=embedder.frames, at_least=_SHOWN_SIDE)[middle]
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    concepts = tuple(
        ConceptExplanation(
            cui,
            near.annotation.scores[i],
            vote=maps[i],
            contrast=maps[len(cuis) + i],
            cases_with=contrasts[i].cases_with,
            cases_without=contrasts[i].cases_without,
            voters=_voters(near, cui),
        )
        for i, cui in enumerate(cuis)
    )
    return Explanation(near.annotation, picture, len(frames), method, concepts)


def _choose_method(
    embedder: Embedder, frame: Image.Image, method: Method | Literal["auto"]
) -> tuple[Method, list[ContributionMap] | None]:
    """The method to use and its position maps; None for occlusion, which needs none."""
    if method in ("auto", "exact"):
        maps = embedder.position_contributions(frame)
        if maps is not None:
            return "exact", maps
    if method in ("auto", "patches"):
        maps = embedder.patch_contributions(frame)
        if maps is not None:
            return "patches", maps
    if method in ("auto", "occlusion"):
        return "occlusion", None
    what = "no sum over positions" if method == "exact" else "not made from patches"
    raise AnnotatorError(
        f"The vectors of {embedder.name} are {what}.",
        "Leave out --method, which takes what the encoder can do, or use --method occlusion.",
    )


def _position_maps(
    annotator: Annotator,
    vector: NDArray[np.float32],
    others: NDArray[np.float64],
    targets: NDArray[np.float64],
    positions: Sequence[ContributionMap],
    size: tuple[int, int],
) -> list[AttributionMap]:
    """Attribute the products of a vector with targets to positions.

    Args:
        annotator: Has the projection.
        vector: float32[dim].
        others: float64[dim]: what other frames add to it.
        targets: float64[m, out].
        positions: What the positions of this frame add to it.
        size: Width and height of the frame.
    """
    weights, constants = linear_forms(annotator.projection, vector, targets)
    contributions = []
    for map_ in positions:
        stretch = weights[:, map_.start : map_.start + map_.values.shape[2]]
        contributions.append(Contributions(map_.values.astype(np.float64) @ stretch.T, map_.box))
    return attribution_maps(
        contributions,
        totals=targets @ annotator.project(vector[None])[0].astype(np.float64),
        constants=constants,
        elsewhere=weights @ others,
        shape=grid_shape(contributions, *size),
    )


def _voters(near: Neighborhood, cui: str) -> tuple[Case, ...]:
    """The neighbours that voted for a concept, the heaviest first, then the most similar."""
    voters = [n for n in near.annotation.neighbors if cui in n.cuis and n.weight > 0]
    return tuple(sorted(voters, key=lambda n: -n.weight))
