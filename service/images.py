"""Routes of the index's images: their labels, and corrections of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from annotator.errors import FormatError
from annotator.ids import has_controls
from index.corrections import NewRow
from service.answers import names_of, picture_path
from service.browse import Catalogue
from service.corrections import Corrections, etag_of
from service.engine import Engine
from service.problems import Problem, no_such_image
from service.routes import IMAGE_BODY, TheService, inlined, problems
from service.schemas import (
    CorrectionIn,
    ImageOut,
    ImagesOut,
    ImagesQuery,
    MapOut,
    MapQuery,
    NewImageQuery,
    RemovalQuery,
)
from service.service import Service
from service.uploads import announced_size, body_chunks
from service.vectors import in_words

images = APIRouter()

_MOST_JSON = 1 << 18  # bytes of a correction


@images.get(
    "/v1/images",
    operation_id="list_images",
    response_model=ImagesOut,
    responses=problems(401, 403, 404, 409, 422, 429, 500, 503),
)
async def list_images(request: Request, query: Annotated[ImagesQuery, Query()]) -> dict[str, Any]:
    """Images of the index by concept, group and id, with their labels."""
    catalogue: Catalogue = request.app.state.catalogue
    return await catalogue.list(request, query)


@images.get(
    "/v1/map",
    operation_id="get_map",
    response_model=MapOut,
    responses=problems(401, 403, 409, 422, 429, 500, 503),
)
async def map_of_images(request: Request, query: Annotated[MapQuery, Query()]) -> dict[str, Any]:
    """Where images of the index lie by their vectors: their first two principal components."""
    catalogue: Catalogue = request.app.state.catalogue
    return await catalogue.map(request, query)


@images.get(
    "/v1/images/{id:path}",
    operation_id="get_image",
    response_model=ImageOut,
    responses={
        304: {"description": "It is as `If-None-Match` says."},
        **problems(401, 403, 404, 422, 429, 503),
    },
)
async def image(request: Request, service: TheService, id: str) -> Response:
    """An image of the index with its labels. Its `ETag` is what a correction has to name."""
    described = await service.search(request, lambda engine: _described(engine, id))
    etag = etag_of(id, described["concepts"])
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return JSONResponse(described, headers={"ETag": etag})


@images.patch(
    "/v1/images/{id:path}",
    response_model=ImageOut,
    responses=problems(400, 401, 403, 404, 408, 412, 413, 415, 422, 428, 429, 503),
    openapi_extra={
        "parameters": [
            {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}}
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": inlined(CorrectionIn)}},
        },
    },
)
async def correct_image(request: Request, service: TheService, id: str) -> Response:
    """Change the labels of an image: all of them, or some.

    `If-Match` names the state that was seen, by the `ETag` of `GET`. Where another correction came
    first, the answer is 412 with the state of now. An answer means that the correction is on disk,
    and that the next request sees it.
    """
    from annotator.tables.corrections import WantedLabels

    corrections = writable(service)
    body = await _correction(request, service)
    labels, named = _labels(body.concepts or [])
    add, names = _labels(body.add)
    remove, _ = _labels(body.remove)
    # From here to `accept` nobody else gets a turn.
    present = _checked(request, service.engine, corrections, id, required=True)
    wanted = WantedLabels(labels if body.concepts is not None else None, add, remove).of(present)
    if wanted != present or body.reviewed:
        await corrections.accept(
            id, wanted, by=caller(request), reason=body.reason, names={**names, **named}
        )
    return JSONResponse(_described(service.engine, id), headers={"ETag": etag_of(id, wanted)})


@images.delete(
    "/v1/images/{id:path}",
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 409, 412, 422, 503),
)
async def remove_image(
    request: Request, service: TheService, id: str, query: Annotated[RemovalQuery, Query()]
) -> Response:
    """Withdraw an image: no search finds it any more. `If-Match` may name the state that was seen.

    Its data leave the disk with the next `annotator compact`.
    """
    corrections = writable(service)
    _checked(request, service.engine, corrections, id, required=False)
    await corrections.accept(id, None, by=caller(request), reason=query.reason)
    return Response(status_code=204)


@images.post(
    "/v1/images",
    status_code=201,
    response_model=ImageOut,
    responses=problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra=IMAGE_BODY,
)
async def add_image(
    request: Request, service: TheService, query: Annotated[NewImageQuery, Query()]
) -> Response:
    """Add an image with its labels: a form with one file, or an image as the body."""
    corrections = writable(service)
    labels, names = _labels(query.concepts)
    new = await service.new_image(request)
    image_id = query.id or new.id
    if not image_id.strip() or has_controls(image_id):
        raise Problem(
            422, "invalid_id", "The id is empty or holds control characters.", "Give another `id`."
        )
    row = await asyncio.to_thread(
        new_row, service.engine, new.data, new.vector, query.caption, query.group
    )
    if corrections.labels_of(image_id) is not None:
        present = corrections.labels_of(image_id) or ()
        raise Problem(
            409,
            "image_exists",
            "The index has an image of this id already.",
            "Correct its labels with PATCH, or give another `id`.",
            {"ETag": etag_of(image_id, present)},
        )
    after = tuple(sorted(labels))
    await corrections.accept(
        image_id, after, by=caller(request), reason=query.reason, names=names, row=row
    )
    headers = {
        "ETag": etag_of(image_id, after),
        "Location": f"/v1/images/{quote(image_id, safe='')}",
    }
    return JSONResponse(_described(service.engine, image_id), 201, headers)


def writable(service: Service) -> Corrections:
    """What takes corrections.

    Raises:
        Problem: 403, nothing does.
    """
    if service.corrections is None:
        raise Problem(
            403,
            "read_only",
            "This service takes no corrections.",
            "Start it with --writable and a key that may correct.",
        )
    return service.corrections


def caller(request: Request) -> str:
    """The name of the key that the request came with."""
    name: str = request.state.caller.name
    return name


def _checked(
    request: Request, engine: Engine, corrections: Corrections, image_id: str, *, required: bool
) -> tuple[str, ...]:
    """The labels of an image, if they are in the state that the request names.

    Raises:
        Problem: 404, there is no such image; 412, it is in another state; 428, none is named.
    """
    present = corrections.labels_of(image_id)
    if present is None:
        raise no_such_image("GET /v1/search finds images.")
    named = request.headers.get("if-match")
    if named is None:
        if not required:
            return present
        raise Problem(
            428,
            "no_if_match",
            "The request does not say which state of the image it corrects.",
            "GET the image, and send its ETag as If-Match.",
        )
    etag = etag_of(image_id, present)
    if etag not in (tag.strip() for tag in named.split(",")) and named.strip() != "*":
        raise Problem(
            412,
            "image_changed",
            "Somebody else has changed the image since.",
            "Look at `present`, and send its ETag as If-Match.",
            {"ETag": etag},
            {
                "present": {
                    "id": image_id,
                    "concepts": present,
                    "names": names_of(engine, present),
                    "etag": etag,
                }
            },
        )
    return present


def _described(engine: Engine, image_id: str) -> dict[str, Any]:
    """An image as `schemas.ImageOut`.

    Raises:
        Problem: 404, there is no such image.
    """
    found = engine.stored.with_ids([image_id])
    if not found.ids:
        raise no_such_image("GET /v1/search finds images.")
    concepts = found.labels.row(0)

    def text(column: str) -> str:
        return found.columns[column][0] if column in found.columns else ""

    return {
        "id": image_id,
        "concepts": list(concepts),
        "names": names_of(engine, concepts),
        "caption": text("captions"),
        "group": text("groups"),
        "thumbnail": picture_path(engine, image_id),
        "index_version": engine.stored.version,
    }


def new_row(engine: Engine, data: bytes, vector: Any, caption: str = "", group: str = "") -> NewRow:
    """What the index keeps of a new image beside its labels."""
    from annotator.images.ref import ImageRef
    from annotator.images.thumbnails import make_thumbnail

    picture = b""
    if engine.stored.has_thumbnails:
        picture = make_thumbnail(ImageRef("", "", lambda: data))
    columns = {"captions": caption, "groups": group}
    return NewRow(vector, hashlib.sha256(data).digest(), picture, columns)


def _labels(given: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Concept ids of labels, and the words of those that are no CUIs.

    Raises:
        Problem: 422, a text is no label.
    """
    from annotator.tables.labels import labels_of_lists

    try:
        labels = labels_of_lists("the request", {"": given})
    except FormatError as error:
        raise Problem(422, "invalid_label", f"{error.message}.", error.hint) from None
    return labels.concepts[""], labels.names


async def json_body(request: Request, service: Service, most: int) -> bytes:
    """Read a body that holds JSON.

    Args:
        request: The request.
        service: Its limits.
        most: Bytes.

    Raises:
        Problem: As `body_chunks`; 413, 415.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Problem(
            415, "unsupported_media_type", "The body is no JSON.", "Send application/json."
        )
    announced = announced_size(request.headers, service.settings)
    data = bytearray()
    with service.admission.enter(announced) as ticket:
        async with body_chunks(request, service.settings, ticket) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > most:
                    raise Problem(
                        413, "body_too_large", f"The body is over {most} bytes.", "Send less."
                    )
    return bytes(data)


async def _correction(request: Request, service: Service) -> CorrectionIn:
    """Read the body of a correction.

    Raises:
        Problem: As `json_body`; 422.
    """
    data = await json_body(request, service, _MOST_JSON)
    try:
        return CorrectionIn.model_validate_json(data)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        text = "; ".join(map(in_words, faults[:3]))
        raise Problem(
            422, "malformed_correction", f"{text[:1000]}.", "See /openapi.json."
        ) from None
