"""The consensus caption, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.evaluation.rouge import rouge1
from annotator.knn.caption import choose_caption

WORDS = ("chest", "radiograph", "normal", "nodule", "head", "ct")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
voters = st.lists(st.tuples(texts, st.floats(0.01, 10)), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(voters)
def test_the_consensus_has_the_highest_expected_rouge(given_: list[tuple[str, float]]) -> None:
    captions, weights = [text for text, _ in given_], [weight for _, weight in given_]
    expected = [
        sum(w * rouge1(other, text) for other, w in given_) / sum(weights) for text in captions
    ]
    choice = choose_caption(captions, weights)
    assert choice is not None
    assert choice.expected == pytest.approx(max(expected), abs=1e-8)
    assert expected[choice.position] == pytest.approx(max(expected), abs=1e-8)
    first = next(i for i, value in enumerate(expected) if value > max(expected) - 1e-12)
    assert choice.position <= first  # of equals the most similar neighbour's


@settings(max_examples=50, deadline=None)
@given(voters, st.floats(0.1, 100))
def test_only_the_ratios_of_weights_count(given_: list[tuple[str, float]], factor: float) -> None:
    captions, weights = [text for text, _ in given_], [weight for _, weight in given_]
    choice = choose_caption(captions, weights)
    scaled = choose_caption(captions, [factor * weight for weight in weights])
    assert choice is not None and scaled is not None
    assert scaled.expected == pytest.approx(choice.expected, abs=1e-8)


def test_what_most_agree_on_wins_over_the_nearest() -> None:
    captions = [
        "knee mri",
        "normal chest radiograph",
        "chest radiograph",
        "chest radiograph normal",
    ]
    weights = [0.3, 0.25, 0.25, 0.2]
    choice = choose_caption(captions, weights)
    nearest = choose_caption(captions, weights, "nearest")
    assert choice is not None and nearest is not None
    assert choice.position == 1  # as good as its equal at 3, and nearer
    assert nearest.position == 0 and nearest.expected == pytest.approx(0.3)


def test_neighbours_without_caption_have_no_say() -> None:
    captions = ["", "  ", "chest", "head"]
    choice = choose_caption(captions, [0.5, 0.3, 0.1, 0.1])
    assert choice is not None and (choice.position, choice.expected) == (2, 0.5)
    nearest = choose_caption(captions, [0.5, 0.3, 0.1, 0.1], "nearest")
    assert nearest is not None and nearest.position == 2
    assert choose_caption(["", " "], [1, 1]) is None and choose_caption([], []) is None


def test_no_weights_are_the_same_weights() -> None:
    captions = ["head", "chest", "chest"]
    choice = choose_caption(captions, np.zeros(3))
    assert choice is not None and (choice.position, choice.expected) == (1, round(2 / 3, 9))


def test_what_cannot_be_chosen_from() -> None:
    with pytest.raises(ValueError, match="2 captions and 1 weights"):
        choose_caption(["a", "b"], [1.0])
    with pytest.raises(ValueError, match="unknown method 'best'"):
        choose_caption(["a"], [1.0], "best")  # type: ignore[arg-type]
