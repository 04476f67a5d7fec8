"""Attribution maps of the predicted concepts of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.annotation import Annotation
from annotator.encoders.local_runner import embed_frames
from annotator.errors import AnnotatorError
from annotator.explain.attribution import (
    AttributionMap,
    Contributions,
    attribution_maps,
    grid_shape,
    linear_forms,
)
from annotator.explain.background import blank_cells
from annotator.explain.cases import Neighborhood, find_neighborhood
from annotator.explain.occlusion import occlusion_maps
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.knn.neighbors import Case
from annotator.pipeline import Annotator

if TYPE_CHECKING:
    from PIL import Image

    from annotator.encoders.contributions import ContributionMap
    from annotator.encoders.embedder import Embedder

Method = Literal["exact", "patches", "occlusion"]

_SHOWN_SIDE = 640  # pixels of the picture on a page


@dataclass(frozen=True)
class ConceptExplanation:
    """Predicted concept of an image with its evidence.

    Attributes:
        cui: CUI of the concept.
        score: Share of the votes, 0..1.
        contrast: Mean similarity to the nearest cases with it minus that to the nearest without.
        cases_with: Number of cases with it in `contrast`.
        cases_without: Number of cases without it; 0 if all near cases have it.
        voters: Neighbours that voted for it, highest weight first.
        probability: Probability that it is right, 0..1; None without a calibration.
    """

    cui: str
    score: float
    contrast: AttributionMap
    cases_with: int
    cases_without: int
    voters: tuple[Case, ...]
    probability: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Annotation of an image with its evidence.

    Attributes:
        annotation: As from `Annotator.stream`.
        picture: Embedded frame to show, the middle one of several.
        frames: Number of embedded frames.
        method: Attribution method; only "exact" is exact.
        concepts: Predicted concepts, in the order of the annotation.
    """

    annotation: Annotation
    picture: Image.Image
    frames: int
    method: Method
    concepts: tuple[ConceptExplanation, ...]


def explain(
    annotator: Annotator, ref: ImageRef, method: Method | Literal["auto"] = "auto"
) -> Explanation:
    """Annotate one image and attribute each concept to regions of the image.

    Args:
        annotator: Annotator, not used by other threads meanwhile.
        ref: Image.
        method: "auto" is "exact" if the encoder's vector is a sum over positions, "patches" for
            other transformers, else "occlusion".

    Raises:
        ImageError: The image cannot be used.
        AnnotatorError: The encoder does not support the method.
    """
    embedder = annotator.embedder
    data = ref.read()
    frames = decode(data, frames=embedder.frames, at_least=embedder.image_size).frames
    middle = len(frames) // 2
    vectors = embed_frames([embedder.prepare([f]) for f in frames], embedder, embedder.batch_size)
    # The vector of an image is the normalised mean of its frames' vectors.
    scale = 1 / float(np.linalg.norm(vectors.sum(axis=0))) if len(frames) > 1 else 1.0
    vector = vectors.sum(axis=0) * np.float32(scale)

    near = find_neighborhood(annotator, ref.id, vector)
    cuis = near.annotation.cuis
    contrasts = [near.contrast(cui) for cui in cuis]
    targets = np.array([contrast.vector for contrast in contrasts])
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
    if maps:
        blank = blank_cells(frames[middle], maps[0].grid.shape)
        maps = [map_.without(blank) for map_ in maps]

    picture = decode(data, frames=embedder.frames, at_least=_SHOWN_SIDE).frames[middle]
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    concepts = tuple(
        ConceptExplanation(
            cui,
            score,
            contrast=map_,
            cases_with=contrast.cases_with,
            cases_without=contrast.cases_without,
            voters=_voters(near, cui),
            probability=probability,
        )
        for (cui, _, score, probability), contrast, map_ in zip(
            near.annotation.each, contrasts, maps, strict=True
        )
    )
    return Explanation(near.annotation, picture, len(frames), method, concepts)


def _choose_method(
    embedder: Embedder, frame: Image.Image, method: Method | Literal["auto"]
) -> tuple[Method, list[ContributionMap] | None]:
    """Choose the method; returns it with its contribution maps, None for occlusion."""
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
        "Use --method auto, which the encoder supports, or --method occlusion.",
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
        annotator: Annotator with the projection.
        vector: float32[dim].
        others: float64[dim]: contribution of other frames to the vector.
        targets: float64[m, out].
        positions: Contributions of the positions of this frame to the vector.
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
    """Neighbours that voted for a concept, by weight, then by similarity."""
    voters = [n for n in near.annotation.neighbors if cui in n.cuis and n.weight > 0]
    return tuple(sorted(voters, key=lambda n: -n.weight))
