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
