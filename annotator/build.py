"""A labelled collection to an index on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from annotator.adapt.projection import Projection
from annotator.collection import Collection
from annotator.embed.cache import EmbeddingCache
from annotator.embed.embedder import Embedder
from annotator.embed.stream import default_workers, embed_images
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef
from annotator.images.thumbnails import make_thumbnails
from annotator.progress import Progress, silent
from annotator.record import to_record, with_tuning
from annotator.tune.choose import Adaptation, Choice, choose
from annotator.tune.grid import Tuned, choose_voting
from annotator.tune.neighbours import Lists
from annotator.vote.voting import Voting
from index import VersionWriter, open_index
from index.publish import change_about
from index.segments import THUMBNAIL_ENDS, THUMBNAILS

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
        choice: What was fitted and chosen, and how good it is.
    """

    version: str
    rows: int
    concepts: int
    embedded: int
    cached: int
    failed: Mapping[str, str]
    choice: Choice


def build_index(
    collection: Collection,
    directory: Path | str,
    embedder: Embedder,
    *,
    adaptation: Adaptation = "auto",
    voting: Voting | None = None,
    tuning: bool = True,
    fixed: Sequence[str] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    use_cache: bool = True,
    thumbnails: bool = False,
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
        adaptation: How the vectors are fitted to the collection (`choose`).
        voting: What `Annotator` uses by default with this index.
        tuning: Choose it on the collection itself instead (`choose`), if there are images enough.
        fixed: Fields of `voting` that tuning leaves as they are.
        batch_size: Images that the encoder takes at once; None for what suits it.
        workers: Threads; None for the number of cores.
        use_cache: Look vectors up in, and add them to, `embeddings.sqlite` in `directory`.
        thumbnails: Keep a small picture of each image, for people to look at; about 6 kB each.
        on_error: "skip" leaves out images that cannot be used; "fail" stops at the first.
        progress: Told about every image.

    Raises:
        AnnotatorError: No image could be used, or one could not and `on_error` is "fail".
        IndexProblem: The folder is something else, or another process writes to it.
    """
    directory = Path(directory)
    rows: list[str] = []
    used: list[ImageRef] = []
    failed: dict[str, str] = {}
    embedded = cached = 0
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(VersionWriter(directory))
        spool = stack.enter_context(_Spool(directory))
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
            used.append(result.ref)
            spool.add(np.ascontiguousarray(result.vector, "<f4").tobytes())
        if not rows:
            where, reason = next(iter(failed.items()), ("there are none", ""))
            raise AnnotatorError(
                f"None of the {len(failed)} images could be used; the first: {where}: {reason}.",
                "Check the images with an image viewer.",
            )
        vectors = spool.array("<f4").reshape(len(rows), embedder.dim)
        concepts = [collection.concepts[id_] for id_ in rows]
        columns = {
            name: [texts.get(id_, "") for id_ in rows]
            for name, texts in (("captions", collection.captions), ("groups", collection.groups))
            if texts
        }
        choice = choose(
            vectors,
            concepts,
            [collection.groups.get(id_, "") for id_ in rows],
            blocks=embedder.blocks,
            adaptation=adaptation,
            tuning=tuning,
            voting=voting,
            fixed=fixed,
            progress=progress,
        )
        for part in _projected(vectors, choice.projection):
            writer.add(part)
        tuned = choice.tuned
        arrays: dict[str, NDArray[Any]] = {}
        if choice.projection is not None:
            arrays |= choice.projection.to_arrays()
        if choice.lists is not None:
            arrays |= choice.lists.to_arrays()
        if thumbnails:
            pictures = stack.enter_context(_Spool(directory))
            made = make_thumbnails(used, workers=workers or default_workers())
            made = stack.enter_context(contextlib.closing(made))
            ends = [
                pictures.add(picture)
                for picture in progress(made, total=len(used), label="Thumbnails")
            ]
            arrays |= {THUMBNAILS: pictures.array("u1"), THUMBNAIL_ENDS: np.array(ends, np.int64)}
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
        )
    vocabulary = {cui for row in concepts for cui in row}
    return Built(version, len(rows), len(vocabulary), embedded, cached, failed, choice)


def tune_index(
    directory: Path | str,
    *,
    voting: Voting | None = None,
    fixed: Sequence[str] = (),
    progress: Progress = silent,
) -> tuple[str, Tuned]:
    """Choose an index's voting parameters again, on the neighbour lists that its build has kept.

    Args:
        directory: The index; gets a new version that shares its files with the one before.
        voting: Where to start from; None for the defaults.
        fixed: Fields of `voting` that stay as they are.
        progress: Told about every candidate.

    Returns:
        The version, and what was chosen.

    Raises:
        IndexProblem: There is no index, or another process writes to it.
        AnnotatorError: The index has no neighbour lists.
    """
    directory = Path(directory)
    stored = open_index(directory)
    lists = Lists.from_arrays(stored.arrays, len(stored.ids))
    if lists is None:
        raise AnnotatorError(
            f"{directory} keeps no neighbour lists to tune on.",
            "It was built with --no-tune or from too few images: build it again.",
        )
    tuned = choose_voting(lists, stored.labels, start=voting, fixed=fixed, progress=progress)
    about = with_tuning(stored.manifest["about"], tuned.voting, tuned.to_dict())
    version = change_about(directory, about, of=stored.version)
    return version, tuned


class _Spool:
    """Bytes on their way to the index, in a file that has no name and so leaves nothing behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> _Spool:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._directory)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, data: bytes) -> int:
        """Append; where it ends."""
        self._file.write(data)
        return self._file.tell()

    def array(self, dtype: str) -> NDArray[Any]:
        """All of it, mapped read-only."""
        self._file.flush()
        n = self._file.tell() // np.dtype(dtype).itemsize
        return np.memmap(self._file, dtype, "r", 0, (n,)) if n else np.zeros(0, dtype)


def _projected(
    vectors: NDArray[np.float32], projection: Projection | None
) -> Iterator[NDArray[np.float32]]:
    if projection is not None:
        yield from projection.in_parts(vectors)
        return
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield np.array(vectors[start : start + _ROWS_AT_ONCE])
