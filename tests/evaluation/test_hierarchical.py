"""Partial credit, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.concepts.hierarchy import Hierarchy, read_hierarchy
from annotator.evaluation.evaluation import evaluate
from annotator.evaluation.hierarchical import Hierarchical, score_hierarchically
from annotator.evaluation.measures import compare
from annotator.evaluation.official_f1 import Scored, image_f1, mean
from annotator.evaluation.report import render
from tests.cli.invoking import invoke

# FINDING is the root. A nodule is a finding of the lung, which is one of the chest, and a mass.
TABLE = """\
concept,parent
Nodule,Lung finding
Consolidation,Lung finding
Lung finding,Chest finding
Effusion,Chest finding
Nodule,Mass
Chest finding,Finding
Mass,Finding
"""

# Truth, run, |T ∩ R|, |R|, |T| with the ancestors, without the root.
BY_HAND = {
    "the same": ("CONSOLIDATION", "CONSOLIDATION", 3, 3, 3),
    "a sibling": ("CONSOLIDATION", "NODULE", 2, 4, 3),
    "only its parent": ("CONSOLIDATION", "LUNG_FINDING", 2, 2, 3),
    "a cousin and a stranger": ("NODULE", "EFFUSION;C0000001", 1, 3, 4),
    "also what is above": ("NODULE", "NODULE;MASS;LUNG_FINDING", 4, 4, 4),
    "two for one": ("EFFUSION", "NODULE;CONSOLIDATION", 1, 5, 2),
    "the root": ("EFFUSION", "FINDING", 0, 1, 2),
    "unknown and right": ("C0000001", "C0000001", 1, 1, 1),
    "nothing": ("EFFUSION", "", 0, 0, 2),
    "too much": ("", "EFFUSION", 0, 2, 0),
}


def table(side: int) -> str:
    rows = "".join(f"{name},{case[side]}\n" for name, case in BY_HAND.items())
    return f"image,concepts\n{rows}"


@pytest.fixture
def files(write: Callable[[str, str], Path]) -> tuple[Path, Path, Path]:
    """Paths of run, truth and hierarchy."""
    run, truth = (write(f"{side}.csv", table(side)) for side in (1, 0))
    return run, truth, write("hierarchy.csv", TABLE)


@pytest.fixture
def scored(files: tuple[Path, Path, Path]) -> Hierarchical:
    run, truth, hierarchy = files
    found = evaluate(run, truth, hierarchy=read_hierarchy(hierarchy)).hierarchical
    assert found is not None
    return found


@pytest.mark.parametrize("name", BY_HAND)
def test_an_image_by_hand(name: str, scored: Hierarchical) -> None:
    _, _, shared, run, truth = BY_HAND[name]
    i = scored.ids.index(name)
    assert scored.counts[i].tolist() == [shared, run, truth]
    assert scored.scores[i] == pytest.approx(2 * shared / (run + truth))


def test_all_images_by_hand(scored: Hierarchical) -> None:
    rows = [case[2:] for case in BY_HAND.values()]
    assert scored.f1.mean == pytest.approx(sum(2 * s / (r + t) for s, r, t in rows) / 10)
    assert scored.precision == pytest.approx(sum(s / r for s, r, t in rows if r) / 10)
    assert scored.recall == pytest.approx(sum(s / t for s, r, t in rows if t) / 10)
    shared, run, truth = (sum(column) for column in zip(*rows, strict=True))
    assert (shared, run, truth) == (14, 25, 24)
    assert scored.micro_precision == pytest.approx(14 / 25)
    assert scored.micro_recall == pytest.approx(14 / 24)
    assert scored.micro_f1.mean == pytest.approx(2 * 14 / 49)
    for found in (scored.f1, scored.micro_f1):
        assert found.n == 10
        assert found.interval[0] < found.mean < found.interval[1]
    assert scored.unknown == ("C0000001",) and scored.labelled_roots == ("FINDING",)


def test_two_empty_sets_agree_and_count_for_nothing(write: Callable[[str, str], Path]) -> None:
    run = write("run.csv", "image,concepts\na,\nb,C1\n")
    truth = write("truth.csv", "image,concepts\na,\nb,C1;C2\n")
    found = evaluate(run, truth, hierarchy=Hierarchy({})).hierarchical
    assert found is not None
    assert found.scores == (1.0, pytest.approx(2 / 3))
    assert found.micro_f1.mean == pytest.approx(2 / 3)
    assert found.counts.tolist() == [[0, 0, 0], [1, 1, 2]]


label_sets = st.lists(
    st.tuples(*[st.frozensets(st.sampled_from("ABCDE"), max_size=4)] * 2), min_size=1, max_size=8
)


@settings(max_examples=50, deadline=None)
@given(label_sets)
def test_without_relations_it_is_the_official_score(
    pairs: list[tuple[frozenset[str], frozenset[str]]],
) -> None:
    truth, run = ([s or frozenset([""]) for s in side] for side in zip(*pairs, strict=True))
    scores = tuple(image_f1(t, r) for t, r in zip(truth, run, strict=True))
    ids = tuple(map(str, range(len(pairs))))
    official = Scored(ids, tuple(truth), tuple(run), scores, mean(scores))
    found = score_hierarchically(official, Hierarchy({"Z": ("A",)}))
    assert found.scores == scores
    assert found.f1.mean == official.f1


def test_a_run_against_another(files: tuple[Path, Path, Path], write: Callable[..., Path]) -> None:
    run, truth, hierarchy = files
    header, *rows = table(0).splitlines(keepends=True)
    better = write("better.csv", "".join([header, *reversed(rows)]))
    above = read_hierarchy(hierarchy)
    a, b = (evaluate(r, truth, hierarchy=above).hierarchical for r in (run, better))
    assert a is not None and b is not None
    by_image, micro = a.against(b)
    assert b.f1.mean == b.micro_f1.mean == 1.0
    assert by_image == compare(a.scores, [1.0] * 10)
    assert micro.other == 1.0 and micro.difference == pytest.approx(28 / 49 - 1)
    assert micro.interval == pytest.approx([edge - 1 for edge in a.micro_f1.interval])
    one = write("one.csv", header + "".join(f"{row.split(',')[0]},p\n" for row in rows))
    grouped = evaluate(run, truth, hierarchy=above, groups=str(one)).hierarchical
    assert grouped is not None and grouped.micro_f1.n_groups == 1
    assert grouped.micro_f1.interval == pytest.approx([28 / 49] * 2)  # all are drawn together
    assert grouped.against(b)[1].interval == pytest.approx([28 / 49 - 1] * 2)
    same, micro_same = a.against(a)
    assert same.difference == micro_same.difference == 0.0 and micro_same.interval == (0.0, 0.0)


def test_the_command_prints_it_beside_the_official_score(
    files: tuple[Path, Path, Path], write: Callable[[str, str], Path]
) -> None:
    run, truth, hierarchy = files
    groups = write("groups.csv", "id,kind\n" + "".join(f"{name},x\n" for name in BY_HAND))
    arguments = ("evaluate", run, truth, "--hierarchy", hierarchy, "--against", truth)
    done = invoke(*arguments, "--by", groups)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("F1 0.2")
    assert lines[2].startswith("Hierarchical F1, mean over images 0.4")
    assert lines[3].startswith("Hierarchical F1, micro 0.5714 (95% interval ")
    for words in (
        "hierarchical, micro                0.5600  0.5833",
        "Hierarchical F1 by group, mean over images",
        "Concepts that the hierarchy lacks, which count as their own: 1",
        "Labels that are roots of the hierarchy, which count as nobody's ancestors: 1",
        "Hierarchical F1, micro, against the other run",
    ):
        assert words in done.stdout
    facts = json.loads(invoke(*arguments, "--json").stdout)["hierarchical"]
    assert facts["micro_f1"] == pytest.approx(28 / 49)
    assert facts["unknown"] == ["C0000001"]
    assert facts["micro_against"]["difference"] == pytest.approx(28 / 49 - 1)
    assert facts["against"]["better"] == 0
    found = evaluate(run, truth)
    assert found.to_dict()["hierarchical"] is None and "ierarchical" not in render(found)
