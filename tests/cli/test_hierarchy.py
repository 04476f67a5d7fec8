"""Partial credit, from the sample collection to the score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import invoke, problem

from annotator.concepts.hierarchy import read_hierarchy
from annotator.phantoms import SamplePaths, write_sample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    """Phantoms, with an index of the training side in `index`."""
    paths = write_sample(tmp_path_factory.mktemp("hierarchy") / "sample", n=60)
    built = invoke(
        *("build-index", paths.images, paths.concepts, "--names", paths.concept_names),
        *("--split", paths.split, "--only", "train"),
        *("--index", paths.directory / "index", "--no-cache"),
    )
    assert built.exit_code == 0, built.stderr
    return paths


def annotate(sample: SamplePaths, *options: object) -> tuple[str, str]:
    side = ("--split", sample.split, "--only", "test")
    index = ("--index", sample.directory / "index")
    found = invoke("annotate", sample.images, *index, *side, *options)
    assert found.exit_code == 0, found.stderr
    return found.stdout, found.stderr


def test_sets_are_chosen_by_hierarchical_f1(sample: SamplePaths, tmp_path: Path) -> None:
    hierarchy = read_hierarchy(sample.hierarchy)
    run, messages = annotate(sample, "--hierarchy", sample.hierarchy)
    assert (
        "roots, left out: AGE_GROUP, BODY_PART, DIGNITY, FINDING, MODALITY and 1 more" in messages
    )
    flat, _ = annotate(sample)
    for name, text in (("run.csv", run), ("flat.csv", flat)):
        (tmp_path / name).write_text(text)
    scored = invoke(
        *("evaluate", tmp_path / "run.csv", sample.concepts, "--hierarchy", sample.hierarchy),
        *("--split", sample.split, "--only", "test", "--against", tmp_path / "flat.csv", "--json"),
    )
    facts = json.loads(scored.stdout)["hierarchical"]
    assert facts["unknown"] == [] and facts["labelled_roots"] == []
    assert 0.5 < facts["f1"] < 1 and facts["against"]["other"] > 0.5

    lines, _ = annotate(sample, "--hierarchy", sample.hierarchy, "--format", "jsonl", "--explain")
    records = [json.loads(line) for line in lines.splitlines()]
    assert [f"{r['id']},{';'.join(c['cui'] for c in r['concepts'])}" for r in records] == (
        run.splitlines()[1:]
    )
    for record in records:
        cuis = [concept["cui"] for concept in record["concepts"]]
        assert all(concept["name"] for concept in record["concepts"])
        chosen = hierarchy.closure(cuis)
        sets = [hierarchy.closure(n["cuis"]) for n in record["neighbors"]]
        f1 = [2 * len(chosen & s) / (len(chosen) + len(s)) for s in sets]
        weights = [n["weight"] for n in record["neighbors"]]
        assert record["expected_f1"] == pytest.approx(np.dot(weights, f1), abs=1e-4)


def test_what_was_promised_over_a_hierarchy_is_compared_with_what_it_promised(
    sample: SamplePaths, tmp_path: Path
) -> None:
    for name, options in (("over", ("--hierarchy", sample.hierarchy)), ("flat", ())):
        (tmp_path / name).write_text(annotate(sample, *options, "--format", "jsonl")[0])
    side = (sample.concepts, "--split", sample.split, "--only", "test", "--json")
    above = ("--hierarchy", sample.hierarchy)

    def of(name: str, *options: object) -> Any:
        return json.loads(invoke("evaluate", tmp_path / name, *side, *options).stdout)

    facts = of("over", *above)
    promised = facts["reliability"]["expected_f1"]
    assert promised["of"] == "expected hierarchical F1"
    came_out = sum(b["observed"] * b["count"] for b in promised["bins"]) / promised["count"]
    assert came_out == pytest.approx(facts["hierarchical"]["f1"])
    assert came_out != pytest.approx(facts["f1"])
    flat = of("flat", *above)  # it promised nothing about ancestors
    assert flat["reliability"]["expected_f1"]["of"] == "expected F1"

    without = invoke("evaluate", tmp_path / "over", *side)
    assert json.loads(without.stdout)["reliability"] is None
    assert "with --hierarchy alone" in without.stderr
    plot = invoke("evaluate", tmp_path / "over", *side, "--plot", tmp_path / "plot.png")
    assert plot.exit_code == 2 and not (tmp_path / "plot.png").exists()


def test_scores_include_the_broader_concepts(sample: SamplePaths, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    annotate(sample, "--hierarchy", sample.hierarchy, "--format", "scores", "--output", path)
    with np.load(path) as scores:
        assert "CHEST_ABNORMALITY" in scores["concepts"].tolist()


def test_a_hierarchy_that_cannot_be_read_is_named(sample: SamplePaths, tmp_path: Path) -> None:
    (tmp_path / "circle.csv").write_text("concept,parent\nA,B\nB,A\n")
    said = problem(
        invoke(
            *("annotate", sample.images, "--index", sample.directory / "index"),
            *("--hierarchy", tmp_path / "circle.csv"),
        )
    )
    assert "circle.csv: A, B are ancestors of each other" in said
