"""nDCG and MAP of files, by trec_eval: against scikit-learn and by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from annotator.errors import AnnotatorError, FormatError
from annotator.evaluation.measures import render_measured
from annotator.evaluation.ranking import _trec_eval, evaluate_ranking

pytest.importorskip("pytrec_eval")

Write = Callable[[str, str], Path]
relevances = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=12)


@settings(max_examples=50, deadline=None)
@given(relevances, st.integers(1, 15), st.sampled_from([1, 1 / 3, 1e6]))
def test_relevances_of_any_scale(every: list[float], k: int, unit: float) -> None:
    judged = {f"d{i:02}": value * unit for i, value in enumerate(every)}
    found = {item: -rank for rank, item in enumerate(judged)}
    order = np.arange(len(every), 0, -1.0)
    ndcg, map_cut = _trec_eval(judged, found, k, threshold=unit)
    wanted = ndcg_score([every], [order], k=k) if any(every) else 0.0
    assert ndcg == pytest.approx(wanted, abs=1e-4)
    hits = np.array(every) >= 1
    precisions = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[:k][hits[:k]]
    assert map_cut == pytest.approx(precisions.sum() / max(hits.sum(), 1), abs=1e-9)


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
    with pytest.raises(FormatError, match="is a number"):
        evaluate_ranking(run, write("table.csv", "ID,CUIs\nq1,0817096\n"))


def test_without_the_package(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    with pytest.raises(AnnotatorError, match="not installed") as error:
        evaluate_ranking(write("run.txt", RUN), write("qrels.txt", QRELS))
    assert "[ranking]" in error.value.hint
