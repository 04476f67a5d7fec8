"""From image files to what an audit works on: vectors and small grey pictures."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.audit.glances import make_glances
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import default_workers
from annotator.images.ref import ImageRef
from annotator.indexing.embedding import OnError, Spool, embed_to_disk


@dataclass(frozen=True)
class Material:
    """The images of an audit that could be used.

    Attributes:
        images: In the order of their ids.
        vectors: float32[n, dim], as the encoder made them, mapped.
        glances: uint8[n, 64, 64].
        contents: sha256 of each one's file.
        failed: Reason by place of each image that could not be used.
    """

    images: Sequence[ImageRef]
    vectors: NDArray[np.float32]
    glances: NDArray[np.uint8]
    contents: Sequence[bytes]
    failed: Mapping[str, str]

    @property
    def ids(self) -> list[str]:
        """Of the images."""
        return [ref.id for ref in self.images]

    def part(self, rows: slice) -> Material:
        """Some of the images, one after the other."""
        return Material(
            self.images[rows],
            self.vectors[rows],
            self.glances[rows],
            self.contents[rows],
            self.failed,
        )


class Gathering:
    """Where vectors are kept for as long as an audit takes.

    Args:
        embedder: Makes them.
        cache: The file where vectors are looked up and kept, or None.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads; None for the number of cores.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        cache: Path | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        on_error: OnError = "skip",
    ) -> None:
        self.embedder = embedder
        self.workers = workers or default_workers()
        self._cache, self._batch_size = cache, batch_size
        self._on_error: OnError = on_error
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def gather(self, images: Sequence[ImageRef]) -> Material:
        """Embed images, and look at them.

        Raises:
            AnnotatorError: No image could be used, or one could not and `on_error` is "fail".
        """
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        rows = embed_to_disk(
            images,
            self.embedder,
            self._stack.enter_context(Spool(folder)),
            cache=self._cache,
            batch_size=self._batch_size,
            workers=self.workers,
            on_error=self._on_error,
        )
        glances = make_glances(rows.images, workers=self.workers)
        contents = [key.tobytes() for key in rows.contents]
        return Material(rows.images, rows.vectors, glances, contents, rows.failed)
