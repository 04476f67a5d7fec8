"""The Ray runner: embeds images in the workers of a Ray cluster, through Ray Data."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import (
    Embedded,
    default_workers,
    embed_batch,
    in_batches,
    threads_per_core,
)
from annotator.encoders.ray_worker import EncoderSpec, EncodingWorker, batch_row
from annotator.encoders.torch_setup import Device, Engine
from annotator.errors import AnnotatorError, ImageError, first_line
from annotator.images.notes import Note
from annotator.images.ref import ImageRef
from index.cores import usable_cores

if TYPE_CHECKING:
    import pyarrow as pa

# Batches in one of Ray's tasks: enough that reading a Parquet file goes forward, and that Ray's
# own work of some milliseconds a task does not count; few enough that a lost worker costs a second.
_BATCHES = 8
_INIT_DEATHS = 3  # of workers in a row while they load the encoder
_MOST_THREADS = 16
_ANSWERS_WITHIN_S = 20


class RayRunner:
    """A `Runner` whose workers are actors of a Ray cluster: one per GPU, or else one per core.

    Batches are those of `embed_images` on this machine and come back in order, so the vectors are
    the same. Only the driver reads and writes the cache: workers are told the keys of cached
    images, which they read and hash but do not encode.

    Args:
        address: Of a running cluster ("auto" or HOST:PORT); None starts one on this machine, for
            the length of a run. Where Ray is connected already, that cluster is used.
        device: "auto" takes the GPUs of the cluster where it has any.
        allow_blank: As for `embed_images`.
    """

    def __init__(
        self, address: str | None = None, device: Device = "auto", *, allow_blank: bool = False
    ) -> None:
        self._address = address
        self._device = device
        self._allow_blank = allow_blank

    def __call__(
        self,
        refs: Sequence[ImageRef],
        embedder: Embedder,
        *,
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Generator[Embedded, None, None]:
        """Embed `refs` as `embed_images` does.

        Args:
            refs: The images; each worker has to find them at the same place.
            embedder: Workers load it by name, and must get the same fingerprint.
            cache: As for `embed_images`.
            batch_size: As for `embed_images`.
            workers: Actors (on GPUs: threads of each); None for all that the cluster has room for.

        Raises:
            AnnotatorError: There is no such cluster, the encoder or the cache failed, or workers
                were lost again and again.
        """
        batch_size = batch_size or embedder.batch_size
        workers_here = workers or default_workers(refs)
        batches = in_batches(refs, batch_size, workers_here)
        if not batches:
            return
        with _connected(self._address), _explained():
            import ray

            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            pool = _pool_of(
                nodes, self._device, workers, usable_cores() // workers_here, threads_per_core(refs)
            )
            spec = EncoderSpec(
                name=embedder.name,
                fingerprint=embedder.fingerprint,
                device="cuda" if pool.gpus else "cpu",
                batch_size=batch_size,
                threads=pool.cpus,
                allow_blank=self._allow_blank,
                folder=str(Path.cwd()),
                engine=_engine(embedder, pool),
            )
            known = ray.put(b"".join(cache.contents()) if cache is not None else b"")
            attempts = _attempts()
            waiting = iter(refs)
            with contextlib.closing(_stream(batches, spec, known, attempts, pool)) as found:
                try:
                    for rows in found:
                        yield from _results(
                            rows, waiting, embedder, cache, batch_size, self._allow_blank
                        )
                finally:
                    ray.kill(attempts)
            missing = next(waiting, None)
        if missing is not None:
            raise AnnotatorError(
                f"Ray gave nothing back from {missing.where} on.",
                "Run it again, which continues where it was; see Ray's logs.",
            )


def _attempts() -> Any:
    """Start the actor that counts the attempts at each batch, and outlives the workers.

    Ray retries the work of a lost worker without limit, so images that kill every worker would
    keep it busy for ever. The class is defined here so that it is pickled by value: its process
    does not import torch.
    """
    import ray

    class Attempts:
        def __init__(self) -> None:
            self.begun: Counter[int] = Counter()

        def begin(self, batch: int) -> int:
            self.begun[batch] += 1
            return self.begun[batch]

        def done(self, batch: int) -> None:
            del self.begun[batch]

    return ray.remote(num_cpus=0)(Attempts).remote()


@dataclass(frozen=True)
class _Pool:
    """Number of actors, and the resources of each."""

    actors: int
    cpus: int
    gpus: int
    calls: int  # at once in each


def _engine(embedder: Embedder, pool: _Pool) -> Engine:
    """The engine of the workers: on CPUs that of the driver, where all of its encoder has one."""
    engines: tuple[Engine, ...] = ("openvino", "torch")
    return "auto" if pool.gpus else next((e for e in engines if e == embedder.engine), "auto")


def _pool_of(
    nodes: Sequence[Mapping[str, Any]],
    device: Device,
    workers: int | None,
    threads: int,
    calls: int = 1,
) -> _Pool:
    """The pool of actors that the nodes of a cluster have room for.

    Args:
        nodes: As `ray.nodes` gives them.
        device: "auto" takes GPUs where there are any.
        workers: Most of them; on GPUs the threads that decode for each.
        threads: Of one operation on a CPU, as far as every node has them.
        calls: At once in each on a CPU.

    Raises:
        AnnotatorError: GPUs are asked for, and the cluster has none.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(resource["CPU"]) for resource in resources if resource.get("CPU", 0) >= 1]
    gpus = 0 if device == "cpu" else sum(int(resource.get("GPU", 0)) for resource in resources)
    if gpus:
        calls = workers or max(1, min(_MOST_THREADS, sum(cpus) // gpus))
        return _Pool(gpus, cpus=1, gpus=1, calls=calls)
    if device == "cuda":
        raise AnnotatorError(
            "--device cuda: the Ray cluster has no GPU.",
            "Use --device cpu, or add nodes that have one.",
        )
    each = max(1, min([threads, *cpus]))
    room = max(1, sum(n // each for n in cpus))
    return _Pool(min(room, workers or room), cpus=each, gpus=0, calls=calls)


def _stream(
    batches: Sequence[Sequence[ImageRef]], spec: EncoderSpec, known: Any, attempts: Any, pool: _Pool
) -> Generator[list[dict[str, Any]], None, None]:
    """Rows of results in the order of the batches; Ray bounds those that wait to be taken."""
    import ray.data

    starts = accumulate([0, *map(len, batches)])
    items = [batch_row(start, batch) for start, batch in zip(starts, batches, strict=False)]
    per_task = min(_BATCHES, -(-len(items) // (2 * pool.actors * pool.calls)))
    images = ray.data.from_items(items, override_num_blocks=-(-len(items) // per_task))
    context = images.context
    context.enable_progress_bars = False  # the caller shows one
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.max_consecutive_actor_init_deaths = _INIT_DEATHS
    vectors = images.map_batches(
        EncodingWorker,
        fn_constructor_args=(spec, known, attempts),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=pool.actors,
            max_concurrent_calls_per_actor=pool.calls,
            enable_true_multi_threading=True,
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    tables = vectors.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    for table in cast("Iterator[pa.Table]", tables):
        yield table.to_pylist()


def _results(
    rows: Sequence[Mapping[str, Any]],
    refs: Iterator[ImageRef],
    embedder: Embedder,
    cache: EmbeddingCache | None,
    batch_size: int,
    allow_blank: bool,
) -> Iterator[Embedded]:
    """Results of the next of `refs` from the workers' rows; new vectors are cached first."""
    fatal = next((row["fatal"] for row in rows if row["fatal"] is not None), None)
    if fatal is not None:
        raise AnnotatorError(*fatal.split("\n", 1))
    if cache is not None:
        new = [row for row in rows if row["vector"]]
        cache.put(
            [(row["content"], np.frombuffer(row["vector"], "<f4")) for row in new],
            {row["content"]: _notes(row) for row in new if row["notes"]},
        )
    for row in rows:
        ref, content = next(refs), row["content"]
        if row["error"] is not None:
            error = ImageError(row["error"], row["hint"], row["code"])
            yield Embedded(ref, None, error=error)
        elif row["vector"]:
            vector = np.frombuffer(row["vector"], "<f4").astype(np.float32)
            yield Embedded(ref, vector, content=content, notes=_notes(row))
        else:
            known = cache.get(content, embedder.dim) if cache is not None else None
            if cache is not None and known is not None:
                notes = cache.notes(content)
                yield Embedded(ref, known, cached=True, content=content, notes=notes)
            else:  # damaged in the cache, or deleted meanwhile
                yield from embed_batch([ref], embedder, cache, batch_size, allow_blank=allow_blank)


def _notes(row: Mapping[str, Any]) -> tuple[Note, ...]:
    return cast("tuple[Note, ...]", tuple(row["notes"].split()))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster within the context, without Ray's own output.

    Raises:
        AnnotatorError: There is no cluster at this address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    # Ray's core writes its errors, of which most are none, to this process's stderr as well.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init("local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
        else:
            _probe(address)
            ray.init(address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise AnnotatorError(
            f"Ray: no connection to {address or 'a cluster of this machine'}: {first_line(error)}",
            "Check --ray-address and that the cluster runs, with `ray status`.",
        ) from error
    worker = ray._private.worker
    worker._worker_logs_enabled = False  # or it prints to stdout that a worker was lost
    try:
        yield
    finally:
        ray.shutdown()
        worker._worker_logs_enabled = True


def _probe(address: str) -> None:
    """Raise OSError at once if nothing listens there: Ray would try for ten minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what Ray raises into an error that says what to do."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise AnnotatorError(
            f"Ray gave up: {first_line(error)}",
            "Run it again, which continues where it was; see Ray's logs.",
        ) from error
