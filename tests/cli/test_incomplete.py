"""Labels that are often missing, from the build to the answer, through the real commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, info, invoke, problem

TRAIN, LATER, TEST = 300, 20, 100
KINDS = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of images with three labels each, most of which are missing but on the test side; an
    index of the training side as it is, and one with labels filled in.
    """
    folder = tmp_path_factory.mktemp("incomplete")
    rng = np.random.default_rng(0)
    n = TRAIN + LATER + TEST
    kinds = rng.integers(KINDS, size=n)
    vectors = (np.eye(8)[kinds] + rng.normal(0, 0.4, (n, 8))).astype(np.float32)
    start = 0
    for side, size in (("train", TRAIN), ("later", LATER), ("test", TEST)):
        rows = range(start, start + size)
        start += size
        np.savez(folder / f"{side}.npz", vectors=vectors[rows], ids=[f"i{i:03d}" for i in rows])
        lines = ["ID,CUIs,patient"]
        for i in rows:
            concepts = [f"C{part}{kinds[i]}" for part in range(3)]
            left = [c for c in concepts if side == "test" or rng.random() < 0.4]
            lines.append(f"i{i:03d},{';'.join(left)},p{i // 2}")
        (folder / f"{side}.csv").write_text("\n".join(lines) + "\n")
    build(folder, "plain")
    said = build(folder, "filled", "--assume-incomplete")
    assert "Labels assumed incomplete: for the vote, neighbours fill in" in said
    assert "against the labels that were given: as some are missing, it is too low" in said
    return folder


def build(place: Path, index: str, *options: object) -> str:
    return done(invoke(
        "build-index", "--vectors", place / "train.npz", place / "train.csv", "--encoder-name",
        "own", "--groups", f"{place / 'train.csv'}:patient", "--index", place / index,
        "--adaptation", "none", *options,
    ))  # fmt: skip


def annotate(place: Path, index: str, *options: object) -> list[dict[str, Any]]:
    found = invoke("annotate", "--vectors", place / "test.npz", "--index", place / index,
                   "--format", "jsonl", "--explain", *options)  # fmt: skip
    assert found.exit_code == 0, found.output
    (place / "run.jsonl").write_text(found.stdout)
    return [json.loads(line) for line in found.stdout.splitlines()]


def f1(place: Path, index: str, *options: object) -> float:
    annotate(place, index, *options)
    facts = invoke("evaluate", place / "run.jsonl", place / "test.csv", "--json").stdout
    return float(json.loads(facts)["f1"])


def test_what_is_filled_in_finds_more(place: Path) -> None:
    assert f1(place, "filled") > f1(place, "plain") + 0.04  # 0.83 and 0.75
    facts = info(place / "filled")
    assert facts["voting"]["assume_incomplete"] and "assumed incomplete" in facts["labels"]
    assert facts["labels"].endswith("so that they are too low")
    assert "labels" not in info(place / "plain")
    done(invoke("verify", "--index", place / "filled"))


def test_nobody_says_that_an_inferred_label_was_given(place: Path) -> None:
    rows = (line.split(",") for line in (place / "train.csv").read_text().splitlines()[1:])
    given = {id_: sorted(filter(None, cell.split(";"))) for id_, cell, _ in rows}
    cases = [case for row in annotate(place, "filled") for case in row["neighbors"]]
    assert any(case["inferred"] for case in cases)
    for case in cases:
        assert case["cuis"] == given[case["id"]]
        assert not set(case["inferred"]) & set(case["cuis"])
    plain = [case for row in annotate(place, "plain") for case in row["neighbors"]]
    assert all(case["inferred"] == [] for case in plain)
    holders = sum("C00" in labels for labels in given.values())
    frequent = info(place / "filled")["most_frequent"]
    assert {c["cui"]: c["images"] for c in frequent}.get("C00", holders) == holders


def test_images_that_are_added_are_filled_in_and_removed_ones_are_gone(
    place: Path,
) -> None:
    shutil.copytree(place / "filled", place / "changed")
    index = ("--index", place / "changed")
    added = ("--vectors", place / "later.npz", place / "later.csv")
    done(invoke("add", *added, "--groups", f"{place / 'later.csv'}:patient", *index))

    def of_later() -> dict[str, list[str]]:
        cases = [case for row in annotate(place, "changed") for case in row["neighbors"]]
        return {c["id"]: c["inferred"] for c in cases if int(c["id"][1:]) >= TRAIN}

    inferred = of_later()
    assert any(inferred.values())
    before = f1(place, "changed")
    done(invoke("compact", *index))
    assert of_later() == inferred and f1(place, "changed") == before
    done(invoke("remove", "i000", "i001", "i002", *index))
    assert f1(place, "changed") == pytest.approx(before, abs=0.05)
    done(invoke("compact", *index))
    said = done(invoke("tune", *index))
    assert "it is too low" in said and info(place / "changed")["voting"]["assume_incomplete"]
    guaranteed = annotate(place, "changed", "--guarantee", "missed=0.2")
    assert all(row["guarantee"]["missed"] == 0.2 for row in guaranteed)


def test_what_cannot_be_is_refused(place: Path, tmp_path: Path) -> None:
    given = ("build-index", "--vectors", place / "train.npz", place / "train.csv",
             "--encoder-name", "own", "--assume-incomplete")  # fmt: skip
    folder = ("--index", tmp_path / "index")
    assert "takes tuning" in problem(invoke(*given, *folder, "--no-tune"))
    sources = ("--holdout-groups", f"{place / 'train.csv'}:patient")
    assert "new source" in problem(invoke(*given, *folder, *sources))
    milvus = ("--index", "milvus://127.0.0.1:1/x")
    assert "on a server does not keep what is filled in" in problem(invoke(*given, *milvus))
    assert not (tmp_path / "index").exists()
    (tmp_path / "few.csv").write_text(
        "\n".join((place / "train.csv").read_text().splitlines()[:31])
    )
    few = ("build-index", "--vectors", place / "train.npz", tmp_path / "few.csv", "--on-mismatch",
           "skip", "--encoder-name", "own", "--assume-incomplete", *folder)  # fmt: skip
    assert "Too few images to fill in labels" in problem(invoke(*few))
