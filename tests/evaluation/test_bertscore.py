"""BERTScore with a real, if tiny, model: against the package `bert-score`, and at the edges."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from annotator.errors import AnnotatorError
from annotator.evaluation.bertscore import LAYERS, BertScorer

TRUTHS = ["normal chest radiograph", "a chest", "ct of the head", "hemorrhage of the head number"]
CAPTIONS = ["chest radiograph shows", "effusion of the chest", "ct of the head", "ct hemorrhage"]


@pytest.fixture(scope="module")
def scorer(tiny_bert: Path) -> BertScorer:
    return BertScorer(str(tiny_bert), 2, device="cpu")


def test_as_the_package_computes_it(tiny_bert: Path, scorer: BertScorer) -> None:
    bert_score = pytest.importorskip("bert_score")
    theirs = bert_score.BERTScorer(
        model_type=str(tiny_bert), num_layers=2, idf=True, idf_sents=TRUTHS, device="cpu"
    )
    for truth, caption, found in zip(TRUTHS, CAPTIONS, scorer.score(TRUTHS, CAPTIONS), strict=True):
        wanted = [value.item() for value in theirs.score([caption], [truth])]
        assert found == pytest.approx(wanted, abs=1e-5)


def test_the_same_caption_is_1(scorer: BertScorer) -> None:
    for found in scorer.score(TRUTHS, TRUTHS):
        assert found == pytest.approx((1.0, 1.0, 1.0), abs=1e-5)


def test_order_and_company_do_not_matter_but_for_the_weights(scorer: BertScorer) -> None:
    found = scorer.score(TRUTHS, CAPTIONS)
    backwards = scorer.score(TRUTHS[::-1], CAPTIONS[::-1])[::-1]
    assert [pytest.approx(pair, abs=1e-5) for pair in found] == backwards


def test_empty_texts_and_weightless_ones_are_0(scorer: BertScorer) -> None:
    truths, captions = ["chest", "", "head"], ["", "chest", "head"]
    found = scorer.score(truths, captions)
    assert found[:2] == [(0.0, 0.0, 0.0)] * 2 and found[2][2] == pytest.approx(1, abs=1e-5)
    assert scorer.score(["chest"], ["chest"]) == [(0.0, 0.0, 0.0)]  # all truths hold all of it
    assert scorer.score([], []) == []


def test_a_rare_token_weighs_as_published(scorer: BertScorer) -> None:
    idf = scorer._idf(["chest radiograph", "chest"])
    chest, radiograph, head = (scorer._tokens(word)[1] for word in ("chest", "radiograph", "head"))
    assert [idf(token) for token in (chest, radiograph, head)] == [
        0.0, math.log(3 / 2), math.log(3),
    ]  # fmt: skip
    assert idf(scorer._tokens("chest")[0]) == 0.0  # [CLS] is in every truth


def test_long_texts_are_cut(scorer: BertScorer) -> None:
    assert len(scorer._tokens("chest " * 100)) == 32
    (found,) = scorer.score(["chest " * 100 + "head"], ["radiograph " * 100])
    assert all(-1 <= value <= 1 for value in found)


def test_layers(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="Which layer of tiny-bert") as unknown:
        BertScorer(str(tiny_bert))
    assert "--bertscore-layer" in unknown.value.hint
    with pytest.raises(AnnotatorError, match="has no layer 4"):
        BertScorer(str(tiny_bert), 4)
    known = shutil.copytree(tiny_bert, tmp_path / "bert-base-uncased")
    with pytest.raises(AnnotatorError, match=f"no layer {LAYERS['bert-base-uncased']}"):
        BertScorer(str(known))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match="cannot be loaded for BERTScore") as error:
        BertScorer(str(tmp_path), 1)
    assert "microsoft/deberta-xlarge-mnli" in error.value.hint


@pytest.mark.slow
def test_the_model_of_the_task(tiny_bert: Path) -> None:
    del tiny_bert  # torchvision was made importable for it
    from transformers import AutoConfig

    name = "microsoft/deberta-xlarge-mnli"
    try:
        AutoConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        pytest.skip(f"{name} (3 GB) is not in the hub's cache on this machine")
    found = BertScorer(name).score(TRUTHS, CAPTIONS)
    assert found[2][2] == pytest.approx(1, abs=1e-4) and all(f1 < 0.95 for *_, f1 in found[:2])
