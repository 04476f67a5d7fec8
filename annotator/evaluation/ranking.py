"""Evaluation of rankings by trec_eval: nDCG and mean average precision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from annotator.errors import AnnotatorError, FormatError
from annotator.evaluation.measures import Measured, measure, read_group_numbers, read_groups
from annotator.tables.labels import read_labels
from annotator.tables.ranking import is_qrels, read_qrels, read_ranking
from index.distribution import pip_install

JUDGED_RELEVANT = 1.0  # threshold of relevance for judgements
SHARED_RELEVANT = 0.5  # threshold of relevance for shared concepts

_LEVELS = 1_000_000  # trec_eval takes whole numbers and allocates an array up to the largest

_Relevance = Mapping[str, Mapping[str, float]]  # of items, by query


def evaluate_ranking(
    ranking: Path | str,
    truth: Path | str,
    *,
    k: int = 10,
    items: Path | str | None = None,
    relevant: float | None = None,
    against: Path | str | None = None,
    by: str | None = None,
    groups: str | None = None,
    ids: Collection[str] | None = None,
) -> Measured:
    """Score the ranked items of each query.

    Queries missing from the ranking score 0 (option -c of trec_eval), as do queries without
    relevant items; queries missing from the truth are left out.

    Args:
        ranking: File for `read_ranking`.
        truth: TREC judgements; or concepts, in the format of any year: the relevance of an item is
            then the F1 of its concepts and the query's.
        k: Cutoff rank, at least 1.
        items: Concepts of the ranked items, if the truth has only those of the queries.
        relevant: Threshold of relevance for average precision; None for 1 with judgements and 0.5
            with concepts.
        against: Other ranking to compare with on the same queries.
        by: `FILE[:COLUMN]` with what each query is counted with.
        groups: `FILE[:COLUMN]` with the patient or study of each query, over which intervals are.
        ids: Subset of queries to score. Without `items`, the ranked items are the other images.

    Returns:
        Measures `ndcg`, `map` (normalised by min(number of relevant items, k), so that a perfect
        ranking scores 1) and `map_cut` (as defined by trec_eval), of the queries in the order of
        the truth.

    Raises:
        FormatError: A file cannot be read, or none of its queries can be scored.
        AnnotatorError: pytrec_eval is not installed.
    """
    relevance, candidates, threshold = _read_truth(truth, items, ids)
    threshold = threshold if relevant is None else relevant
    chosen = None if ids is None else set(ids)
    queries = [q for q in relevance if chosen is None or q in chosen]
    found = read_ranking(ranking)
    if not set(queries) & found.keys():
        raise FormatError(
            f"None of the {len(found)} queries of {ranking} is among the {len(queries)} of {truth}",
            f"The ranking has queries such as {next(iter(found), '')!r}, "
            f"the truth such as {next(iter(queries), '')!r}.",
        )
    mine, facts = _score(relevance, candidates, queries, found, k, threshold)
    others: dict[str, list[float]] = {}
    if against is not None:
        others, _ = _score(relevance, candidates, queries, read_ranking(against), k, threshold)
    notes: list[str] = []
    counted_with = read_groups(by, queries, notes)
    numbers = read_group_numbers(groups, queries, notes)
    names = {"ndcg": f"nDCG@{k}", "map": f"MAP@{k}", "map_cut": f"MAP@{k} as trec_eval's map_cut"}
    remarks = {
        "missing": "queries are not in the ranking and count as 0",
        "nothing_relevant": "queries have nothing relevant and count as 0",
        "unknown": "of the items found are not in the truth and count as irrelevant",
    }
    return Measured(
        unit="queries",
        ids=tuple(queries),
        measures={
            name: measure(
                names[name], values, by=counted_with, others=others.get(name), groups=numbers
            )
            for name, values in mine.items()
        },
        notes=(
            f"Relevant from {threshold:g} on.",
            *(f"{facts[what]:,} {words}." for what, words in remarks.items() if facts[what]),
            *notes,
        ),
        facts={"k": k, "relevant": threshold, **facts},
    )


def _read_truth(
    truth: Path | str, items: Path | str | None, ids: Collection[str] | None
) -> tuple[_Relevance, Collection[str] | None, float]:
    """Relevance, candidate items (None for those judged), and threshold of relevance."""
    if is_qrels(truth):
        if items is not None:
            raise FormatError(
                f"{truth} has judgements, which name their items themselves",
                "Leave out --items, which belongs to a table of concepts.",
            )
        return read_qrels(truth), None, JUDGED_RELEVANT
    concepts = dict(read_labels(truth).concepts)
    chosen = concepts.keys() if ids is None else set(ids)
    queries = {query: cuis for query, cuis in concepts.items() if query in chosen}
    others = {item: cuis for item, cuis in concepts.items() if item not in chosen}
    if items is not None:
        others = dict(read_labels(items).concepts)
    others = others or concepts
    return _SharedConcepts(queries, others), others.keys(), SHARED_RELEVANT


def _score(
    relevance: _Relevance,
    items: Collection[str] | None,
    queries: Sequence[str],
    found: _Relevance,
    k: int,
    threshold: float,
) -> tuple[dict[str, list[float]], dict[str, int]]:
    scores: dict[str, list[float]] = {"ndcg": [], "map": [], "map_cut": []}
    facts = {"missing": 0, "nothing_relevant": 0, "unknown": 0}
    for query in queries:
        judged = relevance[query]
        ranked = dict(found.get(query, {}))
        could_be_found: Collection[str] = judged.keys()
        if items is not None:
            could_be_found = items
            ranked.pop(query, None)  # a query is not its own item
        ndcg, map_cut = _trec_eval(judged, ranked, k, threshold)
        n_relevant = sum(value >= threshold for value in judged.values())
        scores["ndcg"].append(ndcg)
        scores["map"].append(map_cut * n_relevant / min(n_relevant, k) if n_relevant else 0.0)
        scores["map_cut"].append(map_cut)
        facts["missing"] += query not in found
        facts["nothing_relevant"] += n_relevant == 0
        facts["unknown"] += sum(item not in could_be_found for item in ranked)
    return scores, facts


def _trec_eval(
    judged: Mapping[str, float], found: Mapping[str, float], k: int, threshold: float
) -> tuple[float, float]:
    """Compute ndcg_cut and map_cut of trec_eval for one query, from relevance and score by item."""
    try:
        from pytrec_eval import RelevanceEvaluator
    except ImportError as error:
        raise AnnotatorError(
            "Scoring of rankings needs the package pytrec_eval, which is not installed.",
            f"Install it: {pip_install('ranking')}.",
        ) from error
    # nDCG does not depend on the unit of relevance, so fractions are scaled to whole numbers.
    top = max(judged.values(), default=0.0)
    whole = top <= _LEVELS and all(float(value).is_integer() for value in judged.values())
    scale = 1.0 if whole or top <= 0 else _LEVELS / top
    levels = {item: round(value * scale) for item, value in judged.items()}
    relevant = [levels[item] for item, value in judged.items() if value >= threshold]
    evaluator = RelevanceEvaluator(
        {"query": levels},
        {f"ndcg_cut.{k}", f"map_cut.{k}"},
        relevance_level=max(1, min(relevant, default=_LEVELS)),
    )
    values = evaluator.evaluate({"query": found}).get("query", {})
    map_cut = values.get(f"map_cut_{k}", 0.0) if relevant else 0.0
    return values.get(f"ndcg_cut_{k}", 0.0), map_cut


class _SharedConcepts(Mapping[str, Mapping[str, float]]):
    """Relevance of items by query: F1 (Dice) of the two concept sets, 0..1.

    Items without a shared concept, the query's own image and queries without concepts are left out.

    Args:
        queries: Concepts by query.
        items: Concepts by candidate item.
    """

    def __init__(
        self, queries: Mapping[str, Iterable[str]], items: Mapping[str, Iterable[str]]
    ) -> None:
        self._queries = {query: set(cuis) for query, cuis in queries.items() if cuis}
        self._items = list(items)
        self._sizes = np.array([len(set(cuis)) for cuis in items.values()])
        holders: dict[str, list[int]] = {}
        for row, cuis in enumerate(items.values()):
            for cui in set(cuis):
                holders.setdefault(cui, []).append(row)
        self._holders = {cui: np.array(rows) for cui, rows in holders.items()}

    def __getitem__(self, query: str) -> dict[str, float]:
        cuis = self._queries[query]
        shared = np.zeros(len(self._items))
        for cui in cuis & self._holders.keys():
            shared[self._holders[cui]] += 1
        rows = np.flatnonzero(shared)
        f1 = 2 * shared[rows] / (self._sizes[rows] + len(cuis))
        found = {self._items[row]: value for row, value in zip(rows, f1.tolist(), strict=True)}
        found.pop(query, None)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)
