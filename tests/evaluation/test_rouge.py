"""Normalisation and ROUGE-1, against the package that the task uses."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.evaluation.rouge import normalise, rouge1, similarities, words

WORDS = ("chest", "CT", "T2", "12", "a", "nodule,", "-", "naïve", "Γ", "٣", "(b)", "x.y")
captions = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
anything = st.text(max_size=30)


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("Chest X-ray.", "chest xray"),
        ("12 mm nodule in 2019", "number mm nodule in number"),
        ("1.5 T", "numbernumber t"),  # digits first, then punctuation
        ("T2-weighted", "tnumberweighted"),
        ("", ""),
        ("...", ""),
        ("“quoted”", "“quoted”"),  # ASCII punctuation alone
    ],
)
def test_normalise(caption: str, wanted: str) -> None:
    assert normalise(caption) == wanted


def test_words_are_runs_of_ascii_letters_and_digits() -> None:
    assert words("A naïve view; T2, 3 times") == [
        "a", "na", "ve", "view", "tnumber", "number", "times",
    ]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(anything)
def test_what_is_normalised_stays(caption: str) -> None:
    once = normalise(caption)
    assert not set(once) & set(string.punctuation)
    assert normalise(once) == normalise(normalise(once))


@settings(max_examples=50, deadline=None)
@given(st.one_of(captions, anything), st.one_of(captions, anything))
def test_rouge1_is_that_of_the_package(truth: str, caption: str) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=False)
    wanted = scorer.score(normalise(truth), normalise(caption))["rouge1"].fmeasure
    assert rouge1(truth, caption) == (wanted if truth or caption else 1.0)


def test_rouge1_by_hand() -> None:
    # chest radiograph with a nodule of number mm; chest radiograph with number nodules
    truth, caption = "Chest radiograph, with a nodule of 12 mm.", "Chest radiograph with 2 nodules."
    assert rouge1(truth, caption) == pytest.approx(2 * 4 / (8 + 5))
    assert rouge1("the the head", "the the the") == pytest.approx(2 * 2 / 6)
    assert rouge1("chest", "head") == 0.0
    assert rouge1("", "") == 1.0 and rouge1("", "chest") == 0.0 and rouge1("...", "") == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(captions, max_size=6))
def test_similarities_are_rouge1_of_all_pairs(texts: list[str]) -> None:
    found = similarities(texts)
    assert found.shape == (len(texts), len(texts)) and found.dtype == np.float64
    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            wanted = rouge1(a, b) if words(a) or words(b) else 0.0
            assert found[i, j] == pytest.approx(wanted, abs=1e-12)
