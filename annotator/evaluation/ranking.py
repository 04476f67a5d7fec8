"""Rankings of similar items, scored by trec_eval: nDCG and mean average precision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from annotator.errors import AnnotatorError, FormatError
from annotator.evaluation.measures import Measured, measure, read_groups
from annotator.tables.formats import read_concepts
from annotator.tables.ranking import is_qrels, read_qrels, read_ranking
from index.distribution import pip_install

JUDGED_RELEVANT = 1.0  # least relevance that counts as relevant, of judgements ...
SHARED_RELEVANT = 0.5  # ... and of concepts: half of them shared

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
    ids: Collection[str] | None = None,
) -> Measured:
    """Score the items that were found for each query.

    A query of the truth that the ranking lacks counts as 0 (trec_eval's option -c), and so does one
    that has nothing relevant; queries that the truth lacks are left out.

    Args:
        ranking: What was found, as `read_ranking` reads it.
        truth: TREC judgements; or concepts, in the format of any year: the relevance of an item is
            then the F1 of its concepts and the query's.
        k: Depth of the measures, at least 1.
        items: The concepts of what could be found, where the truth has those of the queries only.
        relevant: The least relevance that counts as relevant for the average precision; None for 1
            with judgements and 0.5 with concepts.
        against: Another ranking, to be compared with on the same queries.
        by: `FILE:COLUMN`, the column that groups the queries.
        ids: Score these queries alone. Without `items`, what could be found are then the others.

    Returns:
        Measures `ndcg` and `map` (divided by the number of relevant items or k, whichever is less,
        so that a perfect ranking has 1) and `map_cut` (trec_eval's), of the queries in the order of
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
    groups = read_groups(by, queries)
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
            name: measure(names[name], values, groups=groups, others=others.get(name))
            for name, values in mine.items()
        },
        notes=(
            f"Relevant from {threshold:g} on.",
            *(f"{facts[what]:,} {words}." for what, words in remarks.items() if facts[what]),
        ),
        facts={"k": k, "relevant": threshold, **facts},
    )


def _read_truth(
    truth: Path | str, items: Path | str | None, ids: Collection[str] | None
) -> tuple[_Relevance, Collection[str] | None, float]:
    """Relevance, the items that could be found (None: those judged), and the least relevance."""
    if is_qrels(truth):
        if items is not None:
            raise FormatError(
                f"{truth} has judgements, which name their items themselves",
                "Leave out --items, which belongs to a table of concepts.",
            )
        return read_qrels(truth), None, JUDGED_RELEVANT
    concepts = read_concepts(truth)
    chosen = concepts.keys() if ids is None else set(ids)
    queries = {query: cuis for query, cuis in concepts.items() if query in chosen}
    others = {item: cuis for item, cuis in concepts.items() if item not in chosen}
    if items is not None:
        others = read_concepts(items)
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
    """trec_eval's ndcg_cut and map_cut of one query's items, by relevance and by score."""
    try:
        from pytrec_eval import RelevanceEvaluator
    except ImportError as error:
        raise AnnotatorError(
            "Rankings are scored by the package pytrec_eval, which is not installed.",
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
    """The relevant items of each query: the F1 (Dice) of its and their sets of concepts, 0..1.

    Items that share nothing are left out, and so is the query's own image. Queries without concepts
    are left out, since nothing says what is similar to them.

    Args:
        queries: The concepts of each query.
        items: The concepts of everything that could be found.
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
