"""Scores of a run by semantic type."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from annotator.concepts.types import SemanticTypes
from annotator.evaluation.measures import Mean, average
from annotator.evaluation.official_f1 import Scored, image_f1
from annotator.render.text_table import Row, columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TypeScore:
    """F1 of a run and its ground truth, both with the concepts of one semantic type alone.

    Attributes:
        tui: The type; several joined by `+`.
        name: Its name, where known.
        concepts: Number of its concepts in the ground truth.
        f1: Mean over the images whose ground truth has one of them.
    """

    tui: str
    name: str
    concepts: int
    f1: Mean

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "tui": self.tui,
            "name": self.name,
            "concepts": self.concepts,
            "n_images": self.f1.n,
            "n_groups": self.f1.n_groups,
            "f1": self.f1.mean,
            "interval": list(self.f1.interval),
        }


def score_by_type(
    scored: Scored,
    types: SemanticTypes,
    only: Sequence[str] = (),
    groups: NDArray[np.int64] | None = None,
) -> tuple[TypeScore, ...]:
    """Score a run by the semantic types of the ground truth.

    Args:
        scored: Scored images.
        types: The types of the concepts.
        only: Types to score; empty for all. Several are also scored together, first.
        groups: As for `average`.

    Returns:
        Scores, the types of most images first. Types without a concept in the truth are left out.
    """
    true = frozenset().union(*scored.truth)
    members = types.by_type(true.union(*scored.run))

    def score(tui: str, name: str, concepts: Collection[str]) -> TypeScore | None:
        return _score(scored, true, tui, name, frozenset(concepts), groups)

    each = (score(tui, types.names.get(tui, ""), members.get(tui, ())) for tui in only or members)
    found = [one for one in each if one]
    found.sort(key=lambda score: (-score.f1.n, score.tui))
    if len(only) > 1:
        together = frozenset().union(*(members.get(tui, ()) for tui in only))
        whole = score("+".join(only), "together", together)
        return (whole, *found) if whole else ()
    return tuple(found)


def _score(
    scored: Scored,
    true: frozenset[str],
    tui: str,
    name: str,
    concepts: frozenset[str],
    groups: NDArray[np.int64] | None,
) -> TypeScore | None:
    rows = [i for i, wanted in enumerate(scored.truth) if not wanted.isdisjoint(concepts)]
    if not rows:
        return None
    scores = [image_f1(scored.truth[i] & concepts, scored.run[i] & concepts) for i in rows]
    f1 = average(scores, None if groups is None else groups[rows])
    return TypeScore(tui, name, len(true & concepts), f1)


def render_by_type(scores: Sequence[TypeScore]) -> list[str]:
    """Render scores by type as a table for the terminal; "none" without any."""
    if not scores:
        return ["none"]
    rows: list[Row] = [
        [s.tui, s.name, s.concepts, s.f1.n, s.f1.mean, *s.f1.interval] for s in scores
    ]
    return columns(["type", "name", "concepts", "images", "F1", "95% low", "high"], rows)
