"""What a build leaves in the manifest comes back, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from annotator.embed.fingerprint import Fingerprint
from annotator.errors import AnnotatorError
from annotator.record import recorded_encoder, recorded_voting, to_record
from annotator.vote.voting import Voting
from index import StoredIndex, VersionWriter, open_index

FINGERPRINT = Fingerprint("net", "sha256:0", {"mean": (0.5, 0.5, 0.5)}, "fp32", "middle", 2)


def stored_with(directory: Path, about: dict[str, object]) -> StoredIndex:
    with VersionWriter(directory, 2) as writer:
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


@pytest.mark.parametrize(
    "voting", [None, [], {"k": 0}, {"k": "many"}, {"neighbours": 3}, {"decider": "best"}]
)
def test_voting_that_cannot_be_used_is_refused(tmp_path: Path, voting: object) -> None:
    about = to_record("net", FINGERPRINT, Voting()) | {"voting": voting}
    with pytest.raises(AnnotatorError, match="does not say with which voting parameters"):
        recorded_voting(stored_with(tmp_path, about))
