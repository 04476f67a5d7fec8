"""Dynamic batching: images of all requests, encoded together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from service.decoding.processes import DecodingProcesses, DecodingTask, ProcessNeeded
from service.engine import Ballot, Engine, Processed
from service.memory import Claim, DecodingMemory, NoRoom
from service.observability import Metrics
from service.tracing import Tracing

if TYPE_CHECKING:
    from annotator.annotation import Annotation
    from annotator.images.notes import Note

T = TypeVar("T")

_VOTED_AT_ONCE = 256  # vectors; what one pass over an index takes


@dataclass(eq=False)
class _Job:
    """A decoded image in the queue, with its seconds in each stage; `began` is its encoding."""

    engine: Engine
    pixels: NDArray[np.uint8]
    ballot: Ballot | None
    done: asyncio.Future[Processed]
    seconds: dict[str, float]
    since: float = field(default_factory=time.perf_counter)
    began: float = 0.0


@dataclass(eq=False)
class _Votes:
    """Vectors that wait for a vote, float32[n, dim] of unit norm."""

    engine: Engine
    vectors: NDArray[np.float32]
    ballot: Ballot
    done: asyncio.Future[Voted]


_J = TypeVar("_J", _Job, _Votes)


class Voted(NamedTuple):
    """What came of some vectors.

    Attributes:
        engine: That voted.
        annotations: Of each; their image ids are empty.
        seconds: Of search and vote.
    """

    engine: Engine
    annotations: list[Annotation]
    seconds: dict[str, float]


class Batcher:
    """Decodes in one pool of threads and encodes in another, with a queue between them.

    Images that need a process to be decoded have threads of their own that wait for it.

    A free encoder takes the waiting images: its share of them if other encoders are free too, at
    most `max_batch`. An incomplete batch waits for more only while other images are being decoded,
    and no longer than `batch_wait`. A batch never mixes engines. Images of cancelled requests are
    dropped before the next stage.

    Use as an async context manager.

    Args:
        metrics: Records batches and stages.
        max_batch: Maximum number of images in a batch.
        batch_wait: How long an incomplete batch waits for images in decoding, in seconds.
        workers: Number of decoding threads.
        encoders: Number of batches encoded concurrently.
        decode_bytes: Memory for images that are being decoded; others wait.
        decode_seconds: CPU time for an image that is decoded in a process.
        tracing: Makes spans of the stages.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_batch: int,
        batch_wait: float,
        workers: int,
        encoders: int,
        decode_bytes: int,
        decode_seconds: float,
        tracing: Tracing | None = None,
    ) -> None:
        self.encoders = encoders
        self.memory = DecodingMemory(decode_bytes)
        self._processes = DecodingProcesses(decode_seconds)
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._max_batch = max_batch
        self._batch_wait = batch_wait
        self._workers = workers
        self._waiting: list[_Job] = []
        self._votes: list[_Votes] = []
        self._voting: asyncio.Task[None] | None = None
        self._decoding = 0
        self._idle = encoders
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Batcher:
        self._decode_pool = ThreadPoolExecutor(self._workers, "decode")
        # Threads that wait for processes: slow images must not keep the others from theirs.
        self._apart_pool = ThreadPoolExecutor(self._workers, "decode apart")
        self._encode_pool = ThreadPoolExecutor(self.encoders, "encode")
        self._search_pool = ThreadPoolExecutor(1, "search")
        self._judge_pool = ThreadPoolExecutor(1, "judge")
        self._loop = asyncio.create_task(self._serve(), name="batcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._loop
        await asyncio.gather(*self._running, *filter(None, [self._voting]))
        pools = (
            *(self._decode_pool, self._apart_pool, self._encode_pool),
            *(self._search_pool, self._judge_pool),
        )
        for pool in pools:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        self._processes.close()

    @property
    def queued(self) -> int:
        """Number of decoded images that wait for an encoder."""
        return len(self._waiting)

    async def annotate(
        self, engine: Engine, data: bytes, ballot: Ballot
    ) -> tuple[Annotation, dict[str, float]]:
        """Annotate an image file.

        Returns:
            The annotation (its image id is empty), and the seconds of queue, decode, encode, search
            and vote.

        Raises:
            IndexProblem: The index cannot be searched.
            ImageError, MemoryError, AnnotatorError: As `embed`.
        """
        done, notes, seconds = await self._process(engine, data, ballot)
        assert done.annotation is not None
        return replace(done.annotation, notes=notes), seconds

    async def embed(
        self, engine: Engine, data: bytes
    ) -> tuple[NDArray[np.float32], tuple[Note, ...]]:
        """Encode an image file.

        Returns:
            Its vector, float32[dim], and notes on its picture.

        Raises:
            ImageError: The image cannot be used.
            MemoryError: The image does not fit into memory.
            AnnotatorError: The image cannot be encoded.
        """
        done, notes, _ = await self._process(engine, data, None)
        return done.vector, notes

    async def _process(
        self, engine: Engine, data: bytes, ballot: Ballot | None
    ) -> tuple[Processed, tuple[Note, ...], dict[str, float]]:
        """Decode an image file, and what follows in a batch; with notes and seconds."""
        asked = started = time.perf_counter()
        seconds: dict[str, float] = {}
        loop = asyncio.get_running_loop()

        def decode(claim: Claim, task: DecodingTask) -> tuple[NDArray[np.uint8], tuple[Note, ...]]:
            nonlocal started
            started = time.perf_counter()
            seconds["queue"] = started - asked
            try:
                return engine.decode(data, claim.grow, task)
            finally:
                seconds["decode"] = time.perf_counter() - started

        self._decoding += 1
        try:
            pixels, notes = await self.decode(decode)
        finally:
            self._decoding -= 1
            self._changed.set()
        job = _Job(engine, pixels, ballot, loop.create_future(), seconds)
        self._waiting.append(job)
        done = await job.done
        for stage in ("queue", "decode"):
            self._metrics.stage_seconds.labels(stage).observe(seconds[stage])
        self._tracing.stage("queue", asked, started - asked)
        self._tracing.stage("decode", started, seconds["decode"])
        self._tracing.stage("queue", job.since, job.began - job.since)
        began = job.began
        for stage in ("encode", "search", "vote"):
            if stage in seconds:
                self._tracing.stage(stage, began, seconds[stage])
                began += seconds[stage]
        return done, notes, seconds

    async def decode(self, decode: Callable[[Claim, DecodingTask], T]) -> T:
        """Decode in a thread, once there is room for the memory that it takes.

        A request that is cancelled leaves its thread at work, but not the process of its task.
        """
        loop = asyncio.get_running_loop()
        claim, task = Claim(self.memory), self._processes.task()
        pool = self._decode_pool
        while True:

            def work(claim: Claim = claim) -> T:
                try:
                    return decode(claim, task)
                finally:
                    self.memory.trim(claim)

            def release(_: object, claim: Claim = claim) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self.memory.release, claim)

            # Of a request that is cancelled the claim ends with the thread's work.
            running = pool.submit(work)
            running.add_done_callback(release)
            try:
                return await asyncio.wrap_future(running)
            except NoRoom as error:
                claim = await self.memory.wait_for(error.wanted)
            except ProcessNeeded:
                task.may_wait, pool, claim = True, self._apart_pool, Claim(self.memory)
            except asyncio.CancelledError:
                task.cancel()
                raise

    async def search(self, work: Callable[[], T]) -> T:
        """Run a search without images beside the batches, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._search_pool, work)

    async def judge(self, work: Callable[[], T]) -> T:
        """Run what may take many seconds, one at a time; searches do not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._judge_pool, work)

    async def vote(self, engine: Engine, vectors: NDArray[np.float32], ballot: Ballot) -> Voted:
        """Annotate vectors, in one search with those of other requests that wait for one.

        Where corrections came since the request did, its vote is among the labels of now.

        Args:
            engine: Of the request.
            vectors: float32[n, dim] of unit norm, from the encoder; n at least 1.
            ballot: How the vote is held.

        Raises:
            IndexProblem: The index cannot be searched.
        """
        done: asyncio.Future[Voted] = asyncio.get_running_loop().create_future()
        self._votes.append(_Votes(engine, vectors, ballot, done))
        if self._voting is None:
            self._voting = asyncio.create_task(self._vote())
        return await done

    async def _vote(self) -> None:
        while self._votes:
            first = self._votes[0].engine
            jobs, left = list[_Votes](), list[_Votes]()
            for job in self._votes:
                fits = sum(len(one.vectors) for one in [*jobs, job]) <= _VOTED_AT_ONCE
                taken = not jobs or (fits and job.engine.is_same_index(first))
                (jobs if taken else left).append(job)
            self._votes = left
            await self._vote_together([job for job in jobs if not job.done.done()])
        self._voting = None

    async def _vote_together(self, jobs: Sequence[_Votes]) -> None:
        if not jobs:
            return
        engine = jobs[-1].engine
        vectors = np.concatenate([job.vectors for job in jobs])
        ballots = [job.ballot for job in jobs for _ in job.vectors]
        try:
            annotations, seconds = await self.search(partial(engine.vote, vectors, ballots))
        except Exception as error:
            await _apart_or_fail(jobs, error, self._vote_together)
            return
        rest = iter(annotations)
        for job in jobs:
            own = list(islice(rest, len(job.vectors)))
            if not job.done.done():
                job.done.set_result(Voted(engine, own, seconds))

    async def _serve(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting and self._idle:
                await self._wait_for_more()
                batch = self._take()
                if batch:
                    self._idle -= 1
                    task = asyncio.create_task(self._encode(batch))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)

    async def _wait_for_more(self) -> None:
        deadline = time.perf_counter() + self._batch_wait
        while self._decoding and len(self._waiting) < self._max_batch:
            left = deadline - time.perf_counter()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
            self._changed.clear()

    def _take(self) -> list[_Job]:
        """The next batch: the oldest image and those of its engine; empty if all were cancelled."""
        waiting = [job for job in self._waiting if not job.done.done()]
        share = min(self._max_batch, -(-len(waiting) // self._idle))
        batch = [job for job in waiting if job.engine is waiting[0].engine][:share]
        taken = set(map(id, batch))
        self._waiting = [job for job in waiting if id(job) not in taken]
        return batch

    async def _encode(self, batch: Sequence[_Job]) -> None:
        try:
            await self._encode_together(batch)
        finally:
            self._idle += 1
            self._changed.set()

    async def _encode_together(self, batch: Sequence[_Job]) -> None:
        def work() -> tuple[list[Processed], dict[str, float], float]:
            started = time.perf_counter()
            results, seconds = batch[0].engine.annotate(
                [job.pixels for job in batch],
                [job.ballot for job in batch],
                self._max_batch,
            )
            return results, seconds, started

        loop = asyncio.get_running_loop()
        try:
            results, seconds, started = await loop.run_in_executor(self._encode_pool, work)
        except Exception as error:
            await _apart_or_fail(batch, error, self._encode_together)
            return
        self._metrics.batch_images.observe(len(batch))
        for stage, value in seconds.items():
            self._metrics.stage_seconds.labels(stage).observe(value)
        for job, result in zip(batch, results, strict=True):
            job.seconds |= seconds
            job.began = started
            job.seconds["queue"] += started - job.since
            if not job.done.done():
                job.done.set_result(result)


async def _apart_or_fail(
    jobs: Sequence[_J], error: Exception, work: Callable[[Sequence[_J]], Awaitable[None]]
) -> None:
    """Do each job alone that failed together, so that one bad image costs the others nothing.

    But an index that cannot be reached fails for all of them, and each one's own try would wait for
    it: they fail together, as does one that is alone.
    """
    if len(jobs) > 1 and not isinstance(error, IndexProblem):
        for job in jobs:
            await work([job])
        return
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(error)
