"""The answers of a service as types: the JSON of its OpenAPI document, whose names these are."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypedDict


class ProblemOut(TypedDict):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str


class ConsideredConcept(TypedDict):
    """A concept that was voted for."""

    cui: str
    name: str
    score: float
    probability: float | None


class ScoredConcept(ConsideredConcept):
    """A concept of an image."""

    rival: str | None


class NeighborOut(TypedDict):
    """One of the images that voted."""

    id: str
    similarity: float
    weight: float
    cuis: list[str]
    inferred: list[str]
    caption: str
    thumbnail: str | None


class NoteOut(TypedDict):
    """A note on a picture."""

    code: str
    detail: str


class Result(TypedDict):
    """The annotation of one image, or why there is none (`error`)."""

    id: str
    concepts: list[ScoredConcept]
    considered: list[ConsideredConcept]
    expected_f1: float | None
    unfamiliar: bool
    familiarity: float | None
    same_image: str | None
    neighbors: list[NeighborOut]
    notes: list[NoteOut]
    error: ProblemOut | None


class ModelOut(TypedDict):
    """The encoder."""

    name: str
    fingerprint: str


class Timings(TypedDict):
    """Milliseconds in each stage, of the image that was longest in it."""

    queue_ms: float
    decode_ms: float
    encode_ms: float
    search_ms: float
    vote_ms: float
    total_ms: float


class AnnotateOut(TypedDict):
    """Annotations of some images; `names` has those of all CUIs in it."""

    index_version: str
    model: ModelOut
    results: list[Result]
    names: dict[str, str]
    timings: Timings


class EmbedOut(TypedDict):
    """Vectors of some images; of an unusable one there is an error instead."""

    model: ModelOut
    dim: int
    ids: list[str]
    vectors: list[list[float] | str | None]
    notes: list[list[NoteOut]]
    errors: list[ProblemOut | None]


class ConceptOut(TypedDict):
    """A concept of the index, and the number of its images."""

    cui: str
    name: str
    images: int


class ConceptsOut(TypedDict):
    """Concepts, most frequent first, and how many match."""

    concepts: list[ConceptOut]
    total: int


class CaseOut(TypedDict):
    """A case that a search found."""

    id: str
    score: float
    cuis: list[str]
    caption: str
    thumbnail: str | None


class SearchOut(TypedDict):
    """Cases of a concept, and those whose labels its neighbours contradict; or that fit words."""

    index_version: str
    kind: Literal["concept", "text"]
    concept: ConceptOut | None
    cases: list[CaseOut]
    missing: list[CaseOut]
    wrong: list[CaseOut] | None
    names: dict[str, str]


class SimilarResult(TypedDict):
    """The cases that are similar to an image, or why there are none."""

    id: str
    cases: list[CaseOut]
    error: ProblemOut | None


class SimilarOut(TypedDict):
    """The cases that are similar to some images."""

    index_version: str
    results: list[SimilarResult]
    names: dict[str, str]


class IndexOut(TypedDict):
    """The index that is served."""

    version: str
    images: int
    concepts: int
    dim: int
    thumbnails: bool


class VotingOut(TypedDict):
    """How neighbours become concepts, unless a request says otherwise."""

    k: int
    beta: float
    decider: str
    threshold: float
    top_r: int | None
    macro_thresholds: list[float] | None
    min_score: float


class LimitsOut(TypedDict):
    """What a request is held to."""

    upload_bytes: int
    images: int
    pixels: int
    timeout_s: float


class InfoOut(TypedDict):
    """The index, the encoder, the defaults of voting, and the limits."""

    version: str
    index: IndexOut
    model: ModelOut
    voting: VotingOut
    limits: LimitsOut
    notice: str


class ImageOut(TypedDict):
    """An image of the index and its labels."""

    id: str
    concepts: list[str]
    names: dict[str, str]
    caption: str
    group: str
    thumbnail: str | None
    index_version: str


class QueueItemOut(TypedDict):
    """An image to review."""

    id: str
    gain: float
    reason: str


class QueueOut(TypedDict):
    """Images to review next, the first one first, and how many are worth a look."""

    items: list[QueueItemOut]
    total: int


class ListedImage(TypedDict):
    """An image in a list."""

    id: str
    concepts: list[str]
    group: str
    thumbnail: str | None
    doubt: float | None
    familiarity: float | None
    similarity: float | None


class ConceptFacet(TypedDict):
    """How many images of a list have a concept."""

    cui: str
    images: int


class GroupFacet(TypedDict):
    """How many images of a list are of a group."""

    group: str
    images: int


class FacetsOut(TypedDict):
    """What the images of a list have in common."""

    concepts: list[ConceptFacet]
    groups: list[GroupFacet]


class ImagesOut(TypedDict):
    """A part of a list of images."""

    index_version: str
    total: int
    images: list[ListedImage]
    facets: FacetsOut
    names: dict[str, str]


class MapOut(TypedDict):
    """Points of images."""

    index_version: str
    total: int
    axes: list[str]
    x: list[int]
    y: list[int]


class Picture(NamedTuple):
    """A picture of an image.

    Attributes:
        content: A PNG or JPEG file.
        frame: The one that is shown, from 0.
        frames: How many the image has.
        levels: Least and greatest value of the frame.
        window: Center and width of the window in these values.
    """

    content: bytes
    frame: int
    frames: int
    levels: tuple[float, float]
    window: tuple[float, float]


class Image(ImageOut):
    """An image of the index in a certain state, which `etag` names."""

    etag: str


class ReloadOut(TypedDict):
    """The version that is served, and whether it is another one than before."""

    index_version: str
    changed: bool
