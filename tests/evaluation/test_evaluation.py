"""Evaluations: by hand, as JSON and text, and against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from annotator.errors import FormatError
from annotator.evaluation.evaluation import evaluate
from annotator.evaluation.official_f1 import SECONDARY_CUIS
from annotator.evaluation.report import render
from annotator.render.text_table import fitted_to
from annotator.tables.run import render_run


@pytest.fixture
def collection(write):
    """Paths of run, truth, manual truth and groups, small enough to be reckoned by hand."""
    run = write("run.csv", "ID,CUIs\na,C1;C0040405\nb,C1;C9\nc,\nd,C0817096\n")
    truth = write("truth.csv", "ID,CUIs\na,C1;C0040405\nb,C1;C2\nc,C2\nd,\n")
    manual = write("manual.csv", "ID,CUIs\na,C0040405;C7\nb,C7\nc,C0024485\nd,C0817096;C0006141\n")
    groups = write("groups.csv", "ID,source\nb,two\na,one\nc,one\n")
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
        evaluate(run, truth, secondary=write("none.csv", "ID,CUIs\na,C1\n"))
    with pytest.raises(FormatError, match="1 images that the run lacks, such as 'e'"):
        evaluate(run, truth, secondary=write("other.csv", "ID,CUIs\ne,C0040405\n"))
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
    with fitted_to(120):
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
    path = write("truth.csv", "ID,CUIs\na,C1\n")
    text = render(evaluate(path, path))
    assert text.startswith("F1 1.0000 (95% interval 1.000 to 1.000, 1 images)")
    assert "missed" not in text
    assert "invented" not in text


@pytest.mark.parametrize("seed", [0, 1])
def test_concepts_agree_with_scikit_learn(write, seed):
    generator = np.random.default_rng(seed)
    truth, run = (generator.random((2, 40, 8)) < 0.4).astype(int)
    truth[:, 0] = 1  # no image is empty, since scikit-learn gives those a zero

    def text(matrix):
        rows = [(f"x{i}", [f"C{j}" for j in np.flatnonzero(row)]) for i, row in enumerate(matrix)]
        return render_run(rows, "2025")

    found = evaluate(write("run.csv", text(run)), write("truth.csv", text(truth)))
    assert found.f1 == pytest.approx(f1_score(truth, run, average="samples"))
    assert found.macro_f1 == pytest.approx(f1_score(truth, run, average="macro"))
    p, r = found.micro_precision, found.micro_recall
    assert 2 * p * r / (p + r) == pytest.approx(f1_score(truth, run, average="micro"))
    by_cui = {concept.cui: concept.f1 for concept in found.per_concept}
    assert [by_cui[f"C{j}"] for j in range(8)] == pytest.approx(f1_score(truth, run, average=None))
