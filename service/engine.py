"""The engine: one opened version of an index, with its encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem
from service.settings import Settings

if TYPE_CHECKING:
    from annotator.annotation import Annotation
    from annotator.encoders.embedder import Embedder
    from annotator.explore.text_search import TextSearch
    from annotator.images.notes import Note
    from annotator.knn.cross_validation import NeighborLists
    from annotator.knn.neighbors import Case
    from annotator.knn.voting import Voting
    from annotator.pipeline import Annotator
    from index.protocols import Index
    from index.rows import SearchResult
    from service.decoding.processes import DecodingTask

# How long to retry an index server: clients would rather ask again than wait.
_PATIENCE_SECONDS = 3.0


class Concept(NamedTuple):
    """A concept of the index: its CUI, its name (or ""), and the number of its images."""

    cui: str
    name: str
    images: int


class Ballot(NamedTuple):
    """How the vote on an image is held.

    Attributes:
        voting: Voting parameters.
        exclude_self: Whether the image itself is left out of the vote where the index has it.
        min_familiarity: Less familiar images get no concepts; None for the setting of the service.
    """

    voting: Voting
    exclude_self: bool = False
    min_familiarity: float | None = None


class Processed(NamedTuple):
    """What comes of an image.

    Attributes:
        vector: float32[dim], from the encoder.
        annotation: Its annotation, with an empty image id; None if it was only to be encoded.
    """

    vector: NDArray[np.float32]
    annotation: Annotation | None


@dataclass(frozen=True, eq=False)
class Engine:
    """One opened, immutable version of an index with its encoder.

    A reload puts another engine in its place; requests finish on the one they began with.

    Attributes:
        annotator: The pipeline from images to concepts.
        concepts: The vocabulary, most frequent first.
        max_pixels: Limit on the pixels of a frame.
        max_frames: Limit on the decoded frames of an image.
        allow_blank: Whether blank images are annotated, too.
        names: Names by CUI, also of concepts that no image of the index has.
    """

    annotator: Annotator
    concepts: Sequence[Concept]
    max_pixels: int
    max_frames: int
    allow_blank: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def over(self, stored: Index) -> Engine:
        """The engine over the same index with other rows or labels; see `Annotator.over`."""
        engine = replace(self, annotator=self.annotator.over(stored), concepts=_vocabulary(stored))
        if "_text_search" in self.__dict__:  # its tower takes seconds to load
            engine.__dict__["_text_search"] = self._text_search.over(stored)
        return engine

    def is_same_index(self, other: Engine) -> bool:
        """Whether both are over one index, of which one may have more corrections."""
        return self.annotator.metadata is other.annotator.metadata

    @property
    def stored(self) -> Index:
        return self.annotator.stored

    @cached_property
    def _searched_names(self) -> Sequence[str]:
        return [f"{concept.cui}\n{concept.name}".casefold() for concept in self._suggested]

    @cached_property
    def _suggested(self) -> Sequence[Concept]:
        """The vocabulary, and what else has a name."""
        known = self.stored.concepts
        others = [Concept(c, name, 0) for c, name in sorted(self.names.items()) if c not in known]
        return [*self.concepts, *others]

    def concepts_like(self, text: str) -> list[Concept]:
        """The concepts whose CUI or name contains a text, in any case; most frequent first."""
        wanted = text.casefold()
        return [
            concept
            for concept, names in zip(self._suggested, self._searched_names, strict=True)
            if wanted in names
        ]

    @property
    def known_names(self) -> Mapping[str, str]:
        """Those of the index, and others."""
        return {**self.names, **self.stored.names}

    def names_of_new(self, cuis: Iterable[str]) -> dict[str, str]:
        """The names of those concepts of which the index has none, where they are known."""
        unnamed = (cui for cui in cuis if cui not in self.stored.names)
        return {cui: self.names[cui] for cui in unnamed if cui in self.names}

    @property
    def searches_text(self) -> bool:
        """Whether the encoder has a text tower."""
        from annotator.encoders.text_tower import has_text_tower

        return self.takes_images and has_text_tower(self.annotator.embedder.name)

    def search_text(self, text: str, k: int) -> Sequence[Case]:
        """The k cases most similar to a text; not thread-safe, as the first call loads the tower.

        Raises:
            AnnotatorError: The encoder has no text tower, or it cannot be loaded.
        """
        from annotator.knn.neighbors import cases_of

        return cases_of(self._text_search.find([text], k))[0]

    @cached_property
    def _text_search(self) -> TextSearch:
        from annotator.explore.text_search import TextSearch

        return TextSearch(self.stored)

    def decode(
        self,
        data: bytes,
        claim: Callable[[int], object] | None = None,
        task: DecodingTask | None = None,
    ) -> tuple[NDArray[np.uint8], tuple[Note, ...]]:
        """Decode an image file to the encoder's input, uint8[frames, ...], and notes on it.

        Args:
            data: The whole file.
            claim: See `annotator.images.decode.decode`.
            task: Decodes it in a process, if that is needed.

        Raises:
            ImageError: The image cannot be used.
        """
        from annotator.images.decode import decode

        embedder = self.annotator.embedder
        options: dict[str, Any] = {
            "frames": embedder.frames,
            "at_least": embedder.image_size,
            "allow_blank": self.allow_blank,
            "max_pixels": self.max_pixels,
            "max_frames": self.max_frames,
        }
        apart = partial(task.decode, data, **options) if task is not None else None
        decoded = decode(data, **options, claim=claim, apart=apart)
        return embedder.prepare(decoded.frames), decoded.notes

    def is_intact(self) -> bool:
        """Whether the files of the index are those that were opened."""
        try:
            self.stored.check_unchanged()
        except IndexProblem:
            return False
        return True

    @property
    def takes_images(self) -> bool:
        """Whether the encoder is ours to run; else there are only vectors."""
        return not self.annotator.embedder.fingerprint.is_own

    def annotate(
        self,
        pixels: Sequence[NDArray[np.uint8]],
        ballots: Sequence[Ballot | None],
        batch_size: int,
    ) -> tuple[list[Processed], dict[str, float]]:
        """Encode, search and vote.

        Args:
            pixels: At least one image, from `decode`.
            ballots: The ballot of each; None to encode it alone.
            batch_size: Frames encoded at once.

        Returns:
            Vector and annotation of each, and the seconds of encode, search, vote.
        """
        from annotator.encoders.local_runner import embed_frames

        started = time.perf_counter()
        vectors = embed_frames(pixels, self.annotator.embedder, batch_size)
        seconds = {"encode": time.perf_counter() - started}
        voted = [(i, ballot) for i, ballot in enumerate(ballots) if ballot is not None]
        annotations: dict[int, Annotation] = {}
        if voted:
            rows = [i for i, _ in voted]
            decided, more = self.vote(vectors[rows], [ballot for _, ballot in voted])
            annotations = dict(zip(rows, decided, strict=True))
            seconds |= more
        each = [Processed(vector, annotations.get(i)) for i, vector in enumerate(vectors)]
        return each, seconds

    def vote_on_stored(
        self, image_id: str, ballot: Ballot, *, without_group: bool
    ) -> tuple[Annotation, dict[str, float]] | None:
        """Let the other images of the index vote on one of them.

        Args:
            image_id: Of the image.
            ballot: How the vote is held.
            without_group: Leave out its group (patient, study), too. Then the neighbour list of
                the image votes, if the index has one: it was found without the image's labels, and
                is what the queue judges them by.

        Returns:
            Its annotation, and the seconds of search and vote; None if there is no such image.

        Raises:
            IndexProblem: The index cannot be searched.
        """
        from annotator.knn.neighbors import nearest_others

        image = self.stored.with_ids([image_id])
        if not image.ids:
            return None
        clock = [time.perf_counter()]
        groups = image.columns.get("groups")
        group = groups[0] if groups else ""
        needed = self.annotator.needed(ballot.voting, ballot.exclude_self)
        found = self._listed(image_id, needed) if without_group or not group else None
        if found is None:
            (found,) = nearest_others(
                self.stored.find,
                image.vectors(np.arange(1)),
                [image_id],
                [group if without_group else ""],
                needed,
            )
        clock.append(time.perf_counter())
        (annotation,) = self.annotator.decide(
            [image_id],
            found,
            voting=ballot.voting,
            exclude_self=ballot.exclude_self,
            min_familiarity=ballot.min_familiarity,
        )
        clock.append(time.perf_counter())
        search, vote = np.diff(clock).tolist()
        return annotation, {"search": search, "vote": vote}

    def _listed(self, image_id: str, k: int) -> SearchResult | None:
        """The k neighbours of an image by its list in the index; None if there is none of these.

        Where labels are filled in, lists vote with others than a search does: none is taken.
        """
        from index.folder.store import StoredIndex
        from index.rows import SearchResult

        lists, stored = self._lists, self.stored
        if lists is None or not isinstance(stored, StoredIndex):
            return None
        at = np.flatnonzero(lists.queries == stored.row_of[image_id])
        if not len(at) or lists.found.rows.shape[1] < k or self.annotator.voting.assume_incomplete:
            return None
        found = lists.found.take(at)
        return SearchResult(found.without(np.zeros(found.rows.shape, bool), k), stored)

    @cached_property
    def _lists(self) -> NeighborLists | None:
        from annotator.knn.cross_validation import stored_lists

        return stored_lists(self.stored)

    def vote(
        self, vectors: NDArray[np.float32], ballots: Sequence[Ballot]
    ) -> tuple[list[Annotation], dict[str, float]]:
        """Search and vote.

        Args:
            vectors: float32[n, dim] of unit norm, from the encoder; n at least 1.
            ballots: The ballot of each.

        Returns:
            An annotation of each (its image id is empty), and the seconds of search and vote.

        Raises:
            IndexProblem: The index cannot be searched, or its files were written over.
        """
        clock = [time.perf_counter()]
        # The first k of more neighbours are the k nearest, so one search serves every k.
        most = max(self.annotator.needed(b.voting, b.exclude_self) for b in ballots)
        found = self.annotator.search(vectors, most)
        clock.append(time.perf_counter())
        annotations: dict[int, Annotation] = {}
        for ballot in dict.fromkeys(ballots):
            alike = [i for i, other in enumerate(ballots) if other == ballot]
            decided = self.annotator.decide(
                [""] * len(alike),
                found.take(alike),
                voting=ballot.voting,
                exclude_self=ballot.exclude_self,
                min_familiarity=ballot.min_familiarity,
            )
            annotations.update(zip(alike, decided, strict=True))
        clock.append(time.perf_counter())
        search, vote = np.diff(clock).tolist()
        seconds = {"search": search, "vote": vote}
        return [annotations[i] for i in range(len(ballots))], seconds


def open_engine(settings: Settings, embedder: Embedder | None = None) -> Engine:
    """Open the current version of the index, and try it on one image, or on a vector.

    Args:
        settings: The index and the device; with "cuda" the search runs there, too.
        embedder: Used instead of loading one, if the index was built with the same.

    Raises:
        IndexProblem: There is no index, or it is damaged, or cannot be reached.
        AnnotatorError: The encoder cannot be loaded, or is another one now; or the table of names
            cannot be read.
    """
    from annotator.concepts.names import read_names
    from annotator.encoders.local_runner import blank_pixels
    from annotator.indexing.metadata import IndexMetadata
    from annotator.pipeline import Annotator
    from index.locations import locate

    location = locate(settings.index)
    stored = location.open(device=settings.device, patience=_PATIENCE_SECONDS)
    metadata = IndexMetadata.of(stored)
    if embedder is None or embedder.fingerprint.differences(metadata.fingerprint):
        embedder = metadata.make_embedder(device=settings.device, engine=settings.engine)
    annotator = Annotator(stored, embedder, min_familiarity=settings.min_familiarity)
    engine = Engine(
        annotator,
        _vocabulary(stored),
        settings.pixels,
        settings.max_frames,
        settings.allow_blank,
        read_names(settings.names) if settings.names is not None else {},
    )
    if engine.takes_images:
        # Also warms up the network.
        engine.annotate([blank_pixels(embedder)], [Ballot(annotator.voting)], 1)
    else:
        engine.vote(np.eye(1, embedder.dim, dtype=np.float32), [Ballot(annotator.voting)])
    return engine


def _vocabulary(stored: Index) -> list[Concept]:
    """The concepts of an index, most frequent first."""
    concepts = [
        Concept(cui, stored.names.get(cui, ""), images) for cui, images in stored.concepts.items()
    ]
    return sorted(concepts, key=lambda concept: (-concept.images, concept.cui))
