"""Learning curves: how much each row makes of few training images of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotator.errors import AnnotatorError
from quality_rows.data import Data
from quality_rows.labels import sample_of_groups
from quality_rows.measure import Truth, image_scores
from quality_rows.registry import ROWS, Settings

SHARES = (0.1, 0.25, 0.5, 1.0)
REPEATS = 3
CURVE_ROWS = ("ours", "logistic-expected-f1", "cnn-tuned")


@dataclass(frozen=True)
class Source:
    """Both sides of one source."""

    name: str
    train: Data
    test: Data
    truth: Truth


def split_sources(
    names: Sequence[str], train: Data, test: Data, truth: Truth, source_of: Mapping[str, str]
) -> list[Source]:
    """The images of each of `names`, by source by image id.

    Raises:
        AnnotatorError: There is no such source on both sides.
    """
    sources = []
    for name in names:
        rows = [np.flatnonzero([source_of.get(i) == name for i in d.ids]) for d in (train, test)]
        if not len(rows[0]) or not len(rows[1]):
            known = sorted({source_of.get(id_, "") for id_ in train.ids} - {""})
            raise AnnotatorError(
                f"No source {name!r} on both sides.", f"The training side has: {', '.join(known)}."
            )
        labels = {id_: s for id_, s in truth.labels.items() if source_of.get(id_) == name}
        sources.append(Source(name, train.take(rows[0]), test.take(rows[1]), Truth(labels, {})))
    return sources


def learning_curves(
    sources: Sequence[Source],
    settings: Settings,
    rows: Sequence[str] = CURVE_ROWS,
) -> list[dict[str, Any]]:
    """F1 on a source's test images after training on a share of its training images.

    Shares are of whole groups, drawn with three seeds; at 100 % there is nothing to draw and one
    training. The CNN keeps its number of epochs, so few images also mean few steps. The image_f1 of
    a point are the means over the seeds.
    """
    return [
        _point(name, share, source, settings)
        for source in sources
        for name in rows
        for share in SHARES
    ]


def _point(name: str, share: float, source: Source, settings: Settings) -> dict[str, Any]:
    train, test = source.train, source.test
    scores, images = [], []
    for seed in range(REPEATS if share < 1 else 1):
        n = max(2, round(share * len(train)))
        some = train.take(sample_of_groups(train.groups, n, seed))
        row = ROWS[name](settings)
        row.fit(some)
        found = dict(zip(test.ids, row.predict(test), strict=True))
        scores.append(image_scores(found, source.truth))
        images.append(len(some))
    return {
        "source": source.name,
        "key": name,
        "name": row.name,
        "share": share,
        "training_images": images,
        "f1": [round(float(np.mean(s)), 6) for s in scores],
        "image_f1": [round(float(f1), 6) for f1 in np.mean(scores, axis=0)],
    }
