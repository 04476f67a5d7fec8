"""The running service: engine, queue and metrics."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from annotator.errors import AnnotatorError, ImageError
from index.errors import IndexProblem, IndexUnreachable
from service.admission import Admission
from service.answers import Answer, Embedding, Outcome, image_ids
from service.batcher import Batcher, Voted
from service.corrections import Corrections, Store
from service.decoding.processes import DecodingTask
from service.engine import Ballot, Engine, open_engine
from service.memory import Claim
from service.observability import Metrics, log, merged
from service.pictures import Rendered, rendered
from service.problems import Problem, client_closed, no_encoder, unreachable, unusable_image
from service.search import annotate_stored
from service.settings import Settings
from service.siblings import Siblings
from service.tracing import Tracing
from service.uploads import announced_size, read_uploads
from service.vectors import Model, read_sent

if TYPE_CHECKING:
    from annotator.images.notes import Note
    from annotator.images.ref import ImageRef
    from service.schemas import PictureQuery, StoredQuery

T = TypeVar("T")


class NewImage(NamedTuple):
    """An image that is to be added to the index.

    Attributes:
        id: By its file's name, or image-1.
        data: The file.
        vector: float32[dim], in the space of the index.
    """

    id: str
    data: bytes
    vector: NDArray[np.float32]


class Fetched(NamedTuple):
    """An image that the service fetches.

    Attributes:
        id: Of the image.
        fetch: Returns the file, or raises ImageError.
    """

    id: str
    fetch: Callable[[], Awaitable[bytes]]


class Service:
    """Shared state of the routes.

    Attributes:
        engine: The engine of new requests; `reload` and corrections replace it.
        corrections: Takes corrections; None where the service is read-only.
        originals: The files of the index's images, by id, where they were given.
        draining: Whether the service is shutting down.
        tracing: Makes spans.

    Raises:
        AnnotatorError: There are no such files.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: Store | None = None,
        siblings: Siblings | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        from annotator.encoders.local_runner import default_workers
        from annotator.encoders.torch_setup import on_gpu

        self.settings = settings
        self.engine = engine
        self.draining = False
        self.metrics = Metrics()
        self.tracing = tracing or Tracing()
        self.admission = Admission(settings.max_queue, settings.buffered_bytes)
        cores = max(1, default_workers() // settings.processes)
        self.batcher = Batcher(
            self.metrics,
            max_batch=settings.max_batch or engine.annotator.embedder.batch_size,
            batch_wait=settings.batch_wait_ms / 1000,
            workers=settings.workers or cores,
            encoders=settings.encoders or (1 if on_gpu(settings.device) else cores),
            decode_bytes=settings.decode_bytes,
            decode_seconds=settings.max_decode_s,
            tracing=self.tracing,
        )
        self.metrics.watch(
            lambda: self.admission.images,
            lambda: self.batcher.queued,
            lambda: self.batcher.memory.used,
        )
        self.metrics.serving(engine.stored.version, engine.annotator.embedder.name)
        self.originals = _originals(settings)
        self.corrections: Corrections | None = None
        if store is not None:
            self.corrections = Corrections(store, engine, self._serve, settings.device)
        self._siblings = siblings
        self._reloading: asyncio.Task[bool] | None = None
        self._next_reload: asyncio.Task[bool] | None = None

    async def annotate(
        self,
        request: Request,
        options: dict[str, Any],
        check_ids: Callable[[Sequence[str]], None] | None = None,
    ) -> Answer:
        """Annotate the images in the body of a request.

        Args:
            request: A form with files, or an image.
            options: Fields of `Voting` that replace the index's own, and of `Ballot`.
            check_ids: Called before the work is done; may refuse the ids by raising.

        Raises:
            Problem: The body is refused, there is no room (429), the client left (499), the time is
                up (503), or the index cannot be reached (503).
        """
        engine = self._encoding_engine()
        ballot = ballot_of(engine, options)
        ids, outcomes = await self._each_image(
            request, lambda data: self.batcher.annotate(engine, data, ballot), check_ids
        )
        return self._answer(engine, ids, outcomes)

    async def new_image(self, request: Request) -> NewImage:
        """Read the one image in the body of a request, and encode it.

        Raises:
            Problem: As in `annotate`; 422, there are several images, or it cannot be used.
        """
        engine = self._encoding_engine()
        data: list[bytes] = []

        def embed(image: bytes) -> Awaitable[tuple[NDArray[np.float32], tuple[Note, ...]]]:
            data.append(image)
            return self.batcher.embed(engine, image)

        ids, outcomes = await self._each_image(request, embed, _check_one)
        (outcome,) = outcomes
        self._count(outcomes)
        if isinstance(outcome, Problem):
            raise outcome
        return NewImage(ids[0], data[0], engine.annotator.project(outcome[0][None])[0])

    async def annotate_fetched(
        self, request: Request, images: Sequence[Fetched], options: dict[str, Any]
    ) -> Answer:
        """Annotate images that are fetched instead of sent.

        Args:
            request: Who asked; its body has been read.
            images: Not more than `Settings.images_per_request`.
            options: As for `annotate`.

        Raises:
            Problem: There is no room (429), the client left (499), the time is up (503), or the
                index cannot be reached (503).
        """
        engine = self._encoding_engine()
        ballot = ballot_of(engine, options)
        outcomes = await self._each_fetched(
            request, images, lambda data: self.batcher.annotate(engine, data, ballot)
        )
        return self._answer(engine, [image.id for image in images], outcomes)

    async def new_fetched(self, request: Request, image: Fetched) -> NewImage:
        """Fetch and encode an image that is to be added, also if who told of it has left.

        Raises:
            Problem: As `annotate_fetched`; 422, it cannot be used.
        """
        engine = self._encoding_engine()
        files: list[bytes] = []

        def embed(data: bytes) -> Awaitable[tuple[NDArray[np.float32], tuple[Note, ...]]]:
            files.append(data)
            return self.batcher.embed(engine, data)

        (outcome,) = outcomes = await self._each_fetched(request, [image], embed, stays=True)
        self._count(outcomes)
        if isinstance(outcome, Problem):
            raise outcome
        return NewImage(image.id, files[0], engine.annotator.project(outcome[0][None])[0])

    async def _each_fetched(
        self,
        request: Request,
        images: Sequence[Fetched],
        work: Callable[[bytes], Awaitable[T]],
        *,
        stays: bool = False,
    ) -> list[T | Problem]:
        """Fetch each image and do `work` on it: results or problems.

        Where what comes of it stays, it is done to the end although the client leaves.
        """
        request.state.images = len(images)  # for the log
        with self.admission.enter() as ticket:
            ticket.hold(images=len(images))
            size = 0

            async def process(image: Fetched) -> T:
                nonlocal size
                data = await image.fetch()
                size += len(data)
                ticket.hold(size=size)
                return await work(data)

            async with self._until_the_deadline(None if stays else request):
                results = await asyncio.gather(*map(process, images), return_exceptions=True)
        return [self._problem(r) if isinstance(r, BaseException) else r for r in results]

    async def embed(self, request: Request) -> Embedding:
        """Encode the images in the body of a request.

        Raises:
            Problem: As in `annotate`.
        """
        engine = self._encoding_engine()
        ids, outcomes = await self._each_image(
            request, lambda data: self.batcher.embed(engine, data)
        )
        self._count(outcomes)
        return Embedding(engine, ids, outcomes)

    async def annotate_vectors(
        self,
        request: Request,
        options: dict[str, Any],
        named: Model,
        check_ids: Callable[[Sequence[str]], None] | None = None,
    ) -> Answer:
        """Annotate the vectors in the body of a request.

        Args:
            request: JSON (`schemas.VectorsIn`) or an .npy file.
            options: Fields of `Voting` that replace the index's own, and of `Ballot`.
            named: What the request says of their encoder outside of the body.
            check_ids: As in `annotate`.

        Raises:
            Problem: As in `annotate`, or the vectors are not those of the index's encoder.
        """
        size = announced_size(request.headers, self.settings)
        with self.admission.enter(size) as ticket:
            engine = self.engine
            ballot = ballot_of(engine, options)
            with self.tracing.timed("receive"):
                sent = await read_sent(request, self.settings, ticket, engine, named)
            request.state.images = len(sent.ids)  # for the log
            if check_ids is not None:
                check_ids(sent.ids)
            voted = Voted(engine, [], {})
            async with self._until_the_deadline(request):
                if usable := sent.usable:
                    try:
                        with self.tracing.timed("search"):
                            voted = await self.batcher.vote(engine, np.stack(usable), ballot)
                    except IndexProblem as error:
                        raise self._problem(error) from error
        outcomes = sent.outcomes(voted.annotations, voted.seconds)
        return Answer(voted.engine, sent.ids, self._judged(outcomes))

    async def vote_on_stored(
        self, request: Request, query: StoredQuery, options: dict[str, Any]
    ) -> Answer:
        """Let the other images of the index vote on one of them.

        Raises:
            Problem: As in `search`, or as `annotate_stored`.
        """
        return await self.search(
            request, lambda engine: annotate_stored(engine, query, ballot_of(engine, options))
        )

    @property
    def has_groups(self) -> bool:
        """Whether the images of the index have groups."""
        return "groups" in self.engine.stored.manifest.columns

    async def render(self, request: Request, query: PictureQuery) -> Rendered:
        """Render the one image in the body of a request.

        Raises:
            Problem: As in `annotate`; 422, there are several images, or no such frame.
        """

        def work(data: bytes) -> Awaitable[Rendered]:
            return self.batcher.decode(partial(rendered, data, query, self.settings.pixels))

        _, (outcome,) = await self._each_image(request, work, _check_one)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def render_original(
        self, request: Request, original: ImageRef, query: PictureQuery
    ) -> Rendered:
        """Render an image of the index from its file.

        Raises:
            Problem: As `render`.
        """

        def work(claim: Claim, task: DecodingTask) -> Rendered:
            return rendered(original.read(), query, self.settings.pixels, claim, task)

        with self.admission.enter():
            async with self._until_the_deadline(request):
                try:
                    return await self.batcher.decode(work)
                except (ImageError, MemoryError) as error:
                    raise unusable_image(error) from error

    async def _each_image(
        self,
        request: Request,
        work: Callable[[bytes], Awaitable[T]],
        check_ids: Callable[[Sequence[str]], None] | None = None,
    ) -> tuple[list[str], list[T | Problem]]:
        """Do `work` on each image in the body of a request: its ids, and results or problems."""
        size = announced_size(request.headers, self.settings)
        with self.admission.enter(size) as ticket:
            with self.tracing.timed("receive"):
                uploads = await read_uploads(request, self.settings, ticket)
            request.state.images = len(uploads)  # for the log
            ids = image_ids(uploads)
            if check_ids is not None:
                check_ids(ids)
            async with self._until_the_deadline(request):
                results = await asyncio.gather(
                    *(work(upload.data) for upload in uploads), return_exceptions=True
                )
        return ids, [self._problem(r) if isinstance(r, BaseException) else r for r in results]

    def _encoding_engine(self) -> Engine:
        """The engine, if it has an encoder for images.

        Raises:
            Problem: 409, it has none.
        """
        if not self.engine.takes_images:
            raise no_encoder(self.engine.annotator.embedder.name)
        return self.engine

    def _answer(self, engine: Engine, ids: Sequence[str], outcomes: Sequence[Outcome]) -> Answer:
        """What became of images that were searched.

        Raises:
            Problem: 503, the index cannot be reached.
        """
        for outcome in outcomes:
            if isinstance(outcome, Problem) and outcome.code == "index_unreachable":
                raise outcome  # none of the others was searched either
        return Answer(engine, ids, self._judged(outcomes))

    def _judged(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The same outcomes, of which too unfamiliar images are problems; observes them all."""
        judged: list[Outcome] = []
        for outcome in outcomes:
            if isinstance(outcome, Problem):
                judged.append(outcome)
                continue
            annotation = outcome[0]
            if annotation.familiarity is not None:
                self.metrics.familiarity.observe(annotation.familiarity)
            if annotation.error is None:
                self.metrics.expected_f1.observe(annotation.expected_f1)
                judged.append(outcome)
            else:
                judged.append(unusable_image(annotation.error))
        self._count(judged)
        return judged

    def _count(self, outcomes: Sequence[object]) -> None:
        for outcome in outcomes:
            code = outcome.code if isinstance(outcome, Problem) else "ok"
            self.metrics.images.labels(code).inc()

    async def search(
        self, request: Request, work: Callable[[Engine], T], *, long: bool = False
    ) -> T:
        """Run a blocking search without images.

        Args:
            request: Who asked.
            work: The search.
            long: Whether it may take many seconds, for which other searches do not wait.

        Raises:
            Problem: As in `annotate`, or what `work` raises.
        """
        run = self.batcher.judge if long else self.batcher.search
        with self.admission.enter():
            async with self._until_the_deadline(request):
                try:
                    with self.tracing.timed("search"):
                        return await run(partial(work, self.engine))
                except IndexProblem as error:
                    raise self._problem(error) from error

    @asynccontextmanager
    async def _until_the_deadline(self, request: Request | None) -> AsyncIterator[None]:
        """Cancel the block when the time is up, or at once when the client, if any, leaves.

        Raises:
            Problem: 503 or 499.
        """
        left = False

        async def watch() -> None:
            nonlocal left
            if request is None:
                return
            while (await request.receive())["type"] != "http.disconnect":
                pass
            left = True
            if not deadline.expired():
                deadline.reschedule(0)

        try:
            async with asyncio.timeout(self.settings.timeout_s) as deadline:
                watcher = asyncio.create_task(watch())
                try:
                    yield
                finally:
                    watcher.cancel()
        except TimeoutError:
            if left:
                raise client_closed() from None
            raise Problem(
                503,
                "timeout",
                f"The answer was not ready within {self.settings.timeout_s:g} seconds.",
                "Ask for less at once, or try again later.",
                {"Retry-After": "5"},
            ) from None

    def _problem(self, error: BaseException) -> Problem:
        """The problem of an image or a search; raises `error` if it is unexpected."""
        if isinstance(error, Problem):
            return error
        if isinstance(error, ImageError | MemoryError):
            return unusable_image(error)
        if isinstance(error, IndexProblem):
            log(logging.ERROR, "the index could not be searched", error, reason=error.message)
            if not isinstance(error, IndexUnreachable) and self._reloading is None:
                self.reload_soon()  # the served version may be gone, or changed in place
            return unreachable()
        if isinstance(error, AnnotatorError):
            log(logging.ERROR, "an image could not be encoded", error, reason=error.message)
            return Problem(500, "encoding_failed", error.message, error.hint)
        raise error

    async def reload(self) -> bool:
        """Switch to the current version of the index, or publish the corrections that wait.

        While it takes corrections nobody else can change the index. Otherwise the version is opened
        beside the served one. Weights are loaded again only for a different encoder. Whoever asks
        while a reload is under way shares the next one with all who do.

        Returns:
            Whether the version changed.

        Raises:
            Problem: 409, it cannot be served; 503, it cannot be reached. The old one stays.
        """
        return await asyncio.shield(self._shared_reload())

    async def reload_everywhere(self) -> bool:
        """`reload` in this process and its siblings; whether the version changed in one of them.

        Raises:
            Problem: As `reload`, also where only a sibling has failed.
        """
        changed = await self.reload()
        return (await self._siblings.reload() if self._siblings else False) or changed

    def answering_siblings(self) -> AbstractAsyncContextManager[None]:
        """Within it, the other processes of the service get what they ask for."""
        if self._siblings is None:
            return nullcontext()
        return self._siblings.answering(self.metrics.render, self.reload)

    async def render_metrics(self) -> bytes:
        """The metrics of all processes of the service, in Prometheus' text format."""
        own = self.metrics.render()
        return merged([own, *await self._siblings.metrics()]) if self._siblings else own

    def reload_soon(self) -> None:
        """Reload in the background; a failure is logged."""
        self._shared_reload()

    def _shared_reload(self) -> asyncio.Task[bool]:
        """The reload that has not begun yet."""
        if self._next_reload is None:
            self._next_reload = asyncio.create_task(self._reload_after(self._reloading))
            # Its failure has been logged; nobody has to ask for it.
            self._next_reload.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._next_reload

    async def _reload_after(self, before: asyncio.Task[bool] | None) -> bool:
        if before is not None:
            await asyncio.wait([before])
        self._reloading, self._next_reload = self._next_reload, None
        try:
            return await self._reload()
        finally:
            self._reloading = None

    async def _reload(self) -> bool:
        old = self.engine
        try:
            self.originals = await asyncio.to_thread(_originals, self.settings)
        except AnnotatorError as error:
            raise self._not_reloaded(error) from error
        if self.corrections is not None:
            try:
                await self.corrections.fold()
            except Exception as error:
                raise self._not_reloaded(error) from error
            return self.engine.stored.version != old.stored.version
        try:
            new = await asyncio.to_thread(open_engine, self.settings, old.annotator.embedder)
        except Exception as error:
            raise self._not_reloaded(error) from error
        changed = new.stored.manifest != old.stored.manifest or not old.is_intact()
        if changed:
            self._serve(new)
        self.metrics.reloads.inc()
        log(logging.INFO, "reloaded", serving=self.engine.stored.version, changed=changed)
        return changed

    def _serve(self, engine: Engine) -> None:
        """Let new requests have another engine over the served index."""
        self.engine = engine
        self.metrics.serving(engine.stored.version, engine.annotator.embedder.name)

    def _not_reloaded(self, error: Exception) -> Problem:
        self.metrics.reload_failures.inc()
        reason, hint = type(error).__name__, "Look into the service's log."
        if isinstance(error, AnnotatorError):
            reason, hint = error.message, error.hint
        serving = self.engine.stored.version
        log(logging.ERROR, "reload failed", error, serving=serving, reason=reason, hint=hint)
        if isinstance(error, IndexUnreachable):
            return unreachable()
        detail = f"The index was not reloaded; {serving} is served as before. {reason}"
        return Problem(409, "reload_failed", detail, hint)


def _originals(settings: Settings) -> Mapping[str, ImageRef]:
    """The files of the index's images by id; none where they are not given."""
    from annotator.images.sources import find_images

    if settings.images is None:
        return {}
    return {ref.id: ref for ref in find_images(settings.images, on_duplicate="first").images}


def _check_one(ids: Sequence[str]) -> None:
    if len(ids) != 1:
        raise Problem(422, "several_images", "There are several images.", "Send one at a time.")


def ballot_of(engine: Engine, options: Mapping[str, Any]) -> Ballot:
    """The ballot of a request with these options.

    Raises:
        Problem: 422, the index knows no familiarity, and a least one is given; or has no thresholds
            for macro F1.
    """
    voting = engine.annotator.voting
    if options.get("decider") == "macro-f1" and voting.macro_thresholds is None:
        raise Problem(
            422,
            "invalid_parameter",
            "decider: the index has no thresholds for macro-f1.",
            "`annotator tune` sets them, unless the index was built without tuning or from too few "
            "images.",
        )
    if options.get("min_familiarity") and not engine.annotator.metadata.knows_familiarity:
        raise Problem(
            422,
            "invalid_parameter",
            "min_familiarity: the index does not know how familiar images are.",
            "It was built without tuning, or from too few images: leave it out.",
        )
    own = {name: value for name, value in options.items() if name in Ballot._fields}
    changed = {name: value for name, value in options.items() if name not in own}
    return Ballot(dataclasses.replace(voting, **changed), **own)
