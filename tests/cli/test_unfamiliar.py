"""Unfamiliar images and drift, from the sample collection to the exit code."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, invoke, problem
from PIL import Image

STRANGERS = 25


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample collection, an index of its training side, and pictures of noise."""
    folder = tmp_path_factory.mktemp("unfamiliar")
    assert invoke("sample", folder / "s", "--n", 200, "--seed", 3).exit_code == 0
    side = ("--split", folder / "s" / "split.csv", "--only", "train")
    build = ("build-index", folder / "s" / "images", folder / "s" / "concepts.csv", *side)
    done(invoke(*build, "--groups", folder / "s" / "patients.csv", "--index", folder / "index"))
    (folder / "noise").mkdir()
    rng = np.random.default_rng(0)
    for i in range(STRANGERS):
        noise = rng.integers(0, 256, (160, 160), np.uint8)
        Image.fromarray(noise).save(folder / "noise" / f"n{i:02d}.png")
    with (folder / "s" / "split.csv").open() as file:
        test = [row[0] for row in csv.reader(file) if row[1] == "test"]
    for name, ids in (("one", test[::2]), ("other", test[1::2])):
        (folder / f"{name}.txt").write_text("\n".join(ids))
        annotated(folder, f"{name}.jsonl", "s/images", "--ids", folder / f"{name}.txt")
    annotated(folder, "noise.jsonl", "noise")
    return folder


def annotated(folder: Path, name: str, images: str, *options: object, code: int = 0) -> str:
    """Annotate images into a file; what the command says."""
    result = invoke(
        "annotate", folder / images, "--index", folder / "index", "--format", "jsonl",
        "--output", folder / name, *options,
    )  # fmt: skip
    assert result.exit_code == code, result.output
    return result.stderr


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_unfamiliar_images_are_counted(place: Path) -> None:
    said = annotated(place, "again.jsonl", "noise")
    assert f"Warning: {STRANGERS} of {STRANGERS} images are unlike those of the index" in said
    assert all(record["concepts"] for record in records(place / "again.jsonl"))
    known = annotated(place, "known.jsonl", "s/images", "--ids", place / "one.txt")
    assert "unlike" not in known


def test_unfamiliar_images_get_empty_rows_if_asked(place: Path) -> None:
    least = ("--min-familiarity", 0.05)
    said = annotated(place, "empty.jsonl", "noise", *least, code=3)
    assert f"{STRANGERS} x it is unlike the images of the index (familiarity below 0.05)" in said
    assert f"{STRANGERS} images could not be used." in said and "Warning" not in said
    for record in records(place / "empty.jsonl"):
        assert record["concepts"] == [] and record["familiarity"] < 0.05
        assert "unlike the images of the index" in record["error"]
    run = invoke("annotate", place / "noise", "--index", place / "index", *least)
    assert run.exit_code == 3
    assert run.stdout.splitlines()[1:] == [f"n{i:02d}," for i in range(STRANGERS)]
    # Nothing is wrong with the files themselves.
    strict = annotated(place, "empty.jsonl", "noise", *least, "--on-error", "fail", code=3)
    assert f"{STRANGERS} images could not be used." in strict
    known = annotated(place, "known.jsonl", "s/images", "--ids", place / "one.txt", *least)
    assert "unlike" not in known
    assert (place / "known.jsonl").read_text() == (place / "one.jsonl").read_text()


def test_an_index_that_was_not_tuned_knows_no_familiarity(place: Path) -> None:
    vectors, ids = np.eye(6, dtype=np.float32), [f"v{i}" for i in range(6)]
    np.savez(place / "few.npz", vectors=vectors, ids=ids)
    (place / "few.csv").write_text("ID,CUIs\n" + "".join(f"{id_},C1\n" for id_ in ids))
    few = ("--vectors", place / "few.npz", "--index", place / "few")
    done(invoke("build-index", place / "few.csv", *few, "--encoder-name", "own"))
    said = problem(invoke("annotate", *few, "--min-familiarity", 0.1, "--format", "2026"))
    assert "does not know how familiar images are" in said and "build it again" in said


def test_images_of_the_same_kind_do_not_drift(place: Path) -> None:
    result = invoke("drift", place / "one.jsonl", place / "other.jsonl")
    assert result.exit_code == 0, result.output
    assert "No drift at the level of 0.01" in result.stderr
    assert "familiarity" in result.stdout and "expected F1" in result.stdout


def test_other_images_do(place: Path) -> None:
    arguments = ("drift", place / "one.jsonl", place / "noise.jsonl")
    result = invoke(*arguments)
    assert result.exit_code == 1 and "Drift at the level of 0.01: familiarity" in result.stderr
    found = invoke(*arguments, "--format", "json")
    facts = json.loads(found.stdout)
    assert found.exit_code == 1 and facts["drift"] and "familiarity" in facts["found"]
    assert facts["images"]["new"] == STRANGERS
    (familiarity,) = (each for each in facts["signals"] if each["signal"] == "familiarity")
    assert familiarity["reference"] > familiarity["new"] and familiarity["distance"] > 0.9


def test_what_is_no_run_in_json_lines_is_named(place: Path) -> None:
    said = problem(invoke("drift", place / "one.jsonl", place / "s" / "concepts.csv"))
    assert "concepts.csv, line 1: no JSON" in said and "--format jsonl" in said
    said = problem(invoke("drift", place / "one.jsonl", place / "noise.jsonl", "--alpha", 1), 2)
    assert "--alpha" in said
