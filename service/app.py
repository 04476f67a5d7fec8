"""Assembly of the ASGI application."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from annotator import __version__
from service.browse import Catalogue
from service.corrections import Store
from service.engine import Engine
from service.images import images
from service.judgements import Judgements
from service.keys import Keys
from service.label_studio import label_studio
from service.label_studio_host import LabelStudioHost
from service.middleware.auth import KEY_SCHEMES, OwnPages, RequireKey, TrustedHost
from service.middleware.connections import ConnectionLimit
from service.middleware.headers import PAGE_POLICY, CloseInDoubt, DrainBody, SafeHeaders
from service.middleware.metrics_port import MetricsPort
from service.middleware.request_logging import RequestLogging, UnexpectedErrors
from service.problems import Problem
from service.queue import ReviewQueue
from service.routes import HEALTH_PATHS, NOTICE, health, router
from service.service import Service
from service.settings import Settings
from service.siblings import Siblings
from service.tracing import Tracing

PAGE = Path(__file__).parent / "page"

_SEE = "See /openapi.json."

_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


def create_app(
    settings: Settings,
    engine: Engine,
    keys: Keys | None = None,
    store: Store | None = None,
    metrics_port: int | None = None,
    siblings: Siblings | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Create the application.

    Its `Service` is at `app.state.service`, with what its routes keep beside it: `catalogue`,
    `queue`, and `label_studio` where there is one.

    Args:
        settings: The settings.
        engine: The initial engine.
        keys: The accepted API keys; None for open access.
        store: Takes corrections; None for none. Over the version of the engine.
        metrics_port: Port on which /metrics is answered, and nothing else.
        siblings: The other processes of the service.
        tracing: Makes spans; None for none.
    """
    service = Service(settings, engine, store, siblings, tracing)
    page = _page_routes()
    app = FastAPI(
        title="annotator",
        version=__version__,
        description=f"UMLS concepts for medical images, by retrieval. {NOTICE}",
        openapi_url=None,  # `_document_route` has it
        docs_url=None,  # Swagger UI would be loaded from another host
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=lambda route: route.name,  # in the OpenAPI document
        redirect_slashes=False,  # to an address built from the Host header
        middleware=_middleware(settings, service, keys, {*HEALTH_PATHS, *page}, metrics_port),
        exception_handlers={
            Problem: _answer,
            HTTPException: _answer_http_exception,
            RequestValidationError: _answer_validation_error,
        },
    )
    app.state.service = service
    app.state.judgements = judgements = Judgements(service)
    app.state.catalogue = Catalogue(service, judgements)
    app.state.queue = ReviewQueue(service, judgements)
    app.include_router(health)
    for routes in (router, images):
        app.include_router(routes, dependencies=KEY_SCHEMES if keys else [])
    if settings.label_studio is not None:
        token = settings.label_studio_token
        app.state.label_studio = LabelStudioHost(
            settings.label_studio, token.get_secret_value() if token else "", settings.upload_bytes
        )
        app.include_router(label_studio)
    for path, route in {**page, "/openapi.json": _document_route(app)}.items():
        app.add_api_route(path, route, methods=["GET", "HEAD"], include_in_schema=False)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    from annotator.encoders.torch_setup import threads_per_operation
    from index.cores import usable_cores

    service: Service = app.state.service
    batcher, corrections = service.batcher, service.corrections
    # The encoders share the cores; see docs/service.md, "Tuning".
    encoders = batcher.encoders * service.settings.processes
    with (
        threads_per_operation(max(1, usable_cores() // encoders)),
        getattr(app.state, "label_studio", None) or contextlib.nullcontext(),
    ):
        async with corrections or contextlib.nullcontext(), batcher, service.answering_siblings():
            yield


def _middleware(
    settings: Settings,
    service: Service,
    keys: Keys | None,
    public: Collection[str],
    metrics_port: int | None,
) -> list[Middleware]:
    """The middleware, outermost first."""
    layers = [
        Middleware(DrainBody),
        Middleware(CloseInDoubt, draining=lambda: service.draining),
        Middleware(SafeHeaders),
        Middleware(
            RequestLogging,
            metrics=service.metrics,
            tracing=service.tracing,
            untraced=(*HEALTH_PATHS, "/metrics"),
        ),
    ]
    if settings.cors_origin is not None:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=[settings.cors_origin],
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["Authorization", "X-API-Key", "Content-Type", "If-Match"],
                expose_headers=[
                    "ETag",
                    "X-Request-ID",
                    "X-Annotator-Failed",
                    "X-Annotator-Fingerprint",
                    "X-Annotator-Frame",
                    "X-Annotator-Frames",
                    "X-Annotator-Levels",
                    "X-Annotator-Window",
                    "Retry-After",
                ],
            )
        )
    layers.append(Middleware(UnexpectedErrors))  # inside of CORS: pages may read what failed
    if metrics_port is not None:
        layers.append(Middleware(MetricsPort, port=metrics_port, render=service.render_metrics))
    layers.append(Middleware(ConnectionLimit, answered=HEALTH_PATHS))
    if keys is not None:
        tokens = None
        if settings.oidc_issuer is not None:
            from service.middleware.oidc import Tokens

            tokens = Tokens(settings)
        layers.append(Middleware(RequireKey, keys=keys, public=public, tokens=tokens))
        return layers
    if not settings.insecure:
        own = f"[{settings.host}]" if ":" in settings.host else settings.host
        hosts = ("localhost", "127.0.0.1", "[::1]", own)
        layers.append(Middleware(TrustedHost, allowed_hosts=hosts, public=HEALTH_PATHS))
    layers.append(Middleware(OwnPages, allowed_origin=settings.cors_origin, public=public))
    return layers


async def _answer(request: Request, problem: Any) -> Response:
    request.state.code = problem.code
    response: Response = problem.response()
    return response


async def _answer_http_exception(request: Request, error: Any) -> Response:
    if error.status_code == 404:
        problem = Problem(404, "not_found", "There is nothing here.", _SEE)
    elif error.status_code == 405:
        problem = Problem(405, "method_not_allowed", "Method not allowed.", _SEE)
    else:
        problem = Problem(error.status_code, "http_error", str(error.detail))
    problem.headers.update(error.headers or {})
    return await _answer(request, problem)


async def _answer_validation_error(request: Request, error: Any) -> Response:
    faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()[:5]]
    problem = Problem(422, "invalid_parameter", "; ".join(faults)[:1000] + ".", _SEE)
    return await _answer(request, problem)


def _document_route(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """The OpenAPI document, written once: FastAPI writes it for each request, in milliseconds."""

    @cache
    def document() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False).encode()

    async def openapi_document(request: Request) -> Response:
        return Response(document(), media_type="application/json")

    return openapi_document


def _page_routes() -> Mapping[str, Callable[[Request], Awaitable[Response]]]:
    """A route for each file of the page; `index.html` is at "/"."""
    return {
        "/" if file.name == "index.html" else f"/{file.name}": _page_route(file)
        for file in sorted(PAGE.iterdir())
        if file.suffix in _PAGE_TYPES
    }


def _page_route(file: Path) -> Callable[[Request], Awaitable[Response]]:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache", "ETag": etag}

    async def page_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_PAGE_TYPES[file.suffix])

    return page_file
