"""Many images to vectors: reading, decoding and encoding overlap, in bounded memory, in order.

This is the local runner; `annotator.encoders.runners` has the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence
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
from annotator.images.ordered_map import in_threads
from annotator.images.ref import ImageRef
from annotator.images.remote import is_url

_MOST_WORKERS = 16
_WAITERS = 4  # for one core, where reading waits for an object store


@dataclass(frozen=True)
class Embedded:
    """What became of one image: a vector, or the reason why there is none.

    Attributes:
        ref: The image.
        vector: float32[dim] of unit norm, or None.
        error: Why there is no vector, or None.
        cached: Whether the vector was known before.
        content: sha256 of the image file; empty if it could not be read.
    """

    ref: ImageRef
    vector: NDArray[np.float32] | None
    error: str | None = None
    cached: bool = False
    content: bytes = b""


class Known(Protocol):
    """Where vectors are looked up by content and kept: an `EmbeddingCache`, or a stand-in."""

    def get(self, content: bytes) -> NDArray[np.float32] | None:
        """The vector of an image with this content key, if it is known."""
        ...

    def put(self, items: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Keep vectors by content key."""
        ...


class AsFound:
    """A cache as it is when a run begins: what the run itself adds is not looked up.

    Otherwise the second of two equal images would sometimes be known and sometimes not, and with it
    the size of its batch, on which the last bits of the batch's vectors may depend in fp32.

    Args:
        cache: Where vectors are looked up and kept.
    """

    def __init__(self, cache: Known) -> None:
        self._cache = cache
        self._added: set[bytes] = set()

    def get(self, content: bytes) -> NDArray[np.float32] | None:
        """The vector of an image with this content key, if it was known before."""
        return None if content in self._added else self._cache.get(content)

    def put(self, items: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Keep vectors by content key."""
        kept = list(items)
        self._added.update(content for content, _ in kept)
        self._cache.put(kept)


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(refs: Sequence[ImageRef] = ()) -> int:
    """Threads where none are asked for: one a core, 16 at most.

    Four times as many where `refs` lie in an object store, whose answers they mostly wait for.
    """
    return min(cpu_count(), _MOST_WORKERS) * waiters(refs)


def waiters(refs: Sequence[ImageRef]) -> int:
    """How many threads keep a core busy that reads and encodes `refs`."""
    return _WAITERS if any(is_url(ref.where) for ref in refs) else 1


def embed_images(
    refs: Sequence[ImageRef],
    embedder: Embedder,
    *,
    cache: EmbeddingCache | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Generator[Embedded, None, None]:
    """Embed `refs`, yielding in their order.

    Each worker thread takes a batch all the way: read, hash, look up, decode, encode. On a CPU the
    workers share the cores evenly (every torch operation runs on cores / workers threads), which
    keeps all cores busy where one operation split over all of them would wait at its end; on a GPU
    their decoding hides behind each other's encoding. At most two batches a worker are in memory.

    An image that cannot be used yields its reason and costs no other image anything. Closing the
    generator (Ctrl-C included) waits for the batches under way, so that the cache has them.

    Args:
        refs: What to embed.
        embedder: Used from several threads.
        cache: Where vectors are looked up and kept, or None.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads; None for `default_workers`.

    Raises:
        AnnotatorError: The encoder or the cache failed, which no other image would survive.
    """
    workers = workers or default_workers(refs)
    batch_size = batch_size or embedder.batch_size
    found = AsFound(cache) if cache is not None else None
    work = partial(embed_batch, embedder=embedder, cache=found, batch_size=batch_size)
    batches = in_batches(refs, batch_size, workers)
    done = in_threads(work, batches, workers=workers, waiting=2 * workers)
    with threads_per_operation(max(1, cpu_count() // workers)), contextlib.closing(done):
        for results in done:
            yield from results


def in_batches(refs: Sequence[ImageRef], batch_size: int, workers: int) -> list[Sequence[ImageRef]]:
    """`refs` in the batches that workers take; a short list is spread over all of them.

    In fp32 the last bits of a vector may depend on how many images are encoded at once, so every
    runner makes the same batches.
    """
    size = max(1, min(batch_size, -(-len(refs) // workers)))
    return [refs[i : i + size] for i in range(0, len(refs), size)]


def embed_batch(
    refs: Sequence[ImageRef], embedder: Embedder, cache: Known | None, batch_size: int
) -> list[Embedded]:
    """One batch all the way: read, hash, look up, decode, encode, keep.

    Args:
        refs: The images.
        embedder: Encodes them.
        cache: Where vectors are looked up and kept, or None.
        batch_size: Frames that the encoder takes at once.

    Returns:
        What became of each image, in their order.

    Raises:
        AnnotatorError: The encoder or the cache failed.
    """
    results: dict[int, Embedded] = {}
    pixels: list[NDArray[np.uint8]] = []
    fresh: list[tuple[int, bytes]] = []
    for position, ref in enumerate(refs):
        try:
            data = ref.read()
            key = content_key(data)
            known = cache.get(key) if cache is not None else None
            if known is not None:
                results[position] = Embedded(ref, known, cached=True, content=key)
                continue
            frames = decode(data, frames=embedder.frames, at_least=embedder.image_size)
            pixels.append(embedder.prepare(frames))
            fresh.append((position, key))
        except ImageError as error:
            results[position] = Embedded(ref, None, error=error.message)
        except MemoryError:
            results[position] = Embedded(ref, None, error="not enough memory to decode it")
    if fresh:
        vectors = embed_frames(pixels, embedder, batch_size)
        if cache is not None:
            cache.put([(key, v) for (_, key), v in zip(fresh, vectors, strict=True)])
        for (position, key), vector in zip(fresh, vectors, strict=True):
            results[position] = Embedded(refs[position], vector, content=key)
    return [results[position] for position in range(len(refs))]


def blank_pixels(embedder: Embedder) -> NDArray[np.uint8]:
    """What `embedder.prepare` makes of a grey image, to try the encoder on."""
    side = embedder.image_size
    return embedder.prepare([Image.new("L", (side, side), 128)])


def embed_frames(
    pixels: Sequence[NDArray[np.uint8]], embedder: Embedder, batch_size: int
) -> NDArray[np.float32]:
    """One unit vector an image: that of its frame, or the normalised mean of its frames.

    Args:
        pixels: What `embedder.prepare` made of each image; at least one.
        embedder: Encodes them.
        batch_size: Frames that the encoder takes at once.

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
