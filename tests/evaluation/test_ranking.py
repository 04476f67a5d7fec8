"""nDCG and MAP: against scikit-learn, trec_eval and by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from annotator.errors import FormatError
from annotator.evaluation.measures import render_measured
from annotator.evaluation.ranking import average_precision, evaluate_ranking, ndcg

Write = Callable[[str, str], Path]
relevances = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=12)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@settings(max_examples=50, deadline=None)
@given(relevances, st.integers(1, 15))
def test_ndcg_is_scikit_learns(every: list[float], k: int) -> None:
    relevance = np.array(every)
    order = np.arange(len(every), 0, -1.0)  # found in this order
    wanted = ndcg_score([relevance], [order], k=k) if relevance.any() else 0.0
    assert ndcg(relevance, relevance, k) == pytest.approx(wanted)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_average_precision_of_all_is_scikit_learns(hits: list[bool]) -> None:
    order = np.arange(len(hits), 0, -1.0)
    wanted = average_precision_score(hits, order) if any(hits) else 0.0
    assert average_precision(np.array(hits), sum(hits), len(hits)) == pytest.approx(wanted)


@settings(max_examples=50, deadline=None)
@given(relevances, st.integers(1, 12))
def test_the_best_order_has_1_and_no_order_has_more(every: list[float], k: int) -> None:
    best = np.sort(every)[::-1]
    assert ndcg(best, np.array(every), k) == pytest.approx(1.0 if best[0] > 0 else 0.0)
    assert ndcg(np.array(every), np.array(every), k) <= 1 + 1e-12


def test_what_was_not_found_counts() -> None:
    assert ndcg(np.array([1.0]), np.array([1.0, 1.0]), 10) == pytest.approx(
        1 / (1 + 1 / np.log2(3))
    )
    assert average_precision(np.array([True]), 4, 10) == 0.25
    assert average_precision(np.zeros(0, bool), 4, 10) == 0.0


# Drawn at random; the values are those of trec_eval (pytrec_eval-terrier 0.5.11).
RUN = """\
q1 Q0 d4 1 0.5 t
q1 Q0 d1 1 3.5 t
q1 Q0 d0 1 0.5 t
q1 Q0 d5 1 0.5 t
q1 Q0 d7 1 2.0 t
q2 Q0 d3 1 1.0 t
q2 Q0 d2 1 1.0 t
q4 Q0 d2 1 1.0 t
q5 Q0 d2 1 1.0 t
"""
QRELS = """\
q1 0 d0 1
q1 0 d1 -1
q1 0 d4 3
q1 0 d5 2
q1 0 d6 1
q2 0 d2 1
q2 0 d3 0
q3 0 d1 1
q4 0 d2 0
"""
TREC_EVAL = {
    3: {
        "ndcg": {"q1": 0.210001995754, "q2": 0.630929753571, "q4": 0.0},
        "map_cut": {"q1": 0.083333333333, "q2": 0.5, "q4": 0.0},
    },
    10: {
        "ndcg": {"q1": 0.51591023111, "q2": 0.630929753571, "q4": 0.0},
        "map_cut": {"q1": 0.358333333333, "q2": 0.5, "q4": 0.0},
    },
}


def test_trec_evals_values(write: Write) -> None:
    run, qrels = write("run.txt", RUN), write("qrels.txt", QRELS)
    for k, wanted in TREC_EVAL.items():
        found = evaluate_ranking(run, qrels, k=k)
        assert found.ids == ("q1", "q2", "q3", "q4")
        for name in ("ndcg", "map_cut"):
            scores = dict(zip(found.ids, found.measures[name].scores, strict=True))
            assert scores == pytest.approx({**wanted[name], "q3": 0.0}, abs=1e-9)
    assert found.facts["missing"] == 1 and found.facts["nothing_relevant"] == 1
    assert "1 queries are not in the ranking and count as 0." in render_measured(found)


def test_shared_concepts(write: Write) -> None:
    similar = write("similar.csv", "ID,Similar\nq1,a;c;b\nq2,b;d;nowhere\nq3,a\n")
    queries = write("queries.csv", "ID,CUIs\nq1,C1;C2\nq2,C3;C4\nq3,\n")
    items = write("items.csv", "ID,CUIs\na,C1;C2\nb,C1;C2;C5\nc,C3;C4\nd,C3;C6\n")
    found = evaluate_ranking(similar, queries, items=items)
    assert found.ids == ("q1", "q2")  # q3 has no concepts
    discount = 1 / np.log2(3)
    assert found.measures["ndcg"].scores == pytest.approx(
        ((1 + 0.8 / 2) / (1 + 0.8 * discount), 0.5 * discount / (1 + 0.5 * discount))
    )
    assert found.measures["map"].scores == pytest.approx(((1 + 2 / 3) / 2, (1 / 2) / 2))
    assert found.facts["unknown"] == 1
    strict = evaluate_ranking(similar, queries, items=items, relevant=1)
    assert strict.measures["map"].scores == pytest.approx((1.0, 0.0))
    first = evaluate_ranking(similar, queries, items=items, k=1)
    assert first.measures["map"].scores == (1.0, 0.0)
    assert first.measures["map_cut"].scores == (0.5, 0.0)


def test_a_query_is_not_its_own_item(write: Write) -> None:
    concepts = write("concepts.csv", "ID,CUIs\na,C1\nb,C1\nc,C2\nd,C2\n")
    found = evaluate_ranking(write("s.csv", "ID,Similar\na,a;b\nb,b;c;a\n"), concepts)
    assert found.measures["ndcg"].scores == pytest.approx((1.0, 1 / np.log2(3), 0.0, 0.0))
    # On one side of a split, the other side's images are what could be found.
    side = evaluate_ranking(write("s.csv", "ID,Similar\na,b;c\n"), concepts, ids=["a", "b"])
    assert side.ids == ("a", "b") and side.facts["unknown"] == 1
    assert side.facts["nothing_relevant"] == 2


def test_a_query_of_trec_may_be_called_like_a_document(write: Write) -> None:
    found = evaluate_ranking(write("r", "1 Q0 1 1 0.5 t\n"), write("q", "1 0 1 1\n"))
    assert found.measures["ndcg"].scores == (1.0,)


def test_against_another_ranking_by_group(write: Write) -> None:
    run, qrels = write("run.txt", RUN), write("qrels.txt", QRELS)
    other = write("other.csv", "ID,Similar\nq1,d4;d5;d0;d6\n")
    groups = write("groups.csv", "ID,kind\nq1,x\nq2,x\nq3,y\n")
    found = evaluate_ranking(run, qrels, against=other, by=f"{groups}:kind").measures["ndcg"]
    assert found.against is not None and found.against.other == pytest.approx(0.25)
    assert (found.against.better, found.against.worse) == (1, 1)
    assert {name: group.n for name, group in found.per_group.items()} == {"": 1, "x": 2, "y": 1}


def test_what_cannot_be_scored(write: Write) -> None:
    run, qrels = write("run.txt", RUN), write("qrels.txt", QRELS)
    with pytest.raises(FormatError, match="None of the 1 queries"):
        evaluate_ranking(write("s.csv", "ID,Similar\nx,d1\n"), qrels)
    with pytest.raises(FormatError, match="name their items themselves"):
        evaluate_ranking(run, qrels, items=qrels)
    with pytest.raises(FormatError, match="not a CUI"):
        evaluate_ranking(run, write("table.csv", "ID,CUIs\nq1,chest\n"))
