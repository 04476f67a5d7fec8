"""Learning curves: how much each row makes of few training images of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def learning_curves(
    sources: Sequence[str],
    train: Data,
    test: Data,
    truth: Truth,
    source_of_training: Mapping[str, str],
    settings: Settings,
) -> list[dict[str, Any]]:
    """F1 on a source's test images after training on a share of its training images.

    Shares are of whole groups, drawn with three seeds; at 100 % there is nothing to draw and one
    training. The CNN keeps its number of epochs, so few images also mean few steps. The image_f1 of
    a point are the means over the seeds.

    Raises:
        AnnotatorError: There is no such source on both sides.
    """
    curves = []
    for source in sources:
        rows = np.array([source_of_training.get(id_) == source for id_ in train.ids])
        tested = np.array([truth.sources.get(id_) == source for id_ in test.ids])
        if not rows.any() or not tested.any():
            raise AnnotatorError(
                f"--curves: no source {source!r} on both sides.",
                f"There are: {', '.join(sorted(set(truth.sources.values())))}.",
            )
        ours, theirs = train.take(np.flatnonzero(rows)), test.take(np.flatnonzero(tested))
        labels = {id_: s for id_, s in truth.labels.items() if truth.sources.get(id_) == source}
        wanted = Truth(labels, {})
        for name in CURVE_ROWS:
            for share in SHARES:
                curves.append(_point(name, share, ours, theirs, wanted, settings))
                curves[-1]["source"] = source
    return curves


def _point(
    name: str, share: float, train: Data, test: Data, truth: Truth, settings: Settings
) -> dict[str, Any]:
    scores, images = [], []
    for seed in range(REPEATS if share < 1 else 1):
        some = train.take(sample_of_groups(train.groups, max(2, round(share * len(train))), seed))
        row = ROWS[name](settings)
        row.fit(some)
        found = dict(zip(test.ids, row.predict(test), strict=True))
        scores.append(image_scores(found, truth))
        images.append(len(some))
    return {
        "row": name,
        "name": row.name,
        "share": share,
        "training_images": images,
        "f1": [round(float(np.mean(s)), 6) for s in scores],
        "image_f1": [round(float(f1), 6) for f1 in np.mean(scores, axis=0)],
    }
