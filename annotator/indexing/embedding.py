"""Rows of an index from images: vectors spooled to disk, text columns and thumbnails."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import default_workers, embed_images
from annotator.encoders.runners import Runner
from annotator.errors import AnnotatorError, ImageError
from annotator.images.notes import Note
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnails
from annotator.knn.joint_projection import JointProjection
from annotator.knn.projection import Projection
from index.progress import track
from index.segments import THUMBNAIL_ENDS, THUMBNAILS

OnError = Literal["skip", "fail"]
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class EmbeddedImages:
    """Embedded images, and the reasons of failures.

    Attributes:
        images: Embedded images.
        vectors: float32[n, dim], from the encoder, memory-mapped.
        contents: uint8[n, 32], sha256 of each image file.
        cached: Number of cached vectors.
        failed: Error by location of each image that could not be used.
        notes: By location, what was done to pictures that their files did not ask for.
    """

    images: Sequence[ImageRef]
    vectors: NDArray[np.float32]
    contents: NDArray[np.uint8]
    cached: int
    failed: Mapping[str, ImageError]
    notes: Mapping[str, tuple[Note, ...]]

    @property
    def ids(self) -> list[str]:
        return [ref.id for ref in self.images]


class Spool:
    """Temporary spool of bytes in an unnamed file, which never outlives the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Spool:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._directory)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, data: bytes) -> int:
        """Append data; returns the end offset."""
        self._file.write(data)
        return self._file.tell()

    def array(self, dtype: str) -> NDArray[Any]:
        """Map the whole spool as a read-only array."""
        self._file.flush()
        n = self._file.tell() // np.dtype(dtype).itemsize
        return np.memmap(self._file, dtype, "r", 0, (n,)) if n else np.zeros(0, dtype)


def embed_to_disk(
    images: Sequence[ImageRef],
    embedder: Embedder,
    spool: Spool,
    *,
    cache: Path | None,
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: OnError = "skip",
    runner: Runner | None = None,
) -> EmbeddedImages:
    """Embed images into `spool`, so that memory does not grow with their number.

    Args:
        images: Images to embed.
        embedder: Encoder.
        spool: Empty spool; must stay open while the vectors are used.
        cache: Cache file of vectors, or None.
        batch_size: Images per encoder call; None for the encoder's default.
        workers: Number of threads; None for the number of cores.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.
        runner: Function that embeds the images; None for this process.

    Raises:
        AnnotatorError: No image could be used, or one could not and `on_error` is "fail".
    """
    usable: list[ImageRef] = []
    contents: list[bytes] = []
    failed: dict[str, ImageError] = {}
    notes: dict[str, tuple[Note, ...]] = {}
    cached = 0
    with contextlib.ExitStack() as stack:
        opened = None
        if cache is not None:
            opened = stack.enter_context(EmbeddingCache(cache, embedder.fingerprint.digest))
        embed = runner or embed_images
        results = embed(images, embedder, cache=opened, batch_size=batch_size, workers=workers)
        stack.enter_context(contextlib.closing(results))
        for result in track(results, total=len(images), label="Embedding"):
            if result.error is not None:
                if on_error == "fail" and not result.error.is_no_image:
                    raise AnnotatorError(
                        f"{result.ref.where}: {result.error.message}.",
                        result.error.hint or "Fix the image, or use --on-error skip.",
                    )
                failed[result.ref.where] = result.error
                continue
            if result.notes:
                notes[result.ref.where] = result.notes
            cached += result.cached
            usable.append(result.ref)
            contents.append(result.content)
            spool.add(np.ascontiguousarray(result.vector, "<f4").tobytes())
    if not usable:
        where, error = next(iter(failed.items()), ("there are none", ImageError("no image")))
        raise AnnotatorError(
            f"None of the {len(failed)} images could be used; the first: {where}: {error.message}.",
            error.hint or "Check the images with an image viewer.",
        )
    keys = np.frombuffer(b"".join(contents), np.uint8).reshape(len(usable), 32)
    vectors = spool.array("<f4").reshape(len(usable), embedder.dim)
    return EmbeddedImages(usable, vectors, keys, cached, failed, notes)


def columns_of(collection: Collection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Captions and groups of images, where the collection has any."""
    texts = {"captions": collection.captions, "groups": collection.groups}
    return {name: [by_id.get(id_, "") for id_ in ids] for name, by_id in texts.items() if by_id}


def thumbnails_of(
    images: Sequence[ImageRef], spool: Spool, workers: int | None
) -> dict[str, NDArray[Any]]:
    """Make thumbnails in `spool`, as arrays of an index."""
    made = make_thumbnails(images, workers=workers or default_workers(images))
    with contextlib.closing(made):
        ends = [
            spool.add(picture) for picture in track(made, total=len(images), label="Thumbnails")
        ]
    return {THUMBNAILS: spool.array("u1"), THUMBNAIL_ENDS: np.array(ends, np.int64)}


def projected(
    vectors: NDArray[np.float32], projection: Projection | JointProjection | None
) -> Iterator[NDArray[np.float32]]:
    """Project vectors for the index, block by block."""
    if projection is not None:
        yield from projection.in_parts(vectors)
        return
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield np.array(vectors[start : start + _ROWS_AT_ONCE])
