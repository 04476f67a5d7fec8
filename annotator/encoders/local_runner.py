"""The local runner: reads, decodes and encodes images in threads, in order, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.cache import EmbeddingCache, content_key
from annotator.encoders.embedder import Embedder
from annotator.encoders.torch_setup import threads_per_operation
from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.dicomweb import lasting_name
from annotator.images.notes import Note
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from annotator.images.remote import is_url
from index.cores import usable_cores

_MOST_WORKERS = 16
_REMOTE_THREADS_PER_CORE = 4  # reading mostly waits for the object store


@dataclass(frozen=True)
class Embedded:
    """Result of embedding one image: a vector, or the reason why there is none.

    Attributes:
        ref: The image.
        vector: float32[dim] of unit norm, or None.
        error: Why there is no vector, or None.
        cached: Whether the vector comes from the cache.
        content: sha256 of the image file; empty if it could not be read.
        notes: What was done to the picture that its file did not ask for.
    """

    ref: ImageRef
    vector: NDArray[np.float32] | None
    error: ImageError | None = None
    cached: bool = False
    content: bytes = b""
    notes: tuple[Note, ...] = ()


class VectorCache(Protocol):
    """Interface of caches of vectors, with notes on their pictures, by content key.

    `EmbeddingCache` says what its methods do.
    """

    def get(self, content: bytes, dim: int | None = None) -> NDArray[np.float32] | None: ...

    def notes(self, content: bytes) -> tuple[Note, ...]: ...

    def content_of(self, name: str) -> bytes | None: ...

    def remember(self, contents: Mapping[str, bytes]) -> None: ...

    def put(
        self,
        items: Iterable[tuple[bytes, NDArray[np.float32]]],
        notes: Mapping[bytes, tuple[Note, ...]],
    ) -> None: ...


class CacheSnapshot:
    """A view of a cache as it was when a run began: what the run adds is stored but not found.

    Otherwise it would be a matter of timing whether the second of two equal images is found, and
    with it the size of its batch, on which the last bits of a vector may depend in fp32.
    """

    def __init__(self, cache: VectorCache) -> None:
        self._cache = cache
        self._added: set[bytes] = set()

    def get(self, content: bytes, dim: int | None = None) -> NDArray[np.float32] | None:
        return None if content in self._added else self._cache.get(content, dim)

    def notes(self, content: bytes) -> tuple[Note, ...]:
        return self._cache.notes(content)

    def content_of(self, name: str) -> bytes | None:
        return self._cache.content_of(name)

    def remember(self, contents: Mapping[str, bytes]) -> None:
        self._cache.remember(contents)

    def put(
        self,
        items: Iterable[tuple[bytes, NDArray[np.float32]]],
        notes: Mapping[bytes, tuple[Note, ...]],
    ) -> None:
        kept = list(items)
        self._added.update(content for content, _ in kept)
        self._cache.put(kept, notes)


def default_workers(refs: Sequence[ImageRef] = ()) -> int:
    """Default number of threads: one per core, at most 16; four times that for object stores."""
    return min(usable_cores(), _MOST_WORKERS) * threads_per_core(refs)


def threads_per_core(refs: Sequence[ImageRef]) -> int:
    """Number of threads that keep a core busy with reading and encoding `refs`."""
    return _REMOTE_THREADS_PER_CORE if any(is_url(ref.where) for ref in refs) else 1


def embed_images(
    refs: Sequence[ImageRef],
    embedder: Embedder,
    *,
    cache: EmbeddingCache | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    allow_blank: bool = False,
) -> Generator[Embedded, None, None]:
    """Embed images in threads, yielding results in order.

    Each worker thread takes a batch all the way: read, hash, look up, decode, encode. On a CPU the
    workers share the cores evenly (every torch operation runs on cores / workers threads), which
    keeps all cores busy where one operation split over all of them would wait at its end; on a GPU
    their decoding hides behind each other's encoding. At most two batches a worker are in memory.

    An image that cannot be used yields its reason and costs no other image anything. Closing the
    generator (Ctrl-C included) waits for the batches under way, so that the cache has them.

    Args:
        refs: The images.
        embedder: Used from several threads.
        cache: Vectors by content, read and written; or None.
        batch_size: Images that are encoded at once; None for the embedder's own.
        workers: Threads; None for `default_workers`.
        allow_blank: Embed images that are (nearly) constant, too, instead of refusing them.

    Raises:
        AnnotatorError: The encoder or the cache failed.
    """
    workers = workers or default_workers(refs)
    batch_size = batch_size or embedder.batch_size
    found = CacheSnapshot(cache) if cache is not None else None
    work = partial(
        embed_batch,
        embedder=embedder,
        cache=found,
        batch_size=batch_size,
        allow_blank=allow_blank,
    )
    batches = in_batches(refs, batch_size, workers)
    done = ordered_map(work, batches, workers=workers, waiting=2 * workers)
    with threads_per_operation(max(1, usable_cores() // workers)), contextlib.closing(done):
        for results in done:
            yield from results


def in_batches(refs: Sequence[ImageRef], batch_size: int, workers: int) -> list[Sequence[ImageRef]]:
    """Split `refs` into the batches that workers take; a short list is spread over all workers.

    In fp32 the last bits of a vector may depend on how many images are encoded at once, so every
    runner makes the same batches.
    """
    size = max(1, min(batch_size, -(-len(refs) // workers)))
    return [refs[i : i + size] for i in range(0, len(refs), size)]


def embed_batch(
    refs: Sequence[ImageRef],
    embedder: Embedder,
    cache: VectorCache | None,
    batch_size: int,
    *,
    allow_blank: bool = False,
) -> list[Embedded]:
    """Read, hash, look up, decode, encode and store one batch.

    An image whose name stands for the same bytes for ever is not read where the cache has it.

    Args:
        refs: The images.
        embedder: Encodes them.
        cache: Vectors by content, read and written; or None.
        batch_size: Frames that are encoded at once.
        allow_blank: As for `embed_images`.

    Returns:
        One result per image, in their order.

    Raises:
        AnnotatorError: The encoder or the cache failed.
    """
    results: dict[int, Embedded] = {}
    pixels: list[NDArray[np.uint8]] = []
    fresh: list[tuple[int, bytes, tuple[Note, ...]]] = []
    named: dict[str, bytes] = {}
    for position, ref in enumerate(refs):
        try:
            name = lasting_name(ref)
            data, key = b"", cache.content_of(name) if cache is not None and name else None
            known = cache.get(key, embedder.dim) if cache is not None and key is not None else None
            if key is None or known is None:
                data = ref.read()
                key = content_key(data)
                known = cache.get(key, embedder.dim) if cache is not None else None
                if name:
                    named[name] = key
            if known is not None:
                notes = cache.notes(key) if cache is not None else ()
                results[position] = Embedded(ref, known, cached=True, content=key, notes=notes)
                continue
            decoded = decode(
                data,
                frames=embedder.frames,
                at_least=embedder.image_size,
                allow_blank=allow_blank,
            )
            pixels.append(embedder.prepare(decoded.frames))
            fresh.append((position, key, decoded.notes))
        except ImageError as error:
            results[position] = Embedded(ref, None, error=error)
        except MemoryError:
            hint = "Scale it down, or use fewer --workers."
            no_memory = ImageError("not enough memory to decode it", hint, "too_large")
            results[position] = Embedded(ref, None, error=no_memory)
    if fresh:
        vectors = embed_frames(pixels, embedder, batch_size)
        if cache is not None:
            keys = [key for _, key, _ in fresh]
            cache.put(
                zip(keys, vectors, strict=True), {key: notes for _, key, notes in fresh if notes}
            )
        for (position, key, notes), vector in zip(fresh, vectors, strict=True):
            results[position] = Embedded(refs[position], vector, content=key, notes=notes)
    if cache is not None:
        cache.remember(named)
    return [results[position] for position in range(len(refs))]


def blank_pixels(embedder: Embedder) -> NDArray[np.uint8]:
    """Prepared pixels of a grey image, to warm the encoder up."""
    side = embedder.image_size
    return embedder.prepare([Image.new("L", (side, side), 128)])


def embed_frames(
    pixels: Sequence[NDArray[np.uint8]], embedder: Embedder, batch_size: int
) -> NDArray[np.float32]:
    """One unit vector per image: the normalised mean of the vectors of its frames.

    Args:
        pixels: Of each image, as `embedder.prepare` returns them; at least one.
        embedder: Encodes them.
        batch_size: Frames that are encoded at once.

    Returns:
        float32[len(pixels), dim].
    """
    frames = np.concatenate(pixels)
    vectors = np.concatenate(
        [embedder.embed(frames[i : i + batch_size]) for i in range(0, len(frames), batch_size)]
    )
    counts = [len(p) for p in pixels]
    if len(vectors) == len(pixels):
        return vectors
    starts = np.cumsum([0, *counts[:-1]])
    means = np.add.reduceat(vectors, starts, axis=0)
    norms: NDArray[np.float32] = np.linalg.norm(means, axis=1, keepdims=True)
    return (means / norms).astype(np.float32)
