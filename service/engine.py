"""The index and encoder that answers come from, and how one takes the place of another."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.torch_setup import Device
    from annotator.explore.text_search import TextSearch
    from annotator.knn.neighbors import Case
    from annotator.knn.voting import Voting
    from annotator.pipeline import Annotation, Annotator
    from index.protocols import IndexLocation


_PATIENCE_S = 3.0  # with the index's server, if it has one: clients rather ask again than wait


class Concept(NamedTuple):
    """A concept of the index: its CUI, its name (or ""), and how many images hold it."""

    cui: str
    name: str
    images: int


@dataclass(frozen=True, eq=False)
class Engine:
    """One opened version of an index with its encoder. Requests keep the one they began with.

    Attributes:
        annotator: The way from images to concepts.
        concepts: The vocabulary, most frequent first.
    """

    annotator: Annotator
    concepts: Sequence[Concept]
    _one_text_tower: threading.Lock = field(default_factory=threading.Lock)

    @property
    def version(self) -> str:
        """Of the index."""
        return self.annotator.stored.version

    @property
    def has_thumbnails(self) -> bool:
        """Whether the index has small pictures of its images."""
        return self.annotator.stored.has_thumbnails

    def thumbnail(self, image_id: str) -> bytes | None:
        """The JPEG of an image of the index, if there are both."""
        return self.annotator.stored.thumbnail_of(image_id)

    @property
    def searches_text(self) -> bool:
        """Whether the encoder is of a kind that has a text tower."""
        from annotator.encoders.registry import has_text_tower

        return has_text_tower(self.annotator.embedder.name)

    def search_text(self, text: str, k: int) -> Sequence[Case]:
        """The k cases that fit a text best; the first time, the text tower is loaded.

        Raises:
            AnnotatorError: The encoder has no text tower, or it cannot be loaded.
        """
        from annotator.knn.neighbors import cases_of

        with self._one_text_tower:
            search = self._text_search
        return cases_of(search.find([text], k))[0]

    @cached_property
    def _text_search(self) -> TextSearch:
        from annotator.explore.text_search import TextSearch

        return TextSearch(self.annotator.stored)

    def decode(self, data: bytes, max_pixels: int, max_frames: int) -> NDArray[np.uint8]:
        """An image file to the encoder's input, uint8[frames, ...].

        Raises:
            ImageError: It cannot be used.
        """
        from annotator.images.decode import decode

        embedder = self.annotator.embedder
        frames = decode(
            data,
            frames=embedder.frames,
            at_least=embedder.image_size,
            max_pixels=max_pixels,
            max_frames=max_frames,
        )
        return embedder.prepare(frames)

    def annotate(
        self, pixels: Sequence[NDArray[np.uint8]], votings: Sequence[Voting], batch_size: int
    ) -> tuple[list[Annotation], dict[str, float]]:
        """Encode, search, vote.

        Args:
            pixels: From `decode`, at least one.
            votings: How to decide each of them.
            batch_size: Frames encoded at once.

        Returns:
            An annotation of each (its image id is empty), and the seconds of encode, search, vote.
        """
        from annotator.encoders.local_runner import embed_frames

        clock = [time.perf_counter()]
        vectors = embed_frames(pixels, self.annotator.embedder, batch_size)
        clock.append(time.perf_counter())
        # The first k of more neighbours are the k nearest, so one search serves every k.
        found = self.annotator.search(vectors, max(voting.k for voting in votings))
        clock.append(time.perf_counter())
        annotations: dict[int, Annotation] = {}
        for voting in dict.fromkeys(votings):
            alike = [i for i, other in enumerate(votings) if other == voting]
            decided = self.annotator.decide([""] * len(alike), found.take(alike), voting=voting)
            annotations.update(zip(alike, decided, strict=True))
        clock.append(time.perf_counter())
        encode, search, vote = np.diff(clock).tolist()
        seconds = {"encode": encode, "search": search, "vote": vote}
        return [annotations[i] for i in range(len(votings))], seconds


def open_engine(
    place: Path | str | IndexLocation, device: Device = "auto", embedder: Embedder | None = None
) -> Engine:
    """Open the current version of an index, and try it on one image.

    Args:
        place: The index.
        device: Where the encoder runs; with "cuda" the search, too.
        embedder: Used instead of loading one, if it is what the index was built with.

    Raises:
        IndexProblem: There is no index, or it is damaged, or cannot be reached.
        AnnotatorError: The encoder cannot be loaded, or is another one now.
    """
    from annotator.encoders.local_runner import blank_pixels
    from annotator.indexing.metadata import IndexMetadata
    from annotator.pipeline import Annotator
    from index.locations import locate

    stored = locate(place).open(device=device, patience=_PATIENCE_S)
    metadata = IndexMetadata.of(stored)
    if embedder is None or embedder.fingerprint.differences(metadata.fingerprint):
        embedder = metadata.make_embedder(device=device)
    annotator = Annotator(stored, embedder)
    concepts = [
        Concept(cui, stored.names.get(cui, ""), images) for cui, images in stored.concepts.items()
    ]
    engine = Engine(annotator, sorted(concepts, key=lambda c: (-c.images, c.cui)))
    # The first run of a network is slow, too.
    engine.annotate([blank_pixels(embedder)], [annotator.voting], 1)
    return engine


class EngineHolder:
    """The one reference to the engine that new requests get.

    Args:
        place: The index.
        device: Where the encoder runs.
        engine: What to begin with.
    """

    def __init__(self, place: Path | str | IndexLocation, device: Device, engine: Engine) -> None:
        self.current = engine
        self._place = place
        self._device: Device = device
        self._one_at_a_time = threading.Lock()

    def reload(self) -> bool:
        """Serve the index's current version from now on; blocks while it is opened.

        Weights are loaded again only if the encoder is another one.

        Returns:
            Whether it is another one than before.

        Raises:
            IndexProblem: There is no index, or it is damaged; the old one stays.
            AnnotatorError: Its encoder cannot be loaded; the old one stays.
        """
        with self._one_at_a_time:
            old = self.current.annotator
            new = open_engine(self._place, self._device, old.embedder)
            changed = new.annotator.stored.manifest != old.stored.manifest
            if changed:
                self.current = new
            return changed
