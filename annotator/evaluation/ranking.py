"""Rankings against what is relevant: nDCG and mean average precision, as trec_eval has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.errors import FormatError
from annotator.evaluation.measures import Measured, measure
from annotator.evaluation.relevance import Judgements, Relevance, SharedConcepts
from annotator.tables.formats import read_column, read_concepts
from annotator.tables.ranking import is_qrels, read_qrels, read_ranking

DEPTH = 10
JUDGED_RELEVANT = 1.0  # least relevance that counts as relevant, of judgements ...
SHARED_RELEVANT = 0.5  # ... and of concepts: half of them shared


def ndcg(found: NDArray[np.float64], every: NDArray[np.float64], k: int) -> float:
    """Normalised discounted cumulative gain of the first k (Järvelin and Kekäläinen 2002).

    The gain is the relevance itself and the discount log2(rank + 1), as in trec_eval's `ndcg_cut`.

    Args:
        found: float64[m], the relevance of what was found, best first.
        every: float64[n], the relevance of all there is.
        k: Depth, at least 1.

    Returns:
        0..1; 0 where nothing is relevant.
    """
    ideal = np.sort(every)[::-1][:k]
    best = float(ideal @ _discounts(len(ideal)))
    return float(found[:k] @ _discounts(len(found[:k]))) / best if best > 0 else 0.0


def average_precision(relevant: NDArray[np.bool_], n_relevant: int, k: int) -> float:
    """The sum over the relevant ones of the first k of the precision at their rank, divided by
    n_relevant: trec_eval's `map_cut` of one query.

    Args:
        relevant: bool[m], whether what was found is relevant, best first.
        n_relevant: Number of relevant items that there are; 0 gives 0.
        k: Depth, at least 1.
    """
    hits = relevant[:k]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum()) / n_relevant if n_relevant else 0.0


def evaluate_ranking(
    ranking: Path | str,
    truth: Path | str,
    *,
    k: int = DEPTH,
    items: Path | str | None = None,
    relevant: float | None = None,
    against: Path | str | None = None,
    by: str | None = None,
    ids: Collection[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Measured:
    """Score what was found for each query.

    A query of the truth that the ranking lacks counts as 0 (trec_eval's option -c), one that has
    nothing relevant as well; queries that the truth lacks are left out.

    Args:
        ranking: What was found, as `read_ranking` reads it.
        truth: TREC's judgements; or concepts, in the format of any year: the relevance of an item
            is then the F1 of its concepts and the query's.
        k: Depth of the measures, at least 1.
        items: The concepts of what could be found, where the truth has those of the queries only.
        relevant: The least relevance that counts as relevant for the average precision; None for 1
            with judgements and 0.5 with concepts.
        against: Another ranking, to be compared with on the same queries.
        by: `FILE:COLUMN`, the column that groups the queries.
        ids: These queries alone. Without `items`, what could be found are then the others.
        resamples: Number of bootstrap samples, at least 1.
        seed: Of the bootstrap.

    Returns:
        Measures `ndcg` and `map` (divided by the number of relevant items or k, whichever is less,
        so that a perfect ranking has 1) and `map_cut` (trec_eval's), of the queries in the order of
        the truth.

    Raises:
        FormatError: A file cannot be read, or none of its queries can be scored.
    """
    judging, threshold = _read_truth(truth, items, ids)
    threshold = threshold if relevant is None else relevant
    chosen = None if ids is None else set(ids)
    queries = [q for q in judging.queries if chosen is None or q in chosen]
    found = read_ranking(ranking)
    if not set(queries) & found.keys():
        raise FormatError(
            f"None of the {len(found)} queries of {ranking} is among the {len(queries)} of {truth}",
            f"The ranking has queries such as {next(iter(found), '')!r}, "
            f"the truth such as {next(iter(queries), '')!r}.",
        )
    mine, facts = _scores(judging, queries, found, k, threshold)
    others = (
        {} if against is None else _scores(judging, queries, read_ranking(against), k, threshold)[0]
    )
    group_of = read_column(by) if by is not None else None
    names = {"ndcg": f"nDCG@{k}", "map": f"MAP@{k}", "map_cut": f"MAP@{k} as trec_eval's map_cut"}
    return Measured(
        unit="queries",
        ids=tuple(queries),
        measures={
            name: measure(
                names[name],
                values,
                groups=None if group_of is None else [group_of.get(q, "") for q in queries],
                others=others.get(name),
                resamples=resamples,
                seed=seed,
            )
            for name, values in mine.items()
        },
        notes=(
            f"Relevant from {threshold:g} on.",
            *(
                f"{facts[what]:,} {words}."
                for what, words in (
                    ("missing", "queries are not in the ranking and count as 0"),
                    ("nothing_relevant", "queries have nothing relevant and count as 0"),
                    ("unknown", "of the items found are not in the truth and count as irrelevant"),
                )
                if facts[what]
            ),
        ),
        facts={"k": k, "relevant": threshold, **facts},
    )


def _read_truth(
    truth: Path | str, items: Path | str | None, ids: Collection[str] | None
) -> tuple[Relevance, float]:
    if is_qrels(truth):
        if items is not None:
            raise FormatError(
                f"{truth} has judgements, which name their items themselves",
                "Leave out --items, which belongs to a table of concepts.",
            )
        return Judgements(read_qrels(truth)), JUDGED_RELEVANT
    concepts = read_concepts(truth)
    chosen = concepts.keys() if ids is None else set(ids)
    queries = {query: cuis for query, cuis in concepts.items() if query in chosen}
    others = {item: cuis for item, cuis in concepts.items() if item not in chosen}
    if items is not None:
        others = read_concepts(items)
    return SharedConcepts(queries, others or concepts), SHARED_RELEVANT


def _scores(
    judging: Relevance,
    queries: Sequence[str],
    found: Mapping[str, Sequence[str]],
    k: int,
    threshold: float,
) -> tuple[dict[str, list[float]], dict[str, int]]:
    scores: dict[str, list[float]] = {"ndcg": [], "map": [], "map_cut": []}
    facts = {"missing": 0, "nothing_relevant": 0, "unknown": 0}
    for query in queries:
        judged = judging.judge(query, found.get(query, ()))
        n_relevant = int((judged.all >= threshold).sum())
        cut = average_precision(judged.found >= threshold, n_relevant, k)
        scores["ndcg"].append(ndcg(judged.found, judged.all, k))
        scores["map"].append(cut * n_relevant / min(n_relevant, k) if n_relevant else 0.0)
        scores["map_cut"].append(cut)
        facts["missing"] += query not in found
        facts["nothing_relevant"] += n_relevant == 0
        facts["unknown"] += judged.unknown
    return scores, facts


def _discounts(n: int) -> NDArray[np.float64]:
    return np.asarray(1 / np.log2(np.arange(2, n + 2)))
