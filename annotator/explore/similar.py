"""Search for cases similar to image files or to images of the index."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.local_runner import Embedded, embed_images
from annotator.encoders.runners import Runner
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef
from annotator.knn.neighbors import Find, Ranking, cases_of, nearest_others
from annotator.pipeline import Annotator
from index.progress import track
from index.protocols import Index

Without = Literal["nothing", "itself", "group"]

_SEARCHED_AT_ONCE = 256


def rank_images(
    annotator: Annotator,
    refs: Sequence[ImageRef],
    k: int,
    *,
    without: Without = "nothing",
    groups: Mapping[str, str] | None = None,
    cache: EmbeddingCache | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    runner: Runner = embed_images,
) -> Iterator[Ranking]:
    """Rank the k most similar cases of each image, in the order of the images.

    Args:
        annotator: Annotator of the index.
        refs: Query images.
        k: Number of cases per image, at least 1.
        without: Exclude the image itself (the case with its id), or all of its group.
        groups: Group by image id; None for the groups recorded in the index.
        cache: Cache of vectors.
        batch_size: Images per encoder call; None for the encoder's default.
        workers: Number of threads; None for the number of cores.
        runner: Function that embeds the images, by default in this process; see `make_runner`.
    """
    results = runner(refs, annotator.embedder, cache=cache, batch_size=batch_size, workers=workers)

    def ranked(block: Sequence[Embedded]) -> Iterator[Ranking]:
        usable = [(r.ref.id, r.vector) for r in block if r.vector is not None]
        ids, vectors = [id_ for id_, _ in usable], [vector for _, vector in usable]
        own = _groups(annotator.stored, ids, groups) if without == "group" else {}
        good = iter(
            _ranked(annotator.search, np.stack(vectors), ids, k, without, own) if ids else ()
        )
        for result in block:
            if result.error is None:
                yield replace(next(good), notes=result.notes)
            else:
                yield Ranking(result.ref.id, (), result.error)

    with contextlib.closing(results):
        block: list[Embedded] = []
        for result in track(results, total=len(refs), label="Searching"):
            block.append(result)
            if len(block) == _SEARCHED_AT_ONCE:
                yield from ranked(block)
                block = []
        yield from ranked(block)


def rank_ids(
    stored: Index, ids: Sequence[str], k: int, *, without: Without = "itself"
) -> list[Ranking]:
    """Rank the k most similar cases of each of some images of the index.

    Raises:
        AnnotatorError: The index has no image of such an id.
    """
    cases = stored.with_ids(ids)
    if len(cases.ids) != len(ids):
        known = set(cases.ids)
        raise AnnotatorError(
            f"The index has no image {next(id_ for id_ in ids if id_ not in known)!r}.",
            "Give the id of one of its images, or a file.",
        )
    vectors = cases.vectors(np.arange(len(ids)))
    own = _groups(stored, ids, None) if without == "group" else {}
    return list(_ranked(stored.find, vectors, ids, k, without, own))


def _ranked(
    find: Find,
    vectors: NDArray[np.float32],
    ids: Sequence[str],
    k: int,
    without: Without,
    groups: Mapping[str, str],
) -> Iterator[Ranking]:
    left_out = ids if without != "nothing" else [""] * len(ids)
    own = [groups.get(id_, "") for id_ in ids]
    done = 0
    for found in nearest_others(find, vectors, left_out, own, k):
        for cases in cases_of(found):
            yield Ranking(ids[done], cases)
            done += 1


def _groups(
    stored: Index, ids: Sequence[str], given: Mapping[str, str] | None
) -> Mapping[str, str]:
    if given is not None:
        return given
    cases = stored.with_ids(ids)
    groups = cases.columns.get("groups")
    if groups is None:
        raise AnnotatorError(
            "The index has no groups.",
            "Give them (--groups patients.csv), or rebuild the index with them.",
        )
    return dict(zip(cases.ids, groups, strict=True))
