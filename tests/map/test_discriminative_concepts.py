"""The choice of concepts, and colours by the rarest, against plain sets."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.map.discriminative_concepts import discriminative_concepts, rarest
from index.labels import LabelTable

ROWS = st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=40)


def table(rows: list[set[int]]) -> LabelTable:
    return LabelTable.from_sets([sorted(f"C{j}" for j in row) for row in rows])


def holders(labels: LabelTable) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {cui: set() for cui in labels.cuis}
    for i in range(len(labels)):
        for cui in labels.row(i):
            found[cui].add(i)
    return found


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(-1, 7), max_size=5, unique=True))
def test_the_rarest_of_some(rows: list[set[int]], wanted: list[int]) -> None:
    labels = table(rows)
    concepts = [j for j in wanted if j < len(labels.cuis)]
    counts = Counter(cui for i in range(len(labels)) for cui in labels.row(i))
    expected = []
    for i in range(len(labels)):
        here = [n for n, j in enumerate(concepts) if j >= 0 and labels.cuis[j] in labels.row(i)]
        # Of equally rare ones the last of the vocabulary.
        key = [(-counts[labels.cuis[concepts[n]]], concepts[n], n) for n in here]
        expected.append(max(key)[2] if key else -1)
    assert rarest(labels, concepts).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(1, 8))
def test_chosen_concepts_never_cross_and_always_separate(rows: list[set[int]], most: int) -> None:
    labels = table(rows)
    chosen = discriminative_concepts(labels, most)
    held = holders(labels)
    assert len(chosen) == len(set(chosen)) <= most
    for one, other in combinations(chosen, 2):
        common = len(held[one] & held[other]) / min(len(held[one]), len(held[other]))
        assert common <= 0.1 or common >= 0.9
    assert all(len(held[cui]) < len(labels) for cui in chosen[:1])
    divides = [cui for cui in labels.cuis if len(held[cui]) < len(labels)]
    assert bool(chosen) == bool(divides)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(rows: list[set[int]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert discriminative_concepts(table(rows), 8) == discriminative_concepts(table(shuffled), 8)


def test_it_covers_the_map_and_names_the_parts() -> None:
    # 0: on all. 1, 2, 3: apart, and all together. 4: crosses them. 5: within 1. 6: always with 2.
    rows = [{0, 1 + i % 3} | ({4} if i % 2 else set()) for i in range(120)]
    for i, row in enumerate(rows):
        row |= {5} if 1 in row and i % 4 == 0 else set()
        row |= {6} if 2 in row else set()
    assert set(discriminative_concepts(table(rows), 8)) == {"C1", "C2", "C3", "C5"}
    assert len(discriminative_concepts(table(rows), 2)) == 2


def test_nothing_to_separate() -> None:
    assert discriminative_concepts(table([set(), set()]), 8) == []
    assert discriminative_concepts(table([{1}, {1}]), 8) == []
    assert rarest(table([set()]), []).tolist() == [-1]
    assert np.all(rarest(table([{1}, {2}]), [-1]) == -1)
