"""The product's own rows, through the same functions as `annotator build-index` and `annotate`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotator.collection import Collection
from annotator.encoders.efficientnet import packaged, packaged_network
from annotator.encoders.embedder import Embedder, TorchEmbedder
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.indexing.build import build_index
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.voting import Voting
from annotator.pipeline import Annotator
from index import open_index
from quality_rows.data import Data

# One encoder more, and each at one more size: what can be had without a download.
SEVERAL = "+".join(f"efficientnet-lite{i}{size}" for i in (0, 1) for size in ("", "@320"))


class Ours:
    """Build an index and annotate with what it records. Nothing is taken from a cache.

    Args:
        name: For the table.
        embedder: Makes the encoder.
        changes: Parameters of `build_index` other than its own.
    """

    def __init__(self, name: str, embedder: Callable[[], Embedder], **changes: Any) -> None:
        self.name = name
        self.chosen: dict[str, Any] = {}
        self._embedder, self._changes = embedder, changes
        folder = Path(tempfile.mkdtemp(prefix="annotator-quality-"))
        self._index = folder / "index"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def fit(self, train: Data) -> None:
        """Build the index."""
        collection = Collection(
            images=train.images,
            concepts={
                id_: tuple(sorted(row)) for id_, row in zip(train.ids, train.labels, strict=True)
            },
            names={},
            captions={},
            groups={id_: str(group) for id_, group in zip(train.ids, train.groups, strict=True)},
            without_image=(),
            without_concepts=(),
            duplicates={},
            ignored=(),
        )
        embedder = self._embedder()
        build_index(collection, self._index, embedder, use_cache=False, **self._changes)

    def predict(self, test: Data) -> list[set[str]]:
        """Open the index and annotate."""
        annotator = Annotator(open_index(self._index), self._embedder())
        about = annotator.stored.manifest.about
        self.chosen = {**about["voting"], "adaptation": about["adaptation"]}
        if about["tuning"]:
            self.chosen["f1_on_training_side"] = round(about["tuning"]["f1"], 4)
            self.chosen["interval_on_training_side"] = about["tuning"]["interval"]
        annotations = annotator.annotate(test.images, with_neighbors=False)
        return [set(a.cuis) for a in annotations]


class Nearest(Ours):
    """Ours with the nearest case's concepts instead of a vote."""

    def predict(self, test: Data) -> list[set[str]]:
        """Open the index and take the nearest case."""
        stored = open_index(self._index)
        voting = replace(IndexMetadata.of(stored).voting, k=1, prior=0.0)
        annotator = Annotator(stored, self._embedder(), voting)
        self.chosen = {"k": 1, "adaptation": stored.manifest.about["adaptation"]}
        annotations = annotator.annotate(test.images, with_neighbors=False)
        return [set(a.cuis) for a in annotations]


def named(embedder: str) -> Callable[[], Embedder]:
    """Makes the encoder of that name."""
    return lambda: make_embedder(embedder)


def head_alone() -> Embedder:
    """The default encoder without its stages: its last layer, as most use such a network."""
    network = packaged_network(DEFAULT)
    network.reset_classifier(0)
    encoder = replace(packaged(DEFAULT), model=network, architecture="head", blocks=None)
    return TorchEmbedder("head alone", encoder)


def fixed(**parameters: Any) -> dict[str, Any]:
    """For `build_index`: these voting parameters, and all others tuned."""
    return {"voting": Voting(**parameters), "fixed": tuple(parameters)}
