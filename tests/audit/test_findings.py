from __future__ import annotations

import csv
import io

from annotator.audit.findings import Finding, limited, to_csv
from annotator.audit.report import page

FOUND = [
    Finding("leak", "a", "b", 0.98765, "mirrored; train and test"),
    Finding("near", "<b>", "c,d", 0.95, 'said "so"'),
    Finding("near", "e", "f", 0.94, "changed"),
    Finding("label", "g", "", 0.5, "lacks C1 (90% of votes)"),
]


def test_the_table_is_read_back_as_it_was() -> None:
    header, *rows = csv.reader(io.StringIO(to_csv(FOUND)))
    assert header == ["kind", "id", "other_id", "score", "detail"]
    assert rows[0] == ["leak", "a", "b", "0.9877", "mirrored; train and test"]
    assert rows[1] == ["near", "<b>", "c,d", "0.9500", 'said "so"']


def test_the_limit_is_of_each_kind() -> None:
    shown, left_out = limited(FOUND, 1)
    assert [f.image_id for f in shown] == ["a", "<b>", "g"]
    assert left_out == {"near": 1}


def test_the_page_shows_every_finding_and_escapes() -> None:
    shown, left_out = limited(FOUND, 1)
    html = page("Audit of <x>", "4 images.", shown, left_out, lambda _: b"", notes=["A & B."])
    assert "<title>Audit of &lt;x&gt;</title>" in html and "A &amp; B." in html
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert "Near duplicates</a>: 2" in html and "… and 1 more" in html
    assert html.index('id="leak"') < html.index('id="near"') < html.index('id="label"')
    assert "Nothing was found" in page("x", "", [], {}, lambda _: b"")
