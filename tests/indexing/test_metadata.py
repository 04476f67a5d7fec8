"""What a build leaves in the manifest comes back, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from annotator.encoders.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.indexing.metadata import (
    recorded_encoder,
    recorded_nearest,
    recorded_voting,
    to_record,
    with_tuning,
)
from annotator.knn.voting import Voting
from index import StoredIndex, VersionWriter, open_index

FINGERPRINT = Fingerprint("net", "sha256:0", {"mean": (0.5, 0.5, 0.5)}, "fp32", "middle", 2)


def stored_with(directory: Path, about: dict[str, object]) -> StoredIndex:
    with VersionWriter(directory) as writer:
        writer.add(np.array([[1, 0]], np.float32))
        writer.publish(["a"], [[]], names={}, columns={}, about=about)
    return open_index(directory)


def test_a_record_comes_back(tmp_path: Path) -> None:
    voting = Voting(k=3, decider="top-r")
    record = to_record("net", FINGERPRINT, voting)
    assert json.loads(json.dumps(record)) == record
    stored = stored_with(tmp_path, record)
    name, fingerprint = recorded_encoder(stored)
    assert name == "net" and fingerprint.digest == FINGERPRINT.digest
    assert not fingerprint.differences(FINGERPRINT)
    assert recorded_voting(stored) == voting
    assert recorded_nearest(stored) is None


def test_adaptation_and_tuning_come_back(tmp_path: Path) -> None:
    adaptation = {"penalty": 1.0, "f1_by_penalty": {"none": 0.4, "1": 0.5}}
    tuning = {"f1": 0.5, "interval": (0.4, 0.6), "nearest": [0.1, 0.5, 0.5, 0.9]}
    record = to_record("net", FINGERPRINT, Voting(), adaptation=adaptation, tuning=tuning)
    stored = stored_with(tmp_path, record)
    about = stored.manifest["about"]
    assert about["adaptation"] == adaptation
    assert about["tuning"] == {**tuning, "interval": [0.4, 0.6]}
    nearest = recorded_nearest(stored)
    assert nearest is not None and nearest.tolist() == tuning["nearest"]


def test_other_voting_leaves_the_rest_as_it_was() -> None:
    record = to_record("net", FINGERPRINT, Voting(), adaptation={"penalty": 3.0})
    before = json.dumps(record)
    voting = Voting(k=3, kernel="rank", beta=2.0, prior=0.1, typical=0.6)
    changed = with_tuning({**record, "of another version": 1}, voting, {"f1": 0.5})
    assert json.dumps(record) == before
    assert Voting(**changed.pop("voting")) == voting
    assert changed.pop("tuning") == {"f1": 0.5}
    assert changed.pop("of another version") == 1
    assert changed == {key: record[key] for key in ("embedder", "adaptation")}


@pytest.mark.parametrize("tuning", [None, {}, {"f1": 0.4}, {"nearest": None}, 3, []])
def test_without_similarities_there_is_no_familiarity(tmp_path: Path, tuning: object) -> None:
    about = to_record("net", FINGERPRINT, Voting()) | {"tuning": tuning}
    assert recorded_nearest(stored_with(tmp_path, about)) is None


@pytest.mark.parametrize(
    "nearest",
    [[], [0.5], [0.5, 0.4], ["a", "b"], [0.1, None], [[0.1], [0.2]], {"0": 1}, 0.5, [0.1, [0.2]]],
)
def test_similarities_that_cannot_be_used_are_refused(tmp_path: Path, nearest: object) -> None:
    about = to_record("net", FINGERPRINT, Voting(), tuning={"nearest": nearest})
    with pytest.raises(AnnotatorError, match="does not say with which familiarity"):
        recorded_nearest(stored_with(tmp_path, about))


@pytest.mark.parametrize("about", [{}, {"voting": {}}, {"tuning": None}])
def test_records_of_older_indexes_have_no_familiarity(
    tmp_path: Path, about: dict[str, object]
) -> None:
    assert recorded_nearest(stored_with(tmp_path, about)) is None


@pytest.mark.parametrize(
    "voting", [None, [], {"k": 0}, {"k": "many"}, {"neighbours": 3}, {"decider": "best"}]
)
def test_voting_that_cannot_be_used_is_refused(tmp_path: Path, voting: object) -> None:
    about = to_record("net", FINGERPRINT, Voting()) | {"voting": voting}
    with pytest.raises(AnnotatorError, match="does not say with which voting parameters"):
        recorded_voting(stored_with(tmp_path, about))
