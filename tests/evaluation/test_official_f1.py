"""The official scorers: their differences, what they refuse, and all years' files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from annotator.errors import FormatError
from annotator.evaluation.evaluation import evaluate
from annotator.evaluation.official_f1 import SCORERS, Scorer, image_f1, mean, read_truth, score
from annotator.evaluation.report import render
from annotator.tables.run import FORMATS, render_run, zip_run


@pytest.fixture
def f1s(write):
    """F1 by image of a run against a truth, both given as text without header."""

    def f1s(run, truth, scorer):
        scored = score(write("run.csv", run), write("truth.csv", truth), scorer)
        return dict(zip(scored.ids, scored.scores, strict=True))

    return f1s


# The differences of the two scorers, row by row. Each has a second image `z`, always right.
@pytest.mark.parametrize(
    ("truth", "run", "legacy", "current"),
    [
        pytest.param("", "", None, 1.0, id="truth empty, run empty"),
        pytest.param("", "C1", None, 0.0, id="truth empty, run not"),
        pytest.param("C1", "", 0.0, 0.0, id="run empty, truth not"),
        pytest.param("", None, None, 0.0, id="id alone, truth empty"),
        pytest.param("C1;C2", "C1; C2", 0.5, 1.0, id="white space in the run"),
        pytest.param("C1; C2", "C1;C2", 0.5, 1.0, id="white space in the truth"),
        pytest.param("C1", "C1;", 2 / 3, 2 / 3, id="trailing semicolon"),
        pytest.param("C1;C2", "C1;C1", 2 / 3, "'C1' is there more", id="repeated CUI"),
        pytest.param("C1;C2", "C1; C1", 0.5, "'C1' is there more", id="repeated but for a space"),
        pytest.param("C1", "c1;C1", 1.0, 1.0, id="repeated but for case"),
        pytest.param("c1", "C1", 1.0, 1.0, id="case"),
        pytest.param("C1", "C9", 0.0, 0.0, id="unknown CUI"),
        pytest.param(
            "C1", ";".join(f"C{i}" for i in range(101)), 2 / 102, "101 CUIs", id="over a hundred"
        ),
        pytest.param("C1", ";".join(f"C{i}" for i in range(100)), 2 / 101, 2 / 101, id="a hundred"),
    ],
)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_what_the_scorers_make_of_a_cell(f1s, truth, run, legacy, current, separator):
    truth_text = f"a{separator}{truth}\nz{separator}C1\n"
    run_text = f"a{'' if run is None else separator + run}\nz{separator}C1\n"
    for scorer, wanted in (("legacy", legacy), ("current", current)):
        if isinstance(wanted, str):
            with pytest.raises(FormatError, match=rf"run.csv, line 1: {wanted}"):
                f1s(run_text, truth_text, scorer)
        else:
            found = f1s(run_text, truth_text, scorer)
            assert found == ({"z": 1.0} if wanted is None else {"a": wanted, "z": 1.0})


@pytest.mark.parametrize("scorer", ["legacy", "current"])
@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("a,C1\nz,C1\nb,C1\n", r"run.csv, line 3: the id 'b' is not in the ground truth"),
        ("a,C1\nz,C1\na,C1\n", r"run.csv, line 3: the id 'a' is on line 1 already"),
        ("a,C1\n", r"run.csv lacks 1 of 2 images, such as 'z'"),
        ("a,C1\nz,C1,C2\n", r"run.csv, line 2: 3 columns where 2 are wanted"),
    ],
)
def test_rows_that_every_scorer_refuses(f1s, scorer, run, message):
    with pytest.raises(FormatError, match=message):
        f1s(run, "a,C1\nz,C1\n", scorer)


def test_ids_that_contain_the_letters_id(write):
    truth = write("truth.csv", "ID,CUIs\na,C1\nCOVID1,C1\n")
    run = write("run.csv", "ID,CUIs\na,C1\nCOVID1,C2\n")
    legacy, current = score(run, truth, "legacy"), score(run, truth, "current")
    assert (legacy.ids, legacy.f1, legacy.skipped) == (("a", "COVID1"), 0.5, ())
    assert (current.ids, current.f1, current.skipped) == (("a",), 1.0, ("COVID1",))
    assert "COVID1" in render(evaluate(run, truth))
    assert evaluate(run, truth, ids=["a"]).skipped == ()


def test_ids_that_contain_the_letters_id_stay_where_files_have_no_comma(write):
    truth = write("truth.csv", "a\tC1\nCOVID1\tC1\n")
    for separator in "|,\t":
        run = write("run.csv", f"a{separator}C1\nCOVID1{separator}C2\n")
        assert score(run, truth).ids == ("a", "COVID1")


def test_blank_lines_are_refused_as_officially_but_not_by_the_legacy_scorer(f1s):
    with pytest.raises(FormatError, match=r"run.csv, line 2: the line is blank"):
        f1s("a,C1\n\nb,C1\n", "a,C1\nb,C1\n", "current")
    assert f1s("a,C1\n\nb,C1\n", "a,C1\n\nb,C1\n", "legacy") == {"a": 1.0, "b": 1.0}


def test_a_truth_that_is_no_ground_truth(f1s):
    with pytest.raises(FormatError, match=r"truth.csv, line 3: the id 'a' is on line 1 already"):
        f1s("a,C1\n", "a,C1\nb,C1\na,C1\n", "current")
    with pytest.raises(
        FormatError, match=r"truth.csv, line 2: the row of 'b' has no second column"
    ):
        f1s("a,C1\nb,C1\n", "a,C1\nb\n", "current")
    with pytest.raises(FormatError, match="no image with concepts"):
        f1s("a,C1\n", "a,\n", "legacy")


def test_truth_of_roco_v1_and_of_2017(f1s):
    assert f1s("a|C1;C3\nb|\n", "a\t\tC1\tC2\nb\t\t\n", "current") == {"a": 0.5, "b": 1.0}
    assert f1s("a\tC1;C3\nb\t\n", "a\t\tC1\tC2\nb\t\t\n", "legacy") == {"a": 0.5}
    assert f1s("a\tC1;C3\n", "a\tC1,C2\n", "legacy") == {"a": 0.5}


def test_an_unknown_scorer_is_an_error(write):
    path = write("truth.csv", "a,C1\n")
    with pytest.raises(FormatError, match="no scorer '2020'"):
        score(path, path, "2020")


def test_the_mean_is_added_from_left_to_right():
    assert mean([0.1] * 10) == 0.9999999999999999 / 10  # not 0.1, as `sum` has it since 3.12


labels = st.lists(st.sampled_from([f"C{i}" for i in range(6)]), unique=True)


@given(truth=labels, run=labels)
def test_image_f1_is_that_of_scikit_learn(truth, run):
    union = sorted({*truth, *run})
    wanted = 0.0
    if union:
        wanted = f1_score([c in truth for c in union], [c in run for c in union], zero_division=0)
    found = image_f1(truth, run)
    assert found == pytest.approx(wanted, abs=1e-15)
    assert 0 <= found <= 1
    assert found == image_f1(truth[::-1], run[::-1]) == image_f1(run, truth)


rows = st.lists(st.tuples(labels, labels), min_size=1, max_size=6)


@given(rows=rows)
def test_score_of_random_runs(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("score")
    truth = {f"x{i}": cuis for i, (cuis, _) in enumerate(rows)}
    run = {f"x{i}": cuis for i, (_, cuis) in enumerate(rows)}

    def f1(labels, name="run.csv"):
        (folder / name).write_text(render_run(labels.items(), "2026"))
        return score(folder / name, folder / "truth.csv").f1

    assert f1(truth, "truth.csv") == 1.0
    found = f1(run)
    exact = [
        Fraction(2 * len({*t} & {*r}), len(t) + len(r)) if t or r else Fraction(1) for t, r in rows
    ]
    assert found == pytest.approx(float(sum(exact) / len(exact)))
    assert 0 <= found <= 1
    assert f1({image_id: cuis[::-1] for image_id, cuis in run.items()}) == found


@pytest.mark.parametrize("year", FORMATS)
@pytest.mark.parametrize("truth_year", ["2019", "2026"])
def test_runs_and_truths_of_all_years(write, tmp_path, year, truth_year):
    truth = [("a", ["C1", "C2"]), ("b", []), ("c", ["C3"])]
    run = [("c", ["C3"]), ("b", []), ("a", ["C1"])]
    truth_path = write("truth.csv", render_run(truth, truth_year))
    found = score(write("run.csv", render_run(run, year)), truth_path)
    assert found.ids == ("c", "b", "a")
    assert found.scores == (1.0, 1.0, 2 / 3)
    assert found.f1 == (1.0 + 1.0 + 2 / 3) / 3
    zip_run(render_run(run, year), tmp_path / "run.zip")
    assert score(tmp_path / "run.zip", truth_path) == found


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_truth_in_another_layout_is_scored_as_one_in_the_format_of_the_run(
    tmp_path: Path, scorer: Scorer
) -> None:
    """With the empty cells and the ids that the scorers treat in their own way."""
    run, plain, other = (tmp_path / name for name in ("run.csv", "plain.csv", "other.csv"))
    run.write_text("ID,CUIs\na,C1;C2\nCOVID_1,C1\nb,\nc,C3\nd,\n")
    plain.write_text("ID,CUIs\na,C1\nCOVID_1,C1\nb,\nc,C4\nd,C4\n")
    other.write_text("image;C1;C4\na.png;1;0\nCOVID_1.png;1;0\nb.png;0;0\nc.png;0;1\nd.png;0;1\n")
    wanted, found = score(run, plain, scorer), score(run, other, scorer)
    assert found == wanted
    labels = read_truth(other, run)
    assert labels is not None and score(run, labels, scorer, ["a", "b"]).f1 == (
        score(run, plain, scorer, ["a", "b"]).f1
    )
    assert read_truth(plain, run) is None


def test_a_run_in_words_without_a_header(tmp_path: Path) -> None:
    """Its first row is no header, although it has words over CUIs."""
    run, truth = tmp_path / "run.csv", tmp_path / "truth.csv"
    run.write_text("scan,MASS\nb,C1\n")
    truth.write_text("image;Finding\nscan.png;mass\nb.png;C1|C1\n")
    assert score(run, truth).ids == ("scan", "b") and score(run, truth).f1 == 1.0
