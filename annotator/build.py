"""A labelled collection to an index on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.embed.cache import EmbeddingCache
from annotator.embed.embedder import Embedder
from annotator.embed.stream import embed_images
from annotator.errors import AnnotatorError
from annotator.progress import Progress, silent
from annotator.record import to_record
from annotator.tune import Tuned, tune
from annotator.vote.voting import Voting
from index import FlatIndex, VersionWriter

CACHE_FILE = "embeddings.sqlite"
OnError = Literal["skip", "fail"]
_ROWS_AT_ONCE = 256


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
        tuned: What was chosen for voting and how good it is, or None if nothing was tuned.
    """

    version: str
    rows: int
    concepts: int
    embedded: int
    cached: int
    failed: Mapping[str, str]
    tuned: Tuned | None


def build_index(
    collection: Collection,
    directory: Path | str,
    embedder: Embedder,
    *,
    voting: Voting | None = None,
    tuning: bool = True,
    batch_size: int | None = None,
    workers: int | None = None,
    use_cache: bool = True,
    on_error: OnError = "skip",
    progress: Progress = silent,
) -> Built:
    """Embed a collection and publish it as the current version of the index in `directory`.

    Vectors go to disk as they are computed, so memory does not grow with the collection, and into
    a cache beside the index, so that a build that was stopped continues where it was.

    Args:
        collection: Images with concepts.
        directory: The index; created, or given a new version.
        embedder: Makes the vectors; its fingerprint is recorded.
        voting: What `Annotator` uses by default with this index.
        tuning: Choose k and beta by leave-one-group-out instead (`tune`), if there are images
            enough.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads; None for the number of cores.
        use_cache: Look vectors up in, and add them to, `embeddings.sqlite` in `directory`.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.
        progress: Told about every image.

    Raises:
        AnnotatorError: No image could be used, or one could not and `on_error` is "fail".
        IndexProblem: The folder is something else, or another process writes to it.
    """
    directory = Path(directory)
    rows: list[str] = []
    failed: dict[str, str] = {}
    embedded = cached = 0
    pending: list[NDArray[np.float32]] = []
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(VersionWriter(directory, embedder.dim))
        cache = None
        if use_cache:
            cache = stack.enter_context(
                EmbeddingCache(directory / CACHE_FILE, embedder.fingerprint.digest)
            )
        results = stack.enter_context(
            contextlib.closing(
                embed_images(
                    collection.images, embedder, cache=cache, batch_size=batch_size, workers=workers
                )
            )
        )
        for result in progress(results, total=len(collection.images), label="Embedding"):
            if result.vector is None:
                if on_error == "fail":
                    raise AnnotatorError(
                        f"{result.ref.where}: {result.error}.",
                        "Put it right, or leave such images out with --on-error skip.",
                    )
                failed[result.ref.where] = result.error or ""
                continue
            embedded, cached = embedded + (not result.cached), cached + result.cached
            rows.append(result.ref.id)
            pending.append(result.vector)
            if len(pending) == _ROWS_AT_ONCE:
                writer.add(np.stack(pending))
                pending.clear()
        if not rows:
            where, reason = next(iter(failed.items()), ("there are none", ""))
            raise AnnotatorError(
                f"None of the {len(failed)} images could be used; the first: {where}: {reason}.",
                "Check the images with an image viewer.",
            )
        if pending:
            writer.add(np.stack(pending))
        concepts = [collection.concepts[id_] for id_ in rows]
        columns = {
            name: [texts.get(id_, "") for id_ in rows]
            for name, texts in (("captions", collection.captions), ("groups", collection.groups))
            if texts
        }
        voting, tuned = voting or Voting(), None
        if tuning:
            groups = [collection.groups.get(id_, "") for id_ in rows]
            vectors = writer.vectors()
            tuned = tune(
                FlatIndex(vectors), vectors, concepts, groups, voting=voting, progress=progress
            )
            voting = tuned.voting if tuned else voting
        version = writer.publish(
            rows,
            concepts,
            names=collection.names,
            columns=columns,
            about=to_record(
                embedder.name, embedder.fingerprint, voting, tuned.to_dict() if tuned else None
            ),
        )
    vocabulary = {cui for row in concepts for cui in row}
    return Built(version, len(rows), len(vocabulary), embedded, cached, failed, tuned)
