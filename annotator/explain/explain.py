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
from annotator.explain.cases import find_neighborhood
from annotator.explain.deletion import Deletion, deletions
from annotator.explain.occlusion import occlusion_maps
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.pipeline import Annotator

if TYPE_CHECKING:
    from PIL import Image

    from annotator.encoders.contributions import ContributionMap
    from annotator.encoders.embedder import Embedder

Method = Literal["additive", "patches", "occlusion"]

_SHOWN_SIDE = 640  # pixels of the picture on a page


@dataclass(frozen=True)
class ConceptExplanation:
    """Predicted concept of an image with its evidence.

    Attributes:
        cui: CUI of the concept.
        score: Share of the votes, 0..1.
        cases_with: Number of near cases with it, at most `COMPARED`.
        cases_without: Number of near cases without it, at most `COMPARED`.
        contrast: Mean similarity to the former minus that to the latter; None if there are none of
            either, so that there is nothing to compare.
        deletion: What covering places of the picture does to the contrast; None without a
            contrast, or if the whole picture is blank.
        voters: Number of neighbours that voted for it.
        probability: Probability that it is right, 0..1; None without a calibration.
    """

    cui: str
    score: float
    cases_with: int
    cases_without: int
    contrast: AttributionMap | None
    deletion: Deletion | None
    voters: int
    probability: float | None = None

    @property
    def heatmap(self) -> AttributionMap | None:
        """The contrast, if its places matter more than random ones; else there is none to draw."""
        return self.contrast if self.deletion is not None and self.deletion.tells else None


@dataclass(frozen=True)
class Explanation:
    """Annotation of an image with its evidence.

    Attributes:
        annotation: As from `Annotator.stream`.
        picture: Embedded frame to show, the middle one of several.
        frames: Number of embedded frames.
        method: Attribution method.
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
        method: "auto" is "additive" if the encoder's vector is a sum over positions, "patches" for
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
    contrasts = {cui: near.contrast(cui) for cui in near.annotation.cuis}
    compared = [cui for cui, contrast in contrasts.items() if contrast.compares]
    targets = np.array([contrasts[cui].vector for cui in compared])
    method, positions = _choose_method(embedder, frames[middle], method)
    if not compared:
        maps: list[AttributionMap] = []
    elif positions is None:
        maps = occlusion_maps(annotator, frames, middle, vector, targets)
    else:
        positions = [map_.within(0, scale) for map_ in positions]
        others = (vectors.sum(axis=0, dtype=np.float64) - vectors[middle]) * scale
        size = frames[middle].size
        maps = _position_maps(annotator, vector, others, targets, positions, size)
    tests: list[Deletion] = []
    if maps:
        blank = blank_cells(frames[middle], maps[0].grid.shape)
        maps = [map_.without(blank) for map_ in maps]
        if not blank.all():
            tests = deletions(annotator, frames, middle, targets, maps, blank)

    picture = decode(data, frames=embedder.frames, at_least=_SHOWN_SIDE).frames[middle]
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    map_of, test_of = (
        dict(zip(compared, maps, strict=True)),
        dict(zip(compared, tests, strict=bool(tests))),
    )
    concepts = tuple(
        ConceptExplanation(
            cui,
            score,
            cases_with=contrasts[cui].cases_with,
            cases_without=contrasts[cui].cases_without,
            contrast=map_of.get(cui),
            deletion=test_of.get(cui),
            voters=sum(
                cui in (*n.cuis, *n.inferred) and n.weight > 0 for n in near.annotation.neighbors
            ),
            probability=probability,
        )
        for cui, _, score, probability in near.annotation.each
    )
    return Explanation(near.annotation, picture, len(frames), method, concepts)


def _choose_method(
    embedder: Embedder, frame: Image.Image, method: Method | Literal["auto"]
) -> tuple[Method, list[ContributionMap] | None]:
    """Choose the method; returns it with its contribution maps, None for occlusion."""
    if method in ("auto", "additive"):
        maps = embedder.position_contributions(frame)
        if maps is not None:
            return "additive", maps
    if method in ("auto", "patches"):
        maps = embedder.patch_contributions(frame)
        if maps is not None:
            return "patches", maps
    if method in ("auto", "occlusion"):
        return "occlusion", None
    what = "no sum over positions" if method == "additive" else "not made from patches"
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
