from __future__ import annotations

import csv
import io

from annotator.audit.findings import KINDS, ORDER, AuditResult, Finding, Source, limited, to_csv
from annotator.errors import ImageError

FOUND = [
    Finding("leak", "a", "b", 0.98765, "mirrored; train and test"),
    Finding("near", "<b>", "c,d", 0.95, 'said "so"'),
    Finding("near", "é\nf", "=f", 0.94, "changed"),
    Finding("label", "g", "", 0.5, "lacks C1 (90% of votes)"),
]


def test_the_table_is_read_back() -> None:
    header, *rows = csv.reader(io.StringIO(to_csv(FOUND)))
    assert header == ["kind", "id", "other_id", "score", "detail"]
    assert rows[0] == ["leak", "a", "b", "0.9877", "mirrored; train and test"]
    assert rows[1] == ["near", "<b>", "c,d", "0.9500", 'said "so"']
    assert rows[2] == ["near", "é\nf", "'=f", "0.9400", "changed"]


def test_the_limit_is_of_each_kind() -> None:
    shown, left_out = limited(FOUND, 1)
    assert [f.image_id for f in shown] == ["a", "<b>", "g"]
    assert left_out == {"near": 1}
    assert limited(FOUND, 2) == (FOUND, {})


def test_json_counts_everything_and_lists_what_is_shown() -> None:
    source = Source("s", "close", 0.0, 0.123456, 0.99, "")
    found = [*FOUND, Finding("close", "h", "s", 0.99, "similarity 0.123", (source,))]
    result = AuditResult((), found, ["A note."], {"x.png": ImageError("broken")})
    shown, _ = limited(found, 1)
    whole = result.to_dict(shown)
    assert whole["counts"] == {"leak": 1, "near": 2, "label": 1, "close": 1}
    assert (whole["images"], whole["notes"]) == (0, ["A note."])
    assert whole["failed"] == {"x.png": "broken"}
    assert [row["id"] for row in whole["findings"]] == ["a", "<b>", "g", "h"]
    assert "sources" not in whole["findings"][0]
    assert whole["findings"][3]["sources"] == [
        {"id": "s", "flag": "close", "correlation": 0.0, "similarity": 0.1235, "closeness": 0.99}
    ]


def test_every_kind_has_its_place_in_the_report() -> None:
    assert sorted(KINDS) == sorted(ORDER)
