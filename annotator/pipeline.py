"""`Annotator`: an open index with its encoder, from images to concepts."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from annotator.annotation import Annotation, Annotations, Look, with_picture
from annotator.concepts.hierarchy import Hierarchy, read_hierarchy
from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.embedder import Embedder
from annotator.encoders.fitted import Fitted
from annotator.encoders.local_runner import Embedded, embed_images
from annotator.encoders.runners import Runner, make_runner
from annotator.encoders.torch_setup import Device, Engine
from annotator.errors import AnnotatorError, ImageError
from annotator.images.given import Images, given_images
from annotator.images.ordered_map import ordered_map
from annotator.images.ref import ImageRef
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.calibration import Calibration
from annotator.knn.cross_validation import stored_lists
from annotator.knn.decision import Closing, Decision, choose_concepts
from annotator.knn.familiarity import NEIGHBORS, OutlierFactor, share_below
from annotator.knn.guarantees import Guarantee, Promises, choose_by_image
from annotator.knn.head import with_evidence
from annotator.knn.incomplete import COLUMN, filled_in, inferred_of, texts_of
from annotator.knn.joint_projection import stored_projection
from annotator.knn.members import Classifiers
from annotator.knn.neighbors import MORE, Case, case_of, copies
from annotator.knn.posterior import Posterior, weigh
from annotator.knn.rivals import Exclusions, considered, parts_of_cases, rivals
from annotator.knn.voting import Voting
from annotator.render.thumbnails import index_thumbnails
from annotator.vectors.table import VectorTable
from index import LabelTable, StoredIndex
from index.cores import usable_cores
from index.locations import locate
from index.progress import track
from index.protocols import Index, IndexLocation
from index.rows import Neighbors, Rows, SearchResult
from index.search.base import check_unit
from index.search.blas import one_blas_thread, one_faiss_thread

Relabel = Callable[[LabelTable], LabelTable]

# Images are searched by one thread a block, as they are encoded by one a batch: threads of the
# libraries for each search would wait for cores that encode.
_SEARCHED_AT_ONCE = 256


class Annotator:
    """Open index with the encoder that built it.

    Args:
        stored: Open index.
        embedder: Encoder with the fingerprint recorded in the index.
        voting: Voting parameters; None for those recorded in the index.
        relabel: Changes the labels of the cases before they vote, such as
            `LabelTable.only` some concepts; None for the labels as they are.
        hierarchy: Hierarchy over which these labels are closed, so that sets are chosen by their
            expected hierarchical F1 (`choose_concepts`); None without one.
        classifiers: Their probabilities of the images' concepts are pooled with the votes; not
            together with a hierarchy.
        exclude_self: Leave the image itself out of the vote where the index has it: cases of
            similarity 1, up to 20 of them. Other images of its patient still vote.
        guarantee: Choose the sets so that they miss, or invent, no more than this on average, such
            as "missed=0.1" (`annotator.knn.guarantees`); not together with a hierarchy or
            classifiers. The decider and `min_score` of the vote give way to it.
        guarantee_by: Keep it for each value of this alone, such as the source of an image: by id,
            of the images of the index and of those to annotate.
        min_familiarity: Give images of a lower familiarity no concepts, but an error; None to
            annotate all.

    Attributes:
        metadata: Build metadata of the index.
        projection: Projection from the encoder's space to the index's; None for the identity.
        fitted: What a fitted encoder knows, whose heads have a say in the vote; else None.
        promises: How the guarantee is kept; None without one.

    Raises:
        AnnotatorError: The index has no build metadata, or the embedder's fingerprint differs; the
            guarantee cannot be given; or the index does not know how familiar images are, and
            `min_familiarity` is given.
        ValueError: What excludes each other is given, or no guarantee.
    """

    def __init__(
        self,
        stored: Index,
        embedder: Embedder,
        voting: Voting | None = None,
        *,
        relabel: Relabel | None = None,
        hierarchy: Hierarchy | None = None,
        classifiers: Classifiers | None = None,
        exclude_self: bool = False,
        guarantee: Guarantee | str | None = None,
        guarantee_by: Mapping[str, str] | None = None,
        min_familiarity: float | None = None,
    ) -> None:
        if hierarchy is not None and classifiers is not None:
            raise ValueError("a hierarchy cannot be combined with classifiers")
        if guarantee is not None and not (hierarchy is None and classifiers is None):
            raise ValueError("a guarantee cannot be combined with a hierarchy or classifiers")
        self.metadata = IndexMetadata.of(stored)
        self.metadata.check_encoder(embedder)
        self.stored = stored
        self.embedder = embedder
        self.voting = voting or self.metadata.voting
        self.relabel = relabel
        self.hierarchy = hierarchy
        self._changed: tuple[LabelTable, LabelTable, Closing | None] | None = None
        self.classifiers = classifiers
        self.exclude_self = exclude_self
        self.min_familiarity = min_familiarity
        if min_familiarity is not None and not self.metadata.knows_familiarity:
            raise AnnotatorError(
                "The index does not know how familiar images are.",
                "It was built with --no-tune or from too few images: build it again, or leave out "
                "--min-familiarity.",
            )
        if self.voting.assume_incomplete:
            texts_of(stored)  # or it is refused
        self.projection = stored_projection(stored.arrays)
        self.fitted = Fitted.from_arrays(stored.arrays)
        self._look = self._looks()
        self.promises: Promises | None = None
        if guarantee is not None:
            asked = Guarantee.parse(guarantee) if isinstance(guarantee, str) else guarantee
            labels = stored.labels if relabel is None else relabel(stored.labels)
            self.promises = Promises(asked, stored, labels, self.voting, guarantee_by)

    @classmethod
    def open(
        cls,
        directory: Path | str | IndexLocation,
        *,
        embedder: Embedder | None = None,
        voting: Voting | None = None,
        hierarchy: Hierarchy | Path | str | None = None,
        guarantee: Guarantee | str | None = None,
        min_familiarity: float | None = None,
        device: Device = "auto",
        engine: Engine = "auto",
    ) -> Annotator:
        """Open the index in `directory` (or at an address) with its recorded encoder.

        Args:
            directory: The index.
            embedder: Encoder; None for the recorded one.
            voting: As for the class.
            hierarchy: As for the class, or a file of `read_hierarchy`.
            guarantee: As for the class.
            min_familiarity: As for the class.
            device: Device of the encoder, and with "cuda" of the search.
            engine: What runs the encoder, as for `make_embedder`.

        Raises:
            IndexProblem: The index is missing, damaged or unreachable.
            AnnotatorError: The encoder cannot be loaded, or has changed; the hierarchy cannot be
                read; or as for the class.
            ValueError: As for the class.
        """
        stored = locate(directory).open(device=device)
        if isinstance(hierarchy, (str, Path)):
            hierarchy = read_hierarchy(hierarchy, only=stored.concepts)
        if embedder is None:
            embedder = IndexMetadata.of(stored).make_embedder(device=device, engine=engine)
        return cls(
            stored,
            embedder,
            voting,
            hierarchy=hierarchy,
            guarantee=guarantee,
            min_familiarity=min_familiarity,
        )

    def over(self, stored: Index) -> Annotator:
        """The same annotator over its index with other rows or labels, as after corrections.

        Args:
            stored: With the encoder, the projection and the voting parameters of `self.stored`.

        Raises:
            ValueError: This one has a guarantee, which is worth nothing for other labels.
        """
        if self.promises is not None:
            raise ValueError("an annotator with a guarantee is made anew for other labels")
        other = copy.copy(self)
        same_rows = isinstance(stored, StoredIndex) and (
            isinstance(self.stored, StoredIndex) and stored.index is self.stored.index
        )
        for name in ("_exclusions", *(() if same_rows else ("_outlier_factor", "_parts"))):
            other.__dict__.pop(name, None)
        other.stored, other._changed = stored, None
        other._look = other._looks()
        return other

    def annotate(self, images: Images, *, allow_blank: bool = False) -> Annotations:
        """Annotate whatever images a program has.

        Args:
            images: A path, a folder or a pattern; bytes of an image file, or an open one; a PIL
                image; a NumPy array [rows, columns] or [rows, columns, 3], or a torch tensor
                [3, rows, columns]; a pydicom dataset; an `ImageRef`; or any iterable of them. See
                `annotator.images.given`.
            allow_blank: Annotate images that are (nearly) constant, too.

        Returns:
            One annotation of each image, in their order: a list also for a single image. An image
            that cannot be used has the reason as its `error`. Its id is its file's name without
            the extension; without a file it is image-N, counted from 1.

        Raises:
            TypeError: `images` is neither an image nor an iterable.
        """
        given = given_images(images)
        runner = make_runner(allow_blank=allow_blank)
        annotations = self.stream([image.ref for image in given], runner=runner)
        return Annotations(
            with_picture(annotation, image.picture())
            for image, annotation in zip(given, annotations, strict=True)
        )

    def stream(
        self,
        refs: Sequence[ImageRef],
        *,
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        runner: Runner = embed_images,
        with_neighbors: bool = True,
        with_votes: bool = False,
    ) -> Iterator[Annotation]:
        """Annotate `refs`, yielding in their order; an unusable image yields its error.

        For large numbers of images: nothing is kept of those that were yielded.

        Args:
            refs: Images, from `find_images`.
            cache: Cache of vectors, read and written.
            batch_size: Images per batch of the encoder; None for the device's default.
            workers: Number of threads; None for the number of cores.
            runner: Function that embeds the images, by default in this process; see `make_runner`.
            with_neighbors: Include the neighbours that voted; False saves some time and memory.
            with_votes: Include the scores of all concepts with a vote.
        """
        results = runner(refs, self.embedder, cache=cache, batch_size=batch_size, workers=workers)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(results))
            embedded = iter(track(results, total=len(refs), label="Annotating"))
            blocks = iter(lambda: list(islice(embedded, _SEARCHED_AT_ONCE)), [])
            found: Iterator[tuple[list[Embedded], SearchResult | None]]
            if len(refs) > _SEARCHED_AT_ONCE and isinstance(self.stored, StoredIndex):
                stack.enter_context(one_blas_thread)
                threads = usable_cores()
                several = ordered_map(
                    self._search_block,
                    blocks,
                    workers=threads,
                    waiting=threads,
                    initializer=one_faiss_thread,
                )
                found = stack.enter_context(contextlib.closing(several))
            else:
                found = map(self._search_block, blocks)
            for block, neighbors in found:
                ids = [result.ref.id for result in block if result.vector is not None]
                annotations = iter(
                    self.decide(
                        ids, neighbors, with_neighbors=with_neighbors, with_votes=with_votes
                    )
                    if neighbors
                    else ()
                )
                for result in block:
                    if result.vector is not None:
                        annotation = next(annotations)
                        yield (
                            replace(annotation, notes=result.notes) if result.notes else annotation
                        )
                    else:
                        yield Annotation(result.ref.id, (), (), 0.0, (), error=result.error)

    def _search_block(self, block: list[Embedded]) -> tuple[list[Embedded], SearchResult | None]:
        """What was embedded, with the neighbours of those that have a vector; None for none."""
        vectors = [result.vector for result in block if result.vector is not None]
        return block, self.search(np.stack(vectors)) if vectors else None

    def annotate_vectors(
        self,
        vectors: VectorTable | NDArray[np.floating[Any]] | Sequence[Sequence[float]],
        ids: Sequence[str] | None = None,
        *,
        with_neighbors: bool = True,
    ) -> Annotations:
        """Annotate images by their vectors, which the index's encoder gave them.

        A vector that is zero or not finite gets an annotation with an error; others are scaled to
        unit norm.

        Args:
            vectors: Floats [n, dim], or what `read_vectors` has read, which may tell the encoder.
            ids: Id of each row of an array; None for vector-1, vector-2, …
            with_neighbors: Include the neighbours that voted.

        Returns:
            An annotation of each row, in their order.

        Raises:
            AnnotatorError: The vectors have another length, are known to come from another
                encoder, or there are not as many ids.
        """
        if isinstance(vectors, VectorTable):
            self.metadata.encoder_of(vectors)
            table = vectors
        else:
            table = VectorTable.of(vectors, ids)
        return Annotations(
            self.stream(table.in_rows(), runner=table.embed, with_neighbors=with_neighbors)
        )

    def search(self, vectors: NDArray[np.float32], k: int | None = None) -> SearchResult:
        """Find the k nearest cases of encoder vectors float32[q, dim].

        Args:
            vectors: Of the images.
            k: Number of cases; None for those that `decide` needs by default.

        Raises:
            IndexProblem: Wrong dimension, or vectors without unit norm.
        """
        k = k or self.needed(self.voting, self.exclude_self)
        found = self.stored.find(self.project(vectors), k)
        if self.fitted is None:
            return found
        neighbors = with_evidence(found.neighbors, found.cases.labels, self.fitted, vectors)
        return replace(found, neighbors=neighbors)

    @staticmethod
    def needed(voting: Voting, exclude_self: bool) -> int:
        """Number of cases that `decide` needs, for the vote and for familiarity."""
        return max(voting.k, NEIGHBORS) + (MORE if exclude_self else 0)

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project encoder vectors float32[q, dim] to the space of the index, float32[q, out].

        Raises:
            IndexProblem: Wrong dimension, or vectors without unit norm.
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
        with_votes: bool = False,
        exclude_self: bool | None = None,
        min_familiarity: float | None = None,
    ) -> list[Annotation]:
        """Weight the neighbours found by `search` and choose concepts.

        Args:
            image_ids: Ids of the q queries.
            found: Neighbours of the queries, as many as `needed`.
            voting: Voting parameters, without a guarantee; None for `self.voting`, with it, which
                also says whether labels are filled in.
            with_neighbors: Include the neighbours that voted.
            with_votes: Include the scores of all concepts with a vote.
            exclude_self: As for the class, whose value None stands for.
            min_familiarity: Likewise.

        Raises:
            AnnotatorError: The guarantee cannot be kept for one of the images.
        """
        promises = self.promises if voting is None else None
        kept = None if promises is None else [promises.of(image_id) for image_id in image_ids]
        incomplete = self.voting.assume_incomplete
        voting = replace(voting or self.voting, assume_incomplete=incomplete)
        same = copies(found.neighbors, self.metadata.fingerprint.asked_precision)
        itself = [
            found.cases.ids[row] if is_copy else None
            for row, is_copy in zip(
                found.neighbors.rows[:, 0].tolist(), same[:, 0].tolist(), strict=True
            )
        ]
        if self.exclude_self if exclude_self is None else exclude_self:
            most = self.needed(voting, False)
            found = replace(found, neighbors=found.neighbors.without(same, most))
        labels, closing = self._labels(found.cases)
        posterior = weigh(found.neighbors, labels, voting)
        if kept is not None:
            decisions = choose_by_image(posterior, [one.voting for one in kept])
        elif self.classifiers is None:
            decisions = choose_concepts(posterior, voting, closing)
        else:
            decisions = self.classifiers.decide(image_ids, posterior, voting)
        familiarity = self._familiarity(found.neighbors)
        least = self.min_familiarity if min_familiarity is None else min_familiarity
        calibration = self.calibration(voting)
        annotations = []
        for i, (image_id, decision) in enumerate(zip(image_ids, decisions, strict=True)):
            share = familiarity[i]
            if least is not None and share is not None and share < least:
                error = _unfamiliar(least)
                annotations.append(
                    Annotation(image_id, (), (), 0.0, (), familiarity=share, error=error)
                )
                continue
            runners_up = considered(decision, self._implied(decision.cuis, closing))
            if promises is not None:
                calibration = promises.calibration_for(image_id)
            annotation = Annotation(
                image_id=image_id,
                cuis=decision.cuis,
                scores=tuple(decision.scores.tolist()),
                **_worth(decision, runners_up, calibration),
                neighbors=_voters(found, posterior, i, voting) if with_neighbors else (),
                familiarity=share,
                votes=decision.by_concept() if with_votes else {},
                considered=runners_up,
                rivals=rivals(decision, runners_up, self._exclusions) if self._exclusions else {},
                same_image=itself[i],
                guarantee=None if kept is None else kept[i],
                hierarchical=self.hierarchy is not None,
                look=self._look,
            )
            annotations.append(annotation)
        return annotations

    def _looks(self) -> Look:
        names = {} if self.hierarchy is None else self.hierarchy.names
        return Look({**names, **self.stored.names}, index_thumbnails(self.stored))

    @cached_property
    def _exclusions(self) -> Exclusions | None:
        """Which concepts exclude each other; None for an index on a server, as it has no list of
        its images' labels at hand.
        """
        if not isinstance(self.stored, StoredIndex):
            return None
        return Exclusions(self._labels(self.stored)[0], self._parts)

    @cached_property
    def _parts(self) -> NDArray[np.float64] | None:
        """What part of a case each image of the index is; None for a whole one."""
        groups = self.stored.columns.get("groups") if isinstance(self.stored, StoredIndex) else None
        return None if groups is None else parts_of_cases(groups)

    def _implied(self, concepts: Sequence[str], closing: Closing | None) -> Collection[str]:
        """The concepts above some, where a hierarchy is given."""
        if closing is None or self.hierarchy is None:
            return ()
        return {above for concept in concepts for above in self.hierarchy.ancestors(concept)}

    def calibration(self, voting: Voting | None = None) -> Calibration | None:
        """The calibration of the index, if it was made for this vote; None for another one.

        Other voting parameters, changed labels, a hierarchy and classifiers make another vote.

        Args:
            voting: As for `decide`.
        """
        changed = (self.relabel, self.hierarchy, self.classifiers) != (None, None, None)
        same = not changed and (voting or self.voting) == self.metadata.voting
        return self.metadata.calibration if same else None

    def _labels(self, cases: Rows) -> tuple[LabelTable, Closing | None]:
        """The labels that vote, and how they were closed over a hierarchy.

        Those of a whole index are changed once.
        """
        labels = cases.labels
        known = self._changed  # another thread may replace it
        if known is None or known[0] is not labels:
            changed, closing = labels if self.relabel is None else self.relabel(labels), None
            if self.voting.assume_incomplete:
                changed = filled_in(changed, cases.columns[COLUMN])
            if self.hierarchy is not None:
                above, named = self.hierarchy.ancestors, changed
                changed = named.closed(above)
                ancestors = LabelTable.from_sets([above(c) for c in changed.cuis], changed.cuis)
                closing = Closing(ancestors, named.including(changed.cuis))
            self._changed = known = labels, changed, closing
        return known[1:]

    def _familiarity(self, neighbors: Neighbors) -> Sequence[float | None]:
        """Share of the index's own images that are further out than each query.

        By the outlier factor; by the nearest similarity alone in an index on a server, which has no
        vectors at hand, or of an earlier version.
        """
        if self._outlier_factor is not None and self.metadata.outlier_factors is not None:
            factors = self._outlier_factor(neighbors)
            shares = 1 - share_below(factors, np.array(self.metadata.outlier_factors))
        elif self.metadata.nearest is not None:
            nearest = neighbors.similarities[:, 0].astype(np.float64)
            shares = share_below(nearest, self.metadata.nearest)
        else:
            return [None] * len(neighbors.rows)
        return [float(share) for share in shares]

    @cached_property
    def _outlier_factor(self) -> OutlierFactor | None:
        if self.metadata.outlier_factors is None or not isinstance(self.stored, StoredIndex):
            return None
        lists = stored_lists(self.stored)
        return None if lists is None else OutlierFactor(lists, self.stored.vectors)


def _unfamiliar(least: float) -> ImageError:
    return ImageError(
        f"it is unlike the images of the index (familiarity below {least:g})",
        "Look at it, and add images like it with their concepts to the index.",
        "unfamiliar",
    )


class _Worth(TypedDict):
    probabilities: tuple[float, ...] | None
    considered_probabilities: tuple[float, ...] | None
    expected_f1: float


def _worth(
    decision: Decision, considered: Mapping[str, float], calibration: Calibration | None
) -> _Worth:
    """Probabilities and expected F1 of a decision, calibrated if there is a calibration."""
    if calibration is None:
        return {
            "probabilities": None,
            "considered_probabilities": None,
            "expected_f1": decision.expected_f1,
        }
    return {
        "probabilities": tuple(calibration.score(decision.scores).tolist()),
        "considered_probabilities": tuple(calibration.score(list(considered.values())).tolist()),
        "expected_f1": float(calibration.expected_f1(decision.expected_f1)),
    }


def _voters(found: SearchResult, posterior: Posterior, i: int, voting: Voting) -> tuple[Case, ...]:
    """Neighbours of query i that voted, without the prior at the end of the posterior."""
    k = int(np.isfinite(found.neighbors.similarities[i, : voting.k]).sum())
    voters = tuple(
        case_of(found.cases, row, similarity, weight)
        for row, similarity, weight in zip(
            posterior.rows[i, :k].tolist(),
            found.neighbors.similarities[i, :k].tolist(),
            posterior.weights[i, :k].tolist(),
            strict=False,  # there may be fewer than k neighbours
        )
    )
    if not voting.assume_incomplete:
        return voters
    texts = found.cases.columns[COLUMN]
    return tuple(
        replace(case, inferred=tuple(c for c in inferred_of(texts[row]) if c not in case.cuis))
        for case, row in zip(voters, posterior.rows[i].tolist(), strict=False)
    )
