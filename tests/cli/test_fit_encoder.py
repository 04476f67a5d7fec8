"""`fit-encoder`, and the way from it to annotations."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from invoking import PYTHONPATH, check_sound, command, done, invoke, problem

if TYPE_CHECKING:
    from annotator.collection import Collection
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


@pytest.fixture(scope="module")
def fitted(train: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interrupted after its first epoch, and gone on with."""
    out = tmp_path_factory.mktemp("fit") / "fitted"
    arguments = ["fit-encoder", *train, "--out", out, "--device", "cpu", *SMALL]
    environment = os.environ | PYTHONPATH
    with subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A job that a script put into the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("Branch 1 of 3, epoch 1 of 1: loss "):
                break
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
    assert run.returncode == 130 and not out.exists()
    assert "The same command goes on from the last epoch that has ended." in said
    said = done(invoke(*arguments))
    assert "Branch 2 of 3" in said and "Branch 1 of 3" not in said
    assert f"{out}: fitted to 42 images and " in said
    return out


def test_the_folder_is_whole(train: list[object], fitted: Path) -> None:
    assert sorted(path.name for path in fitted.iterdir()) == [
        "README.md", "config.json", "curves.png", "model.safetensors",
    ]  # fmt: skip
    assert not list(fitted.parent.glob("*.partial"))
    assert "exists already" in problem(invoke("fit-encoder", *train, "--out", fitted))


def test_from_fit_to_score(
    sample: SamplePaths, train: list[object], fitted: Path, tmp_path: Path
) -> None:
    index, run = tmp_path / "index", tmp_path / "run.csv"
    options = ["--index", index, "--device", "cpu"]
    done(invoke("build-index", *train, "--embedder", f"fitted:{fitted}", *options))
    check_sound(index)
    test = ["--split", sample.split, "--only", "test"]
    done(invoke("annotate", sample.images, *test, *options, "--output", run))
    score = invoke("evaluate", run, sample.concepts, *test).stdout
    assert score.startswith("F1 0.") and float(score.split()[1]) > 0.5


def test_build_index_fits_once(train: list[object], fitted: Path, tmp_path: Path) -> None:
    options = ["--index", tmp_path / "index", "--device", "cpu", "--fit-encoder", fitted]
    said = done(invoke("build-index", *train, *options, "--no-tune"))
    assert f"{fitted} holds a fitted encoder, which is used as it is." in said
    said = problem(invoke("build-index", *train, *options, "--vectors", "v.npy"), code=2)
    assert "--fit-encoder cannot be given" in said


def test_of_a_new_source_a_fitted_encoder_knows_nothing(
    sample: SamplePaths, train: list[object], fitted: Path, tmp_path: Path
) -> None:
    options = ["--embedder", f"fitted:{fitted}", "--index", tmp_path / "index", "--device", "cpu"]
    said = problem(invoke("build-index", *train, *options, "--holdout-groups", sample.patients))
    assert f"fitted:{fitted} is fitted: its branches have seen images of every source" in said
    assert not (tmp_path / "index" / "current").exists()


def test_build_index_fits_what_is_not_there(patterns: Collection, tmp_path: Path) -> None:
    folder = Path(patterns.images[0].where).parents[1]
    said = problem(
        invoke("build-index", folder / "images", folder / "concepts.csv", "--only", "id:i01*",
               "--index", tmp_path / "index", "--fit-encoder", tmp_path / "fitted")
    )  # fmt: skip
    assert "10 usable images are too few to fit an encoder to" in said
