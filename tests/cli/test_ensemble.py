"""Scores out, a classifier's probabilities in, and the ensemble of several runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from invoking import done, invoke, problem

from annotator.tables.scores import read_scores

pytestmark = pytest.mark.slow

TRAIN, TEST = 60, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    """Folders of images, their tables, and an index; in one of ten training images C8 is there."""
    folder = tmp_path_factory.mktemp("ensemble")
    for side, n in (("train", TRAIN), ("test", TEST)):
        (folder / side).mkdir()
        rows = []
        for i in range(n):
            draw(folder / side / f"{side}{i:02d}.png", i % 3, i + 100 * (side == "test"))
            rows.append(f"{side}{i:02d},C{i % 3};C9{';C8' if i % 10 == 7 else ''}\n")
        (folder / f"{side}.csv").write_text("ID,CUIs\n" + "".join(rows))
    built = invoke(
        *("build-index", folder / "train", folder / "train.csv"),
        *("--index", folder / "index", "--no-cache"),
    )
    assert built.exit_code == 0, built.stderr
    return folder


def annotate(place: Path, *arguments: object) -> Result:
    return invoke("annotate", place / "test", "--index", place / "index", *arguments)


def test_scores_are_the_shares_of_all_votes(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "votes.npz"
    done(annotate(place, "--format", "scores", "--output", path))
    again = annotate(place, "--format", "scores")
    assert again.stdout_bytes == path.read_bytes()
    found = read_scores(path)
    assert found.ids == tuple(f"test{i:02d}" for i in range(TEST))
    assert found.concepts == ("C0", "C1", "C2", "C8", "C9")
    assert np.allclose(found.values[:, 4], 1.0)  # every case has C9
    assert np.allclose(found.values[:, :3].sum(axis=1), 1.0)  # and one of these
    lines = annotate(place, "--format", "jsonl").stdout.splitlines()
    for record, row in zip(map(json.loads, lines), found.values.tolist(), strict=True):
        for concept in record["concepts"]:
            score = row[found.concepts.index(concept["cui"])]
            assert score == pytest.approx(concept["score"], abs=1e-6)


def test_an_unusable_image_has_no_scores(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    os.link(place / "test" / "test00.png", images / "good.png")
    (images / "broken.png").write_bytes(b"")
    path = tmp_path / "votes.npz"
    result = invoke(
        *("annotate", images, "--index", place / "index", "--format", "scores", "--output", path)
    )
    assert result.exit_code == 3 and "broken.png" in result.stderr
    assert read_scores(path).ids == ("good",)
    assert "--groups requires" in problem(
        annotate(place, "--format", "scores", "--groups", place / "train.csv"), 2
    )


# --with


@pytest.fixture(scope="module")
def votes(place: Path) -> Path:
    path = place / "votes.npz"
    done(annotate(place, "--format", "scores", "--output", path))
    return path


def save(path: Path, ids: list[str], concepts: str, value: list[list[float]]) -> Path:
    np.savez(path, ids=ids, cuis=concepts.split(), probs=np.array(value))
    return path


@pytest.fixture
def probs(tmp_path: Path) -> Path:
    """A classifier that is sure of C8 everywhere, and of C9 nowhere."""
    ids = [f"test{i:02d}.png" for i in range(TEST)]
    return save(tmp_path / "probs.npz", ids, "C8 C9 C77", [[1.0, 0.0, 0.5]] * TEST)


def test_the_votes_of_an_ignored_classifier_stay_as_they_are(place: Path, probs: Path) -> None:
    plain = annotate(place)
    mixed = annotate(place, "--with", f"{probs}:0")
    assert mixed.exit_code == 0 and mixed.stdout == plain.stdout


def test_a_classifier_changes_the_run_by_its_weight(place: Path, probs: Path) -> None:
    lines = annotate(place, "--with", f"{probs}:0.75", "--format", "jsonl").stdout.splitlines()
    for i, line in enumerate(lines):
        scores = {c["cui"]: c["score"] for c in json.loads(line)["concepts"]}
        assert scores["C8"] >= 0.75 and "C9" not in scores
        assert f"C{i % 3}" in scores  # which it does not know, and so is left to the votes
    halves = annotate(place, "--with", probs, "--format", "jsonl")
    assert halves.stdout == annotate(place, "--with", f"{probs}:0.5", "--format", "jsonl").stdout
    assert "6 ids" in halves.stderr and "matched as such" in halves.stderr
    assert "3 concepts without scores (C0, C1, C2)" in halves.stderr
    assert "1 concepts that are not in the index, left out (C77)" in halves.stderr


def test_an_image_without_scores_is_decided_by_the_votes(place: Path, tmp_path: Path) -> None:
    some = save(tmp_path / "p.npz", ["test00"], "C8 C9", [[1.0, 0.0]])
    mixed, plain = annotate(place, "--with", f"{some}:1"), annotate(place)
    assert "5 images without scores (test01, test02, test03, …)" in mixed.stderr
    assert mixed.stdout.splitlines()[2:] == plain.stdout.splitlines()[2:]
    id_, chosen = mixed.stdout.splitlines()[1].split(",")
    assert id_ == "test00" and set(chosen.split(";")) == {"C0", "C8"}  # C0 it does not know


def test_a_weight_is_chosen_on_the_images_of_the_index(place: Path, tmp_path: Path) -> None:
    """Out of fold, the classifier is right where the votes cannot be: about C8."""
    truth = [line.split(",") for line in (place / "train.csv").read_text().splitlines()[1:]]
    good = [[0.95 if "C8" in cuis else 0.02] for _, cuis in truth]
    out_of_fold = save(tmp_path / "oof.npz", [id_ for id_, _ in truth], "C8", good)
    probs = save(tmp_path / "p.npz", [f"test{i:02d}" for i in range(TEST)], "C8", [[0.95]] * TEST)
    mixed = annotate(place, "--with", f"{probs}:{out_of_fold}")
    assert mixed.exit_code == 0 and "Weights chosen on 60 images: votes 0." in mixed.stderr
    assert all(";C8" in line for line in mixed.stdout.splitlines()[1:])


@pytest.mark.parametrize(
    ("given", "message", "code"),
    [
        ("{probs}:0.6 {probs}:0.6", "add up to 1.2", 2),
        ("{probs}:-1", "cannot be negative", 2),
        ("{probs}:0.5 {probs}", "Give all files of --with a weight", 2),
        ("{probs}:{probs} {probs}", "Give all files a second file", 2),
        ("{place}/train.csv", "is a run, which has no probabilities", 1),
        ("{place}/none.npz:0.5", "does not exist", 1),
        ("{probs}:{probs}", "only 0 are in", 1),
    ],
)
def test_what_with_refuses(given: str, message: str, code: int, place: Path, probs: Path) -> None:
    files = given.format(probs=probs, place=place).split()
    options = [option for file in files for option in ("--with", file)]
    assert message in problem(annotate(place, *options), code)


def test_strangers_are_refused(place: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "p.npz", ["other"], "C8", [[1.0]])
    assert "has no image of those to annotate" in problem(annotate(place, "--with", other))
    other = save(tmp_path / "p.npz", ["test00"], "C77", [[1.0]])
    assert "has no concept of those to annotate" in problem(annotate(place, "--with", other))
    other = save(tmp_path / "p.npz", ["test00"], "C8", [[4.5]])
    assert "Logits become probabilities" in problem(annotate(place, "--with", other))


# ensemble


def test_one_member_is_itself(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.csv"
    run.write_text(annotate(place).stdout)
    for rule in ("vote", "union", "intersection", "weights"):
        found = invoke("ensemble", run, "--rule", rule)
        assert found.exit_code == 0 and sorted_cells(found.stdout) == sorted_cells(run.read_text())


def sorted_cells(run: str) -> list[tuple[str, list[str]]]:
    pairs = [line.split(",") for line in run.splitlines()]
    return [(id_, sorted(cell.split(";"))) for id_, cell in pairs]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, text in {
        "a.csv": "ID,CUIs\nx,C1;C2\ny,C3\n",
        "b.csv": "ID,CUIs\ny,C3;C4\nx,C1\n",
        "c.csv": "x|C2\ny|\n",
        "other.csv": "ID,CUIs\nx,C1\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ("a b c --rule vote", "x,C1;C2 y,C3"),
        ("a b c --rule union", "x,C1;C2 y,C3;C4"),
        ("a b --rule intersection", "x,C1 y,C3"),
        ("a b:3 --rule vote", "x,C1 y,C3;C4"),
        ("a:1 b:1 c:4", "x,C2 y,"),
        ("b a --rule intersection", "y,C3 x,C1"),
        ("b a --rule intersection --ids {0}/a.csv", "x,C1 y,C3"),
    ],
)
def test_rules(arguments: str, rows: str, runs: Path) -> None:
    words = [
        f"{runs / word[0]}.csv{word[1:]}" if word[0] in "abc" and len(word) < 4 else word
        for word in arguments.format(runs).split()
    ]
    found = invoke("ensemble", *words)
    assert found.stdout.split("\n")[:-1] == ["ID,CUIs", *rows.split(" ")], found.stderr


def test_members_are_about_the_same_images(runs: Path) -> None:
    message = problem(invoke("ensemble", runs / "a.csv", runs / "other.csv"))
    assert "other.csv lacks 1 image ('y')" in message
    message = problem(invoke("ensemble", runs / "other.csv", runs / "a.csv"))
    assert "a.csv has 1 image ('y') besides" in message


def test_formats(runs: Path, votes: Path) -> None:
    assert invoke("ensemble", runs / "a.csv", "--format", "2021").stdout == "x|C1;C2\ny|C3\n"
    done(invoke("ensemble", runs / "a.csv", "--zip", "--output", runs / "s.zip"))
    assert invoke("validate", runs / "s.zip", "--ids", runs / "a.csv").exit_code == 0
    done(invoke("ensemble", votes, votes, "--format", "scores", "--output", runs / "two.npz"))
    one, two = read_scores(votes), read_scores(runs / "two.npz")
    assert one.ids == two.ids and np.allclose(one.values, two.values, atol=1e-3)


def test_weights_are_chosen_where_the_truth_is_known(
    place: Path, votes: Path, runs: Path, tmp_path: Path
) -> None:
    """The other member is a run that always says the same, on both sides."""
    for side in ("train", "test"):
        ids = [path.stem for path in sorted((place / side).iterdir())]
        (tmp_path / f"{side}.csv").write_text("".join(f"{id_},C0\n" for id_ in ids))
    same = f"{tmp_path / 'test.csv'}:{tmp_path / 'train.csv'}"
    found = invoke("ensemble", f"{votes}:{place / 'index'}", same)
    assert found.exit_code == 0, found.stderr
    assert "Weights chosen on 60 images" in found.stderr
    assert sorted_cells(found.stdout) == sorted_cells(annotate(place).stdout)
    table = ("--truth", place / "train.csv")
    assert invoke("ensemble", f"{votes}:{place / 'index'}", same, *table).stdout == found.stdout
    assert "Give a table of them, or the index" in problem(invoke("ensemble", same))
    problem(invoke("ensemble", votes, *table), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.csv:0",), "above 0"),
        (("a.csv:b.csv", "b.csv"), "Give all files a second file"),
        (("a.csv", "--format", "scores", "--zip"), "--zip requires"),
        (("a.csv", "--format", "scores", "--rule", "union"), "--rule weights"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, runs: Path) -> None:
    words = [runs / word if ".csv" in word else word for word in arguments]
    assert message in problem(invoke("ensemble", *words), 2)
