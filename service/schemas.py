"""Parameters and answers of the routes; their descriptions are those of `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotator.images.notes import Note
from annotator.knn.familiarity import UNFAMILIAR

MOST_NEIGHBORS = 1000
MOST_CASES = 100
MAP_SIZE = 9999  # of coordinates
MOST_QUEUED = 500

Names = Annotated[dict[str, str], Field(description="Of every CUI in the answer that has one.")]
Thumbnail = Annotated[
    str | None, Field(description="Path of its picture, if the index has pictures.")
]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AnnotateQuery(_Query):
    """Options of `POST /v1/annotate`."""

    k: int | None = Field(
        None, ge=1, le=MOST_NEIGHBORS, description="Neighbours that vote; else the index's own."
    )
    decider: Literal["expected-f1", "threshold", "top-r", "macro-f1"] | None = Field(
        None,
        description="From votes to a set of concepts; else the index's own. macro-f1 finds more of "
        "the rare concepts, where tuning has set its thresholds (`/v1/info`).",
    )
    min_score: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="Drop concepts with a lower score."
    )
    exclude_self: bool = Field(
        False, description="Leave out the image itself, where the index has it."
    )
    min_familiarity: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="No concepts for images that are less familiar; else the service's setting.",
    )
    neighbors: int = Field(
        10, ge=0, le=MOST_NEIGHBORS, description="Neighbours to list for each image, k at most."
    )


class StoredQuery(AnnotateQuery):
    """Options of `GET /v1/annotate`."""

    id: str = Field(min_length=1, max_length=1000, description="Id of an image of the index.")
    without: Literal["itself", "group"] = Field(
        "itself", description="group: no image of its patient or study votes."
    )


class PictureQuery(_Query):
    """Options of `/v1/pictures`."""

    frame: int | None = Field(
        None, ge=0, description="Of several, from 0; else the one that is annotated."
    )
    center: float | None = Field(
        None, allow_inf_nan=False, description="Middle of the window, in the file's values."
    )
    width: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Width of the window; both or neither."
    )
    side: int = Field(1024, ge=16, le=4096, description="Most pixels of the longer side.")
    format: Literal["png", "jpeg"] = Field("png", description="Of the picture.")

    @model_validator(mode="after")
    def _check_window(self) -> PictureQuery:
        if (self.center is None) != (self.width is None):
            raise ValueError("a window has a center and a width")
        return self


class VectorsQuery(AnnotateQuery):
    """Options of `POST /v1/annotate-vectors`."""

    fingerprint: str | None = Field(
        None, max_length=64, description="Of their encoder, for a body that does not say it."
    )
    name: str | None = Field(
        None, max_length=200, description="Likewise: the name of an encoder of your own."
    )


class EmbedQuery(_Query):
    """Options of `POST /v1/embed`."""

    encoding: Literal["float", "base64"] = Field(
        "float", description="Vectors as lists of numbers, or as base64 of little-endian float32."
    )


class ConceptsQuery(_Query):
    """Options of `GET /v1/concepts`."""

    q: str = Field("", max_length=200, description="Part of a CUI or name, in any case.")
    limit: int = Field(20, ge=0, le=1000, description="Most concepts in the answer.")


class SearchQuery(_Query):
    """Options of `GET /v1/search`."""

    q: str = Field(
        min_length=1, max_length=200, description="A CUI, a concept's name or its beginning; words."
    )
    by: Literal["auto", "concept", "text"] = Field(
        "auto", description="auto: by text if no concept is meant and the encoder reads text."
    )
    k: int = Field(10, ge=1, le=MOST_CASES, description="Cases in each list.")


class SimilarQuery(_Query):
    """Options of `GET /v1/similar`."""

    id: str = Field(min_length=1, max_length=1000, description="Id of an image of the index.")
    k: int = Field(10, ge=1, le=MOST_CASES, description="Cases to list.")
    without: Literal["itself", "group"] = Field(
        "itself", description="group: leave out all images of its patient or study."
    )


_NUMBER = "[0-9]{1,5}"


class _Filters(_Query):
    """Which images of the index."""

    concept: list[str] = Field(
        [], max_length=20, description="CUIs that the images have, all of them (repeatable)."
    )
    group: str = Field("", max_length=500, description="Their patient or study.")
    q: str = Field("", max_length=200, description="Part of their ids, in any case.")


class MapQuery(_Filters):
    """Options of `GET /v1/map`."""


class ImagesQuery(_Filters):
    """Options of `GET /v1/images`."""

    region: str = Field(
        "",
        max_length=2000,
        pattern=rf"^({_NUMBER},{_NUMBER}(,{_NUMBER},{_NUMBER}){{2,}})?$",
        description="An area of the map (`GET /v1/map`) that they lie in: x,y of its corners in "
        "order, at least three, all joined by commas.",
    )
    sort: Literal["stored", "doubt", "familiarity"] = Field(
        "stored", description="As stored, the most doubtful first, or the least familiar first."
    )
    like: str = Field(
        "",
        max_length=500,
        description="Id of an image that the others are ordered by, the most similar first, "
        "instead of `sort`.",
    )
    offset: int = Field(0, ge=0, description="Images to pass over.")
    limit: int = Field(50, ge=0, le=500, description="Most images in the answer.")
    facets: bool = Field(False, description="Count concepts and groups, too.")


class QueueQuery(_Query):
    """Options of `GET /v1/queue`."""

    limit: int = Field(50, ge=1, le=MOST_QUEUED, description="Most images in the answer.")


class NewImageQuery(_Query):
    """Options of `POST /v1/images`."""

    id: str = Field("", max_length=500, description="Of the image; else its file's name.")
    concepts: list[str] = Field(
        [], max_length=1000, description="CUIs or labels in words (repeatable)."
    )
    caption: str = Field("", max_length=10_000, description="If the index has captions.")
    group: str = Field("", max_length=500, description="Patient or study, if the index has groups.")
    reason: str = Field("", max_length=1000, description="Why, for the history.")


class RemovalQuery(_Query):
    """Options of `DELETE /v1/images/{id}`."""

    reason: str = Field("", max_length=1000, description="Why, for the history.")


class CorrectionIn(_Query):
    """What the concepts of an image are to be: all of them, or what changes."""

    concepts: list[str] | None = Field(
        None, max_length=1000, description="All of them: CUIs or labels in words."
    )
    add: list[str] = Field([], max_length=1000, description="To those that it has.")
    remove: list[str] = Field([], max_length=1000, description="From those that it has.")
    reason: str = Field("", max_length=1000, description="Why, for the history.")
    reviewed: bool = Field(
        False, description="Keep it in the history also where nothing changes: they are confirmed."
    )

    @model_validator(mode="after")
    def _check_kind(self) -> CorrectionIn:
        if (self.concepts is None) == (not self.add and not self.remove):
            raise ValueError("give either `concepts`, or `add` and `remove`")
        return self


class QueueItemOut(BaseModel):
    """An image to review."""

    id: str
    gain: float = Field(
        description="What its review is expected to gain: its doubt times that of the images it "
        "stands for."
    )
    reason: str = Field(description="What its neighbours say against its labels.")


class QueueOut(BaseModel):
    """Answer of `GET /v1/queue`."""

    items: list[QueueItemOut] = Field(description="The first one first.")
    total: int = Field(description="Images of the index whose labels are worth a look.")


class ListedImage(BaseModel):
    """An image in a list."""

    id: str
    concepts: list[str] = Field(description="CUIs, and ids of labels in words, ascending.")
    group: str
    thumbnail: Thumbnail
    doubt: float | None = Field(
        description="F1 that a review is expected to gain; null where it was not judged, or the "
        "list is in the stored order."
    )
    familiarity: float | None = Field(
        description="Share of the index's images that are further out; null likewise."
    )
    similarity: float | None = Field(
        description="Cosine to the image that the list is ordered by, if it is."
    )


class ConceptFacet(BaseModel):
    """How many images of a list have a concept."""

    cui: str
    images: int


class GroupFacet(BaseModel):
    """How many images of a list are of a group."""

    group: str
    images: int


class FacetsOut(BaseModel):
    """What the images of a list have in common, the most frequent first, at most 100 of each."""

    concepts: list[ConceptFacet]
    groups: list[GroupFacet]


class ImagesOut(BaseModel):
    """Answer of `GET /v1/images`."""

    index_version: str
    total: int = Field(description="Images that fit.")
    images: list[ListedImage]
    facets: FacetsOut = Field(description="Of all images that fit; empty unless asked for.")
    names: Names


class MapOut(BaseModel):
    """Answer of `GET /v1/map`: points of images, in the order of the list."""

    index_version: str
    total: int = Field(description="Images that fit; of more than 100,000, an even sample follows.")
    axes: list[str] = Field(description="What lies along x and y.")
    x: list[int] = Field(description=f"From 0 to below {MAP_SIZE}, which is the right edge.")
    y: list[int] = Field(description=f"From 0 to below {MAP_SIZE}, which is the upper edge.")


class ImageOut(BaseModel):
    """An image of the index and its labels."""

    id: str
    concepts: list[str] = Field(description="CUIs, and ids of labels in words, ascending.")
    names: Names
    caption: str
    group: str
    thumbnail: Thumbnail
    index_version: str = Field(description="Corrections since that version count already.")


class SimilarImagesQuery(_Query):
    """Options of `POST /v1/similar`."""

    k: int = Field(10, ge=1, le=MOST_CASES, description="Cases to list for each image.")


class ProblemOut(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="Stable, for programs.")
    detail: str = Field(description="What was wrong.")
    hint: str = Field(description="What to do about it.")


class ConsideredConcept(BaseModel):
    """A concept that was voted for."""

    cui: str
    name: str = Field(description="Empty if the index has none.")
    score: float = Field(description="Share of the neighbours' votes, 0 to 1.")
    probability: float | None = Field(
        description="Probability that it is right, 0 to 1: how often concepts with such a score "
        "were right on the index's own images; null if the index is not calibrated, or for "
        "another vote than this request's."
    )


class ScoredConcept(ConsideredConcept):
    """A concept of an image."""

    rival: str | None = Field(
        description="CUI of a concept that excludes this one, by the labels of the index, and has "
        "a quarter of the votes or more: this one is in doubt."
    )


class NeighborOut(BaseModel):
    """One of the images that voted."""

    id: str
    similarity: float = Field(description="Cosine, -1 to 1.")
    weight: float = Field(description="Share of the vote, 0 to 1.")
    cuis: list[str] = Field(description="Its labels.")
    inferred: list[str] = Field(
        description="CUIs that it votes for although it does not have them as labels: its own "
        "neighbours fill them in, in an index that was built so."
    )
    caption: str
    thumbnail: Thumbnail


class NoteOut(BaseModel):
    """A note on a picture."""

    code: Note
    detail: str


class Result(BaseModel):
    """The annotation of one image, or why there is none."""

    id: str = Field(description="The file's name without its extension, else image-1, image-2, …")
    concepts: list[ScoredConcept] = Field(description="Highest score first.")
    considered: list[ConsideredConcept] = Field(
        description="Voted for and not chosen: those with a score of 0.1 at least, highest first, "
        "at most 10."
    )
    expected_f1: float | None = Field(
        description="F1 to be expected of the concepts, 0 to 1: calibrated where concepts have "
        "probabilities, else that of the votes."
    )
    unfamiliar: bool = Field(
        description="Whether the image resembles nothing in the index, so that its concepts are "
        f"guesses: its familiarity is below {UNFAMILIAR:g}."
    )
    familiarity: float | None = Field(
        description="Share of the index's images that are less like their nearest cases of other "
        "patients; near 0 for an image that resembles nothing in the index."
    )
    same_image: str | None = Field(
        description="Id of a case of the index that is this very image: its similarity is 1."
    )
    neighbors: list[NeighborOut] = Field(description="Most similar first.")
    notes: list[NoteOut] = Field(
        description="What was done to the picture that its file did not ask for."
    )
    error: ProblemOut | None


class ModelOut(BaseModel):
    """The encoder."""

    name: str
    fingerprint: str = Field(description="sha256 over weights and preprocessing.")


class Timings(BaseModel):
    """Milliseconds in each stage, of the image that was longest in it."""

    queue_ms: float
    decode_ms: float
    encode_ms: float
    search_ms: float
    vote_ms: float
    total_ms: float = Field(description="From the request's headers to its answer.")


class AnnotateOut(BaseModel):
    """Answer of `POST /v1/annotate`."""

    index_version: str
    model: ModelOut
    results: list[Result] = Field(description="In the order of the files.")
    names: Names
    timings: Timings


class EmbedOut(BaseModel):
    """Answer of `POST /v1/embed`; as it is, a body for `POST /v1/annotate-vectors`."""

    model: ModelOut
    dim: int = Field(description="Length of the vectors.")
    ids: list[str] = Field(description="As in `/v1/annotate`, in the order of the files.")
    vectors: list[list[float] | str | None] = Field(
        description="Of unit norm; null for an image that cannot be used."
    )
    notes: list[list[NoteOut]] = Field(
        description="What was done to each picture that its file did not ask for."
    )
    errors: list[ProblemOut | None] = Field(description="Why there is no vector.")


class ModelIn(BaseModel):
    """The encoder of vectors that are sent."""

    fingerprint: str | None = Field(None, max_length=64, description="As `/v1/info` has it.")
    name: str | None = Field(
        None, max_length=200, description="Enough where the index is of vectors of your own."
    )


class VectorsIn(BaseModel):
    """Body of `POST /v1/annotate-vectors`; other fields are ignored."""

    model: ModelIn = ModelIn(fingerprint=None, name=None)
    vectors: list[list[float] | str | None] = Field(
        min_length=1,
        description="One for each image, of any norm: numbers, or base64 of little-endian "
        "float32; null for an image without one.",
    )
    ids: list[Annotated[str, Field(max_length=1000)]] | None = Field(
        None, description="One for each vector; else vector-1, vector-2, …"
    )


class IndexOut(BaseModel):
    """The index that is served."""

    version: str
    images: int
    concepts: int
    dim: int = Field(description="Length of the vectors.")
    thumbnails: bool = Field(description="Whether its images have pictures.")
    pictures: bool = Field(description="Whether `/v1/pictures/{id}` shows its images large.")
    groups: bool = Field(description="Whether its images have groups (patients, studies).")


class VotingOut(BaseModel):
    """How neighbours become concepts, unless a request says otherwise."""

    k: int
    beta: float
    decider: str
    threshold: float
    top_r: int | None
    macro_thresholds: list[float] | None = Field(
        description="For the decider macro-f1; null where the index was not tuned."
    )
    min_score: float


class LimitsOut(BaseModel):
    """What a request is held to."""

    upload_bytes: int
    images: int
    pixels: int
    timeout_s: float


class InfoOut(BaseModel):
    """Answer of `GET /v1/info`."""

    version: str = Field(description="Version of annotator.")
    index: IndexOut
    model: ModelOut
    voting: VotingOut
    limits: LimitsOut
    corrections: bool = Field(description="Whether it takes corrections from this caller.")
    notice: str


class ConceptOut(BaseModel):
    """A concept of the index, or of the service's table of names."""

    cui: str
    name: str
    images: int = Field(description="Images of the index that hold it, 0 for none yet.")


class ConceptsOut(BaseModel):
    """Answer of `GET /v1/concepts`."""

    concepts: list[ConceptOut] = Field(description="Most frequent first; those of no image follow.")
    total: int = Field(description="How many match.")


class CaseOut(BaseModel):
    """A case that a search found."""

    id: str
    score: float = Field(
        description="In a search by image or text, the similarity (cosine, -1 to 1); in one by "
        "concept, the share of the neighbours' votes that are for the concept, 0 to 1."
    )
    cuis: list[str]
    caption: str
    thumbnail: Thumbnail


class SearchOut(BaseModel):
    """Answer of `GET /v1/search`."""

    index_version: str
    kind: Literal["concept", "text"]
    concept: ConceptOut | None = Field(description="The concept that was meant.")
    cases: list[CaseOut] = Field(
        description="Those that hold the concept, most typical first; or that fit the words."
    )
    missing: list[CaseOut] = Field(
        description="Cases that lack the concept although their neighbours have it."
    )
    wrong: list[CaseOut] | None = Field(
        description="Cases that hold the concept although their neighbours do not; null where "
        "its images support each other too little to say so."
    )
    names: Names


class SimilarResult(BaseModel):
    """The cases that are similar to an image, or why there are none."""

    id: str = Field(description="Id of the image.")
    cases: list[CaseOut] = Field(description="Most similar first.")
    error: ProblemOut | None


class SimilarOut(BaseModel):
    """Answer of `/v1/similar`."""

    index_version: str
    results: list[SimilarResult] = Field(description="In the order of the files.")
    names: Names


class ReloadOut(BaseModel):
    """Answer of `POST /v1/reload`."""

    index_version: str
    changed: bool = Field(description="Whether it is another version than before.")


class StatusOut(BaseModel):
    """Answer of `/livez` and `/readyz`."""

    status: str
