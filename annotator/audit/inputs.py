"""Inputs of an audit: images as vectors and thumbnails, their labels, and a reference index."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.audit.align import SIDE, VERIFY_SIDE
from annotator.audit.candidates import Views
from annotator.encoders.cache import CACHE_FILE
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import default_workers
from annotator.encoders.runners import Runner
from annotator.errors import ImageError
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import grey_thumbnail, grey_thumbnail_of, grey_thumbnails
from annotator.indexing.embedding import OnError, Spool, embed_to_disk
from annotator.knn.joint_projection import JointProjection, stored_projection
from annotator.knn.projection import Projection
from index import StoredIndex, open_index
from index.locations import is_on_server


@dataclass(frozen=True)
class AuditLabels:
    """Labels of the images of an audit, by image id; an image may lack any of them.

    Attributes:
        concepts: CUIs; None for no check of concepts.
        names: Name by CUI.
        groups: Patient, study or figure.
        sides: Side of a split.
    """

    concepts: Mapping[str, tuple[str, ...]] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)

    def named(self, cui: str) -> str:
        """A CUI, with its name if that is known."""
        return f"{cui} {self.names[cui]}" if self.names.get(cui) else cui


@dataclass(frozen=True)
class AuditInput:
    """The readable images of an audit.

    Attributes:
        images: In the order that they were given in.
        vectors: float32[n, dim] of unit norm, as the encoder made them, mapped from disk.
        thumbnails: uint8[n, 64, 64], grey.
        contents: sha256 of each file.
        failed: Error by path of each image that could not be used.
    """

    images: Sequence[ImageRef]
    vectors: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    contents: Sequence[bytes]
    failed: Mapping[str, ImageError]

    @property
    def ids(self) -> list[str]:
        return [ref.id for ref in self.images]

    def part(self, rows: slice) -> AuditInput:
        """A range of the images."""
        return AuditInput(
            self.images[rows],
            self.vectors[rows],
            self.thumbnails[rows],
            self.contents[rows],
            self.failed,
        )

    def views(self, projection: Projection | JointProjection | None) -> Views:
        """The images for comparison, their vectors projected if there is a projection."""
        vectors = projection.apply(self.vectors) if projection else np.array(self.vectors)
        images = self.images
        return Views(
            vectors, self.thumbnails, lambda row: grey_thumbnail_of(images[row], VERIFY_SIDE)
        )


@dataclass(frozen=True)
class AuditLoader:
    """Embeds the images of an audit.

    Attributes:
        embedder: The encoder.
        cache: File where vectors are looked up and kept, or None.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.
        runner: Function that embeds the images; None for this process.
    """

    embedder: Embedder
    cache: Path | None = None
    batch_size: int | None = None
    workers: int = field(default_factory=default_workers)
    on_error: OnError = "skip"
    runner: Runner | None = None

    @contextmanager
    def load(self, images: Sequence[ImageRef]) -> Iterator[AuditInput]:
        """Embed images; the vectors lie in a temporary file that goes with the context.

        Raises:
            AnnotatorError: No image could be used, or one could not and `on_error` is "fail".
        """
        with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
            embedded = embed_to_disk(
                images,
                self.embedder,
                spool,
                cache=self.cache,
                batch_size=self.batch_size,
                workers=self.workers,
                on_error=self.on_error,
                runner=self.runner,
            )
            thumbnails = grey_thumbnails(embedded.images, SIDE, workers=self.workers)
            contents = [content.tobytes() for content in embedded.contents]
            yield AuditInput(
                embedded.images, embedded.vectors, thumbnails, contents, embedded.failed
            )


def is_index(path: str) -> bool:
    """Whether a path names an index rather than images."""
    return is_on_server(path) or (Path(path) / "current").is_file()


@dataclass(frozen=True)
class ReferenceIndex:
    """An index whose images others are compared with.

    Attributes:
        stored: The index.
        directory: Its folder.
    """

    stored: StoredIndex
    directory: Path

    @classmethod
    def open(cls, directory: Path) -> ReferenceIndex:
        """Open the index in a folder.

        Raises:
            IndexProblem: There is none, or it is damaged.
        """
        return cls(open_index(directory), directory)

    @property
    def cache_file(self) -> Path:
        """The encoder's vectors of its images, if the file is there."""
        return self.directory / CACHE_FILE

    @property
    def writable_cache(self) -> Path | None:
        """`cache_file`; None in a folder that cannot be written to."""
        return self.cache_file if os.access(self.directory, os.W_OK) else None

    @property
    def projection(self) -> Projection | JointProjection | None:
        """From the encoder's vectors to those of the index."""
        return stored_projection(self.stored.arrays)

    def views(self) -> Views:
        """Its images for comparison; black where the index keeps no thumbnail."""
        rows = np.arange(len(self.stored.ids))
        thumbnails = np.zeros((len(rows), SIDE, SIDE), np.uint8)
        if self.stored.has_thumbnails:
            for row in rows.tolist():
                thumbnails[row] = self._thumbnail(row, SIDE)
        return Views(
            self.stored.vectors(rows), thumbnails, lambda row: self._thumbnail(row, VERIFY_SIDE)
        )

    def _thumbnail(self, row: int, side: int) -> NDArray[np.uint8]:
        picture = self.stored.thumbnail(row)
        return grey_thumbnail(picture, side) if picture else np.zeros((side, side), np.uint8)
