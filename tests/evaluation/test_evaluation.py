from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from annotator.errors import FormatError
from annotator.evaluation.evaluation import evaluate
from annotator.evaluation.measures import bootstrap_interval
from annotator.evaluation.official_f1 import SECONDARY_CUIS, image_f1, mean, score
from annotator.evaluation.report import render
from annotator.tables.run import FORMATS, render_run, zip_run


@pytest.fixture
def write(tmp_path):
    def write(text, name):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture
def f1s(write):
    """F1 by image of a run against a truth, both given as text without header."""

    def f1s(run, truth, scorer):
        scored = score(write(run, "run.csv"), write(truth, "truth.csv"), scorer)
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
    truth = write("ID,CUIs\na,C1\nCOVID1,C1\n", "truth.csv")
    run = write("ID,CUIs\na,C1\nCOVID1,C2\n", "run.csv")
    legacy, current = score(run, truth, "legacy"), score(run, truth, "current")
    assert (legacy.ids, legacy.f1, legacy.skipped) == (("a", "COVID1"), 0.5, ())
    assert (current.ids, current.f1, current.skipped) == (("a",), 1.0, ("COVID1",))
    assert "COVID1" in render(evaluate(run, truth))
    assert evaluate(run, truth, ids=["a"]).skipped == ()


def test_ids_that_contain_the_letters_id_stay_where_files_have_no_comma(write):
    truth = write("a\tC1\nCOVID1\tC1\n", "truth.csv")
    for separator in "|,\t":
        run = write(f"a{separator}C1\nCOVID1{separator}C2\n", "run.csv")
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
    path = write("a,C1\n", "truth.csv")
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
    truth_path = write(render_run(truth, truth_year), "truth.csv")
    found = score(write(render_run(run, year), "run.csv"), truth_path)
    assert found.ids == ("c", "b", "a")
    assert found.scores == (1.0, 1.0, 2 / 3)
    assert found.f1 == (1.0 + 1.0 + 2 / 3) / 3
    zip_run(render_run(run, year), tmp_path / "run.zip")
    assert score(tmp_path / "run.zip", truth_path) == found


@pytest.fixture
def collection(write):
    """Paths of run, truth, manual truth and groups, small enough to be reckoned by hand."""
    run = write("ID,CUIs\na,C1;C0040405\nb,C1;C9\nc,\nd,C0817096\n", "run.csv")
    truth = write("ID,CUIs\na,C1;C0040405\nb,C1;C2\nc,C2\nd,\n", "truth.csv")
    manual = write("ID,CUIs\na,C0040405;C7\nb,C7\nc,C0024485\nd,C0817096;C0006141\n", "manual.csv")
    groups = write("ID,source\nb,two\na,one\nc,one\n", "groups.csv")
    return run, truth, manual, groups


def test_evaluation_by_hand(collection):
    run, truth, manual, groups = collection
    names = {"C1": "Chest", "C2": "Lung"}
    found = evaluate(run, truth, secondary=manual, by=f"{groups}:source", names=names)
    assert found.image_ids == ("a", "b", "c", "d")
    assert found.image_scores.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert found.image_scores.dtype == np.float64
    assert (found.n_images, found.f1) == (4, 0.375)
    assert (found.precision, found.recall) == (0.375, 0.375)
    assert (found.micro_precision, found.micro_recall) == (3 / 5, 3 / 5)
    assert found.macro_f1 == pytest.approx((1 + 1 + 0) / 3)  # C1, C0040405, C2
    assert found.secondary is not None
    assert found.secondary.n == 3  # b has none of the fifteen
    assert found.secondary.mean == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert {group: (s.n, s.mean) for group, s in found.per_group.items()} == {
        "": (1, 0.0),
        "one": (2, 0.5),
        "two": (1, 0.5),
    }
    concepts = [(c.cui, c.name, c.truth, c.run, c.true_positives) for c in found.per_concept]
    assert concepts == [
        ("C1", "Chest", 2, 2, 2),
        ("C2", "Lung", 2, 0, 0),
        ("C0040405", "", 1, 1, 1),
        ("C0817096", "", 0, 1, 0),
        ("C9", "", 0, 1, 0),
    ]
    assert [(c.cui, c.missed) for c in found.most_missed] == [("C2", 2)]
    assert [(c.cui, c.invented) for c in found.most_invented] == [("C0817096", 1), ("C9", 1)]


def test_evaluation_of_some_ids(collection):
    run, truth, manual, _ = collection
    found = evaluate(run, truth, secondary=manual, ids=["a", "b"])
    assert (found.image_ids, found.f1) == (("a", "b"), 0.75)
    assert found.secondary is not None
    assert (found.secondary.n, found.secondary.mean) == (1, 1.0)
    with pytest.raises(FormatError, match="none of the images to score"):
        evaluate(run, truth, ids=["other"])


def test_secondary_errors(collection, write):
    run, truth, manual, _ = collection
    with pytest.raises(FormatError, match="legacy scorer has no secondary"):
        evaluate(run, truth, scorer="legacy", secondary=manual)
    with pytest.raises(FormatError, match="no image with concepts"):
        evaluate(run, truth, secondary=write("ID,CUIs\na,C1\n", "none.csv"))
    with pytest.raises(FormatError, match="1 images that the run lacks, such as 'e'"):
        evaluate(run, truth, secondary=write("ID,CUIs\ne,C0040405\n", "other.csv"))
    assert len(SECONDARY_CUIS) == 15


def test_legacy_evaluation_tells_what_it_leaves_out(collection):
    run, truth, _, _ = collection
    found = evaluate(run, truth, scorer="legacy")
    assert (found.n_images, found.left_out, found.f1) == (3, 1, 0.5)
    assert "Left out, since their ground truth is empty: 1" in render(found)


def test_evaluation_as_json(collection):
    run, truth, manual, groups = collection

    def to_json():
        found = evaluate(run, truth, secondary=manual, by=f"{groups}:source")
        return json.dumps(found.to_dict())

    assert to_json() == to_json()
    values = json.loads(to_json())
    assert values["f1"] == 0.375
    assert values["images"] == {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.0}
    assert values["per_group"]["one"]["n_images"] == 2
    assert values["most_missed"] == [{"cui": "C2", "name": "", "count": 2}]
    assert len(values["secondary"]["interval"]) == 2


def test_text_of_an_evaluation(collection):
    run, truth, manual, groups = collection
    names = {"C2": "A name " + "that is too long for a line " * 3}
    text = render(evaluate(run, truth, secondary=manual, by=f"{groups}:source", names=names))
    lines = text.split("\n")
    assert lines[0].startswith("F1 0.3750 (95% interval ")
    assert lines[0].endswith(", 4 images)")
    assert "   0.375 by the current scorer, all digits" in lines
    assert "   0.5555555555555555, all digits" in lines
    assert max(len(line) for line in lines) <= 120
    assert not any(line != line.rstrip() for line in lines)
    group = lines.index("By group")
    assert [line.split()[0] for line in lines[group + 2 : group + 5]] == ["(none)", "one", "two"]
    assert len({line.index("0.") for line in lines[group + 2 : group + 5]}) == 1


def test_a_perfect_run_has_nothing_missed_to_show(write):
    path = write("ID,CUIs\na,C1\n", "truth.csv")
    text = render(evaluate(path, path))
    assert text.startswith("F1 1.0000 (95% interval 1.000 to 1.000, 1 images)")
    assert "missed" not in text
    assert "invented" not in text


def test_interval_covers_the_mean_and_is_seeded():
    scores = np.random.default_rng(1).choice([0.0, 0.5, 2 / 3, 1.0], size=400).tolist()
    low, high = bootstrap_interval(scores)
    error = np.std(scores) / math.sqrt(len(scores))
    assert low == pytest.approx(np.mean(scores) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(np.mean(scores) + 1.96 * error, abs=0.2 * error)
    assert bootstrap_interval(scores) == (low, high)
    assert bootstrap_interval(scores, seed=1) != (low, high)
    assert bootstrap_interval([0.5]) == (0.5, 0.5)


def test_interval_is_that_of_the_plain_bootstrap():
    generator = np.random.default_rng(2)
    scores = generator.choice([0.0, 0.4, 1.0], size=60, p=[0.2, 0.5, 0.3])
    plain = scores[generator.integers(60, size=(20_000, 60))].mean(axis=1)
    wanted = np.percentile(plain, [2.5, 97.5])
    assert bootstrap_interval(scores.tolist(), 20_000) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_concepts_agree_with_scikit_learn(write, seed):
    generator = np.random.default_rng(seed)
    truth, run = (generator.random((2, 40, 8)) < 0.4).astype(int)
    truth[:, 0] = 1  # no image is empty, since scikit-learn gives those a zero

    def text(matrix):
        rows = [(f"x{i}", [f"C{j}" for j in np.flatnonzero(row)]) for i, row in enumerate(matrix)]
        return render_run(rows, "2025")

    found = evaluate(write(text(run), "run.csv"), write(text(truth), "truth.csv"))
    assert found.f1 == pytest.approx(f1_score(truth, run, average="samples"))
    assert found.macro_f1 == pytest.approx(f1_score(truth, run, average="macro"))
    p, r = found.micro_precision, found.micro_recall
    assert 2 * p * r / (p + r) == pytest.approx(f1_score(truth, run, average="micro"))
    by_cui = {concept.cui: concept.f1 for concept in found.per_concept}
    assert [by_cui[f"C{j}"] for j in range(8)] == pytest.approx(f1_score(truth, run, average=None))
