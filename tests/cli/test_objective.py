"""The objective macro-f1, through the real commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, info, invoke, problem

IMAGES = TEST = 400


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rare_marks: Any) -> Path:
    """Vectors of images with and without rare marks, and an index of half of them."""
    folder = tmp_path_factory.mktemp("objective")
    n = IMAGES + TEST
    drawn = rare_marks(n, 4, 8)
    ids = [f"i{i:03d}" for i in range(n)]
    for side, rows in (("train", slice(IMAGES)), ("test", slice(IMAGES, n))):
        np.save(folder / f"{side}.npy", drawn.vectors[rows])
        (folder / f"{side}.txt").write_text("\n".join(ids[rows]))
        pairs = zip(ids[rows], drawn.sets[rows], strict=True)
        labels = (f"{id_},{';'.join(concepts)}\n" for id_, concepts in pairs)
        (folder / f"{side}.csv").write_text("ID,CUIs\n" + "".join(labels))
    build(folder, "index", "--adaptation", "none", "--k", 20)
    return folder


def build(place: Path, index: str, *options: object) -> str:
    vectors = ("--vectors", place / "train.npy", "--ids", place / "train.txt")
    given = (*vectors, place / "train.csv", "--encoder-name", "own", "--index", place / index)
    return done(invoke("build-index", *given, *options))


@pytest.fixture
def tuned_for_macro_f1(place: Path) -> Iterator[str]:
    """What tuning said; afterwards the index is tuned as before."""
    options = ("--index", place / "index", "--k", 20)
    yield done(invoke("tune", *options, "--objective", "macro-f1"))
    done(invoke("tune", *options, "--objective", "f1"))


def scores(place: Path, *options: object) -> tuple[float, float, str]:
    """F1 of images, F1 of concepts, and what `annotate` said."""
    vectors = ("--vectors", place / "test.npy", "--ids", place / "test.txt")
    run = place / "run.csv"
    said = done(invoke("annotate", *vectors, "--index", place / "index", "--format", "2026",
                       "--output", run, *options))  # fmt: skip
    facts = json.loads(invoke("evaluate", run, place / "test.csv", "--json").stdout)
    return facts["f1"], facts["macro_f1"], said


def test_it_finds_rare_concepts_in_any_tuned_index(place: Path) -> None:
    f1, macro_f1, _ = scores(place)
    macro = scores(place, "--objective", "macro-f1")
    assert macro[1] > macro_f1 + 0.05 and macro[0] < f1
    assert scores(place, "--objective", "f1")[:2] == (f1, macro_f1)


def test_tuning_tells_what_it_gains_and_costs(place: Path, tuned_for_macro_f1: str) -> None:
    voting = info(place / "index")["voting"]
    assert voting["decider"] == "macro-f1"
    assert ", macro-f1 " + "/".join(f"{t:.3f}" for t in voting["macro_thresholds"]) in (
        tuned_for_macro_f1
    )
    lines = [line.split() for line in tuned_for_macro_f1.splitlines()]
    usual = next(line for line in lines if line[:3] == ["f1", "(the", "default)"])[3:]
    macro = next(line for line in lines if line[:1] == ["macro-f1"])[1:]
    assert float(usual[0]) > float(macro[0]) and float(usual[1]) < float(macro[1])
    assert "F1 " + macro[0] in tuned_for_macro_f1
    f1, macro_f1, _ = scores(place)
    assert float(macro[0]) == pytest.approx(f1, abs=0.03)
    assert float(macro[1]) == pytest.approx(macro_f1, abs=0.1)
    back = scores(place, "--objective", "f1")
    assert back[0] > f1 and back[1] < macro_f1


def test_build_index_takes_it(place: Path) -> None:
    said = build(place, "macro", "--adaptation", "none", "--objective", "macro-f1")
    assert "mean F1 of concepts" in said
    assert info(place / "macro")["voting"]["decider"] == "macro-f1"


def test_what_cannot_be_is_refused(place: Path) -> None:
    both = ("--objective", "macro-f1", "--decider", "top-r")
    said = problem(invoke("tune", "--index", place / "index", *both), code=2)
    assert "mutually exclusive" in said
    options = ("x", "y", "--objective", "macro-f1", "--no-tune")
    assert "requires tuning" in problem(invoke("build-index", *options), code=2)
    build(place, "untuned", "--no-tune")
    vectors = ("--vectors", place / "test.npy", "--ids", place / "test.txt")
    options = ("--index", place / "untuned", "--objective", "macro-f1")
    said = problem(invoke("annotate", *vectors, *options))
    assert "no thresholds" in said and "annotator tune" in said


def test_it_takes_images_of_several_patients(place: Path, tmp_path: Path) -> None:
    ids = (place / "train.txt").read_text().split()
    (tmp_path / "one.csv").write_text("ID,patient\n" + "".join(f"{id_},P\n" for id_ in ids))
    vectors = ("--vectors", place / "train.npy", "--ids", place / "train.txt")
    given = (*vectors, place / "train.csv", "--index", tmp_path / "index")
    said = problem(invoke("build-index", *given, "--groups", tmp_path / "one.csv",
                          "--encoder-name", "own", "--objective", "macro-f1"))  # fmt: skip
    assert "several patients" in said
