"""A labelled collection to an index on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.encoders.cache import CACHE_FILE
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.runners import Runner
from annotator.errors import AnnotatorError
from annotator.indexing.embed_collection import (
    OnError,
    Spool,
    columns_of,
    embed_collection,
    projected,
    thumbnails_of,
)
from annotator.indexing.metadata import recorded_lists, to_record, with_tuning
from annotator.knn.fit_index import Adaptation, Choice, choose
from annotator.knn.grid_search import Tuned, choose_voting
from annotator.knn.voting import Voting
from index.folder.writer import IndexType
from index.locations import locate
from index.milvus.kinds import MilvusKind
from index.protocols import IndexLocation
from index.segments import CONTENT


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        version: The published version.
        rows: Images in the index.
        concepts: Different CUIs in the index.
        embedded: Images that went through the encoder.
        cached: Images whose vectors were known before.
        failed: Reason by place of each image that could not be used.
        choice: What was fitted and chosen, and how good it is.
        index_type: Kind of the index.
        search: Its parameters, and why this kind.
    """

    version: str
    rows: int
    concepts: int
    embedded: int
    cached: int
    failed: Mapping[str, str]
    choice: Choice
    index_type: str
    search: Mapping[str, Any]


def build_index(
    collection: Collection,
    directory: Path | str | IndexLocation,
    embedder: Embedder,
    *,
    adaptation: Adaptation = "auto",
    voting: Voting | None = None,
    tuning: bool = True,
    fixed: Sequence[str] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    runner: Runner = embed_images,
    use_cache: bool = True,
    thumbnails: bool = False,
    index_type: IndexType | MilvusKind = "auto",
    target_recall: float | None = None,
    on_error: OnError = "skip",
) -> Built:
    """Embed a collection and publish it as the current version of the index in `directory`.

    Vectors go to disk as they are computed, so memory does not grow with the collection, and into
    a cache beside the index, so that a build that was stopped continues where it was.

    Args:
        collection: Images with concepts.
        directory: The index, a folder or an address (`locate`); created, or given a new version.
        embedder: Makes the vectors; its fingerprint is recorded.
        adaptation: How the vectors are fitted to the collection (`choose`).
        voting: What `Annotator` uses by default with this index.
        tuning: Choose it on the collection itself instead (`choose`), if there are images enough.
        fixed: Fields of `voting` that tuning leaves as they are.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads; None for the number of cores.
        runner: Embeds the images, here by default; see `make_runner`.
        use_cache: Look vectors up in, and add them to, `embeddings.sqlite` in `directory`.
        thumbnails: Keep a small picture of each image, for people to look at; about 6 kB each.
        index_type: How the vectors are searched; "auto" chooses by their number and length.
        target_recall: Share of the true neighbours that approximate kinds are to find.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.

    Raises:
        AnnotatorError: No image could be used, or one could not and `on_error` is "fail".
        IndexProblem: The folder is something else, or another process writes to it.
    """
    place = locate(directory)
    place.check_index_type(index_type)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(place.writer())
        spool = stack.enter_context(Spool(place.folder))
        embedded = embed_collection(
            collection,
            embedder,
            spool,
            cache=place.folder / CACHE_FILE if use_cache else None,
            batch_size=batch_size,
            workers=workers,
            runner=runner,
            on_error=on_error,
        )
        rows, vectors = embedded.ids, embedded.vectors
        concepts = [collection.concepts[id_] for id_ in rows]
        columns = columns_of(collection, rows)
        choice = choose(
            vectors,
            concepts,
            [collection.groups.get(id_, "") for id_ in rows],
            blocks=embedder.blocks,
            adaptation=adaptation,
            tuning=tuning,
            voting=voting,
            fixed=fixed,
        )
        for part in projected(vectors, choice.projection):
            writer.add(part)
        tuned = choice.tuned
        arrays: dict[str, NDArray[Any]] = {}
        if choice.projection is not None:
            arrays |= choice.projection.to_arrays()
        if choice.lists is not None:
            arrays |= choice.lists.to_arrays()
        arrays[CONTENT] = embedded.contents
        if thumbnails:
            pictures = stack.enter_context(Spool(place.folder))
            arrays |= thumbnails_of(embedded.images, pictures, workers)
        adapted = {"penalty": choice.penalty, "f1_by_penalty": dict(choice.penalties)}
        version = writer.publish(
            rows,
            concepts,
            names=collection.names,
            columns=columns,
            about=to_record(
                embedder.name,
                embedder.fingerprint,
                choice.voting,
                adaptation=adapted if choice.projection else None,
                tuning=tuned.to_dict() if tuned else None,
            ),
            arrays=arrays,
            index_type=index_type,
            target_recall=target_recall,
        )
    manifest = place.manifest()
    return Built(
        version=version,
        rows=len(rows),
        concepts=len({cui for row in concepts for cui in row}),
        embedded=len(rows) - embedded.cached,
        cached=embedded.cached,
        failed=embedded.failed,
        choice=choice,
        index_type=manifest["index_type"],
        search=manifest["search"],
    )


def tune_index(
    directory: Path | str | IndexLocation,
    *,
    voting: Voting | None = None,
    fixed: Sequence[str] = (),
) -> tuple[str, Tuned]:
    """Choose an index's voting parameters again, on the neighbour lists that its build has kept.

    Args:
        directory: The index; gets a new version that shares its files with the one before.
        voting: Where to start from; None for the defaults.
        fixed: Fields of `voting` that stay as they are.

    Returns:
        The version, and what was chosen.

    Raises:
        IndexProblem: There is no index, or another process writes to it.
        AnnotatorError: The index has no neighbour lists.
    """
    place = locate(directory)
    stored = place.open()
    lists = recorded_lists(stored)
    if lists is None:
        raise AnnotatorError(
            f"{place} keeps no neighbour lists to tune on.",
            "It was built with --no-tune or from too few images: build it again.",
        )
    tuned = choose_voting(lists, stored.labels, start=voting, fixed=fixed)
    about = with_tuning(stored.manifest["about"], tuned.voting, tuned.to_dict())
    version = place.change_about(about, of=stored.version)
    return version, tuned
