"""The product's own rows, through the same functions as `annotator build-index` and `annotate`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from annotator.build import build_index
from annotator.collection import Collection
from annotator.embed.makers import make_embedder
from annotator.pipeline import Annotator
from annotator.progress import bar
from quality_rows.data import Data


class Ours:
    """Build an index and annotate with what it records. Nothing is taken from a cache.

    Args:
        name: For the table.
        embedder: As for `--embedder`.
    """

    def __init__(self, name: str, embedder: str) -> None:
        self.name = name
        self.chosen: dict[str, Any] = {}
        self._embedder = embedder
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
        embedder = make_embedder(self._embedder)
        build_index(collection, self._index, embedder, use_cache=False, progress=bar)

    def predict(self, test: Data) -> list[set[str]]:
        """Open the index and annotate."""
        annotator = Annotator.open(self._index)
        self.chosen = dict(annotator.stored.manifest["about"]["voting"])
        return [set(a.cuis) for a in annotator.annotate(test.images, progress=bar)]
