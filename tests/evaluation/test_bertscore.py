"""BERTScore with a real, if tiny, model: the scores, the weights, and the edges."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from annotator.errors import AnnotatorError
from annotator.evaluation.bertscore import BertScorer

TRUTHS = ["normal chest radiograph", "a chest", "ct of the head", "hemorrhage of the head number"]
CAPTIONS = ["chest radiograph shows", "effusion of the chest", "ct of the head", "ct hemorrhage"]


@pytest.fixture(scope="module")
def scorer(tiny_bert: Path) -> BertScorer:
    return BertScorer(str(tiny_bert), 2, device="cpu")


def test_by_hand_from_the_models_vectors(tiny_bert: Path, scorer: BertScorer) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(tiny_bert) for kind in (AutoTokenizer, AutoModel))
    tokens = [tokenizer.encode(text) for text in TRUTHS]
    held = {token: sum(token in ids for ids in tokens) for ids in tokens for token in ids}

    def embed(text: str) -> tuple[torch.Tensor, list[float]]:
        ids = tokenizer.encode(text)
        with torch.inference_mode():
            output = model(torch.tensor([ids]), output_hidden_states=True)
        weights = [math.log((len(TRUTHS) + 1) / (held.get(token, 0) + 1)) for token in ids]
        return torch.nn.functional.normalize(output.hidden_states[2][0], dim=-1), weights

    for truth, caption, found in zip(TRUTHS, CAPTIONS, scorer.score(TRUTHS, CAPTIONS), strict=True):
        (true, wanted), (said, given) = embed(truth), embed(caption)
        similarity = true @ said.T
        recall = sum(similarity.amax(1) * torch.tensor(wanted)).item() / sum(wanted)
        precision = sum(similarity.amax(0) * torch.tensor(given)).item() / sum(given)
        f1 = 2 * precision * recall / (precision + recall)
        assert found == pytest.approx((precision, recall, f1), abs=1e-5)


def test_order_and_company_do_not_matter_but_for_the_weights(scorer: BertScorer) -> None:
    found = scorer.score(TRUTHS, CAPTIONS)
    backwards = scorer.score(TRUTHS[::-1], CAPTIONS[::-1])[::-1]
    assert [pytest.approx(pair, abs=1e-5) for pair in found] == backwards


def test_empty_texts_and_weightless_ones_are_0(scorer: BertScorer) -> None:
    truths, captions = ["chest", "", "head", " "], ["", "chest", "head", "head"]
    found = scorer.score(truths, captions)
    assert found[:2] == [(0.0, 0.0, 0.0)] * 2 and found[2][2] == pytest.approx(1, abs=1e-5)
    assert found[3] == (0.0, 0.0, 0.0)
    assert scorer.score(["chest"], ["chest"]) == [(0.0, 0.0, 0.0)]  # all truths hold all of it
    assert scorer.score([], []) == []


def test_long_texts_are_cut(scorer: BertScorer) -> None:
    (found,) = scorer.score(["chest " * 100 + "head"], ["radiograph " * 100])
    assert all(-1 <= value <= 1 for value in found)
    cut, _ = scorer.score(["chest " * 100 + "head", "ct"], ["chest " * 100, "ct"])
    assert cut == pytest.approx((1, 1, 1), abs=1e-5)


def test_layers(tiny_bert: Path) -> None:
    with pytest.raises(AnnotatorError, match="layer of tiny-bert is unknown") as unknown:
        BertScorer(str(tiny_bert))
    assert "--bertscore-layer" in unknown.value.hint
    with pytest.raises(AnnotatorError, match="between 0 and 3"):
        BertScorer(str(tiny_bert), 4)


def test_a_published_layer_is_known_by_the_last_part_of_the_name(
    tiny_bert: Path, tmp_path: Path
) -> None:
    (tmp_path / "bert-base-uncased").symlink_to(tiny_bert)
    with pytest.raises(AnnotatorError, match="between 0 and 3"):  # the tiny one lacks layer 9
        BertScorer(str(tmp_path / "bert-base-uncased"))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("bert_score")
    with pytest.raises(AnnotatorError, match="cannot be loaded for BERTScore") as error:
        BertScorer(str(tmp_path), 1)
    assert "microsoft/deberta-xlarge-mnli" in error.value.hint


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(AnnotatorError, match="needs the package bert-score") as error:
        BertScorer(str(tmp_path), 1)
    assert "[captions]" in error.value.hint


@pytest.mark.slow
def test_the_model_of_the_task() -> None:
    pytest.importorskip("bert_score")
    from transformers import AutoConfig

    name = "microsoft/deberta-xlarge-mnli"
    try:
        AutoConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        pytest.skip(f"{name} (3 GB) is not in the hub's cache on this machine")
    found = BertScorer(name).score(TRUTHS, CAPTIONS)
    assert found[2][2] == pytest.approx(1, abs=1e-4) and all(f1 < 0.95 for *_, f1 in found[:2])
