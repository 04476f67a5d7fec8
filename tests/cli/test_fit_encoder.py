"""`fit-encoder`, and the way from it to annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from invoking import check_sound, done, invoke, problem

if TYPE_CHECKING:
    from annotator.phantoms import SamplePaths

SMALL = ["--embedder", "efficientnet-lite0@64", "--epochs", "1", "--fit-folds", "2"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    from annotator.phantoms import write_sample

    return write_sample(tmp_path_factory.mktemp("sample") / "s", n=60, seed=1)


@pytest.fixture(scope="module")
def train(sample: SamplePaths) -> list[object]:
    """The training side, as the commands take it."""
    tables = ["--split", sample.split, "--only", "train", "--groups", sample.patients]
    return [sample.images, sample.concepts, *tables, "--names", sample.concept_names]


def test_from_fit_to_score(sample: SamplePaths, train: list[object], tmp_path: Path) -> None:
    out, index, run = tmp_path / "fitted", tmp_path / "index", tmp_path / "run.csv"
    said = done(invoke("fit-encoder", *train, "--out", out, "--device", "cpu", *SMALL))
    assert "Branch 1 of 2, epoch 1 of 1: loss " in said
    assert f"{out}: fitted to 42 images and " in said
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "curves.png", "model.safetensors",
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.partial"))

    options = ["--index", index, "--device", "cpu"]
    assert "exists already" in problem(invoke("fit-encoder", *train, "--out", out))
    done(invoke("build-index", *train, "--embedder", f"fitted:{out}", *options))
    check_sound(index)
    test = ["--split", sample.split, "--only", "test"]
    done(invoke("annotate", sample.images, *test, *options, "--output", run))
    score = invoke("evaluate", run, sample.concepts, *test).stdout
    assert score.startswith("F1 0.") and float(score.split()[1]) > 0.5


def test_build_index_fits_once(train: list[object], tmp_path: Path) -> None:
    out = tmp_path / "fitted"
    options = ["--index", tmp_path / "index", "--device", "cpu", "--fit-encoder", out]
    done(invoke("fit-encoder", *train, "--out", out, "--device", "cpu", *SMALL))
    said = done(invoke("build-index", *train, *options, "--no-tune"))
    assert f"{out} holds a fitted encoder, which is used as it is." in said
    said = problem(invoke("build-index", *train, *options, "--vectors", "v.npy"), code=2)
    assert "--fit-encoder cannot be given" in said
