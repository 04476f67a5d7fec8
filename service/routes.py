"""The routes; what they describe is in `schemas`, what they do is elsewhere."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response

from annotator import __version__
from index.errors import IndexProblem
from service.answers import Answer, Outcome, check_run_ids, describe_model, ids_of, wants_csv
from service.docs_page import POLICY, render_docs
from service.engine import Engine
from service.logs import log
from service.problems import MEDIA_TYPE, Problem, unreachable
from service.schemas import (
    AnnotateOut,
    AnnotateQuery,
    ConceptsOut,
    ConceptsQuery,
    InfoOut,
    ReloadOut,
    SearchOut,
    SearchQuery,
    SimilarImagesQuery,
    SimilarOut,
    SimilarQuery,
    StatusOut,
)
from service.search import search, similar_to, similar_to_images
from service.service import Service, client_closed
from service.uploads import announced_size, read_uploads

NOTICE = "Not for clinical use."

router = APIRouter()


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of answers that are problems."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
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
_PUBLIC: dict[str, Any] = {"security": []}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.post(
    "/v1/annotate",
    response_class=JSONResponse,
    responses={
        200: {"model": AnnotateOut, "content": {"text/csv": {"schema": {"type": "string"}}}},
        **_problems(400, 401, 408, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=_BODY,
)
async def annotate(request: Request, query: Annotated[AnnotateQuery, Query()]) -> Response:
    """Annotate one or several images: a form with files, or an image as the body.

    An image that cannot be used costs the others nothing: its result says why. If it was the only
    one, that is the answer. With `Accept: text/csv` the answer is a run in the format of 2026; in
    it an unusable image has no CUIs, and `X-Annotator-Failed` counts such images.
    """
    started = time.perf_counter()
    as_run = wants_csv(request.headers.get("accept", ""))
    options = query.model_dump(include={"k", "decider", "min_score"}, exclude_none=True)
    engine, ids, outcomes = await _annotated(request, options, check_run_ids if as_run else None)
    answer = Answer(engine, ids, outcomes)
    if as_run:
        headers = {"X-Annotator-Failed": str(answer.failed)} if answer.failed else None
        return Response(answer.to_run(), headers=headers, media_type="text/csv")
    if len(outcomes) == 1 and isinstance(outcomes[0], Problem):
        raise outcomes[0]
    return JSONResponse(answer.to_dict(query.neighbors, time.perf_counter() - started))


async def _annotated(
    request: Request, options: Mapping[str, Any], check: Callable[[Sequence[str]], None] | None
) -> tuple[Engine, list[str], list[Outcome]]:
    """What becomes of the images of a request.

    Args:
        request: With images in its body.
        options: That replace the index's own of voting.
        check: Told about the ids before the work is done; may refuse them by raising.
    """
    service = _service(request)
    size = announced_size(request.headers, service.settings)
    with service.admission.enter(size) as ticket:
        engine = service.holder.current
        voting = dataclasses.replace(engine.annotator.voting, **options)
        try:
            uploads = await read_uploads(request, service.settings, ticket)
        except ClientDisconnect:
            raise client_closed() from None
        request.state.images = len(uploads)
        ids = ids_of(uploads)
        if check is not None:
            check(ids)
        return engine, ids, await service.annotate(request, engine, uploads, voting)


@router.get(
    "/v1/search", response_model=SearchOut, responses=_problems(401, 404, 409, 422, 429, 500, 503)
)
async def search_cases(request: Request, query: Annotated[SearchQuery, Query()]) -> dict[str, Any]:
    """Cases of a concept, and those whose labels its neighbours contradict; or that fit words.

    `q` is a CUI, or the name of a concept or a part of it; other words are searched for where the
    encoder has a text tower (open_clip).
    """
    service = _service(request)
    with service.admission.enter():
        engine = service.holder.current
        return await service.search(request, partial(search, engine, query))


@router.get(
    "/v1/similar", response_model=SimilarOut, responses=_problems(401, 404, 409, 422, 429, 500, 503)
)
async def similar(request: Request, query: Annotated[SimilarQuery, Query()]) -> dict[str, Any]:
    """The cases that are most similar to an image of the index."""
    service = _service(request)
    with service.admission.enter():
        engine = service.holder.current
        return await service.search(request, partial(similar_to, engine, query))


@router.post(
    "/v1/similar",
    response_model=SimilarOut,
    responses=_problems(400, 401, 408, 413, 415, 422, 429, 500, 503),
    openapi_extra=_BODY,
)
async def similar_images(
    request: Request, query: Annotated[SimilarImagesQuery, Query()]
) -> dict[str, Any]:
    """The cases that are most similar to one or several images, sent as for `/v1/annotate`.

    An image that cannot be used costs the others nothing: its result says why. If it was the only
    one, that is the answer.
    """
    engine, ids, outcomes = await _annotated(request, {"k": query.k}, None)
    if len(outcomes) == 1 and isinstance(outcomes[0], Problem):
        raise outcomes[0]
    return similar_to_images(engine, ids, outcomes)


@router.get("/v1/info", response_model=InfoOut, responses=_problems(401))
async def info(request: Request) -> dict[str, Any]:
    """The index, the encoder, the defaults of voting, and the limits."""
    service = _service(request)
    settings, engine = service.settings, service.holder.current
    stored = engine.annotator.stored
    return {
        "version": __version__,
        "index": {
            "version": stored.version,
            "images": len(stored),
            "concepts": len(engine.concepts),
            "dim": stored.manifest.dim,
            "thumbnails": engine.has_thumbnails,
        },
        "model": describe_model(engine),
        "voting": dataclasses.asdict(engine.annotator.voting),
        "limits": {
            "upload_bytes": settings.upload_bytes,
            "images": settings.images_per_request,
            "pixels": settings.pixels,
            "timeout_s": settings.timeout_s,
        },
        "notice": NOTICE,
    }


@router.get("/v1/concepts", response_model=ConceptsOut, responses=_problems(401, 422))
async def concepts(request: Request, query: Annotated[ConceptsQuery, Query()]) -> dict[str, Any]:
    """Concepts of the index whose CUI or name contains `q`."""
    wanted = query.q.casefold()
    found = [
        concept
        for concept in _service(request).holder.current.concepts
        if wanted in concept.cui.casefold() or wanted in concept.name.casefold()
    ]
    return {"concepts": [c._asdict() for c in found[: query.limit]], "total": len(found)}


@router.get(
    "/v1/neighbors/{id:path}/image",
    response_class=Response,
    responses={
        200: {"description": "A small JPEG.", "content": {"image/jpeg": _BYTES}},
        **_problems(401, 404, 422, 503),
    },
)
async def neighbor_image(request: Request, id: str) -> Response:
    """A small picture of an image of the index, if the index has pictures."""
    try:
        # An index on a server is asked for it over the network.
        picture = await asyncio.to_thread(_service(request).holder.current.thumbnail, id)
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


@router.post("/v1/reload", response_model=ReloadOut, responses=_problems(401, 403, 409, 503))
async def reload(request: Request) -> dict[str, Any]:
    """Serve the current version of the index on disk. If that fails the old one goes on."""
    service = _service(request)
    if not service.settings.allow_reload:
        raise Problem(
            403,
            "reload_disabled",
            "This service does not reload on request.",
            "Start it with --allow-reload, or send it SIGHUP.",
        )
    changed = await service.reload()
    return {"index_version": service.holder.current.version, "changed": changed}


@router.get("/livez", response_model=StatusOut, openapi_extra=_PUBLIC)
async def livez() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=StatusOut, responses=_problems(503), openapi_extra=_PUBLIC)
async def readyz(request: Request) -> dict[str, str]:
    """Whether new requests should come here; not while the service shuts down."""
    if _service(request).draining:
        raise Problem(503, "draining", "The service is shutting down.", "Use another instance.")
    return {"status": "ok"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {}}},
        **_problems(401),
    },
)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    text = _service(request).metrics.render()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """`/openapi.json` for people."""
    page = render_docs(request.app.openapi())
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})
