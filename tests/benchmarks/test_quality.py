"""The harness: nothing leaks, costs are charged, figures are those counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import quality
from hypothesis import given, settings
from hypothesis import strategies as st
from quality_rows import curves, measure, report
from quality_rows.cost import Cost, Ledger
from quality_rows.data import HiddenLabels, number_groups
from quality_rows.labels import Vocabulary, f1_of_rows, group_folds, sample_of_groups, top
from quality_rows.registry import Settings

from annotator.errors import AnnotatorError
from annotator.evaluation.official_f1 import image_f1

GROUPS = st.lists(st.integers(0, 9), min_size=2, max_size=40).map(np.array)


def test_the_test_side_hides_its_labels(sides):
    train, test, _ = sides
    assert len(train.labels) == 48
    with pytest.raises(HiddenLabels):
        _ = test.labels
    with pytest.raises(HiddenLabels):
        _ = test.take(np.array([0])).labels


@settings(deadline=None)  # the first example imports scikit-learn
@given(GROUPS.filter(lambda g: len(set(g)) > 1))
def test_folds_never_split_a_group(groups):
    held = []
    for fitted, out in group_folds(groups):
        assert not set(groups[fitted]) & set(groups[out])
        assert len(fitted)
        held += out.tolist()
    assert sorted(held) == list(range(len(groups)))


@given(GROUPS, st.integers(1, 45), st.integers(0, 3))
def test_samples_are_of_whole_groups(groups, n, seed):
    rows = sample_of_groups(groups, n, seed)
    assert len(rows) >= min(n, len(groups))
    assert not set(groups[rows]) & set(np.delete(groups, rows))
    assert rows.tolist() == sorted(rows)


@pytest.mark.parametrize("missing", ["", " ", "nan", "None", "NA"])
def test_images_without_a_group_are_never_merged(missing):
    groups = {"a": missing, "b": missing, "c": "p1", "d": "p1", "e": "c"}
    numbers = number_groups(["a", "b", "c", "d", "e", "f"], groups).tolist()
    assert numbers[2] == numbers[3]
    assert len(set(numbers)) == 5


def test_an_id_that_is_also_a_group_is_not_merged_with_it():
    assert len(set(number_groups(["x", "y"], {"y": "x"}).tolist())) == 2


@given(
    st.lists(
        st.tuples(st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 7)), min_size=1
    )
)
def test_f1_of_rows_is_the_task_s_f1(pairs):
    truth = np.array([t for t, _ in pairs])
    chosen = np.array([[bool(bits >> j & 1) for j in range(3)] for _, bits in pairs])
    expected = [
        image_f1(set(np.flatnonzero(t)) or {""}, set(np.flatnonzero(c)) or {""})
        for t, c in zip(truth, chosen, strict=True)
    ]
    assert f1_of_rows(truth, chosen).tolist() == expected


def test_columns_are_by_frequency_and_ties_go_to_the_more_frequent():
    labels = [frozenset({"C2", "C3"}), frozenset({"C3"}), frozenset({"C1"})]
    vocabulary = Vocabulary(labels)
    assert vocabulary.cuis == ("C3", "C1", "C2")
    assert vocabulary.counts.tolist() == [2, 1, 1]
    chosen = top(np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.9]]), np.array([2, 1]))
    assert vocabulary.sets(chosen) == [{"C3", "C1"}, {"C2"}]
    assert vocabulary.sets(vocabulary.matrix(labels).toarray() > 0) == [set(s) for s in labels]


def test_what_is_shared_is_charged_to_each_row_once():
    ledger = Ledger()

    def work():
        ledger.charge("vectors", Cost(10.0, 20.0))
        ledger.charge("vectors", Cost(10.0, 20.0))

    for _ in range(2):
        _, cost = ledger.measure(work)
        assert cost.seconds == pytest.approx(10.0, abs=0.5)
        assert cost.cpu_seconds == pytest.approx(20.0, abs=0.5)


def test_vectors_pixels_and_remembered_things_cost_every_row(sides):
    train, _, _ = sides
    _, cost = train.ledger.measure(lambda: (train.vectors(), train.vectors()))
    assert cost.seconds == pytest.approx(8.0, abs=0.5)
    _, cost = train.ledger.measure(lambda: train.take(np.arange(12)).vectors())
    assert cost.seconds == pytest.approx(2.0, abs=0.5)
    calls = []
    for _ in range(2):
        assert train.remember("key", lambda: calls.append(1) or "value") == "value"
    assert calls == [1]


def test_pixels_are_kept_and_stretched_to_squares(sides):
    train, _, _ = sides
    pixels = train.pixels(16, np.array([3, 1]))
    assert (pixels.shape, pixels.dtype) == ((2, 16, 16, 3), np.uint8)
    part = train.take(np.array([1, 3]))
    np.testing.assert_array_equal(part.pixels(16, np.array([1, 0])), pixels)


def test_scores_by_hand():
    truth = measure.Truth(
        {
            "a": frozenset({"C1", "C2"}),
            "b": frozenset({"C1", "C9"}),
            "c": frozenset({"C2"}),
            "d": frozenset(),
        },
        {"a": "x", "b": "x", "c": "y"},
    )
    # The image c could not be decoded, d has no concepts and got none.
    found = {"a": {"C1"}, "b": {"C1", "C2"}, "d": set()}
    figures = measure.score(found, truth, {"C1": 3, "C2": 4})
    assert figures["image_f1"] == [0.666667, 0.5, 0.0, 1.0]
    assert figures["f1"] == pytest.approx((2 / 3 + 1 / 2 + 0 + 1) / 4, abs=1e-6)
    assert figures["by"]["x"]["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)
    assert (figures["by"]["y"]["f1"], figures["by"][""]["f1"]) == (0.0, 1.0)
    assert figures["macro_f1"] == pytest.approx(1 / 3, abs=1e-6)  # C1 1, C2 0, C9 0
    assert figures["bands"]["1-3"] == {"concepts": 1, "annotations": 2, "f1": 1.0}
    assert figures["bands"]["4-19"] == {"concepts": 1, "annotations": 2, "f1": 0.0}
    assert figures["bands"]["20-99"] == {"concepts": 0, "annotations": 0, "f1": None}


def test_bands_leave_no_count_out():
    ends = [high for _, high in measure.BANDS]
    assert [low for low, _ in measure.BANDS] == [1, *(end + 1 for end in ends[:-1])]
    assert ends[-1] is None


def test_learning_curves_take_shares_of_groups(sides, tmp_path):
    train, test, labels = sides
    ids = [*train.ids, *test.ids]
    source_of = {id_: "odd" if int(id_[-3:]) // 2 % 2 else "even" for id_ in ids}
    truth = measure.Truth(dict(zip(test.ids, labels, strict=True)), source_of)
    with pytest.raises(AnnotatorError, match="nowhere"):
        curves.split_sources(["nowhere"], train, test, truth, source_of)
    parts = curves.split_sources(["odd"], train, test, truth, source_of)
    points = curves.learning_curves(parts, Settings(tmp_path, "none"), ["nearest"])
    assert [point["share"] for point in points] == [0.1, 0.25, 0.5, 1.0]
    assert [len(point["f1"]) for point in points] == [3, 3, 3, 1]
    assert points[-1]["training_images"] == [24]
    assert all(n % 2 == 0 for point in points for n in point["training_images"])  # whole patients
    assert len(points[0]["image_f1"]) == sum(source_of[id_] == "odd" for id_ in test.ids)
    report.plot_curves(points, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    from annotator.phantoms import write_sample

    return write_sample(tmp_path_factory.mktemp("sample") / "sample", n=80)


@pytest.mark.slow
def test_the_whole_benchmark_on_phantoms(sample, tmp_path, capsys):
    options = [str(sample.images), str(sample.concepts), "--split", str(sample.split)]
    options += ["--groups", str(sample.patients), "--by", str(sample.split)]
    options += ["--work", str(tmp_path / "work"), "--results", str(tmp_path), "--name", "phantoms"]
    quality.main([*options, "--rows", "most-frequent,nearest,ours"])
    record = json.loads((tmp_path / "quality-phantoms.json").read_text())
    f1 = {row["key"]: row["f1"] for row in record["rows"]}
    assert list(f1) == ["most-frequent", "nearest", "ours"]
    assert f1["most-frequent"] < min(f1["nearest"], f1["ours"])
    for row in record["rows"]:
        assert len(row["image_f1"]) == record["collection"]["test"] == len(record["image_ids"])
        assert np.mean(row["image_f1"]) == pytest.approx(row["f1"], abs=1e-5)
        assert list(row["by"]) == ["test"]
    table = (tmp_path / "quality-phantoms.md").read_text()
    assert table.strip() == capsys.readouterr().out.strip()
    assert (tmp_path / "quality-phantoms.png").stat().st_size > 1000
    first = {row["key"]: row["image_f1"] for row in record["rows"]}

    # Once more, with each side in a place of its own, and an image that cannot be decoded on each:
    # the others get the same figures.
    apart = []
    for side in ("train", "test"):
        ids = [line.split(",")[0] for line in sample.split.read_text().splitlines() if side in line]
        places = {path.stem: path for path in sample.images.rglob("*.*")}
        broken = tmp_path / f"broken_{side}.png"
        broken.write_bytes(b"not an image")
        files = [*(places[id_] for id_ in ids), broken]
        (tmp_path / f"{side}.txt").write_text("".join(f"{path}\n" for path in files))
        apart.append(str(tmp_path / f"{side}.txt"))
    concepts = tmp_path / "concepts.csv"
    more = "broken_train,C0040405\nbroken_test,C0040405\n"
    concepts.write_text(sample.concepts.read_text() + more)
    options = [apart[0], str(concepts), "--test-images", apart[1]]
    options += ["--test-concepts", str(concepts), "--groups", str(sample.patients)]
    options += ["--work", str(tmp_path / "work"), "--results", str(tmp_path), "--name", "apart"]
    quality.main([*options, "--rows", "nearest"])
    record = json.loads((tmp_path / "quality-apart.json").read_text())
    f1 = dict(zip(record["image_ids"], record["rows"][0]["image_f1"], strict=True))
    assert f1.pop("broken_test") == 0.0
    assert list(f1.values()) == first["nearest"]
    assert "broken_train cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "nearest,nothing"], "no row 'nothing'"),
        ([], "test side"),
        (["--test-images", "{images}", "--test-concepts", "{concepts}"], "on both sides"),
    ],
)
def test_what_cannot_be_measured_is_refused(sample, tmp_path, options, message):
    places = {"images": sample.images, "concepts": sample.concepts}
    with pytest.raises(SystemExit, match=message):
        quality.main(
            [str(sample.images), str(sample.concepts), "--work", str(tmp_path)]
            + [option.format(**places) for option in options]
        )
