"""The evaluation of captions, on files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from annotator.errors import FormatError
from annotator.evaluation.bertscore import BertScorer
from annotator.evaluation.captions import evaluate_captions
from annotator.evaluation.measures import render_measured
from annotator.tables.run import zip_run

TRUTH = 'ID,Caption\na,"Chest radiograph, normal."\nb,CT of the head\nc,\nd,Knee MRI\n'
RUN = "ID,Caption\na,Chest radiograph\nb,\nc,\nd,MRI of a knee\n"
SCORES = {"a": 0.8, "b": 0.0, "c": 1.0, "d": 2 * 2 / 6}

Write = Callable[[str, str], Path]


def test_rouge1_of_each_image_and_their_mean(write: Write) -> None:
    found = evaluate_captions(write("run.csv", RUN), write("truth.csv", TRUTH))
    assert dict(zip(found.ids, found.measures["rouge1"].scores, strict=True)) == pytest.approx(
        SCORES
    )
    assert found.measures["rouge1"].whole.mean == pytest.approx(sum(SCORES.values()) / 4)
    assert found.facts["empty"] == 2 and set(found.measures) == {"rouge1"}
    text = render_measured(found)
    assert text.startswith("ROUGE-1 0.6167 (95% interval ") and ", 4 images)" in text
    assert "2 captions of the run are empty." in text


def test_the_order_of_the_run_does_not_matter(write: Write) -> None:
    header, *rows = RUN.splitlines()
    turned = write("turned.csv", "\n".join([header, *rows[::-1]]) + "\n")
    truth = write("truth.csv", TRUTH)
    assert evaluate_captions(turned, truth) == evaluate_captions(write("run.csv", RUN), truth)


def test_zips_and_runs_without_header(write: Write, tmp_path: Path) -> None:
    truth = write("truth.csv", TRUTH)
    zip_run(RUN, tmp_path / "submission.zip")
    wanted = evaluate_captions(write("run.csv", RUN), truth)
    assert evaluate_captions(tmp_path / "submission.zip", truth) == wanted
    headless = write("headless.csv", RUN.partition("\n")[2])
    assert evaluate_captions(headless, truth) == wanted


def test_against_another_run(write: Write) -> None:
    truth = write("truth.csv", TRUTH)
    other = write("other.csv", "ID,Caption\na,Chest radiograph\nb,the head\nc,\nd,Chest\n")
    found = evaluate_captions(write("run.csv", RUN), truth, against=other).measures["rouge1"]
    assert found.against is not None
    assert found.against.other == pytest.approx((0.8 + 2 * 2 / 6 + 1 + 0) / 4)
    assert found.against.difference == pytest.approx(found.whole.mean - found.against.other)
    assert (found.against.better, found.against.worse) == (1, 1)
    low, high = found.against.interval
    assert low < found.against.difference < high


def test_groups_and_sides(write: Write) -> None:
    truth, run = write("truth.csv", TRUTH), write("run.csv", RUN)
    groups = write("groups.csv", "ID,source\na,x\nb,y\nd,y\n")
    found = evaluate_captions(run, truth, by=f"{groups}:source").measures["rouge1"]
    assert {g: m.n for g, m in found.per_group.items()} == {"": 1, "x": 1, "y": 2}
    assert found.per_group["y"].mean == pytest.approx(SCORES["d"] / 2)
    over = evaluate_captions(run, truth, groups=str(groups))
    assert over.measures["rouge1"].whole.n_groups == 3
    own = "1 without one count as groups of their own"
    assert f"Intervals are over the 3 groups of {groups}; {own}." in over.notes
    side = evaluate_captions(run, truth, ids=["a", "d", "elsewhere"])
    assert side.ids == ("a", "d")
    part = write("part.csv", "ID,Caption\nd,MRI of a knee\na,Chest radiograph\n")
    assert evaluate_captions(part, truth, ids=["a", "d"]).measures == side.measures


def test_bertscore_beside_it(write: Write, tiny_bert: Path) -> None:
    truth, run = write("truth.csv", TRUTH), write("run.csv", RUN)
    scorer = BertScorer(str(tiny_bert), 2, device="cpu")
    found = evaluate_captions(run, truth, bertscore=scorer, against=truth)
    f1, recall = found.measures["bertscore_f1"], found.measures["bertscore_recall"]
    assert f1.scores[1:3] == (0.0, 1.0)  # empty against a caption; both empty
    assert 0 < f1.scores[0] < 1 and recall.scores[0] < 1
    assert f1.against is not None and f1.against.difference < 0
    assert found.facts["bertscore"] == {"model": str(tiny_bert), "layer": 2}


def test_as_json(write: Write) -> None:
    truth, run = write("truth.csv", TRUTH), write("run.csv", RUN)

    def to_json() -> str:
        return json.dumps(evaluate_captions(run, truth, against=truth).to_dict())

    assert to_json() == to_json()
    facts = json.loads(to_json())
    assert facts["n_images"] == 4 and facts["images"]["a"] == {"rouge1": pytest.approx(0.8)}
    assert facts["measures"]["rouge1"]["against"]["other"] == 1.0


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("ID,Caption\na,x\nb,x\nd,x\n", "lacks 1 of 4 images, such as 'c'"),
        (RUN + "e,x\n", "'e' is not among the true captions"),
        (RUN + "a,x\n", "line 6: the id 'a' is on line 2 already"),
        ("ID,Caption\na,x\nb\nc,x\nd,x\n", "line 3: the row of 'b' has no second column"),
        ("", "is empty"),
    ],
)
def test_what_the_task_would_refuse(write: Write, run: str, message: str) -> None:
    truth = write("truth.csv", TRUTH)
    with pytest.raises(FormatError, match=message):
        evaluate_captions(write("run.csv", run), truth)
    with pytest.raises(FormatError, match=message):
        evaluate_captions(truth, truth, against=write("run.csv", run))


def test_ids_that_are_not_there(write: Write) -> None:
    truth = write("truth.csv", TRUTH)
    with pytest.raises(FormatError, match="none of the images to score"):
        evaluate_captions(truth, truth, ids=["elsewhere"])
