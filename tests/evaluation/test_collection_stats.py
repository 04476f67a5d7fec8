from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.errors import FormatError
from annotator.evaluation.collection_stats import explore, plot_stats, render_stats

TRAINING = {"a": ("C1", "C2"), "b": ("C1",), "c": (), "d": ("C1", "C3", "C2"), "e": ("C1",)}
VALIDATION = {"f": ("C1", "C8", "C9"), "g": ("C8",), "h": ()}


def test_explore_by_hand():
    stats = explore(TRAINING, {"C1": "Chest"}, VALIDATION)
    assert (stats.images, stats.images_without, stats.annotations) == (5, 1, 7)
    assert (stats.mean, stats.median, stats.max) == (1.4, 1.0, 3)
    assert stats.per_image == {0: 1, 1: 2, 2: 1, 3: 1}
    found = [(c.cui, c.name, c.images) for c in stats.concepts]
    assert found == [("C1", "Chest", 4), ("C2", "", 2), ("C3", "", 1)]
    assert stats.frequencies == {1: 1, 2: 1, 4: 1}
    assert (stats.rare, stats.frequent) == (2, 0)
    assert stats.unseen is not None
    assert [(c.cui, c.images) for c in stats.unseen.concepts] == [("C8", 2), ("C9", 1)]
    assert stats.unseen.share == 3 / 4


def test_rare_is_fewer_than_four_and_frequent_more_than_a_thousand():
    counts = {"C1": 3, "C2": 4, "C3": 1000, "C4": 1001}
    images = {str(i): [c for c, n in counts.items() if i < n] for i in range(1001)}
    stats = explore(images)
    assert (stats.rare, stats.frequent) == (1, 1)


def test_nothing_to_explore():
    stats = explore({}, {}, {})
    assert (stats.images, stats.mean, stats.median, stats.max) == (0, 0.0, 0.0, 0)
    assert stats.unseen is not None
    assert stats.unseen.share == 0.0
    assert render_stats(stats).startswith("0 images, 0 of them without concepts")


labels = st.lists(st.sampled_from([f"C{i}" for i in range(30)]), unique=True)
collections = st.dictionaries(st.text(min_size=1, max_size=3), labels)


@given(concepts=collections, validation=collections)
def test_sums(concepts, validation):
    stats = explore(concepts, {}, validation)
    assert sum(stats.per_image.values()) == len(concepts)
    assert sum(size * count for size, count in stats.per_image.items()) == stats.annotations
    assert sum(n * count for n, count in stats.frequencies.items()) == stats.annotations
    assert sum(stats.frequencies.values()) == len(stats.concepts)
    assert stats.top == stats.concepts[:20]
    counts = [concept.images for concept in stats.concepts]
    assert counts == sorted(counts, reverse=True)
    assert stats.unseen is not None
    assert 0 <= stats.unseen.share <= 1
    assert not {c.cui for c in stats.unseen.concepts} & {c.cui for c in stats.concepts}
    assert explore(concepts, {}, concepts).unseen.concepts == ()
    json.dumps(stats.to_dict())


def test_text():
    text = render_stats(explore(TRAINING, {"C1": "Chest"}, VALIDATION))
    lines = text.split("\n")
    assert lines[:3] == [
        "5 images, 1 of them without concepts",
        "3 concepts, 7 annotations",
        "CUIs per image: mean 1.40, median 1, at most 3",
    ]
    assert "Concepts on fewer than 4 images: 2 (66.7%)" in lines
    assert "  C1   Chest       4  0.8000" in lines
    assert "Concepts of validation that training lacks: 2, 75.0% of its annotations" in lines
    assert "validation" not in render_stats(explore(TRAINING))


def test_text_gathers_the_many_sizes_of_a_long_tail():
    concepts = {str(i): [f"C{j}" for j in range(i)] for i in range(40)}
    lines = render_stats(explore(concepts)).split("\n")
    assert "  15+       25  0.6250" in lines


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_plot_is_deterministic(tmp_path, kind):
    stats = explore(TRAINING)
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        plot_stats(stats, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])


def test_plot_leaves_the_settings_of_matplotlib_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_stats(explore(TRAINING), tmp_path / "plot.svg")
    assert dict(matplotlib.rcParams) == before


def test_plot_errors(tmp_path):
    with pytest.raises(FormatError, match="no plot of that kind") as error:
        plot_stats(explore(TRAINING), tmp_path / "plot.docx")
    assert "png, svg, pdf" in error.value.hint
    with pytest.raises(FormatError, match="nothing to draw"):
        plot_stats(explore({"a": ()}), tmp_path / "plot.png")
