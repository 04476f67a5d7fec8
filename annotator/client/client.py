"""The clients, with and without asyncio; `calls` has what they ask, `retries` when again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal, TypeVar, Unpack

import httpx

from annotator import __version__
from annotator.client import calls
from annotator.client.answers import (
    AnnotateOut,
    ConceptsOut,
    EmbedOut,
    Image,
    ImagesOut,
    InfoOut,
    MapOut,
    Picture,
    QueueOut,
    ReloadOut,
    Result,
    SearchOut,
    SimilarOut,
)
from annotator.client.calls import (
    AnnotateOptions,
    Call,
    File,
    Filters,
    ListOptions,
    PictureOptions,
)
from annotator.client.errors import ServiceProblem
from annotator.client.retries import Retries

T = TypeVar("T")

By = Literal["auto", "concept", "text"]
Without = Literal["itself", "group"]

_AT_ONCE = 16


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"User-Agent": f"annotator/{__version__}", "Accept": "application/json"}
    return headers if api_key is None else headers | {"Authorization": f"Bearer {api_key}"}


class Client:
    """A client of `annotator serve`. Use as a context manager, or `close` it.

    What the service refuses for lack of room (429, 503) is sent again, as is what found no service,
    for as long as `patience_s` allows; a correction is sent again only if it cannot have been made.
    All methods raise `ServiceProblem` where the service refuses, and `ServiceError` where there is
    none. One client may be used by several threads.

    Args:
        url: Address of the service, such as "http://127.0.0.1:8000", with a path where it has one.
        api_key: Its key.
        timeout_s: For connecting, and for each answer.
        patience_s: How long to wait at most between the attempts at a call; 0 for one attempt.
        transport: Another way to the service than the network (for tests, or certificates).
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._http = httpx.Client(
            base_url=url, headers=_headers(api_key), timeout=timeout_s, transport=transport
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def annotate(
        self, files: File | Iterable[File], **options: Unpack[AnnotateOptions]
    ) -> AnnotateOut:
        """Annotate images in one request; results are in the order of the files.

        Args:
            files: Paths, bytes, or names and bytes; at most `info()["limits"]["images"]`.
            options: `AnnotateOptions`.

        Raises:
            ServiceProblem: As always; also where the only image cannot be used. Of several, the
                result of such an image has an `error`.
            OSError: A file cannot be read.
        """
        return self._do(calls.annotate(calls.read_files(files), options))

    def annotate_many(
        self,
        files: Iterable[File],
        *,
        at_once: int = _AT_ONCE,
        **options: Unpack[AnnotateOptions],
    ) -> Iterator[Result]:
        """Annotate any number of images, in requests of some: a result for each, in their order.

        Args:
            files: As for `annotate`; read when their turn comes.
            at_once: Most images of a request.
            options: `AnnotateOptions`.

        Raises:
            ServiceProblem: As always; images that cannot be used have an `error`.
            OSError: A file cannot be read.
        """
        for batch in calls.batches(files, at_once):
            try:
                answer = self._do(calls.annotate(batch, options))
            except ServiceProblem as problem:
                if len(batch) > 1:
                    raise
                yield calls.unusable(batch[0][0], problem)
            else:
                yield from answer["results"]

    def annotate_vectors(
        self,
        vectors: Sequence[Sequence[float]],
        *,
        ids: Sequence[str] | None = None,
        name: str | None = None,
        fingerprint: str | None = None,
        **options: Unpack[AnnotateOptions],
    ) -> AnnotateOut:
        """Annotate images by their vectors.

        Args:
            vectors: Of any norm and of the encoder's length, or an array [n, dim].
            ids: Of the images.
            name: Of an encoder of your own.
            fingerprint: Of the encoder, as `info` and `embed` say it.
            options: `AnnotateOptions`.
        """
        return self._do(calls.annotate_vectors(vectors, ids, name, fingerprint, options))

    def embed(self, files: File | Iterable[File]) -> EmbedOut:
        """The vectors of images; an image that cannot be used has an error instead of a vector."""
        return self._do(calls.embed(calls.read_files(files)))

    def info(self) -> InfoOut:
        """The index, the encoder, the defaults of voting, and the limits."""
        return self._do(calls.info())

    def concepts(self, q: str = "", *, limit: int = 20) -> ConceptsOut:
        """Concepts of the index whose CUI or name contains `q`, most frequent first."""
        return self._do(calls.concepts(q, limit))

    def search(self, q: str, *, by: By = "auto", k: int = 10) -> SearchOut:
        """Cases of a concept, by its CUI or name; or cases that fit words."""
        return self._do(calls.search(q, by, k))

    def neighbors(self, image_id: str, *, k: int = 10, without: Without = "itself") -> SimilarOut:
        """The cases most similar to an image of the index, if asked without those of its group."""
        return self._do(calls.similar(image_id, k, without))

    def neighbors_of(self, files: File | Iterable[File], *, k: int = 10) -> SimilarOut:
        """The cases of the index most similar to images of yours."""
        return self._do(calls.similar_to_files(calls.read_files(files), k))

    def votes(
        self, image_id: str, *, without: Without = "itself", **options: Unpack[AnnotateOptions]
    ) -> AnnotateOut:
        """What the other images of the index say of one of them, if asked without its group."""
        return self._do(calls.votes(image_id, without, options))

    def queue(self, *, limit: int = 50) -> QueueOut:
        """Images of the index to review next."""
        return self._do(calls.queue(limit))

    def images(self, **options: Unpack[ListOptions]) -> ImagesOut:
        """A part of the list of the index's images."""
        return self._do(calls.images(options))

    def map(self, **filters: Unpack[Filters]) -> MapOut:
        """Where images of the index lie, in the order of `images`."""
        return self._do(calls.map_of(filters))

    def picture(self, file: File, **options: Unpack[PictureOptions]) -> Picture:
        """A picture of an image of yours, in a window of its values."""
        (read,) = calls.read_files(file)
        return self._do(calls.picture(read, options))

    def stored_picture(self, image_id: str, **options: Unpack[PictureOptions]) -> Picture:
        """A large picture of an image of the index, where the service has its file."""
        return self._do(calls.stored_picture(image_id, options))

    def thumbnail(self, image_id: str) -> bytes:
        """A small JPEG of an image of the index, if it was built with pictures."""
        return self._do(calls.thumbnail(image_id))

    def image(self, image_id: str) -> Image:
        """The labels of an image of the index, and the `etag` that a correction has to name."""
        return self._do(calls.image(image_id))

    def relabel(
        self,
        image_id: str,
        concepts: Sequence[str] | None = None,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        reason: str = "",
        etag: str | None = None,
    ) -> Image:
        """Correct the labels of an image: all of them (`concepts`), or some.

        Args:
            image_id: Of the image.
            concepts: All of its CUIs or labels in words.
            add: To those that it has.
            remove: From those that it has.
            reason: Why, for the history.
            etag: The state that you have seen (`image`): without it, the one of now; "*" for any.

        Returns:
            The image as it is now; the next answer of the service has it so.

        Raises:
            ImageChanged: Somebody else has changed it since; nothing was done.
        """
        seen = etag or self.image(image_id)["etag"]
        return self._do(calls.relabel(image_id, seen, concepts, add, remove, reason))

    def add_image(
        self,
        file: File,
        concepts: Sequence[str] = (),
        *,
        image_id: str | None = None,
        caption: str = "",
        group: str = "",
        reason: str = "",
    ) -> Image:
        """Add an image with its labels to the index.

        Args:
            file: Of the image.
            concepts: Its CUIs or labels in words.
            image_id: Its id; else the name of the file.
            caption: If the index has captions.
            group: Patient or study, if the index has groups.
            reason: Why, for the history.
        """
        (read,) = calls.read_files(file)
        return self._do(calls.add_image(read, concepts, image_id, caption, group, reason))

    def remove_image(self, image_id: str, *, etag: str | None = None, reason: str = "") -> None:
        """Withdraw an image from the index, if it is still as `etag` says."""
        return self._do(calls.remove_image(image_id, etag, reason))

    def reload(self) -> ReloadOut:
        """Have the service load the current version of its index."""
        return self._do(calls.reload())

    def _do(self, call: Call[T]) -> T:
        retries = Retries(call, self._patience_s)
        while True:
            try:
                answer = self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                wait: float | None = retries.after_failure(error)
            else:
                wait = retries.after(answer)
                if wait is None:
                    return call.read(answer)
            time.sleep(wait or 0)


class AsyncClient:
    """`Client` for asyncio: the same arguments and methods, to be awaited.

    Files are read in threads. Use as an asynchronous context manager, or `close` it.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._http = httpx.AsyncClient(
            base_url=url, headers=_headers(api_key), timeout=timeout_s, transport=transport
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`."""
        await self._http.aclose()

    async def annotate(
        self, files: File | Iterable[File], **options: Unpack[AnnotateOptions]
    ) -> AnnotateOut:
        """As `Client.annotate`."""
        return await self._do(calls.annotate(await _read(files), options))

    async def annotate_many(
        self,
        files: Iterable[File],
        *,
        at_once: int = _AT_ONCE,
        **options: Unpack[AnnotateOptions],
    ) -> AsyncIterator[Result]:
        """As `Client.annotate_many`."""
        batches = iter(calls.batches(files, at_once))
        while batch := await asyncio.to_thread(next, batches, None):
            try:
                answer = await self._do(calls.annotate(batch, options))
            except ServiceProblem as problem:
                if len(batch) > 1:
                    raise
                yield calls.unusable(batch[0][0], problem)
            else:
                for result in answer["results"]:
                    yield result

    async def annotate_vectors(
        self,
        vectors: Sequence[Sequence[float]],
        *,
        ids: Sequence[str] | None = None,
        name: str | None = None,
        fingerprint: str | None = None,
        **options: Unpack[AnnotateOptions],
    ) -> AnnotateOut:
        """As `Client.annotate_vectors`."""
        return await self._do(calls.annotate_vectors(vectors, ids, name, fingerprint, options))

    async def embed(self, files: File | Iterable[File]) -> EmbedOut:
        """As `Client.embed`."""
        return await self._do(calls.embed(await _read(files)))

    async def info(self) -> InfoOut:
        """As `Client.info`."""
        return await self._do(calls.info())

    async def concepts(self, q: str = "", *, limit: int = 20) -> ConceptsOut:
        """As `Client.concepts`."""
        return await self._do(calls.concepts(q, limit))

    async def search(self, q: str, *, by: By = "auto", k: int = 10) -> SearchOut:
        """As `Client.search`."""
        return await self._do(calls.search(q, by, k))

    async def neighbors(
        self, image_id: str, *, k: int = 10, without: Without = "itself"
    ) -> SimilarOut:
        """As `Client.neighbors`."""
        return await self._do(calls.similar(image_id, k, without))

    async def neighbors_of(self, files: File | Iterable[File], *, k: int = 10) -> SimilarOut:
        """As `Client.neighbors_of`."""
        return await self._do(calls.similar_to_files(await _read(files), k))

    async def votes(
        self, image_id: str, *, without: Without = "itself", **options: Unpack[AnnotateOptions]
    ) -> AnnotateOut:
        """As `Client.votes`."""
        return await self._do(calls.votes(image_id, without, options))

    async def queue(self, *, limit: int = 50) -> QueueOut:
        """As `Client.queue`."""
        return await self._do(calls.queue(limit))

    async def images(self, **options: Unpack[ListOptions]) -> ImagesOut:
        """As `Client.images`."""
        return await self._do(calls.images(options))

    async def map(self, **filters: Unpack[Filters]) -> MapOut:
        """As `Client.map`."""
        return await self._do(calls.map_of(filters))

    async def picture(self, file: File, **options: Unpack[PictureOptions]) -> Picture:
        """As `Client.picture`."""
        (read,) = await _read(file)
        return await self._do(calls.picture(read, options))

    async def stored_picture(self, image_id: str, **options: Unpack[PictureOptions]) -> Picture:
        """As `Client.stored_picture`."""
        return await self._do(calls.stored_picture(image_id, options))

    async def thumbnail(self, image_id: str) -> bytes:
        """As `Client.thumbnail`."""
        return await self._do(calls.thumbnail(image_id))

    async def image(self, image_id: str) -> Image:
        """As `Client.image`."""
        return await self._do(calls.image(image_id))

    async def relabel(
        self,
        image_id: str,
        concepts: Sequence[str] | None = None,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        reason: str = "",
        etag: str | None = None,
    ) -> Image:
        """As `Client.relabel`."""
        seen = etag or (await self.image(image_id))["etag"]
        return await self._do(calls.relabel(image_id, seen, concepts, add, remove, reason))

    async def add_image(
        self,
        file: File,
        concepts: Sequence[str] = (),
        *,
        image_id: str | None = None,
        caption: str = "",
        group: str = "",
        reason: str = "",
    ) -> Image:
        """As `Client.add_image`."""
        (read,) = await _read(file)
        return await self._do(calls.add_image(read, concepts, image_id, caption, group, reason))

    async def remove_image(
        self, image_id: str, *, etag: str | None = None, reason: str = ""
    ) -> None:
        """As `Client.remove_image`."""
        return await self._do(calls.remove_image(image_id, etag, reason))

    async def reload(self) -> ReloadOut:
        """As `Client.reload`."""
        return await self._do(calls.reload())

    async def _do(self, call: Call[T]) -> T:
        retries = Retries(call, self._patience_s)
        while True:
            try:
                answer = await self._http.request(call.method, call.path, **call.arguments())
            except httpx.TransportError as error:
                wait: float | None = retries.after_failure(error)
            else:
                wait = retries.after(answer)
                if wait is None:
                    return call.read(answer)
            await asyncio.sleep(wait or 0)


async def _read(files: File | Iterable[File]) -> list[tuple[str, bytes]]:
    return await asyncio.to_thread(calls.read_files, files)
