"""Build an index from a labelled collection, and retune it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.encoders.cache import CACHE_FILE
from annotator.encoders.embedder import Embedder
from annotator.encoders.fitted import NEW
from annotator.encoders.runners import Runner
from annotator.errors import AnnotatorError, ImageError
from annotator.images.notes import Note
from annotator.indexing.embedding import (
    OnError,
    Spool,
    columns_of,
    embed_to_disk,
    projected,
    thumbnails_of,
)
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.calibration import calibrate
from annotator.knn.cross_validation import LEAST_IMAGES, projected_rows, stored_lists
from annotator.knn.familiarity import OutlierFactor
from annotator.knn.grid_search import Tuned, check_k, choose_voting
from annotator.knn.guarantees import Cost, costs
from annotator.knn.incomplete import COLUMN, folds_of, voters, with_filled_in
from annotator.knn.model import (
    Adaptation,
    Branches,
    FittedModel,
    default_voting,
    fit_model,
)
from annotator.knn.new_source import (
    NewSource,
    check_sources,
    expect_of_new_source,
    refuse_fitted,
)
from annotator.knn.voting import Voting
from index import IndexProblem, LabelTable, StoredIndex
from index.folder.location import FolderLocation
from index.locations import locate
from index.milvus.kinds import MilvusKind
from index.protocols import IndexLocation
from index.search.build import IndexType
from index.segments import CONTENT


@dataclass(frozen=True)
class Retuned:
    """Result of tuning again.

    Attributes:
        version: Published version.
        tuned: What was chosen, and its estimated quality.
        guarantees: What guarantees cost with it.
    """

    version: str
    tuned: Tuned
    guarantees: Sequence[Cost]


@dataclass(frozen=True)
class Built:
    """Result of a build.

    Attributes:
        version: Published version.
        rows: Number of images in the index.
        concepts: Number of distinct CUIs in the index.
        embedded: Number of images encoded.
        cached: Number of images with cached vectors.
        failed: Error by location of each image that could not be used.
        notes: By location, what was done to pictures that their files did not ask for.
        model: Fitted model and its estimated quality.
        index_type: Type of the search index.
        search: Parameters of the search, and the reason for the type.
        new_source: What to expect of a new source; None if no sources were given.
    """

    version: str
    rows: int
    concepts: int
    embedded: int
    cached: int
    failed: Mapping[str, ImageError]
    notes: Mapping[str, tuple[Note, ...]]
    model: FittedModel
    index_type: str
    search: Mapping[str, Any]
    new_source: NewSource | None = None


def build_index(
    collection: Collection,
    directory: Path | str | IndexLocation,
    embedder: Embedder,
    *,
    adaptation: Adaptation = "auto",
    voting: Voting | None = None,
    tuning: bool = True,
    fixed: Sequence[str] = (),
    assume_incomplete: bool = False,
    sources: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    runner: Runner | None = None,
    use_cache: bool = True,
    thumbnails: bool = False,
    index_type: IndexType | MilvusKind = "auto",
    target_recall: float | None = None,
    on_error: OnError = "skip",
) -> Built:
    """Embed a collection and publish it as the current version of the index in `directory`.

    Vectors are written to disk as they are computed, so memory does not grow with the collection,
    and to a cache beside the index, so that an interrupted build resumes.

    Args:
        collection: Images with concepts.
        directory: Index, a folder or an address (`locate`); created, or given a new version.
        embedder: Encoder; its fingerprint is recorded.
        adaptation: Kind of projection fitted to the collection (`fit_model`).
        voting: Default voting parameters of the index.
        tuning: Tune the voting parameters on the collection if it has enough images.
        fixed: Fields of `voting` that are not tuned.
        assume_incomplete: Let neighbours fill in labels that may be missing
            (`annotator.knn.incomplete`).
        sources: Source of images by id, to estimate what to expect of a new source
            (`expect_of_new_source`); None for no such estimate.
        batch_size: Images per encoder call; None for the encoder's default.
        workers: Number of threads; None for the number of cores.
        runner: Function that embeds the images, None for this process; see `make_runner`.
        use_cache: Read and write cached vectors in `embeddings.sqlite` in `directory`.
        thumbnails: Store a thumbnail of each image, about 6 kB each.
        index_type: Type of the search index; "auto" chooses by number and length of the vectors.
        target_recall: Recall to reach by approximate types.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.

    Raises:
        AnnotatorError: No image could be used, or one could not and `on_error` is "fail"; vectors
            of a fitted encoder are given without it; there are too few for the decider "macro-f1"
            or to fill in labels; labels cannot be filled in there, or with what else is given;
            there are fewer than two sources, or the encoder was fitted to them; or as `check_k`.
        IndexProblem: The folder is not an index, or is being written by another process.
    """
    place = locate(directory)
    place.check_index_type(index_type)
    if tuning:
        check_k(voting, fixed)
    if assume_incomplete:
        _check_incomplete(place, embedder, tuning, sources)
    corrections = _corrections_before(place)
    if embedder.fitted is None and embedder.fingerprint.is_fitted:
        raise AnnotatorError(
            f"Vectors of {embedder.name} alone do not say which images it was fitted to, and an "
            "index that is tuned on those would think far too well of itself.",
            "Build it from the images: annotator build-index IMAGES CONCEPTS --embedder "
            "fitted:FOLDER.",
        )
    if sources is not None:
        if embedder.fitted is not None:
            refuse_fitted(embedder.name)
        check_sources([sources.get(ref.id, "") for ref in collection.images])
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(place.writer())
        spool = stack.enter_context(Spool(place.folder))
        embedded = embed_to_disk(
            collection.images,
            embedder,
            spool,
            cache=place.folder / CACHE_FILE if use_cache else None,
            batch_size=batch_size,
            workers=workers,
            runner=runner,
            on_error=on_error,
        )
        ids, vectors = embedded.ids, embedded.vectors
        concepts = [collection.concepts[id_] for id_ in ids]
        groups = [collection.groups.get(id_, "") for id_ in ids]
        fitted = embedder.fitted
        columns = columns_of(collection, ids)
        label_folds = folds_of(ids, groups)
        model = fit_model(
            vectors,
            concepts,
            groups,
            blocks=embedder.blocks,
            adaptation=adaptation,
            tuning=tuning,
            voting=voting,
            fixed=fixed,
            branches=None if fitted is None else Branches.of(fitted, embedded.contents, groups),
            incomplete=label_folds if assume_incomplete else None,
            folder=place.folder,
        )
        if model.voting.decider == "macro-f1" and model.voting.macro_thresholds is None:
            raise AnnotatorError(
                "Too few images, or none that the encoder was not fitted to, to set thresholds for "
                "macro F1.",
                f"It takes {LEAST_IMAGES} images of several patients. Build without it.",
            )
        if model.inferred is not None:
            columns[COLUMN] = list(model.inferred)
        elif assume_incomplete:
            raise AnnotatorError(
                "Too few images to fill in labels.",
                f"It takes {LEAST_IMAGES} images of several patients. Build without it.",
            )
        new_source = None
        if sources is not None:
            of_row = [sources.get(id_, "") for id_ in ids]
            new_source = expect_of_new_source(
                vectors, concepts, groups, of_row, model, blocks=embedder.blocks
            )
        for part in projected(vectors, model.projection):
            writer.add(part)
        arrays: dict[str, NDArray[Any]] = {}
        adapted: Mapping[str, Any] | None = None
        if model.projection is not None:
            arrays |= model.projection.to_arrays()
            adapted = {"penalty": model.penalty, "f1_by_penalty": dict(model.f1_by_penalty)}
            if fitted is not None:
                after_fit = int((fitted.folds_of(embedded.contents) == NEW).sum())
                adapted |= {
                    "share": model.share,
                    "f1_by_share": dict(model.f1_by_share),
                    "after_fit": after_fit,
                }
        calibration, guarantees, outlier_factors = None, [], None
        if model.lists is not None:
            arrays |= model.lists.to_arrays()
            lists, labels = model.lists, LabelTable.from_sets(concepts)
            if model.inferred is not None:
                lists, labels = with_filled_in(lists, labels, model.inferred, label_folds)
            calibration = calibrate(lists, labels, model.voting)
            guarantees = costs(lists, labels, model.voting)
            in_index = partial(projected_rows, vectors, model.projection)
            outlier_factors = OutlierFactor(model.lists, in_index).quantiles()
        if fitted is not None:
            arrays |= fitted.to_arrays()
        arrays[CONTENT] = embedded.contents
        if thumbnails:
            pictures = stack.enter_context(Spool(place.folder))
            arrays |= thumbnails_of(embedded.images, pictures, workers)
        metadata = IndexMetadata(
            embedder.name,
            embedder.fingerprint,
            model.voting,
            adapted,
            model.tuned.to_dict() if model.tuned else None,
            calibration,
            guarantees,
            outlier_factors,
            new_source.to_dict() if new_source else None,
            corrections,
            embedder.engine,
        )
        version = writer.publish(
            ids,
            concepts,
            names=collection.names,
            columns=columns,
            about=metadata.to_dict(),
            arrays=arrays,
            index_type=index_type,
            target_recall=target_recall,
        )
    manifest = place.manifest()
    return Built(
        version=version,
        rows=len(ids),
        concepts=len({cui for row in concepts for cui in row}),
        embedded=len(ids) - embedded.cached,
        cached=embedded.cached,
        failed=embedded.failed,
        notes=embedded.notes,
        model=model,
        index_type=manifest.index_type,
        search=manifest.search,
        new_source=new_source,
    )


def _corrections_before(place: IndexLocation) -> int:
    """Number of the last correction of an index that is about to be built anew."""
    with contextlib.suppress(IndexProblem):  # there is none, or a damaged one
        place.settle()
        return max((one.number for one in place.history()), default=0)
    return 0


def tune_index(
    directory: Path | str | IndexLocation,
    *,
    voting: Voting | None = None,
    fixed: Sequence[str] = (),
) -> Retuned:
    """Retune and calibrate the voting parameters of an index on its stored neighbour lists, and
    record what guarantees cost.

    If neighbours fill in labels, they go on to do so, with what the build has filled in.
    What to expect of a new source is forgotten if the parameters change: only a build can tell.

    Args:
        directory: Index; gets a new version that shares its files with the previous one.
        voting: Starting point; None for the defaults.
        fixed: Fields of `voting` that are not tuned.

    Raises:
        IndexProblem: There is no index, or another process is writing to it.
        AnnotatorError: The index has no neighbour lists or no build metadata; or as `check_k`.
    """
    place = locate(directory)
    place.settle()
    stored = place.open()
    metadata, lists = IndexMetadata.of(stored), stored_lists(stored)
    if lists is None:
        raise AnnotatorError(
            f"{place} has no neighbour lists to tune on.",
            "It was built with --no-tune or from too few images: build it again.",
        )
    start = default_voting(voting, fixed, projected=metadata.adaptation is not None)
    start = replace(start, assume_incomplete=metadata.voting.assume_incomplete)
    voting_lists, labels = voters(lists, stored.labels, stored, start)
    tuned = choose_voting(voting_lists, labels, start=start, fixed=fixed)
    metadata = replace(
        metadata,
        voting=tuned.voting,
        tuning=tuned.to_dict(),
        calibration=calibrate(voting_lists, labels, tuned.voting),
        guarantees=costs(voting_lists, labels, tuned.voting),
        new_source=metadata.new_source if tuned.voting == metadata.voting else None,
        corrections=stored.manifest.corrections,
    )
    if isinstance(stored, StoredIndex):  # a server has no vectors at hand
        outlier_factors = OutlierFactor(lists, stored.vectors).quantiles()
        metadata = replace(metadata, outlier_factors=outlier_factors)
    version = place.change_about(metadata.to_dict(), of=stored.version)
    return Retuned(version, tuned, metadata.guarantees)


def _check_incomplete(
    place: IndexLocation, embedder: Embedder, tuning: bool, sources: Mapping[str, str] | None
) -> None:
    """Refuse to fill in labels where that cannot be done.

    Raises:
        AnnotatorError: Says why.
    """
    why = hint = ""
    if not isinstance(place, FolderLocation):
        why = "An index on a server does not keep what is filled in."
        hint = "Build one in a folder, or leave out --assume-incomplete."
    elif embedder.fitted is not None:
        why = "The heads of a fitted encoder weigh the labels that were given, not the filled-in."
        hint = "Take the encoder as it was before the fit, or leave out --assume-incomplete."
    elif not tuning:
        why = "To fill in labels takes tuning."
        hint = "Leave out --no-tune."
    elif sources is not None:
        why = "What to expect of a new source is not estimated with labels filled in."
        hint = "Leave out --holdout-groups or --assume-incomplete."
    if why:
        raise AnnotatorError(why, hint)
