"""A collection of labelled images as plain features of the packaged encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality_rows.data import known_group

from annotator.collection import Collection, read_collection
from annotator.encoders.cache import EmbeddingCache
from annotator.encoders.local_runner import embed_images
from annotator.encoders.registry import make_embedder
from index.progress import track
from index_latency_parts.files import digest

Floats = NDArray[np.float32]

FEATURES = 1280  # the encoder's last numbers: those of its last layer, pooled


@dataclass(frozen=True)
class Real:
    """Both sides of a collection.

    Attributes:
        name: Changes with the images and their concepts.
        train: float32[a, 1280], features of unit norm.
        test: float32[b, 1280], likewise.
        train_labels: The concepts of each training image.
        test_labels: The concepts of each test image.
    """

    name: str
    train: Floats
    test: Floats
    train_labels: Sequence[frozenset[str]]
    test_labels: Sequence[frozenset[str]]

    def vectors(self, dim: int) -> tuple[Floats, Floats]:
        """float32[a, dim] and float32[b, dim] of unit norm.

        Shorter vectors are the features along the leading principal axes of the training side.

        Raises:
            SystemExit: The features have fewer numbers.
        """
        if dim > FEATURES:
            raise SystemExit(f"Features of images have {FEATURES} numbers, not {dim}.")
        if dim == FEATURES:
            return self.train, self.test
        axes = self._axes[:, :dim]
        return _unit(self.train @ axes), _unit(self.test @ axes)

    @cached_property
    def _axes(self) -> NDArray[np.float64]:
        """float64[1280, 1280]: the principal axes of the training side, the strongest first."""
        rows = self.train.astype(np.float64)
        axes: NDArray[np.float64] = np.linalg.eigh(rows.T @ rows)[1][:, ::-1]
        return axes


def read_real(
    images: str,
    concepts: str,
    work: Path,
    *,
    split: str,
    sides: tuple[str, str] = ("train", "test"),
    groups: str | None = None,
) -> Real:
    """Embed both sides of a collection, with a cache in `work`.

    Args:
        images: A folder, a glob or Parquet files.
        concepts: A ground-truth file.
        work: Where vectors are kept.
        split: "FILE" or "FILE:COLUMN" with each image's side.
        sides: Their names: that to search in, that to ask about.
        groups: "FILE" or "FILE:COLUMN" with each image's patient: one with images on both sides is
            refused.

    Raises:
        SystemExit: A patient has images on both sides.
    """
    both = [
        read_collection(images, concepts, split=split, only=side, groups=groups) for side in sides
    ]
    of = [{known_group(side.groups.get(ref.id, "")) for ref in side.images} for side in both]
    if shared := (of[0] & of[1]) - {""}:
        raise SystemExit(f"{len(shared)} groups have images on both sides, such as {min(shared)}.")
    embedder = make_embedder()
    fingerprint = embedder.fingerprint.digest
    with EmbeddingCache(work / "embeddings.sqlite", fingerprint) as cache:
        (train, train_labels), (test, test_labels) = (_embedded(side, cache) for side in both)
    names = [[[ref.id, *side.concepts[ref.id]] for ref in side.images] for side in both]
    name = digest([fingerprint, names])
    return Real(name, train, test, train_labels, test_labels)


def _embedded(collection: Collection, cache: EmbeddingCache) -> tuple[Floats, list[frozenset[str]]]:
    results = embed_images(collection.images, make_embedder(), cache=cache)
    shown = track(results, total=len(collection.images), label="Embedding")
    good = [(r.vector, r.ref.id) for r in shown if r.vector is not None]
    vectors = np.stack([vector[-FEATURES:] for vector, _ in good])
    return _unit(vectors), [frozenset(collection.concepts[id_]) for _, id_ in good]


def _unit(vectors: NDArray[np.floating]) -> Floats:
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
