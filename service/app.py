"""The ASGI application, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from annotator import __version__
from service.batcher import Limits
from service.engine import EngineHolder
from service.middleware.admission import RefuseOverflow
from service.middleware.auth import Keys, LocalNamesOnly, RequireKey
from service.middleware.headers import PAGE_POLICY, CloseAtTheEnd, Linger, SafeHeaders
from service.middleware.observe import Observe
from service.page_files import PageFile, read_page
from service.problems import Problem
from service.routes import NOTICE, router
from service.service import Service
from service.settings import Settings

_HEALTH = ("/livez", "/readyz")


def create_app(settings: Settings, holder: EngineHolder, keys: Keys | None = None) -> FastAPI:
    """The application; its `Service` is at `app.state.service`.

    Args:
        settings: See `Settings`.
        holder: Of an opened engine.
        keys: None to ask for no key.
    """
    service = Service(settings, holder, keys, _limits(settings, holder))
    page = read_page()
    app = FastAPI(
        title="annotator",
        version=__version__,
        description=f"UMLS concepts for medical images, by retrieval. {NOTICE}",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=_middleware(settings, service, frozenset({*_HEALTH, *page})),
        exception_handlers={
            Problem: _answer(lambda error: error),
            HTTPException: _answer(_of_http_exception),
            RequestValidationError: _answer(_of_validation_error),
        },
    )
    app.state.service = service
    app.include_router(router)
    for path, file in page.items():
        app.add_api_route(path, _page_route(file), methods=["GET", "HEAD"], include_in_schema=False)
    _describe(app, keys)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    from annotator.encoders.local_runner import cpu_count
    from annotator.encoders.torch_setup import threads_per_operation

    batcher = app.state.service.batcher
    # The encoders share the cores; see docs/service.md, "Tuning".
    with threads_per_operation(max(1, cpu_count() // batcher.limits.encoders)):
        async with batcher:
            yield


def _limits(settings: Settings, holder: EngineHolder) -> Limits:
    from annotator.encoders.local_runner import default_workers
    from annotator.encoders.torch_setup import choose_device

    cores = default_workers()
    on_gpu = choose_device(settings.device).type == "cuda"
    return Limits(
        max_batch=settings.max_batch or holder.current.annotator.embedder.batch_size,
        batch_wait=settings.batch_wait_ms / 1000,
        workers=settings.workers or cores,
        encoders=settings.encoders or (1 if on_gpu else cores),
        max_pixels=settings.pixels,
        max_frames=settings.max_frames,
    )


def _middleware(settings: Settings, service: Service, public: frozenset[str]) -> list[Middleware]:
    """Outermost first."""
    layers = [
        Middleware(Linger),
        Middleware(CloseAtTheEnd, ending=lambda: service.draining),
        Middleware(SafeHeaders),
        Middleware(Observe, metrics=service.metrics),
        Middleware(RefuseOverflow),
    ]
    if service.keys is None and not settings.insecure:
        layers.append(Middleware(LocalNamesOnly))
    if settings.cors_origin is not None:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=[settings.cors_origin],
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "X-API-Key", "Content-Type"],
                expose_headers=["X-Request-ID", "X-Annotator-Failed", "Retry-After"],
            )
        )
    return [*layers, Middleware(RequireKey, keys=service.keys, public=public)]


def _answer(
    to_problem: Callable[[Any], Problem],
) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    async def handle(request: Request, error: Any) -> Response:
        problem = to_problem(error)
        request.state.code = problem.code
        return problem.response()

    return handle


def _of_http_exception(error: HTTPException) -> Problem:
    if error.status_code == 404:
        problem = Problem(404, "not_found", "There is nothing here.", "See /docs.")
    elif error.status_code == 405:
        problem = Problem(405, "method_not_allowed", "Not with this method.", "See /docs.")
    else:
        problem = Problem(error.status_code, "http_error", str(error.detail))
    problem.headers.update(error.headers or {})
    return problem


def _of_validation_error(error: RequestValidationError) -> Problem:
    faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()[:5]]
    return Problem(422, "invalid_parameter", "; ".join(faults)[:1000] + ".", "See /docs.")


def _page_route(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def page_file(request: Request) -> Response:
        headers = {
            "Content-Security-Policy": PAGE_POLICY,
            "Cache-Control": "no-cache",
            "ETag": file.etag,
        }
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    return page_file


def _describe(app: FastAPI, keys: Keys | None) -> None:
    """Say in the OpenAPI document how keys are sent."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            schemes: Mapping[str, Any] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            document["components"]["securitySchemes"] = schemes
            document["security"] = [{name: []} for name in schemes] if keys else []
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
