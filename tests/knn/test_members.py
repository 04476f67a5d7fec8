"""Members of an ensemble: which files of the same images go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotator.errors import AnnotatorError, FormatError
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.members import (
    Member,
    align,
    index_member,
    read_member,
    tune_classifiers,
    tune_members,
)
from annotator.knn.voting import Voting
from annotator.tables.scores import Scores
from index import StoredIndex, open_index


def scores(rows: dict[str, list[float]], concepts: str = "C1 C2") -> Scores:
    return Scores(tuple(rows), tuple(concepts.split()), np.array(list(rows.values()), np.float32))


A = Member("a.csv", {"x": ("C1", "C2"), "y": (), "z": ("C3",)})
B = Member("b.csv", {"z": ("C3",), "x": ("C1",), "y": ("C1",)})


def test_runs_and_score_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "run.tsv").write_text("x\tc1;C2\ny\t\n")
    assert read_member(tmp_path / "run.tsv").opinion == {"x": ("C1", "C2"), "y": ()}
    (tmp_path / "p.csv").write_text("ID,C1\nx,0.5\n")
    assert isinstance(read_member(tmp_path / "p.csv").opinion, Scores)
    for text, message in (
        ("x\ny\n", "no column"),
        ("x,C1\nx,C2\n", "twice"),
        ('ID,CUIs\nx,"C1,C""2"\n', "no"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(FormatError, match=message):
            read_member(tmp_path / "bad.csv")


def test_rows_go_by_id_not_by_place() -> None:
    aligned = align([A, B], ["x", "y", "z"], [])
    assert aligned.combine("intersection", [1, 1], Voting()) == [("C1",), (), ("C3",)]
    assert aligned.combine("union", [1, 1], Voting()) == [("C1", "C2"), ("C1",), ("C3",)]


def test_the_consensus_of_runs_is_the_nearest_to_all_of_them() -> None:
    runs = [Member(str(i), {"x": tuple(c.split())}) for i, c in enumerate(("A B", "A C", "A B D"))]
    (chosen,) = align(runs, ["x"], []).combine("weights", [1, 1, 1], Voting())
    assert set(chosen) == {"A", "B"}
    (chosen,) = align(runs, ["x"], []).combine("weights", [1, 5, 1], Voting())
    assert set(chosen) == {"A", "C"}


def test_a_score_file_votes_with_its_own_best_set() -> None:
    certain = Member("p.npz", scores({"x": [1, 0], "y": [0.9, 0.9], "z": [0, 0.1]}))
    found = align([A, certain], ["x", "y", "z"], []).combine("intersection", [1, 1], Voting())
    # What it does not know, it leaves to the others.
    assert found == [("C1",), (), ("C3",)]


def test_scores_may_lack_images_and_runs_may_not() -> None:
    notes: list[str] = []
    some = Member("p.npz", scores({"x.png": [0, 1]}))
    aligned = align([A, some], ["x", "y", "z"], notes)
    assert aligned.combine("weights", [1, 9], Voting()) == [("C2",), (), ("C3",)]
    assert any("p.npz has no scores of 2 images ('y', 'z')" in note for note in notes)
    with pytest.raises(AnnotatorError, match=r"b\.csv lacks 1 image \('w'\) and has 1 image"):
        align([B], ["x", "y", "w"], [])
    with pytest.raises(AnnotatorError, match=r"p\.npz has none of the 2 images, such as 'y'"):
        align([some], ["y", "z"], [])


@pytest.fixture
def stored(tuned_index: Path) -> StoredIndex:
    return open_index(tuned_index)


def truth_of(stored: StoredIndex) -> dict[str, tuple[str, ...]]:
    return {image_id: stored.labels.row(row) for row, image_id in enumerate(stored.ids)}


def oracle(stored: StoredIndex, sure: float) -> Member:
    """A classifier that is right, and as sure of it as it says."""
    rows = ((i, dict.fromkeys(cuis, sure)) for i, cuis in truth_of(stored).items())
    return Member("oracle.npz", Scores.from_shares(rows, stored.labels.cuis))


def test_weights_are_chosen_on_the_index_itself(stored: StoredIndex) -> None:
    voting = IndexMetadata.of(stored).voting
    found = tune_classifiers(stored, stored.labels, voting, [oracle(stored, 0.9)], "index", [])
    assert found.weights[1] >= 0.5 and found.f1.mean() == pytest.approx(1)
    assert len(found.f1) == len(stored)
    few = oracle(stored, 0.9)
    assert isinstance(few.opinion, Scores)
    cut = few.opinion.only(stored.ids[:49], stored.labels.cuis, "few.npz", [])
    with pytest.raises(AnnotatorError, match=r"only 49 are in few\.npz"):
        tune_classifiers(stored, stored.labels, voting, [Member("few.npz", cut)], "index", [])


def test_an_index_is_a_member_by_its_stored_lists(stored: StoredIndex) -> None:
    votes = index_member(stored, IndexMetadata.of(stored).voting, "index")
    assert isinstance(votes.opinion, Scores) and set(votes.ids) == set(stored.ids)
    # Out of sample: where an image would vote for itself, C9 would never be wrong.
    column = votes.opinion.concepts.index("C9")
    has = np.array(["C9" in truth_of(stored)[i] for i in votes.ids])
    assert votes.opinion.values[~has, column].min() > 0
    found = tune_members([votes, oracle(stored, 0.9)], truth_of(stored), Voting(), "index")
    assert found.weights[1] >= 0.5 and found.f1.mean() == pytest.approx(1)
    assert found.alone[0].mean() < 1
    with pytest.raises(AnnotatorError, match=r"Of truth\.csv only 1 are in index"):
        tune_members([votes], {stored.ids[0]: ("C1",), "other": ()}, Voting(), "truth.csv")
