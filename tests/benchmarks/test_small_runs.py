"""The other benchmarks, each end to end at toy size."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from annotator.cli import cli
from annotator.fitting.recipe import Recipe
from annotator.tables.scores import Scores
from benchmarks.features import (
    audit,
    concepts,
    decoding,
    ensembles,
    explanations,
    finding,
    new_concepts,
    resizing,
    review,
)
from benchmarks.quality.methods.finetuned import FineTuned
from benchmarks.records import load
from benchmarks.service_load import __main__ as service_load
from benchmarks.throughput import __main__ as throughput
from benchmarks.throughput import memory, tuning
from index import open_index

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without the start of a process for each."""

    def annotator(*arguments: Any) -> str:
        done = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    for module in (audit, review):
        monkeypatch.setattr(module, "annotator", annotator)


def test_throughput(sample, results, monkeypatch) -> None:
    monkeypatch.setattr(throughput, "_CALLS", 1)
    throughput.main([str(sample.images), "--n", "40", "--rounds", "1"])
    (record,) = load("throughput", results)
    for key in ("images_per_second", "images_per_cpu_second"):
        assert {"plain", "script", "bare", "annotate", "annotate_warm"} <= record[key].keys()
        assert all(len(rates) == 1 for rates in record[key].values())
    assert record["start_cpu_seconds"]["annotate"][0] > 0
    assert record["machine"]["cores"] and record["fingerprint"]["dim"]


def test_memory_and_tuning(sample, results) -> None:
    memory.main([str(sample.images), "--sizes", "40"])
    assert load("memory", results)[0]["peak_mib"] > 100
    tuning.main(["--n", "1000", "--dim", "32", "--concepts", "50"])
    assert load("tuning", results)[0]["fit_s"] >= 0
    here = str(Path(__file__).parents[2])
    tuning.main(["--n", "300", "--dim", "16", "--concepts", "30", "--against", here])
    record = load("tuning_before", results)[0]
    assert record["f1"] == record["before"]["f1"] and record["before"]["vote_ms"] > 0


def test_service_load(results) -> None:
    given = "--only b,f --images 8 --phantoms 20 --rounds 1 --lone 3 --reloads 4"
    service_load.main(given.split())
    lone, reloads = load("service_load", results)
    assert lone["requests"] == 3 and lone["p50_ms"] > 0 and lone["bare_p50_ms_by_threads"]["1"] > 0
    assert reloads["outcomes"] == {"sound: 200": 2, "damaged: 409": 2}
    assert reloads["wrong_outcomes"] == reloads["failed_requests"] == reloads["mixed_answers"] == 0


def test_corrections_under_load(results) -> None:
    service_load.main(["--only", "g", "--indexed", "300", "--dim", "16", "--corrections", "16"])
    alone, many = load("service_load", results)
    assert (alone["clients"], alone["corrections"]) == (1, 16)
    assert (many["clients"], many["corrections"]) == (8, 16)
    assert 0 < many["patch_p50_ms"] <= many["answer_p95_ms"] <= many["answer_max_ms"]


def test_review(sample, tmp_path, results) -> None:
    vectors = tmp_path / "all.npz"
    review.annotator("embed", sample.images, "--out", vectors)
    given = f"{vectors} {sample.concepts} --groups {sample.patients} --seeds 1 --step 3"
    review.main([*given.split(), "--rounds", "4"])
    http = f"--rounds 1 --strategies queue --images {sample.images}"
    review.main([*given.split(), *http.split()])
    *here, served = load("review", results)
    assert [record["strategy"] for record in here] == list(review.STRATEGIES)
    assert len({record["f1"][0] for record in here}) == 1
    assert all(len(record["f1"]) == 5 and 0 < record["area"] < 1 for record in here)
    assert served["f1"] == pytest.approx(here[0]["f1"][:2], abs=1e-6)
    (row, _) = review.report(load("review", results))
    assert row["area"].keys() == set(review.STRATEGIES) and list(row["queue_needs"]) == [12]
    review.main(["--plot"])
    assert (results / "review.png").stat().st_size > 10_000
    review.main(["--cost", "300"])
    assert load("review_cost", results)[0]["images"] == 300


def test_corrections_that_are_needed() -> None:
    f1 = np.array([0.5, 0.6, 0.55, 0.8])
    assert review.needed(f1, 0.5, 10) == 0 and review.needed(f1, 0.9, 10) is None
    assert review.needed(f1, 0.55, 10) == pytest.approx(5)
    assert review.needed(f1, 0.7, 10) == pytest.approx(25)


def test_finding(sample, results, monkeypatch) -> None:
    monkeypatch.setattr(finding, "FEWEST", 5)
    given = f"{sample.images} {sample.concepts} --groups {sample.patients} --seeds 1"
    finding.main(given.split())
    (record,) = load("finding", results)
    assert record["missing_planted"] == record["wrong_planted"] >= record["concepts"] > 5
    assert record["missing_recall"] > 0.5 and record["wrong_precision"] > 0.5


def test_audit(sample, tmp_path, results, monkeypatch) -> None:
    monkeypatch.setattr(audit, "COPIES", 5)
    monkeypatch.setattr(audit, "SWAPPED", 2)
    some = tmp_path / "images.txt"
    some.write_text("".join(f"{path}\n" for path in sorted(sample.images.iterdir())[:20]))
    audit.main(f"--images {some} --concepts {sample.concepts} --seeds 0".split())
    swapped, clean, whole = load("audit", results)
    assert clean["found_at_all"] == clean["found_in_first_150"] == clean["planted"] == 5
    assert whole["images"] == 25 and swapped["planted"] == 2


@pytest.mark.parametrize("of", ["phantoms", "moved"])
def test_explanations_point_at_the_lesion(of, results) -> None:
    explanations.main([of, "--n", "60", "--every", "4", "--indexed", "150"])
    (record,) = load("explanations", results)
    assert record["largest error"] < 1e-5 and record["concepts"] >= record["drawn"] > 0
    assert record["fall"] > record["fall of random ones"]
    assert record["on the lesion"] > 2 * record["chance"]


@pytest.mark.parametrize("of", ["films", "images"])
def test_explanations_of_a_collection(of, sample, results) -> None:
    (sample.directory / "sources.csv").write_text(
        sample.patients.read_text().replace("patient\n", "group\n", 1)
    )
    given = [of, "--collection", str(sample.directory), "--n", "3", "--every", "2"]
    explanations.main(given)
    (record,) = load("explanations", results)
    assert record["images"] >= 1 and record["fall"] is not None


def test_decoding_takes_little_memory(results) -> None:
    decoding.main(["--side", "2500", "--only", "JPEG grey,DICOM rescale"])
    (record,) = load("decoding", results)
    assert record["kinds"].keys() == {"JPEG grey", "DICOM rescale"}
    for row in record["kinds"].values():
        assert row["beyond"] < 6


def test_ensembles(tuned_index, tmp_path) -> None:
    """On the training side, with predictions that are there already."""
    stored = open_index(tuned_index)
    truth = {image_id: stored.labels.row(row) for row, image_id in enumerate(stored.ids)}
    rows = ((i, dict.fromkeys(cuis, 0.9)) for i, cuis in truth.items())
    right = Scores.from_shares(rows, stored.labels.cuis).to_npz()
    for name in ("finetuned-train", "finetuned-test", "logistic-train", "logistic-test"):
        (tmp_path / f"{name}.npz").write_bytes(right)
    training = ensembles.train_side(argparse.Namespace(work=tmp_path), tuned_index)
    assert training["finetuned"]["f1"] == 1 > training["votes"]
    assert training["finetuned"]["pool"][0] == training["votes"]
    assert training["logistic"]["mean probability, best threshold"][-1] == 1
    (filters,) = ensembles.filters(tuned_index)
    assert filters["least frequency"][2]["f1"] == filters["plain"] == training["votes"]
    assert filters["most concepts"][3]["difference"] == 0
    for name, cuis in (("truth.csv", list(truth.values())), ("none.csv", [()] * len(truth))):
        lines = [f"{id_},{';'.join(row)}\n" for id_, row in zip(truth, cuis, strict=True)]
        (tmp_path / name).write_text("ID,CUIs\n" + "".join(lines))
    runs = {"votes": tmp_path / "none.csv", "truth": tmp_path / "truth.csv"}
    found = ensembles.compared(tmp_path / "truth.csv", set(truth), None, runs)
    assert (found["votes"]["f1"], found["truth"]["f1"]) == (0, 1)
    assert found["truth"]["against"]["votes"]["difference"] == 1


def test_fine_tuning_learns(sample, tmp_path) -> None:
    options = argparse.Namespace(
        images=sample.images, concepts=sample.concepts, split=f"{sample.split}", train="train",
        test="test", groups=f"{sample.patients}", work=tmp_path,
    )  # fmt: skip
    train = ensembles.side(options, "train").take(np.arange(24))
    method = FineTuned(
        tmp_path, "half", recipe=Recipe(copies=2, epochs=3, learning_rate=5e-4, ema=0)
    )
    method.fit(train)
    same = method.probabilities(train)
    truth = method.vocabulary.matrix(train.labels).toarray() > 0
    assert same[truth].mean() > same[~truth].mean() + 0.3


def test_new_concepts(sample, tiny_network, tmp_path, results, monkeypatch) -> None:
    monkeypatch.setattr(new_concepts, "ADDED", (1, 4))
    monkeypatch.setattr(new_concepts, "FEWEST_TESTED", 2)
    monkeypatch.setattr(new_concepts, "LARGEST_SHARE", 0.4)
    given = f"{sample.images} {sample.concepts} --split {sample.split} --work {tmp_path}"
    given += (
        f" --names {sample.concept_names} --most 1 --draws 1 --epochs 1 --embedder {tiny_network}"
    )
    new_concepts.main(given.split())
    (record,) = load("new_concepts", results)
    assert record["added"] == [0, 1, 4] and record["classifier"]["before"]["recall"] == 0
    for found in record["retrieval"].values():
        assert found["recall"][0] == found["seconds"][0] == 0 < found["recall"][2]
        assert found["seconds"][1] > 0
        assert record["classifier"]["again"]["seconds"] > 0
    assert (results / "new_concepts.png").exists()


def test_concepts(results) -> None:
    concepts.main(["--lines", "4000", "--words", "64"])
    (record,) = load("concepts", results)
    assert record["lines"] == 4000 and 20 < record["peak_mib"] < 1000
    found = record["by_change"]
    assert sum(n for counts in found.values() for n in counts.values()) == record["words"] == 64
    for change in ("preferred", "case", "order", "absent"):
        assert found[change] == {"right": 8}


def test_resizing(sample, results) -> None:
    given = f"{sample.images} {sample.concepts} --groups {sample.patients} --name phantoms"
    resizing.main(given.split())
    records = load("resizing", results)
    assert [record["resize"] for record in records] == ["letterbox", "stretch", "crop"]
    assert [record["crop_pct"] for record in records] == [None, None, 0.875]
    assert all(record["f1"] > 0.5 for record in records)
