"""What to expect of new images and of a new source, through the real commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, info, invoke, problem

from annotator.collection import Collection

SOURCES, EACH, KINDS = ("north", "south", "west"), 50, 3
BUILT = "Of a new source, expect F1 "


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of three hospitals, each with its own look of the same three kinds."""
    folder = tmp_path_factory.mktemp("new-source")
    rng = np.random.default_rng(0)
    kinds = rng.integers(KINDS, size=len(SOURCES) * EACH)
    of = np.repeat(np.arange(len(SOURCES)), EACH)
    looks = rng.normal(size=(len(SOURCES), KINDS, 12))
    vectors = looks[of, kinds] + 0.5 * rng.normal(size=(len(of), 12))
    np.save(folder / "train.npy", vectors.astype(np.float32))
    ids = [f"i{i:03d}" for i in range(len(of))]
    (folder / "train.txt").write_text("\n".join(ids))
    tables = {"concepts": [f"C{kind}" for kind in kinds], "sources": [SOURCES[i] for i in of]}
    for name, values in tables.items():
        rows = (f"{id_},{value}\n" for id_, value in zip(ids, values, strict=True))
        (folder / f"{name}.csv").write_text(f"ID,{name}\n" + "".join(rows))
    return folder


def build(place: Path, index: Path, *options: object) -> Any:
    vectors = ("--vectors", place / "train.npy", "--ids", place / "train.txt")
    return invoke("build-index", *vectors, place / "concepts.csv", "--encoder-name", "own",
                  "--index", index, *options)  # fmt: skip


@pytest.fixture(scope="module")
def said(place: Path) -> str:
    return done(build(place, place / "index", "--holdout-groups", place / "sources.csv:sources"))


def test_a_build_says_what_to_expect(said: str, place: Path) -> None:
    facts = info(place / "index")
    estimate, new_source = facts["estimate"], facts["new_source"]
    low, high = estimate["predicted"]
    assert estimate["predicted_images"] == 500 and low <= estimate["f1"] <= high
    assert f"{low:.3f} to {high:.3f} on 500 new images like these." in said
    assert {name: one["images"] for name, one in new_source["sources"].items()} == dict.fromkeys(
        SOURCES, EACH
    )
    assert estimate["f1"] > 0.9 and new_source["f1"] < 0.7
    assert f"{BUILT}{new_source['f1']:.3f} on 150 images, each annotated by those of other" in said
    assert f"north {new_source['sources']['north']['f1']:.3f} (50 images), south " in said


def test_info_tells_people_too(said: str, place: Path) -> None:
    text = invoke("info", "--index", place / "index").stdout
    assert re.search(r"^estimate: F1 \d\.\d{4} \(95% interval .*new images like these$", text, re.M)
    (line,) = (line for line in text.splitlines() if line.startswith("new source: "))
    assert line.removeprefix("new source: ") in said.replace(BUILT, "F1 ")


def test_only_the_vote_that_was_judged_keeps_its_expectation(
    said: str, place: Path, tmp_path: Path
) -> None:
    sources = ("--holdout-groups", place / "sources.csv")
    done(build(place, tmp_path / "index", *sources))
    before = info(tmp_path / "index")
    done(invoke("tune", "--index", tmp_path / "index"))
    assert info(tmp_path / "index")["new_source"] == before["new_source"]
    done(invoke("tune", "--index", tmp_path / "index", "--k", 3))
    assert info(tmp_path / "index")["new_source"] is None
    assert "new source" not in invoke("info", "--index", tmp_path / "index").stdout


def test_older_indexes_predict_nothing(said: str, place: Path, tmp_path: Path) -> None:
    from annotator.indexing.metadata import IndexMetadata
    from index.locations import locate

    done(build(place, tmp_path / "index"))
    location = locate(tmp_path / "index")
    about = IndexMetadata.of(location.open()).to_dict()
    del about["new_source"]
    new = ("predicted", "predicted_images", "groups")
    about["tuning"] = {name: fact for name, fact in about["tuning"].items() if name not in new}
    location.change_about(about, of=location.open().version)
    text = invoke("info", "--index", tmp_path / "index").stdout
    assert re.search(r"^estimate: F1 .* to \d\.\d{3}\) on 150 images$", text, re.M)


def test_images_without_a_source_are_counted(place: Path, tmp_path: Path) -> None:
    rows = (place / "sources.csv").read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join(rows[:-10]) + "\n")
    said = done(build(place, tmp_path / "index", "--holdout-groups", tmp_path / "some.csv"))
    assert "10 of 150 images have no source in" in said and "i140, i141, i142, …" in said
    sources = info(tmp_path / "index")["new_source"]["sources"]
    assert {name: one["images"] for name, one in sources.items()} == {
        "north": 50, "south": 50, "west": 40
    }  # fmt: skip


def test_one_source_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("ID,source\ni000,north\ni001,north\n")
    refused = problem(build(place, tmp_path / "index", "--holdout-groups", tmp_path / "one.csv"))
    assert "at least two sources, and all images are of 'north'" in refused
    assert not (tmp_path / "index").exists()


def test_an_encoder_that_is_to_be_fitted_is_refused_before_the_work(
    patterns: Collection, tmp_path: Path
) -> None:
    folder = Path(patterns.images[0].where).parents[1]
    refused = problem(
        invoke("build-index", folder / "images", folder / "concepts.csv", "--index",
               tmp_path / "index", "--fit-encoder", tmp_path / "fit",
               "--holdout-groups", folder / "groups.csv")
    )  # fmt: skip
    assert "is fitted: its branches have seen images of every source" in refused
    assert not (tmp_path / "fit").exists()
