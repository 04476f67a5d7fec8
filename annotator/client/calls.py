"""What a client can ask, as values: sending them is the same for both clients.

Each function returns the request of one operation and how its answer is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar, cast
from urllib.parse import quote

import httpx

from annotator.client.answers import (
    AnnotateOut,
    ConceptsOut,
    EmbedOut,
    Image,
    ImagesOut,
    InfoOut,
    MapOut,
    Picture,
    ProblemOut,
    QueueOut,
    ReloadOut,
    Result,
    SearchOut,
    SimilarOut,
)
from annotator.client.errors import ServiceError, ServiceProblem
from annotator.errors import FormatError

T = TypeVar("T")

#: An image file: its path, its bytes, or a name (whose beginning becomes its id) and its bytes.
File = str | os.PathLike[str] | bytes | tuple[str, bytes]

Decider = Literal["expected-f1", "threshold", "top-r", "macro-f1"]

_MOST_BYTES = 32 << 20  # of the files of a request, where many are sent


class AnnotateOptions(TypedDict, total=False):
    """How images are annotated; what is left out is as the index or the service has it.

    Attributes:
        k: Neighbours that vote.
        decider: From votes to a set of concepts.
        min_score: Concepts with a lower score are dropped, 0 to 1.
        exclude_self: Whether an image that the index has is left out of its own vote.
        min_familiarity: Images that are less familiar get an error, 0 to 1.
        neighbors: Neighbours to list for each image, k at most.
    """

    k: int
    decider: Decider
    min_score: float
    exclude_self: bool
    min_familiarity: float
    neighbors: int


class Filters(TypedDict, total=False):
    """Which images of the index.

    Attributes:
        concept: CUIs that they have, all of them.
        group: Their patient or study.
        q: Part of their ids, in any case.
    """

    concept: Sequence[str]
    group: str
    q: str


class ListOptions(Filters, total=False):
    """Which images are listed, and how.

    Attributes:
        region: Area of the map that they lie in: x,y of its corners, joined by commas.
        sort: Their order.
        like: Id of an image that they are ordered by, the most similar first, instead.
        offset: Images to pass over.
        limit: Most images, up to 500.
        facets: Count concepts and groups of all that fit, too.
    """

    region: str
    sort: Literal["stored", "doubt", "familiarity"]
    like: str
    offset: int
    limit: int
    facets: bool


class PictureOptions(TypedDict, total=False):
    """What a picture shows.

    Attributes:
        frame: Of several, from 0; else the one that is annotated.
        center: Middle of the window, in the file's values.
        width: Width of the window; both or neither.
        side: Most pixels of the longer side.
        format: Of the picture.
    """

    frame: int
    center: float
    width: float
    side: int
    format: Literal["png", "jpeg"]


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    Attributes:
        method: HTTP method.
        path: With the query.
        read: From an answer of success.
        repeatable: Whether it may be sent again when it is not known whether it arrived.
        headers: Of the request.
        files: Of a form: name and content of each.
        json: Body.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] | None = None
    json: Any = None

    def arguments(self) -> dict[str, Any]:
        """Arguments of httpx's `request` other than method and path."""
        form = None if self.files is None else [("image", file) for file in self.files]
        return {"headers": dict(self.headers), "files": form, "json": self.json}


def annotate(files: Sequence[tuple[str, bytes]], options: AnnotateOptions) -> Call[AnnotateOut]:
    """POST /v1/annotate."""
    return Call("POST", _path("/v1/annotate", options), _json, files=files)


def annotate_vectors(
    vectors: Sequence[Sequence[float]],
    ids: Sequence[str] | None,
    name: str | None,
    fingerprint: str | None,
    options: AnnotateOptions,
) -> Call[AnnotateOut]:
    """POST /v1/annotate-vectors."""
    body = {
        "vectors": [[float(value) for value in vector] for vector in vectors],
        "ids": None if ids is None else list(ids),
        "model": {"name": name, "fingerprint": fingerprint},
    }
    return Call("POST", _path("/v1/annotate-vectors", options), _json, json=body)


def embed(files: Sequence[tuple[str, bytes]]) -> Call[EmbedOut]:
    """POST /v1/embed."""
    return Call("POST", "/v1/embed", _json, files=files)


def info() -> Call[InfoOut]:
    """GET /v1/info."""
    return Call("GET", "/v1/info", _json)


def concepts(q: str, limit: int) -> Call[ConceptsOut]:
    """GET /v1/concepts."""
    return Call("GET", _path("/v1/concepts", {"q": q, "limit": limit}), _json)


def search(q: str, by: str, k: int) -> Call[SearchOut]:
    """GET /v1/search."""
    return Call("GET", _path("/v1/search", {"q": q, "by": by, "k": k}), _json)


def similar(image_id: str, k: int, without: str) -> Call[SimilarOut]:
    """GET /v1/similar."""
    query = {"id": image_id, "k": k, "without": without}
    return Call("GET", _path("/v1/similar", query), _json)


def similar_to_files(files: Sequence[tuple[str, bytes]], k: int) -> Call[SimilarOut]:
    """POST /v1/similar."""
    return Call("POST", _path("/v1/similar", {"k": k}), _json, files=files)


def votes(image_id: str, without: str, options: AnnotateOptions) -> Call[AnnotateOut]:
    """GET /v1/annotate."""
    query = {"id": image_id, "without": without, **options}
    return Call("GET", _path("/v1/annotate", query), _json)


def queue(limit: int) -> Call[QueueOut]:
    """GET /v1/queue."""
    return Call("GET", _path("/v1/queue", {"limit": limit}), _json)


def images(options: ListOptions) -> Call[ImagesOut]:
    """GET /v1/images."""
    return Call("GET", _path("/v1/images", options), _json)


def map_of(filters: Filters) -> Call[MapOut]:
    """GET /v1/map."""
    return Call("GET", _path("/v1/map", filters), _json)


def picture(file: tuple[str, bytes], options: PictureOptions) -> Call[Picture]:
    """POST /v1/pictures."""
    return Call("POST", _path("/v1/pictures", options), _picture, files=[file])


def stored_picture(image_id: str, options: PictureOptions) -> Call[Picture]:
    """GET /v1/pictures/{id}."""
    return Call("GET", _path(f"/v1/pictures/{_quoted(image_id)}", options), _picture)


def thumbnail(image_id: str) -> Call[bytes]:
    """GET /v1/neighbors/{id}/image."""
    return Call("GET", f"/v1/neighbors/{_quoted(image_id)}/image", lambda answer: answer.content)


def image(image_id: str) -> Call[Image]:
    """GET /v1/images/{id}."""
    return Call("GET", f"/v1/images/{_quoted(image_id)}", _image)


def relabel(
    image_id: str,
    etag: str,
    concepts: Sequence[str] | None,
    add: Sequence[str],
    remove: Sequence[str],
    reason: str,
) -> Call[Image]:
    """PATCH /v1/images/{id}."""
    body: dict[str, Any] = {"add": list(add), "remove": list(remove), "reason": reason}
    if concepts is not None:
        body["concepts"] = list(concepts)
    return Call(
        "PATCH", f"/v1/images/{_quoted(image_id)}", _image,
        repeatable=False, headers={"If-Match": etag}, json=body,
    )  # fmt: skip


def add_image(
    file: tuple[str, bytes],
    concepts: Sequence[str],
    image_id: str | None,
    caption: str,
    group: str,
    reason: str,
) -> Call[Image]:
    """POST /v1/images."""
    query = {
        "id": image_id or None,
        "concepts": list(concepts),
        "caption": caption or None,
        "group": group or None,
        "reason": reason or None,
    }
    return Call("POST", _path("/v1/images", query), _image, repeatable=False, files=[file])


def remove_image(image_id: str, etag: str | None, reason: str) -> Call[None]:
    """DELETE /v1/images/{id}."""
    path = _path(f"/v1/images/{_quoted(image_id)}", {"reason": reason or None})
    headers = {} if etag is None else {"If-Match": etag}
    return Call("DELETE", path, lambda answer: None, repeatable=False, headers=headers)


def reload() -> Call[ReloadOut]:
    """POST /v1/reload."""
    return Call("POST", "/v1/reload", _json)


def read_files(files: File | Iterable[File]) -> list[tuple[str, bytes]]:
    """Name and content of each file; bytes without a name are image-1, image-2, …, by their place.

    Raises:
        FormatError: There is none.
        OSError: One cannot be read.
    """
    found = [_read(file, number) for number, file in enumerate(_each(files), 1)]
    if not found:
        raise FormatError("There is no image to send.", "Give one file at least.")
    return found


def batches(files: Iterable[File], at_once: int) -> Iterator[list[tuple[str, bytes]]]:
    """Files as `read_files` has them, some at a time; read when their turn comes.

    Args:
        files: Of images.
        at_once: Most files at a time; fewer where they are large.
    """
    batch: list[tuple[str, bytes]] = []
    size = 0
    for number, file in enumerate(_each(files), 1):
        read = _read(file, number)
        if batch and (len(batch) == at_once or size + len(read[1]) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(read)
        size += len(read[1])
    if batch:
        yield batch


def unusable(name: str, problem: ServiceProblem) -> Result:
    """The result of the only image of a request, where the service refused it for its content.

    Raises:
        ServiceProblem: It was refused for something else.
    """
    if problem.code not in _OF_IMAGES:
        raise problem
    return {
        "id": Path(name).stem,
        "concepts": [],
        "considered": [],
        "expected_f1": None,
        "unfamiliar": False,
        "familiarity": None,
        "same_image": None,
        "neighbors": [],
        "notes": [],
        "error": cast(ProblemOut, dict(problem.problem)),
    }


_OF_IMAGES = (
    "body_too_large", "image_too_large", "unknown_format", "undecodable_image", "blank_image",
    "unusable_vector", "unfamiliar_image",
)  # fmt: skip


def _each(files: File | Iterable[File]) -> Iterable[File]:
    if isinstance(files, str | bytes | os.PathLike):
        return [files]
    if isinstance(files, tuple) and _is_named(files):
        return [cast(File, files)]
    return files


def _is_named(pair: tuple[object, ...]) -> bool:
    """Whether a tuple is the name and the bytes of a file, not two files."""
    return len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], bytes)


def _read(file: File, number: int) -> tuple[str, bytes]:
    if isinstance(file, bytes):
        return f"image-{number}", file
    if isinstance(file, tuple):
        return file
    path = Path(file)
    return path.name, path.read_bytes()


def _path(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{httpx.QueryParams(given)}" if given else path


def _quoted(image_id: str) -> str:
    return quote(image_id, safe="")


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise ServiceError(
            f"What answers at {answer.url.host} is no annotator: it sends no JSON.",
            "Check the address, and what stands between.",
        ) from error


def _picture(answer: httpx.Response) -> Picture:
    def numbers(name: str) -> list[float]:
        return [float(text) for text in answer.headers[f"X-Annotator-{name}"].split(",")]

    (frame,), (frames,) = numbers("Frame"), numbers("Frames")
    (low, high), (center, width) = numbers("Levels"), numbers("Window")
    return Picture(answer.content, int(frame), int(frames), (low, high), (center, width))


def _image(answer: httpx.Response) -> Image:
    return cast(Image, {**_json(answer), "etag": answer.headers.get("etag", "")})
