"""The metadata of an index comes back, nothing else is believed, and `info` shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from versions import numbered, version_folder

from annotator.encoders.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.indexing.metadata import IndexMetadata, describe
from annotator.knn.voting import Voting
from index import LabelTable, open_index
from index.folder.location import FolderLocation
from index.segments import Segment
from tests.index.indexes import publish, unit

FINGERPRINT = Fingerprint("net", "sha256:0", {"mean": (0.5, 0.5, 0.5)}, "fp32", "middle", 8)
ADAPTATION = {"penalty": 1.0, "f1_by_penalty": {"none": 0.4, "1": 0.5}}
TUNING = {"f1": 0.5, "interval": (0.4, 0.6), "nearest": [0.1, 0.5, 0.5, 0.9]}
PLAIN = IndexMetadata("net", FINGERPRINT, Voting()).to_dict()


def stored_metadata(directory: Path, about: dict[str, object]) -> IndexMetadata:
    publish(directory, unit(1, 2), about=about)
    return IndexMetadata.of(open_index(directory))


def test_metadata_comes_back(tmp_path: Path) -> None:
    voting = Voting(k=3, decider="top-r", prior=0.1, typical=0.6)
    new_source = {"f1": 0.3, "images": 2, "sources": {"a": {"f1": 0.3, "images": 2}}}
    metadata = IndexMetadata("net", FINGERPRINT, voting, ADAPTATION, TUNING, new_source=new_source)
    back = stored_metadata(tmp_path, metadata.to_dict())
    assert (back.encoder, back.fingerprint, back.voting) == ("net", FINGERPRINT, voting)
    assert back.adaptation == ADAPTATION and back.new_source == new_source
    assert back.tuning == {**TUNING, "interval": [0.4, 0.6]}
    assert back.nearest is not None and back.nearest.tolist() == TUNING["nearest"]
    assert back.to_dict() == json.loads(json.dumps(metadata.to_dict()))


def test_the_stored_form(tmp_path: Path) -> None:
    """It must not change: indexes that were written before hold it."""
    assert PLAIN == {
        "embedder": {
            "name": "net",
            "fingerprint": {
                "architecture": "net", "weights": "sha256:0",
                "preprocess": {"mean": [0.5, 0.5, 0.5]}, "precision": "fp32", "frames": "middle",
                "dim": 8,
            },
        },
        "adaptation": None,
        "voting": {
            "k": 50, "beta": 12.0, "kernel": "exponential", "prior": 0.0, "typical": 1.0,
            "decider": "expected-f1", "threshold": 0.35, "top_r": None, "macro_thresholds": None,
            "min_score": 0.0, "head_weight": 0.0, "assume_incomplete": False,
        },
        "tuning": None,
        "calibration": None,
        "guarantees": [],
        "outlier_factors": None,
        "new_source": None,
    }  # fmt: skip
    # An older index has no more than this.
    old = {"embedder": PLAIN["embedder"], "voting": {"k": 7, "beta": 64.0}}
    assert stored_metadata(tmp_path, old) == IndexMetadata("net", FINGERPRINT, Voting(7, 64.0))


@pytest.mark.parametrize("tuning", [None, {}, {"f1": 0.4}, {"nearest": None}])
def test_without_quantiles_there_is_no_familiarity(tmp_path: Path, tuning: object) -> None:
    metadata = stored_metadata(tmp_path, PLAIN | {"tuning": tuning})
    assert metadata.nearest is None and not metadata.knows_familiarity


FIELDS = FINGERPRINT.to_dict()
NEAREST = ([0.5], [0.5, 0.4], ["a", "b"], [0.1, None], [[0.1], [0.2]], {"0": 1}, 0.5)
CALIBRATIONS = (
    "good",
    {"images": 100},
    {"images": 100, "score": [[0.5, 0.4], [0.6, 0.3]], "expected_f1": [[0.5, 0.5]]},
    {"images": 100, "score": [], "expected_f1": [[0.5, 0.5]]},
)
WRONG = [
    *(
        (part, "which encoder")
        for part in (
            {"embedder": None},
            {"embedder": {"name": 3, "fingerprint": FIELDS}},
            {"embedder": {"name": "net", "fingerprint": 3}},
            {"embedder": {"name": "net", "fingerprint": FIELDS | {"preprocess": "bicubic"}}},
        )
    ),
    ({"embedder": {"name": "net", "fingerprint": {"dim": 8}}}, "fingerprint lacks architecture"),
    *(
        ({"voting": voting}, "which voting parameters")
        for voting in (None, [], {"k": 0}, {"neighbours": 3})
    ),
    *(({"adaptation": adaptation}, "which adaptation") for adaptation in ("auto", [1])),
    *(({"tuning": tuning}, "which tuning") for tuning in ("good", [1])),
    ({"new_source": "good"}, "which new source"),
    *(({"calibration": calibration}, "which calibration") for calibration in CALIBRATIONS),
    *(({"tuning": {"nearest": nearest}}, "which familiarity") for nearest in NEAREST),
    *(({"outlier_factors": factors}, "which familiarity") for factors in NEAREST),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=str)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(AnnotatorError, match=message) as caught:
        stored_metadata(tmp_path, PLAIN | wrong)
    assert "build" in caught.value.hint and "again" in caught.value.hint


@pytest.mark.parametrize("missing", ["embedder", "voting"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    about = {name: part for name, part in PLAIN.items() if name != missing}
    with pytest.raises(AnnotatorError, match="does not say with which"):
        stored_metadata(tmp_path, about)


def test_tuning_again_replaces_the_voting_alone() -> None:
    metadata = IndexMetadata("net", FINGERPRINT, Voting(), ADAPTATION)
    changed = replace(metadata, voting=Voting(k=3), tuning=TUNING).to_dict()
    assert changed["voting"]["k"] == 3 and changed["tuning"] == TUNING
    before = metadata.to_dict()
    assert {n: changed[n] for n in ("embedder", "adaptation")} == {
        n: before[n] for n in ("embedder", "adaptation")
    }


# What `info` shows

N, DIM = 150, 8


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    publish(
        tmp_path / "index",
        unit(N, DIM),
        concepts=[["C1", "C2"] if n % 2 else ["C2"] for n in range(N)],
        names={"C2": "two"},
        columns={"captions": [""] * N},
        about=IndexMetadata("net", FINGERPRINT, Voting(k=9)).to_dict(),
    )
    return tmp_path / "index"


def test_the_facts(directory: Path) -> None:
    facts = describe(open_index(directory), FolderLocation(directory))
    assert numbered(facts["version"]) == "v000001"
    assert (facts["images"], facts["concepts"], facts["dim"]) == (N, 2, DIM)
    assert facts["concepts_per_image"] == 1.5
    assert facts["embedder"] == "net" and facts["fingerprint"] == FINGERPRINT.digest
    assert facts["voting"]["k"] == 9 and facts["columns"] == ["captions"]
    assert facts["most_frequent"] == [
        {"cui": "C2", "name": "two", "images": N},
        {"cui": "C1", "name": "", "images": N // 2},
    ]
    files = [p for p in version_folder(directory).iterdir() if p.name != "manifest.json"]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    assert json.loads(json.dumps(facts)) == facts


def test_the_facts_of_changes(directory: Path) -> None:
    facts = describe(open_index(directory), FolderLocation(directory))
    assert (facts["index_type"], facts["added"], facts["removed"]) == ("flat", 0, 0)
    ids = [f"new{i}" for i in range(20)]
    labels = LabelTable.from_sets([["C3"]] * 20)
    rows = Segment(unit(20, DIM, seed=1), ids, labels, {"C3": "three"}, {}, {})
    FolderLocation(directory).add_rows(rows, of=version_folder(directory).name)
    FolderLocation(directory).remove_rows(["image-0", "image-1", "new3"])
    facts = describe(open_index(directory), FolderLocation(directory))
    assert (facts["images"], facts["added"], facts["removed"]) == (N + 17, 20, 3)
    assert {"cui": "C3", "name": "three", "images": 19} in facts["most_frequent"]
    files = [p for p in version_folder(directory, 3).iterdir() if p.name != "manifest.json"]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    FolderLocation(directory).compact(index_type="ivf", target_recall=0.9)
    facts = describe(open_index(directory), FolderLocation(directory))
    assert (facts["images"], facts["added"], facts["removed"]) == (N + 17, 0, 0)
    assert facts["index_type"] == "ivf" and facts["search"]["target_recall"] == 0.9
    assert json.loads(json.dumps(facts)) == facts


def test_an_index_of_something_else_has_no_facts(tmp_path: Path) -> None:
    publish(tmp_path, unit(1, 2))
    with pytest.raises(AnnotatorError, match="does not say with which encoder"):
        describe(open_index(tmp_path), FolderLocation(tmp_path))
    assert FolderLocation(tmp_path).problems() == []
