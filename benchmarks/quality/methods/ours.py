"""The product itself, through the functions behind `annotator build-index` and `annotate`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from annotator.collection import Collection
from annotator.encoders.efficientnet import packaged, packaged_network
from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import embed_images
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.fitting.fit import fit_encoder
from annotator.fitting.recipe import Recipe
from annotator.indexing.build import build_index
from annotator.knn.voting import Voting
from annotator.pipeline import Annotator
from benchmarks.quality.data import Data, digest, maybe_on_gpu
from benchmarks.quality.methods.expected_f1 import expected_f1_sets

# One encoder more, and each at one more size: what can be had without a download.
SEVERAL = "+".join(f"efficientnet-lite{i}{size}" for i in (0, 1) for size in ("", "@320"))

_VERSION = 1  # of fitting: another one does not take what is kept


class Ours:
    """Build an index and annotate with what it records. Nothing is taken from a cache.

    Args:
        name: For the table.
        embedder: Makes the encoder.
        fixed: Voting parameters that are not tuned.
        changes: Parameters of `build_index` other than its own.

    Attributes:
        embedder: Makes the encoder.
        index: The index, after `fit`.
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
        self.embedder, self._changes = embedder, changes
        if fixed:
            self._changes |= {"voting": Voting(**fixed), "fixed": tuple(fixed)}
        folder = Path(tempfile.mkdtemp(prefix="annotator-quality-"))
        self.index = folder / "index"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def fit(self, train: Data) -> None:
        """Build the index."""
        collection, embedder = collection_of(train), self.embedder()
        with maybe_on_gpu():
            build_index(collection, self.index, embedder, use_cache=False, **self._changes)

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
        return Annotator.open(self.index, embedder=self.embedder())


class Nearest(Ours):
    """Ours with the nearest case's concepts instead of a vote."""

    def _opened(self) -> Annotator:
        annotator = super()._opened()
        voting = replace(annotator.voting, k=1, prior=0.0)
        return Annotator(annotator.stored, annotator.embedder, voting)


class OursFitted(Ours):
    """Fit the encoder to the training side first, and build the index with that.

    Args:
        name: For the table.
        folder: Where the fitted encoder is kept and shared by all rows that use it.
        encoder: Name of the encoder that is fitted.
        recipe: How.
        folds: Number of branches.
        changes: As for `Ours`.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        encoder: str,
        recipe: Recipe,
        *,
        folds: int = 3,
        **changes: Any,
    ) -> None:
        super().__init__(name, lambda: make_embedder(f"fitted:{self._fitted}"), **changes)
        self._folder, self._encoder, self._recipe, self._folds = folder, encoder, recipe, folds

    def fit(self, train: Data) -> None:
        """Fit the encoder, or take what is kept; build the index."""
        self._fit_encoder(train)
        super().fit(train)

    def _fit_encoder(self, train: Data) -> None:
        labels, groups = [sorted(row) for row in train.labels], train.groups.tolist()
        key = (_VERSION, self._encoder, asdict(self._recipe), self._folds)
        self._fitted = out = self._folder / f"fitted-{digest(*key, train.ids, labels, groups)}"

        def work() -> None:
            with maybe_on_gpu():
                fit_encoder(
                    collection_of(train),
                    out,
                    self._encoder,
                    recipe=self._recipe,
                    folds=self._folds,
                    overwrite=True,
                )

        train.once(out, work)


class Heads(OursFitted):
    """The heads of the fitted encoder alone, a classifier: the sets of highest expected F1."""

    def fit(self, train: Data) -> None:
        """Fit the encoder, or take what is kept."""
        self._fit_encoder(train)

    def predict(self, test: Data) -> list[set[str]]:
        """The mean log-odds of all heads, then sets."""
        embedder = self.embedder()
        fitted = embedder.fitted
        assert fitted is not None
        with maybe_on_gpu():
            found = [result.vector for result in embed_images(test.images, embedder)]
        vectors = np.stack([vector for vector in found if vector is not None])
        odds = np.mean([fitted.log_odds(vectors, k) for k in range(len(fitted.columns))], axis=0)
        chosen, _ = expected_f1_sets(1 / (1 + np.exp(-odds)))
        return [{fitted.concepts[j] for j in np.flatnonzero(row)} for row in chosen]


def collection_of(train: Data) -> Collection:
    """The training side as the product reads it."""
    return Collection(
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


def named(embedder: str) -> Callable[[], Embedder]:
    """Makes the encoder of that name."""
    return lambda: make_embedder(embedder)


def head_alone() -> Embedder:
    """The default encoder without its stages: its last layer, as most use such a network."""
    network = packaged_network(DEFAULT)
    network.reset_classifier(0)
    encoder = replace(packaged(DEFAULT), model=network, architecture="head", blocks=None)
    return TorchEmbedder("head alone", encoder)
