"""Guarantees through the real command: what is kept, said and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, info, invoke, problem

N, NEW = 400, 1000


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two sources on an arc, one whose concepts are clear and one whose are not, and
    images of other patients.
    """
    folder = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(0)
    n = N + NEW
    angles = rng.uniform(0, 3, n)
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    source = np.where(angles < 1.5, "clear", "noisy")
    sets = [
        ["C1"] if source[i] == "clear" else [*(["C2"] if rng.random() < 0.5 else []), "C3"]
        for i in range(n)
    ]
    ids = [f"i{i}" for i in range(n)]
    rows = [f"{ids[i]},{';'.join(sets[i])}\n" for i in range(n)]
    (folder / "concepts.csv").write_text("ID,CUIs\n" + "".join(rows[:N]))
    (folder / "truth.csv").write_text("ID,CUIs\n" + "".join(rows[N:]))
    table = [f"{ids[i]},p{i // 2},{source[i]}\n" for i in range(n)]
    (folder / "sources.csv").write_text("ID,patient,source\n" + "".join(table))
    np.savez(folder / "train.npz", vectors=vectors[:N], ids=ids[:N])
    np.savez(folder / "test.npz", vectors=vectors[N:], ids=ids[N:])
    done(
        invoke(
            "build-index", "--vectors", folder / "train.npz", folder / "concepts.csv", "--groups",
            f"{folder / 'sources.csv'}:patient", "--encoder-name", "angle", "--index",
            folder / "index", "--adaptation", "none",
        )
    )  # fmt: skip
    return folder


def annotate(noisy: Path, *options: object) -> tuple[list[dict[str, Any]], str]:
    made = invoke(
        "annotate", "--vectors", noisy / "test.npz", "--index", noisy / "index", "--format",
        "jsonl", *options,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return [json.loads(line) for line in made.stdout.splitlines()], made.stderr


def truth_of(noisy: Path) -> dict[str, set[str]]:
    rows = [line.split(",") for line in (noisy / "truth.csv").read_text().splitlines()[1:]]
    return {id_: set(cuis.split(";")) for id_, cuis in rows}


def mean_loss(kind: str, found: list[dict[str, Any]], truth: dict[str, set[str]]) -> float:
    losses = []
    for row in found:
        chosen, true = {concept["cui"] for concept in row["concepts"]}, truth[row["id"]]
        lost = true - chosen if kind == "missed" else chosen - true
        losses.append(len(lost) / max(len(true if kind == "missed" else chosen), 1))
    return float(np.mean(losses))


@pytest.mark.parametrize(("kind", "rate"), [("missed", 0.05), ("invented", 0.04)])
def test_a_guarantee_is_kept_and_said(noisy: Path, kind: str, rate: float) -> None:
    plain, _ = annotate(noisy)
    assert all("guarantee" not in row for row in plain)
    found, said = annotate(noisy, "--guarantee", f"{kind}={rate}")
    assert mean_loss(kind, found, truth_of(noisy)) <= rate + 0.01
    assert mean_loss(kind, plain, truth_of(noisy)) > rate  # it had to do something
    for row in found:
        promise = row["guarantee"]
        assert promise[kind] == rate and promise["groups"] == N // 2
        assert all(c["score"] >= promise["threshold"] - 1e-6 for c in row["concepts"])
        assert all(c["probability"] is not None for c in row["concepts"])
    assert f"at most {rate} of an image's {'concepts' if kind == 'missed' else 'set'}" in said
    assert "400 images of the index (200 groups)" in said and "no probabilities" not in said


def test_within_each_source(noisy: Path) -> None:
    table = f"{noisy / 'sources.csv'}:source"
    found, said = annotate(noisy, "--guarantee", "missed=0.1", "--guarantee-by", table)
    promises = {row["guarantee"]["by"]: row["guarantee"] for row in found}
    assert set(promises) == {"clear", "noisy"}
    assert promises["clear"]["threshold"] > promises["noisy"]["threshold"]
    assert "Guarantee for clear" in said and "Guarantee for noisy" in said
    truth = truth_of(noisy)
    for source in promises:
        some = [row for row in found if row["guarantee"]["by"] == source]
        assert mean_loss("missed", some, truth) <= 0.13
    alone, _ = annotate(noisy, "--guarantee", "missed=0.1")
    noisy_ones = {row["id"] for row in found if row["guarantee"]["by"] == "noisy"}
    some = [row for row in alone if row["id"] in noisy_ones]
    assert mean_loss("missed", some, truth) > 0.13  # what the whole keeps, a part need not


def test_a_source_that_the_index_does_not_have(noisy: Path, tmp_path: Path) -> None:
    lines = (noisy / "sources.csv").read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join([*lines[:-1], "i1399,p699,elsewhere"]) + "\n")
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n")
    for name, reason in (("other", "belongs to elsewhere, of which"), ("fewer", "has no group")):
        said = problem(
            invoke(
                "annotate", "--vectors", noisy / "test.npz", "--index", noisy / "index",
                "--guarantee", "missed=0.1", "--guarantee-by", f"{tmp_path / name}.csv:source",
            )
        )  # fmt: skip
        assert f"missed=0.1 cannot be guaranteed for i1399: it {reason}" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold", "0.3"), "--threshold cannot be given: --guarantee chooses"),
        (("--objective", "f1"), "--objective cannot be given"),
        (("--decider", "top-r"), "--decider cannot be given"),
        (("--min-score", "0.1"), "--min-score cannot be given"),
        (("--hierarchy", "h.csv"), "--hierarchy cannot be given"),
        (("--with", "probs.npz"), "--with cannot be given"),
        (("--format", "scores"), "scores have no sets"),
        (("--guarantee", "missed=2"), "above 0 and below 1"),
        (("--guarantee", "found=0.1"), "missed=RATE or invented=RATE"),
    ],
)
def test_what_contradicts_it(noisy: Path, options: tuple[str, ...], said: str) -> None:
    made = invoke(
        "annotate", "--vectors", noisy / "test.npz", "--index", noisy / "index",
        "--guarantee", "missed=0.1", *options,
    )  # fmt: skip
    assert said in problem(made, 2)


def test_groups_of_no_guarantee(noisy: Path) -> None:
    made = invoke(
        "annotate", "--vectors", noisy / "test.npz", "--index", noisy / "index",
        "--guarantee-by", noisy / "sources.csv",
    )  # fmt: skip
    assert "--guarantee-by requires --guarantee." in problem(made, 2)


def test_what_cannot_be_guaranteed(noisy: Path, tmp_path: Path) -> None:
    index = ("--vectors", noisy / "test.npz", "--index", noisy / "index")
    said = problem(invoke("annotate", *index, "--guarantee", "missed=0.001"))
    assert "missed=0.001 cannot be guaranteed: 0.005 is the least" in said
    assert "It takes 999 groups or more. Ask for missed=0.005 or more." in said
    said = problem(invoke("annotate", *index, "--guarantee", "missed=0.1", "--k", 101))
    assert "with 101 voting neighbours" in said and "Give --k 100 or less." in said
    untuned = (
        "build-index", "--vectors", noisy / "train.npz", noisy / "concepts.csv", "--no-tune",
        "--encoder-name", "angle", "--index", tmp_path / "index", "--adaptation", "none",
    )  # fmt: skip
    done(invoke(*untuned))
    index = ("--vectors", noisy / "test.npz", "--index", tmp_path / "index")
    said = problem(invoke("annotate", *index, "--guarantee", "missed=0.1"))
    assert "no neighbour lists" in said and "--no-tune or from fewer than 50 images" in said
    assert info(tmp_path / "index")["guarantees"] == []


def test_tune_and_info_tell_what_it_costs(noisy: Path, tmp_path: Path) -> None:
    index = shutil.copytree(noisy / "index", tmp_path / "index")
    built = info(index)["guarantees"]
    made = invoke("tune", "--index", index, "--json")
    assert json.loads(made.stdout)["guarantees"] == info(index)["guarantees"] == built
    lines = [line.split() for line in made.stderr.splitlines()]
    assert ["guarantee", "concepts", "F1", "missed", "invented"] in lines
    shown = invoke("info", "--index", index).stdout.splitlines()
    for cost in built:
        if cost["concepts"] is not None:
            numbers = [f"{cost[n]:.3f}" for n in ("concepts", "f1", "missed", "invented")]
            assert [cost["guarantee"] or "none", *numbers] in lines
            assert [cost["guarantee"] or "none", *numbers] in [line.split() for line in shown]
        else:
            assert (
                f"  {cost['guarantee']} cannot be given: {cost['least']:.3f} is the least" in shown
            )
