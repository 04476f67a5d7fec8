"""Probabilities and their reliability, through the real commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, info, invoke, problem

KINDS, IMAGES, TEST = 4, 240, 80


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of four kinds that overlap, their concepts, and an index of 240 of them."""
    folder = tmp_path_factory.mktemp("reliability")
    rng = np.random.default_rng(0)
    kinds = rng.integers(KINDS, size=IMAGES + TEST)
    vectors = np.eye(8)[kinds] + rng.normal(0, 0.45, (len(kinds), 8))
    np.save(folder / "train.npy", vectors[:IMAGES].astype(np.float32))
    np.save(folder / "test.npy", vectors[IMAGES:].astype(np.float32))
    ids = [f"i{i:03d}" for i in range(len(kinds))]
    (folder / "train.txt").write_text("\n".join(ids[:IMAGES]))
    (folder / "test.txt").write_text("\n".join(ids[IMAGES:]))
    rows = (f"{id_},C{kind};C9\n" for id_, kind in zip(ids, kinds, strict=True))
    (folder / "concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    vectors_of = ("--vectors", folder / "train.npy", "--ids", folder / "train.txt")
    done(invoke("build-index", *vectors_of, folder / "concepts.csv", "--encoder-name", "own",
                "--on-mismatch", "skip", "--index", folder / "index"))  # fmt: skip
    return folder


def annotated(place: Path, *options: object, form: str = "jsonl") -> tuple[str, str]:
    given = ("--vectors", place / "test.npy", "--ids", place / "test.txt")
    result = invoke("annotate", *given, "--index", place / "index", "--format", form, *options)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_index_says_how_it_is_calibrated(place: Path) -> None:
    assert "240 images" in info(place / "index")["calibration"]


def test_probabilities_are_there_and_ascend_with_the_scores(place: Path) -> None:
    text, said = annotated(place)
    assert "calibrated" not in said
    kinds = ("concepts", "considered")
    listed = [c for r in records(text) for kind in kinds for c in r[kind]]
    pairs = [(c["score"], c["probability"]) for c in listed]
    assert len(set(pairs)) > 10 and any(score != probability for score, probability in pairs)
    probabilities = [probability for _, probability in sorted(pairs)]
    assert probabilities == sorted(probabilities)
    table, _ = annotated(place, form="table")
    assert "score  probability  concept" in table


@pytest.mark.parametrize("option", [("--k", 3), ("--min-score", 0.3), ("--prior", 5)])
def test_another_vote_has_no_probabilities(place: Path, option: tuple[str, float]) -> None:
    text, said = annotated(place, *option)
    assert said.count("calibrated for its own vote") == 1
    assert {c["probability"] for r in records(text) for c in r["concepts"]} == {None}
    assert "calibrated" not in annotated(place, *option, form="2026")[1]  # a run shows no numbers


def test_evaluate_prints_and_draws_the_reliability(place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(annotated(place)[0])
    (tmp_path / "run.csv").write_text(annotated(place, form="2026")[0])
    rows = (place / "concepts.csv").read_text().splitlines()
    (tmp_path / "truth.csv").write_text("\n".join([rows[0], *rows[IMAGES + 1 :]]) + "\n")
    plot = ("--plot", tmp_path / "plot.png")
    result = invoke("evaluate", tmp_path / "run.jsonl", tmp_path / "truth.csv", *plot)
    assert result.exit_code == 0, result.output
    of_run = invoke("evaluate", tmp_path / "run.csv", tmp_path / "truth.csv").stdout
    assert result.stdout.startswith(of_run.removesuffix("\n"))  # the same scores, and more
    assert "Reliability of the probability: calibration error" in result.stdout
    assert "Reliability of the expected F1: calibration error" in result.stdout
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads(
        invoke("evaluate", tmp_path / "run.jsonl", tmp_path / "truth.csv", "--json").stdout
    )["reliability"]
    assert facts["concepts"]["of"] == "probability" and facts["expected_f1"]["count"] == TEST
    assert facts["concepts"]["error"] < 0.08 and facts["expected_f1"]["error"] < 0.12
    refused = problem(
        invoke("evaluate", tmp_path / "run.csv", tmp_path / "truth.csv", *plot), code=2
    )
    assert "not in JSON lines" in refused


def test_tuning_calibrates_again_and_older_indexes_go_on_working(place: Path) -> None:
    from annotator.indexing.metadata import IndexMetadata
    from index.locations import locate

    location = locate(place / "index")
    about = IndexMetadata.of(location.open()).to_dict()
    later = ("calibration", "outlier_factors")
    older = {name: value for name, value in about.items() if name not in later}
    location.change_about(older, of=location.open().version)
    text, said = annotated(place)
    assert {c["probability"] for r in records(text) for c in r["concepts"]} == {None}
    assert all(0 <= r["familiarity"] <= 1 for r in records(text))  # by the nearest similarity
    assert "calibrated" not in said and info(place / "index")["calibration"].startswith("none")
    assert invoke("tune", "--index", place / "index").exit_code == 0
    tuned = IndexMetadata.of(location.open()).to_dict()
    assert [tuned[name] for name in later] == [about[name] for name in later]
