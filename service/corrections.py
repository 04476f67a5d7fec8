"""Corrections over HTTP: accepted to a journal, seen at once, published in batches.

A correction is answered once it is in the journal, which is synced, and once the engine that
requests get has it. Those that come together share a sync and an engine. From time to time, what is
in the journal becomes one version of the index. A service that was killed finds the rest there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from annotator.errors import AnnotatorError
from index.corrections import Correction, NewRow, now
from index.errors import IndexProblem
from index.folder.journal import Journal
from index.folder.location import FolderLocation
from index.folder.store import StoredIndex, corrected
from index.locations import locate
from service.engine import Engine
from service.observability import log
from service.problems import Problem

if TYPE_CHECKING:
    from index.protocols import Device
    from service.settings import Settings

_Waiting = tuple[Correction, asyncio.Future[None]]

_FOLDED_AT_ONCE = 500  # corrections that are published without waiting for more
_FOLD_SECONDS = 10.0  # that fewer of them wait
_TICK_SECONDS = 1.0


class Store(NamedTuple):
    """An index that this process alone writes to, with its journal."""

    place: FolderLocation
    journal: Journal


@contextlib.contextmanager
def opened_for_writing(settings: Settings) -> Iterator[Store]:
    """Be the only writer of the served index, and publish what its journal holds.

    Raises:
        AnnotatorError: The index is not in a folder.
        IndexProblem: Another process writes to it, there is none, or its journal is damaged.
    """
    location = locate(settings.index)
    if not isinstance(location, FolderLocation):
        raise AnnotatorError(
            f"{location}: an index in Milvus takes no corrections.",
            "Serve it without --writable, or an index in a folder.",
        )
    with location.hold() as held, Journal(held.folder) as journal:
        held.publish_left(journal)
        yield Store(held, journal)


def etag_of(image_id: str, labels: Sequence[str]) -> str:
    """The entity tag of an image with these labels (RFC 9110, section 8.8.3)."""
    state = json.dumps([image_id, *labels]).encode()
    return f'"{hashlib.sha256(state).hexdigest()[:32]}"'


class Corrections:
    """Corrections of a served index. Use as an async context manager.

    Args:
        store: The index and its journal.
        engine: Over the version that is current, with nothing in the journal.
        serve: Called with each new engine.
        device: Where later versions are searched.
    """

    def __init__(
        self, store: Store, engine: Engine, serve: Callable[[Engine], None], device: Device = "cpu"
    ) -> None:
        if not isinstance(engine.stored, StoredIndex):
            raise TypeError("an index that is corrected is in a folder")
        self._place, self._journal = store
        self._engine, self._serve, self._device = engine, serve, device
        self._base = engine.stored  # the published version
        self._accepted: list[Correction] = []  # in the journal and not published, by number
        self._queue: list[_Waiting] = []
        self._writing: list[_Waiting] = []  # to the journal, just now
        self._labels: dict[str, tuple[str, ...] | None] = {}  # of images corrected since `_base`
        self._images = len(self._base)  # with all in the queue
        self._number = self._base.manifest.corrections
        self._woken = asyncio.Event()
        self._one_engine = asyncio.Lock()
        self._one_fold = asyncio.Lock()

    async def __aenter__(self) -> Corrections:
        self._disk = ThreadPoolExecutor(1, "journal")
        self._tasks = [asyncio.create_task(self._commit()), asyncio.create_task(self._publish())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._try_to_fold()
        await asyncio.to_thread(self._disk.shutdown)

    @property
    def waiting(self) -> int:
        """Number of accepted corrections that are not published."""
        return len(self._accepted)

    @property
    def corrected_since(self) -> frozenset[str]:
        """Ids of the images that were corrected since the published version."""
        return frozenset(self._labels)

    def labels_of(self, image_id: str) -> tuple[str, ...] | None:
        """The concepts of an image, with corrections that are about to be accepted.

        None if there is no such image.
        """
        if image_id in self._labels:
            return self._labels[image_id]
        row = self._base.row_of.get(image_id)
        return None if row is None else self._base.labels.row(row)

    async def accept(
        self,
        image_id: str,
        after: tuple[str, ...] | None,
        *,
        by: str,
        reason: str = "",
        names: Mapping[str, str] | None = None,
        row: NewRow | None = None,
    ) -> None:
        """Accept a correction: when this returns it outlives the process, and requests see it.

        It does not give way before it has taken its place in the queue: what `labels_of` said in
        the same step still holds.

        Args:
            image_id: Of the image.
            after: Its new concepts, ascending; None to remove it.
            by: Who corrects it.
            reason: Why.
            names: Of concepts that the index may not know; those in the service's table of names
                need not be given.
            row: Of an image that the index does not have.

        Raises:
            Problem: 409, the last image would go; 503, the journal could not be written.
        """
        before = self.labels_of(image_id)
        if after is None and self._images == 1:
            raise Problem(
                409, "last_image", "It is the last image of the index.", "Add another one first."
            )
        self._number += 1
        named = {**self._engine.names_of_new(after or ()), **(names or {})}
        correction = Correction(
            self._number, image_id, before, after, by, now(), reason, named, row
        )
        self._images += _grows_by(correction)
        self._labels[image_id] = after
        done = asyncio.get_running_loop().create_future()
        self._queue.append((correction, done))
        self._woken.set()
        await done

    async def _commit(self) -> None:
        """Write what is queued, show it, and say so; over and over."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            self._writing, self._queue = self._queue, []
            if self._writing:
                await self._commit_together([correction for correction, _ in self._writing])

    async def _commit_together(self, corrections: Sequence[Correction]) -> None:
        try:
            await self._on_disk(partial(self._journal.append, corrections))
        except OSError as error:
            self._refuse(error)
            return
        written, self._writing = self._writing, []
        self._accepted += corrections
        try:
            await self._show()
        except Exception as error:  # the next one shows it, too
            log(logging.ERROR, "corrections could not be shown", error)
        for _, done in written:
            if not done.done():  # the client may have left
                done.set_result(None)

    def _refuse(self, error: OSError) -> None:
        """Refuse what could not be written, and what was queued on top of it."""
        log(logging.ERROR, "corrections could not be written", error)
        refused, self._writing, self._queue = [*self._writing, *self._queue], [], []
        for _, done in refused:
            if not done.done():
                done.set_exception(_not_written())
        self._labels = {one.image_id: one.after for one in self._accepted}
        self._images = len(self._base) + sum(map(_grows_by, self._accepted))

    async def _show(self) -> None:
        """Serve an engine that has all accepted corrections."""
        async with self._one_engine:
            base, accepted = self._base, list(self._accepted)
            self._engine = await asyncio.to_thread(
                lambda: self._engine.over(corrected(base, accepted))
            )
            self._serve(self._engine)

    async def _publish(self) -> None:
        """Publish what waits, once it is much or has waited for long; over and over."""
        waited = 0.0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            waited = waited + _TICK_SECONDS if self._accepted else 0.0
            if waited >= _FOLD_SECONDS or len(self._accepted) >= _FOLDED_AT_ONCE:
                waited = 0.0
                await self._try_to_fold()

    async def _try_to_fold(self) -> None:
        try:
            await self.fold()
        except (AnnotatorError, IndexProblem, OSError) as error:  # they stay in the journal
            log(logging.ERROR, "corrections could not be published", error)

    async def fold(self) -> None:
        """Publish all accepted corrections as one version.

        Raises:
            IndexProblem, OSError: That failed; they stay in the journal.
        """
        async with self._one_fold:
            folded = list(self._accepted)
            if not folded:
                return

            def publish() -> StoredIndex:
                self._place.correct(folded)
                return self._place.open(device=self._device)

            base = await asyncio.to_thread(publish)
            last = folded[-1].number
            self._base = base
            self._accepted = [one for one in self._accepted if one.number > last]
            unwritten = [correction for correction, _ in [*self._writing, *self._queue]]
            self._labels = {one.image_id: one.after for one in [*self._accepted, *unwritten]}
            await self._on_disk(partial(self._journal.drop, last))
            await self._show()
            log(logging.INFO, "published", version=base.version, corrections=len(folded))

    async def _on_disk(self, work: Callable[[], None]) -> None:
        """Work on the journal, one piece at a time."""
        await asyncio.get_running_loop().run_in_executor(self._disk, work)


def _grows_by(correction: Correction) -> int:
    """By how many images an index grows."""
    return (correction.before is None) - (correction.after is None)


def _not_written() -> Problem:
    return Problem(
        503,
        "journal_failed",
        "The correction could not be written to disk, and was not made.",
        "Try again; the service's log says what is wrong.",
        {"Retry-After": "5"},
    )
