"""What the routes share: the engine, the queue before it, the counters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from annotator.errors import AnnotatorError, ImageError
from index.errors import IndexProblem, IndexUnreachable
from service.answers import Outcome
from service.batcher import Batcher, Limits
from service.engine import Engine, EngineHolder
from service.logs import log
from service.middleware.admission import Admission
from service.middleware.auth import Keys
from service.multipart import Upload
from service.observability import Metrics
from service.problems import Problem, unreachable, unusable_image
from service.settings import Settings

if TYPE_CHECKING:
    from annotator.knn.voting import Voting

T = TypeVar("T")


class Service:
    """The running service.

    Args:
        settings: Of the service.
        holder: Of the engine.
        keys: None if no key is asked for.
        limits: Of the batcher.
    """

    def __init__(
        self, settings: Settings, holder: EngineHolder, keys: Keys | None, limits: Limits
    ) -> None:
        self.settings = settings
        self.holder = holder
        self.keys = keys
        self.metrics = Metrics()
        self.admission = Admission(settings.max_queue, settings.buffered_bytes)
        self.batcher = Batcher(limits, self.metrics)
        self.draining = False
        self._reloading: asyncio.Task[None] | None = None
        self.metrics.watch(lambda: self.admission.images, lambda: self.batcher.queued)
        self._say_what_is_served()

    async def annotate(
        self, request: Request, engine: Engine, uploads: Sequence[Upload], voting: Voting
    ) -> list[Outcome]:
        """Annotate the images of a request whose body was read.

        Raises:
            Problem: 499, the client went away; 503, it took too long, or the index cannot be
                reached. What was not begun is dropped.
        """
        outcomes = await self._in_time(request, self._annotate_all(engine, uploads, voting))
        for outcome in outcomes:
            if isinstance(outcome, Problem) and outcome.code == "index_unreachable":
                raise outcome  # none of the others was searched either
            code = outcome.code if isinstance(outcome, Problem) else "ok"
            self.metrics.images.labels(code).inc()
        return outcomes

    async def search(self, request: Request, work: Callable[[], T]) -> T:
        """Do a search that needs no image of the request, and blocks.

        Raises:
            Problem: As of `annotate`, or what `work` raises.
        """
        try:
            return await self._in_time(request, self.batcher.aside(work))
        except IndexProblem as error:
            raise self._not_searched(error) from error

    async def _in_time(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await _unless_disconnected(request, work)
        except TimeoutError:
            raise Problem(
                503,
                "timeout",
                f"The answer was not ready within {self.settings.timeout_s:g} seconds.",
                "Ask for less at once, or try again later.",
                {"Retry-After": "5"},
            ) from None

    async def _annotate_all(
        self, engine: Engine, uploads: Sequence[Upload], voting: Voting
    ) -> list[Outcome]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._annotate_one(engine, upload.data, voting))
                for upload in uploads
            ]
        return [task.result() for task in tasks]

    async def _annotate_one(self, engine: Engine, data: bytes, voting: Voting) -> Outcome:
        try:
            return await self.batcher.annotate(engine, data, voting)
        except (ImageError, MemoryError) as error:
            return unusable_image(error)
        except IndexProblem as error:
            return self._not_searched(error)
        except AnnotatorError as error:
            log(logging.ERROR, "an image could not be encoded", error, reason=error.message)
            return Problem(500, "encoding_failed", error.message, error.hint)

    def _not_searched(self, error: IndexProblem) -> Problem:
        log(logging.ERROR, "the index could not be searched", error, reason=error.message)
        if not isinstance(error, IndexUnreachable):
            self._reload_soon()  # the version that is served may be gone from its server
        return unreachable()

    async def reload(self) -> bool:
        """Serve the index's current version from now on; see `EngineHolder.reload`.

        Raises:
            Problem: 409, it cannot be served; 503, it cannot be reached. The old one stays.
        """
        try:
            changed = await asyncio.to_thread(self.holder.reload)
        except Exception as error:
            self.metrics.reload_failures.inc()
            reason, hint = type(error).__name__, "Look into the service's log."
            if isinstance(error, AnnotatorError):
                reason, hint = error.message, error.hint
            serving = self.holder.current.version
            facts = {"serving": serving, "reason": reason, "hint": hint}
            log(logging.ERROR, "reload failed", error, **facts)
            if isinstance(error, IndexUnreachable):
                raise unreachable() from error
            detail = f"The index was not reloaded; {serving} is served as before. {reason}"
            raise Problem(409, "reload_failed", detail, hint) from error
        self.metrics.reloads.inc()
        self._say_what_is_served()
        log(logging.INFO, "reloaded", serving=self.holder.current.version, changed=changed)
        return changed

    async def reload_on_signal(self) -> None:
        """`reload`, for a signal: nobody waits for the answer."""
        with suppress(Problem):
            await self.reload()

    def _reload_soon(self) -> None:
        """Reload in the background, unless that is under way."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self.reload_on_signal())

    def _say_what_is_served(self) -> None:
        engine = self.holder.current
        self.metrics.serving(engine.version, engine.annotator.embedder.name)


async def _unless_disconnected(request: Request, coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of `coroutine`, which is cancelled when the client goes away.

    Raises:
        Problem: 499, it went away.
    """
    work = asyncio.create_task(coroutine)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise client_closed()
        return work.result()
    finally:
        gone.cancel()
        work.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def client_closed() -> Problem:
    """For the log and the metrics; nobody is there to read it."""
    return Problem(499, "client_closed_request", "The client closed the connection.")
