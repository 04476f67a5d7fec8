"""Routes of the API; `schemas` has their parameters and answers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from annotator import __version__
from index.errors import IndexProblem
from service.answers import Answer, check_run_ids, describe_model, prefers
from service.keys import Caller
from service.observability import METRICS_TYPE, log
from service.problems import MEDIA_TYPE, Problem, unreachable
from service.queue import ReviewQueue
from service.schemas import (
    AnnotateOut,
    AnnotateQuery,
    ConceptsOut,
    ConceptsQuery,
    EmbedOut,
    EmbedQuery,
    InfoOut,
    PictureQuery,
    QueueOut,
    QueueQuery,
    ReloadOut,
    SearchOut,
    SearchQuery,
    SimilarImagesQuery,
    SimilarOut,
    SimilarQuery,
    StatusOut,
    StoredQuery,
    VectorsIn,
    VectorsQuery,
)
from service.search import concepts_like, search, similar_to, similar_to_images
from service.service import Service
from service.vectors import NPY, Model

NOTICE = "Not for clinical use."

#: Routes behind the API keys, if there are any.
router = APIRouter()
#: Health checks without a key.
health = APIRouter()

HEALTH_PATHS = ("/livez", "/readyz")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problem responses in the OpenAPI document."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


_BYTES = {"schema": {"type": "string", "format": "binary"}}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {"type": "string", "format": "binary"},
                    "description": "One or several files; the names of the fields do not matter.",
                }
            },
            "image/*": _BYTES,
            "application/dicom": _BYTES,
            "application/octet-stream": _BYTES,
        },
    }
}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body that the route reads by itself, without references."""
    schema = model.model_json_schema()
    for name, definition in schema.pop("$defs", {}).items():
        for field, described in schema["properties"].items():
            if described.get("$ref") == f"#/$defs/{name}":
                schema["properties"][field] = definition
    return schema


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]


@router.post(
    "/v1/annotate",
    response_class=JSONResponse,
    responses={
        200: {"model": AnnotateOut, "content": {"text/csv": {"schema": {"type": "string"}}}},
        **problems(400, 401, 408, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=IMAGE_BODY,
)
async def annotate(
    request: Request, service: TheService, query: Annotated[AnnotateQuery, Query()]
) -> Response:
    """Annotate one or several images: a form with files, or an image as the body.

    An image that cannot be used costs the others nothing: its result says why. If it was the only
    one, that is the answer. With `Accept: text/csv` the answer is a run in the format of 2026; in
    it an unusable image has no CUIs, and `X-Annotator-Failed` counts such images.
    """
    started = time.perf_counter()
    check_ids = check_run_ids if _wants_run(request) else None
    answer = await service.annotate(request, _options(query), check_ids)
    return _annotated(request, answer, query, started)


@router.get(
    "/v1/annotate",
    response_model=AnnotateOut,
    responses=problems(401, 404, 409, 422, 429, 500, 503),
)
async def annotate_stored_image(
    request: Request, service: TheService, query: Annotated[StoredQuery, Query()]
) -> dict[str, Any]:
    """What the other images of the index say of one of them, as if it had no labels."""
    started = time.perf_counter()
    answer = await service.vote_on_stored(request, query, _options(query))
    return answer.to_dict(query.neighbors, time.perf_counter() - started)


@router.post(
    "/v1/annotate-vectors",
    response_class=JSONResponse,
    responses={
        200: {"model": AnnotateOut, "content": {"text/csv": {"schema": {"type": "string"}}}},
        **problems(400, 401, 408, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": inlined(VectorsIn)}, NPY: _BYTES},
        }
    },
)
async def annotate_vectors(
    request: Request, service: TheService, query: Annotated[VectorsQuery, Query()]
) -> Response:
    """Annotate images by their vectors, as `/v1/embed` or an encoder of your own has made them.

    The body is JSON, or an .npy file of floats [n, dim]. It (or the query) says which encoder made
    them: the fingerprint of the index's own, or the name under which an index of your own vectors
    was built. A vector that is zero or not finite costs the others nothing: its result says so.
    """
    started = time.perf_counter()
    check_ids = check_run_ids if _wants_run(request) else None
    named = Model(query.name, query.fingerprint)
    answer = await service.annotate_vectors(request, _options(query), named, check_ids)
    return _annotated(request, answer, query, started)


@router.post(
    "/v1/embed",
    response_class=JSONResponse,
    responses={
        200: {"model": EmbedOut, "content": {NPY: _BYTES}},
        **problems(400, 401, 408, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=IMAGE_BODY,
)
async def embed(
    request: Request, service: TheService, query: Annotated[EmbedQuery, Query()]
) -> Response:
    """The vectors of one or several images, sent as for `/v1/annotate`, before any projection.

    The answer can be sent to `/v1/annotate-vectors` as it is. An image that cannot be used costs
    the others nothing: its vector is null. If it was the only one, that is the answer. With
    `Accept: application/x-npy` the answer is an .npy file of float32 [n, dim]; in it the row of an
    unusable image is nan, `X-Annotator-Failed` counts such images, and
    `X-Annotator-Fingerprint` is the encoder's.
    """
    answer = await service.embed(request)
    if prefers(request.headers.get("accept", ""), NPY):
        headers = {"X-Annotator-Fingerprint": describe_model(answer.engine)["fingerprint"]}
        if answer.failed:
            headers["X-Annotator-Failed"] = str(answer.failed)
        return Response(answer.to_npy(), headers=headers, media_type=NPY)
    answer.raise_if_alone()
    return JSONResponse(answer.to_dict(query.encoding))


def _wants_run(request: Request) -> bool:
    return prefers(request.headers.get("accept", ""), "text/csv")


def _options(query: AnnotateQuery) -> dict[str, Any]:
    """Fields of `Voting` that replace the index's own, and of `Ballot`."""
    wanted = {"k", "decider", "min_score", "exclude_self", "min_familiarity"}
    return query.model_dump(include=wanted, exclude_none=True)


def _annotated(request: Request, answer: Answer, query: AnnotateQuery, started: float) -> Response:
    """Annotations as the client wants them."""
    if _wants_run(request):
        headers = {"X-Annotator-Failed": str(answer.failed)} if answer.failed else None
        return Response(answer.to_run(), headers=headers, media_type="text/csv")
    answer.raise_if_alone()
    return JSONResponse(answer.to_dict(query.neighbors, time.perf_counter() - started))


@router.get(
    "/v1/search", response_model=SearchOut, responses=problems(401, 404, 409, 422, 429, 500, 503)
)
async def search_cases(
    request: Request, service: TheService, query: Annotated[SearchQuery, Query()]
) -> dict[str, Any]:
    """Cases of a concept, and those whose labels its neighbours contradict; or that fit words.

    `q` is a CUI, or the name of a concept or a part of it; other words are searched for where the
    encoder has a text tower (open_clip).
    """
    return await service.search(request, partial(search, query=query))


@router.get(
    "/v1/similar",
    operation_id="find_similar",
    response_model=SimilarOut,
    responses=problems(401, 404, 409, 422, 429, 500, 503),
)
async def similar(
    request: Request, service: TheService, query: Annotated[SimilarQuery, Query()]
) -> dict[str, Any]:
    """The cases that are most similar to an image of the index."""
    return await service.search(request, partial(similar_to, query=query))


@router.post(
    "/v1/similar",
    operation_id="find_similar_to_images",
    response_model=SimilarOut,
    responses=problems(400, 401, 408, 413, 415, 422, 429, 500, 503),
    openapi_extra=IMAGE_BODY,
)
async def similar_images(
    request: Request, service: TheService, query: Annotated[SimilarImagesQuery, Query()]
) -> dict[str, Any]:
    """The cases that are most similar to one or several images, sent as for `/v1/annotate`.

    An image that cannot be used costs the others nothing: its result says why. If it was the only
    one, that is the answer.
    """
    answer = await service.annotate(request, {"k": query.k, "min_familiarity": 0.0})
    answer.raise_if_alone()
    return similar_to_images(answer)


@router.get(
    "/v1/queue",
    operation_id="list_queue",
    response_model=QueueOut,
    responses=problems(401, 403, 409, 422, 429, 500, 503),
)
async def queue(request: Request, query: Annotated[QueueQuery, Query()]) -> dict[str, Any]:
    """Images of the index to review next: those of which corrected labels gain most.

    Images that somebody has corrected or added are not asked about again. After 20 corrections the
    rest is ranked anew; meanwhile the order stays.
    """
    review_queue: ReviewQueue = request.app.state.queue
    return await review_queue.take(request, query.limit)


@router.get("/v1/info", operation_id="get_info", response_model=InfoOut, responses=problems(401))
async def info(request: Request, service: TheService) -> dict[str, Any]:
    """The index, the encoder, the defaults of voting, and the limits."""
    settings, engine = service.settings, service.engine
    stored = engine.stored
    caller: Caller | None = getattr(request.state, "caller", None)
    return {
        "version": __version__,
        "index": {
            "version": stored.version,
            "images": len(stored),
            "concepts": len(engine.concepts),
            "dim": stored.manifest.dim,
            "thumbnails": stored.has_thumbnails,
            "pictures": bool(service.originals),
            "groups": service.has_groups,
        },
        "model": describe_model(engine),
        "voting": dataclasses.asdict(engine.annotator.voting),
        "limits": {
            "upload_bytes": settings.upload_bytes,
            "images": settings.images_per_request,
            "pixels": settings.pixels,
            "timeout_s": settings.timeout_s,
        },
        "corrections": service.corrections is not None
        and caller is not None
        and caller.may("correct"),
        "notice": NOTICE,
    }


@router.get(
    "/v1/concepts",
    operation_id="list_concepts",
    response_model=ConceptsOut,
    responses=problems(401, 422, 429),
)
async def concepts(service: TheService, query: Annotated[ConceptsQuery, Query()]) -> dict[str, Any]:
    """Concepts whose CUI or name contains `q`: of the index, and of the table of names."""
    with service.admission.enter():
        # Not with the searches: who types a name does not wait for them.
        return await asyncio.to_thread(concepts_like, service.engine, query)


@router.get(
    "/v1/neighbors/{id:path}/image",
    operation_id="get_neighbor_image",
    response_class=Response,
    responses={
        200: {"description": "A small JPEG.", "content": {"image/jpeg": _BYTES}},
        **problems(401, 404, 422, 503),
    },
)
async def neighbor_image(service: TheService, id: str) -> Response:
    """A small picture of an image of the index, if the index has pictures."""
    try:
        # In a thread: an index on a server sends it over the network.
        picture = await asyncio.to_thread(service.engine.stored.thumbnail_of, id)
    except IndexProblem as error:
        log(logging.ERROR, "a picture could not be fetched", error, reason=error.message)
        raise unreachable() from error
    if picture is None:
        raise Problem(
            404,
            "no_picture",
            "The index has no picture of this image.",
            "Pictures are there for images of the index if it was built with --thumbnails.",
        )
    return Response(picture, media_type="image/jpeg")


_PICTURE = {
    "description": "The picture. Headers say which frame of how many it is, from 0, its least and "
    "greatest grey value, and the window that is shown: center and width.",
    "content": {"image/png": _BYTES, "image/jpeg": _BYTES},
    "headers": {
        f"X-Annotator-{name}": {"schema": {"type": "string"}}
        for name in ("Frame", "Frames", "Levels", "Window")
    },
}


@router.post(
    "/v1/pictures",
    operation_id="render_image",
    response_class=Response,
    responses={200: _PICTURE, **problems(400, 401, 408, 413, 415, 422, 429, 500, 503)},
    openapi_extra=IMAGE_BODY,
)
async def picture(
    request: Request, service: TheService, query: Annotated[PictureQuery, Query()]
) -> Response:
    """A picture of an image, sent as for `/v1/annotate`, for formats that browsers do not show.

    Without a window it is what the encoder sees, before it is scaled.
    """
    return Response(*await service.render(request, query))


@router.get(
    "/v1/pictures/{id:path}",
    operation_id="render_stored_image",
    response_class=Response,
    responses={200: _PICTURE, **problems(401, 404, 413, 415, 422, 429, 500, 503)},
)
async def picture_of_stored_image(
    request: Request, service: TheService, id: str, query: Annotated[PictureQuery, Query()]
) -> Response:
    """A picture of an image of the index, from its file, if the service was given its files."""
    original = service.originals.get(id)
    if original is None or not service.engine.stored.with_ids([id]).ids:
        raise Problem(
            404,
            "no_picture",
            "The service has no file of this image.",
            "Files are there for images of the index if it was started with --images.",
        )
    return Response(*await service.render_original(request, original, query))


@router.post(
    "/v1/reload",
    operation_id="reload_index",
    response_model=ReloadOut,
    responses=problems(401, 403, 409, 503),
)
async def reload(service: TheService) -> dict[str, Any]:
    """Serve the current version of the index. If that fails, the old one stays."""
    if not service.settings.allow_reload:
        raise Problem(
            403,
            "reload_disabled",
            "This service does not reload on request.",
            "Start it with --allow-reload, or send it SIGHUP.",
        )
    changed = await service.reload_everywhere()
    return {"index_version": service.engine.stored.version, "changed": changed}


@health.get("/livez", operation_id="is_alive", response_model=StatusOut)
async def livez() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@health.get("/readyz", operation_id="is_ready", response_model=StatusOut, responses=problems(503))
async def readyz(service: TheService) -> dict[str, str]:
    """Whether new requests should come here; not while the service shuts down."""
    if service.draining:
        raise Problem(503, "draining", "The service is shutting down.", "Use another instance.")
    return {"status": "ok"}


@router.get(
    "/metrics",
    operation_id="get_metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {}}},
        **problems(401),
    },
)
async def metrics(service: TheService) -> Response:
    """Counters for Prometheus."""
    return Response(await service.render_metrics(), media_type=METRICS_TYPE)
