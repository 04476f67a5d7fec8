"""`Annotator`: an opened index with its encoder, from images to concepts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.runners import Runner
from annotator.encoders.torch_setup import Device
from annotator.images.ref import ImageRef
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.decision import choose_concepts
from annotator.knn.neighbors import Case, case_of
from annotator.knn.posterior import Posterior, weigh
from annotator.knn.projection import Projection
from annotator.knn.voting import Voting
from index.locations import locate
from index.progress import track
from index.protocols import Index, IndexLocation
from index.rows import SearchResult
from index.search.base import check_unit

_SEARCHED_AT_ONCE = 256


@dataclass(frozen=True)
class Annotation:
    """The concepts of one image, and the cases behind them.

    Attributes:
        image_id: Of the image.
        cuis: Its concepts, highest score first.
        scores: Each one's share of the neighbours' votes, 0..1.
        expected_f1: The F1 to be expected of these concepts, 0..1.
        familiarity: The share of the index's images that are less similar to their nearest case of
            another patient than this image is to its nearest; 0..1. Near 0 the image is out of
            distribution: it resembles nothing in the index. None where the index was not tuned.
        neighbors: The neighbours that voted, most similar first.
        error: Why the image could not be used (then the rest is empty), or None.
    """

    image_id: str
    cuis: tuple[str, ...]
    scores: tuple[float, ...]
    expected_f1: float
    neighbors: tuple[Case, ...]
    familiarity: float | None = None
    error: str | None = None

    def to_dict(self, names: Mapping[str, str], *, explain: bool = False) -> dict[str, Any]:
        """As plain JSON types, with the names of the concepts; the neighbours only if `explain`."""
        fields: dict[str, Any] = {
            "id": self.image_id,
            "concepts": [
                {"cui": cui, "name": names.get(cui, ""), "score": round(score, 6)}
                for cui, score in zip(self.cuis, self.scores, strict=True)
            ],
            "expected_f1": round(self.expected_f1, 6),
            "familiarity": None if self.familiarity is None else round(self.familiarity, 4),
        }
        if explain:
            fields["neighbors"] = [
                {
                    "id": n.image_id,
                    "similarity": round(n.similarity, 6),
                    "weight": round(n.weight, 6),
                    "cuis": list(n.cuis),
                    "caption": n.caption,
                }
                for n in self.neighbors
            ]
        if self.error is not None:
            fields["error"] = self.error
        return fields


class Annotator:
    """An opened index with the encoder that built it.

    Args:
        stored: The index, opened.
        embedder: Must have the fingerprint that the index was built with.
        voting: None for what the index was built with.

    Attributes:
        metadata: How the index was built.
        projection: From the encoder's vectors to the index's; None where they are the same.

    Raises:
        AnnotatorError: The index does not say how it was built, or the embedder's vectors are not
            comparable with its own; says what differs.
    """

    def __init__(self, stored: Index, embedder: Embedder, voting: Voting | None = None) -> None:
        self.metadata = IndexMetadata.of(stored)
        self.metadata.check_encoder(embedder)
        self.stored = stored
        self.embedder = embedder
        self.voting = voting or self.metadata.voting
        self.projection = Projection.from_arrays(stored.arrays)

    @classmethod
    def open(
        cls,
        directory: Path | str | IndexLocation,
        *,
        embedder: Embedder | None = None,
        voting: Voting | None = None,
        device: Device = "auto",
    ) -> Annotator:
        """Open the index in `directory` (or at an address) with the encoder that it records.

        Raises:
            IndexProblem: There is no index, or it is damaged, or cannot be reached.
            AnnotatorError: The encoder cannot be loaded, or is another one now.
        """
        stored = locate(directory).open(device=device)
        return cls(
            stored, embedder or IndexMetadata.of(stored).make_embedder(device=device), voting
        )

    def annotate(
        self,
        refs: Sequence[ImageRef],
        *,
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        runner: Runner = embed_images,
        with_neighbors: bool = True,
    ) -> Iterator[Annotation]:
        """Annotate `refs`, yielding in their order; an unusable image yields its error.

        Args:
            refs: From `find_images`.
            cache: Where vectors are looked up and kept.
            batch_size: Images that the encoder takes at once; None for what suits it.
            workers: Threads; None for the number of cores.
            runner: Embeds the images, here by default; see `make_runner`.
            with_neighbors: Say which cases voted; False saves a little time and memory.
        """
        results = runner(refs, self.embedder, cache=cache, batch_size=batch_size, workers=workers)
        with contextlib.closing(results):
            embedded = iter(track(results, total=len(refs), label="Annotating"))
            while block := list(islice(embedded, _SEARCHED_AT_ONCE)):
                ids = [result.ref.id for result in block if result.vector is not None]
                vectors = [result.vector for result in block if result.vector is not None]
                found = self.search(np.stack(vectors)) if vectors else None
                annotations = iter(
                    self.decide(ids, found, with_neighbors=with_neighbors) if found else ()
                )
                for result in block:
                    if result.vector is not None:
                        yield next(annotations)
                    else:
                        yield Annotation(result.ref.id, (), (), 0.0, (), error=result.error)

    def search(self, vectors: NDArray[np.float32], k: int | None = None) -> SearchResult:
        """The k nearest cases (None for `voting.k`) of the encoder's vectors float32[q, dim].

        Raises:
            IndexProblem: The vectors have another length or are not of unit norm.
        """
        return self.stored.find(self.project(vectors), k or self.voting.k)

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The encoder's vectors float32[q, dim] as the index compares them: float32[q, out].

        Raises:
            IndexProblem: They have another length or are not of unit norm.
        """
        if self.projection is None:
            return vectors
        check_unit(vectors, self.projection.dim, "queries")
        return self.projection.apply(vectors)

    def decide(
        self,
        image_ids: Sequence[str],
        found: SearchResult,
        *,
        voting: Voting | None = None,
        with_neighbors: bool = True,
    ) -> list[Annotation]:
        """Weigh the neighbours that `search` found and choose concepts.

        Args:
            image_ids: Of the q queries.
            found: Their neighbours.
            voting: None for the annotator's own.
            with_neighbors: Say which cases voted.
        """
        voting = voting or self.voting
        posterior = weigh(found.neighbors, found.cases.labels, voting)
        decisions = choose_concepts(posterior, voting)
        similarities = found.neighbors.similarities
        return [
            Annotation(
                image_id=image_id,
                cuis=decision.cuis,
                scores=tuple(decision.scores.tolist()),
                expected_f1=decision.expected_f1,
                neighbors=_voters(found, posterior, i, voting.k) if with_neighbors else (),
                familiarity=self._familiarity(similarities[i]),
            )
            for i, (image_id, decision) in enumerate(zip(image_ids, decisions, strict=True))
        ]

    def _familiarity(self, similarities: NDArray[np.float32]) -> float | None:
        """The quantile of the nearest similarity among those of the index's own images."""
        nearest = self.metadata.nearest
        if nearest is None:
            return None
        return float(np.interp(similarities[0], nearest, np.linspace(0, 1, len(nearest))))


def _voters(found: SearchResult, posterior: Posterior, i: int, k: int) -> tuple[Case, ...]:
    """The neighbours of query i that voted; what follows them is the prior."""
    return tuple(
        case_of(found.cases, row, similarity, weight)
        for row, similarity, weight in zip(
            posterior.rows[i, :k].tolist(),
            found.neighbors.similarities[i, :k].tolist(),
            posterior.weights[i, :k].tolist(),
            strict=False,  # fewer may have been found than may vote
        )
    )
