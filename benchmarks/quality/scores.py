"""One method measured: fit, predict, score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from annotator.evaluation.measures import bootstrap_interval, compare, group_numbers
from annotator.evaluation.official_f1 import image_f1, mean
from benchmarks.quality.data import Data, LabelSet, Method

# Training images that hold a concept: fewer than four is what the task's participants call rare,
# and the largest collections reach tens of thousands.
BANDS: tuple[tuple[int, int | None], ...] = ((1, 3), (4, 19), (20, 99), (100, 999), (1000, None))


@dataclass(frozen=True)
class Truth:
    """What is scored against: all images of the test side, those that cannot be decoded included.

    Attributes:
        labels: Label set by image id.
        sources: Source by image id.
        groups: Number of the patient or study by image id; an image that it lacks is one by itself.
    """

    labels: Mapping[str, LabelSet]
    sources: Mapping[str, str]
    groups: Mapping[str, int] = field(default_factory=dict)


def run_method(method: Method, train: Data, test: Data, truth: Truth) -> dict[str, Any]:
    """Fit, predict, score; as plain values for JSON."""
    _, build = train.cost_of(lambda: method.fit(train))
    sets, predict = test.cost_of(lambda: method.predict(test))
    found = dict(zip(test.ids, sets, strict=True))
    return {
        "name": method.name,
        **score(found, truth, Counter(cui for labels in train.labels for cui in labels)),
        "build": {name: round(value, 2) for name, value in asdict(build).items()},
        "predict": {name: round(value, 2) for name, value in asdict(predict).items()},
        "chosen": method.chosen,
    }


def score(
    found: Mapping[str, set[str]], truth: Truth, training_counts: Mapping[str, int]
) -> dict[str, Any]:
    """All the figures of one method; an image that `found` lacks has no concepts."""
    f1 = image_scores(found, truth)
    by: dict[str, list[float]] = {}
    for id_, value in zip(truth.labels, f1, strict=True):
        by.setdefault(truth.sources.get(id_, ""), []).append(value)
    return {
        **_summary(f1),
        "by": {source: _summary(values) for source, values in sorted(by.items()) if truth.sources},
        **_over_concepts(found, truth, training_counts),
        "image_f1": [round(value, 6) for value in f1],
    }


def image_scores(found: Mapping[str, set[str]], truth: Truth) -> list[float]:
    """F1 of each image of `truth`, as the task's current scorer has it (none for none is right)."""
    return [
        image_f1(labels or {""}, found.get(id_) or {""}) for id_, labels in truth.labels.items()
    ]


def paired_difference(
    f1: Sequence[float], others: Sequence[float], groups: Sequence[str]
) -> dict[str, Any]:
    """How much higher the mean of one row is than that of another on the same images.

    The 95 % interval is over groups; an image without one, "", is one by itself.
    """
    found = compare(f1, others, group_numbers(groups))
    return {
        "difference": round(found.difference, 6),
        "interval": [round(end, 6) for end in found.interval],
    }


def _summary(f1: Sequence[float]) -> dict[str, Any]:
    interval = [round(end, 6) for end in bootstrap_interval(f1)]
    return {"images": len(f1), "f1": round(mean(f1), 6), "interval": interval}


def _over_concepts(
    found: Mapping[str, set[str]], truth: Truth, training_counts: Mapping[str, int]
) -> dict[str, Any]:
    wanted: Counter[str] = Counter()
    given: Counter[str] = Counter()
    both: Counter[str] = Counter()
    for id_, labels in truth.labels.items():
        sets = found.get(id_, set())
        wanted.update(labels)
        given.update(sets)
        both.update(labels & sets)
    macro = [2 * both[cui] / (wanted[cui] + given[cui]) for cui in wanted]
    bands = {}
    for low, high in BANDS:
        cuis = [c for c, n in training_counts.items() if low <= n <= (high or n)]
        total = sum(wanted[c] + given[c] for c in cuis)
        bands[f"{low}+" if high is None else f"{low}-{high}"] = {
            "concepts": len(cuis),
            "annotations": sum(wanted[c] for c in cuis),
            "f1": round(2 * sum(both[c] for c in cuis) / total, 6) if total else None,
        }
    return {"macro_f1": round(float(np.mean(macro)), 6) if macro else None, "bands": bands}
