"""From a picture to the places that speak for each of its concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.local_runner import embed_frames
from annotator.errors import AnnotatorError
from annotator.explain.attribution import Heat, Parts, as_sums, grid_shape, heats
from annotator.explain.cases import Near, find_near
from annotator.explain.occlusion import occluded
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.knn.neighbors import Case
from annotator.pipeline import Annotation, Annotator

if TYPE_CHECKING:
    from PIL import Image

    from annotator.encoders.positions import PositionMap

Method = Literal["exact", "patches", "occlusion"]

_SHOWN_SIDE = 640  # pixels of the picture that people look at


@dataclass(frozen=True)
class Concept:
    """One concept of a picture, and what speaks for it.

    Attributes:
        cui: Which.
        score: Its share of the vote, 0..1.
        vote: The similarities of the cases that voted for it, each times its weight, summed.
        contrast: The mean similarity to the nearest cases with it, less that to the nearest ones
            without it.
        cases_with: How many cases that is.
        cases_without: How many without it; 0 where all that are near have it.
        voters: The neighbours that voted for it, the heaviest first.
    """

    cui: str
    score: float
    vote: Heat
    contrast: Heat
    cases_with: int
    cases_without: int
    voters: tuple[Case, ...]


@dataclass(frozen=True)
class Explanation:
    """An annotation with its reasons.

    Attributes:
        annotation: What `annotate` says of the image.
        picture: What was embedded, for people to look at: the middle one of several frames.
        frames: How many frames were embedded.
        method: How the positions' parts were found; only "exact" is exact.
        concepts: In the annotation's order.
    """

    annotation: Annotation
    picture: Image.Image
    frames: int
    method: Method
    concepts: tuple[Concept, ...]


def explain(
    annotator: Annotator, ref: ImageRef, method: Method | Literal["auto"] = "auto"
) -> Explanation:
    """Annotate one image and say which of its places speak for each concept.

    Args:
        annotator: Not used by other threads meanwhile.
        ref: The image.
        method: "auto" is "exact" where the encoder's vector is a sum over positions, else
            "patches" where it is a transformer, else "occlusion".

    Raises:
        ImageError: The image cannot be used.
        AnnotatorError: The encoder has no such method.
    """
    embedder = annotator.embedder
    data = ref.read()
    frames = decode(data, frames=embedder.frames, at_least=embedder.image_size)
    middle = len(frames) // 2
    each = embed_frames([embedder.prepare([f]) for f in frames], embedder, embedder.batch_size)
    # An image's vector is the mean of its frames', brought to unit norm.
    share = 1 / float(np.linalg.norm(each.sum(axis=0))) if len(frames) > 1 else 1.0
    vector = each.sum(axis=0) * np.float32(share)
    near = find_near(annotator, ref.id, vector)
    cuis = near.annotation.cuis
    contrasts = [near.contrast(cui) for cui in cuis]
    targets = np.array([near.vote(c) for c in cuis] + [c.vector for c in contrasts])
    method, maps = _maps(annotator, frames[middle], method)
    if not cuis:
        found: list[Heat] = []
    elif maps is not None:
        maps = [map_.within(0, share) for map_ in maps]
        others = (each.sum(axis=0, dtype=np.float64) - each[middle]) * share
        found = _from_maps(annotator, vector, others, targets, maps, frames[middle].size)
    else:
        found = occluded(annotator, frames, middle, vector, targets)
    shown = decode(data, frames=embedder.frames, at_least=_SHOWN_SIDE)[middle]
    shown.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    return Explanation(
        near.annotation,
        shown,
        len(frames),
        method,
        tuple(
            Concept(
                cui,
                near.annotation.scores[i],
                found[i],
                found[len(cuis) + i],
                contrasts[i].cases_with,
                contrasts[i].cases_without,
                _voters(near, cui),
            )
            for i, cui in enumerate(cuis)
        ),
    )


def _maps(
    annotator: Annotator, frame: Image.Image, method: Method | Literal["auto"]
) -> tuple[Method, list[PositionMap] | None]:
    """The method that is used, and the maps that it takes; None for occlusion, which needs none."""
    embedder = annotator.embedder
    if method in ("auto", "exact"):
        maps = embedder.positions(frame)
        if maps is not None:
            return "exact", maps
    if method in ("auto", "patches"):
        maps = embedder.patches(frame)
        if maps is not None:
            return "patches", maps
    if method in ("auto", "occlusion"):
        return "occlusion", None
    what = "no sum over positions" if method == "exact" else "not made from patches"
    raise AnnotatorError(
        f"The vectors of {embedder.name} are {what}.",
        "Leave out --method, which takes what the encoder can do, or use --method occlusion.",
    )


def _from_maps(
    annotator: Annotator,
    vector: NDArray[np.float32],
    others: NDArray[np.float64],
    targets: NDArray[np.float64],
    maps: Sequence[PositionMap],
    size: tuple[int, int],
) -> list[Heat]:
    """The parts of the products of a vector with targets.

    Args:
        annotator: Has the projection.
        vector: float32[dim].
        others: float64[dim]: what other frames add to it.
        targets: float64[m, out].
        maps: What the positions of this frame add to it.
        size: Width and height of the frame.
    """
    projection = annotator.projection
    weights, constants = as_sums(projection, vector, targets)
    parts = []
    for map_ in maps:
        stretch = weights[:, map_.start : map_.start + map_.parts.shape[2]]
        parts.append(Parts(map_.parts.astype(np.float64) @ stretch.T, map_.box))
    return heats(
        parts,
        totals=targets @ annotator.project(vector[None])[0].astype(np.float64),
        constants=constants,
        elsewhere=weights @ others,
        shape=grid_shape(parts, *size),
    )


def _voters(near: Near, cui: str) -> tuple[Case, ...]:
    """Those who voted for a concept, the heaviest first, then the most similar."""
    voters = [n for n in near.annotation.neighbors if cui in n.cuis and n.weight > 0]
    return tuple(sorted(voters, key=lambda n: -n.weight))
