from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from annotator.audit.findings import AuditResult, Finding, limited
from annotator.audit.report import page


def test_the_page_shows_every_finding_and_escapes() -> None:
    found = [
        Finding("leak", "a", "b", 0.98765, "mirrored; train and test"),
        Finding("near", "<b>", "c,d", 0.95, 'said "so"'),
        Finding("near", "e", "f", 0.94, "changed"),
        Finding("label", "g", "", 0.5, "lacks C1 (90% of votes)"),
    ]
    shown, left_out = limited(found, 1)
    html = page("Audit of <x>", AuditResult((), found, ["A & B."], {}), shown, left_out, workers=1)
    assert "<title>Audit of &lt;x&gt;</title>" in html and "A &amp; B." in html
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert "Near duplicates</a>: 2" in html and "… and 1 more" in html
    assert html.index('id="leak"') < html.index('id="near"') < html.index('id="label"')
    nothing = page("x", AuditResult((), [], [], {}), [], {}, workers=1)
    assert "Nothing was found" in nothing and "0 images." in nothing


def test_pictures_of_both_collections(
    textures: list[NDArray[np.uint8]], encode: Callable, as_refs: Callable
) -> None:
    found = [Finding("copy", "i000", "i001", 0.9, "changed")]
    images, others = (as_refs([encode(t) for t in textures[i : i + 2]]) for i in (0, 2))
    within = page("x", AuditResult(images, found, [], {}), found, {}, workers=1)
    across = page("x", AuditResult(images, found, [], {}, others), found, {}, workers=2)
    assert within.count("<img ") == across.count("<img ") == 2
    assert within.split("<img ")[1] == across.split("<img ")[1]
    assert within.split("<img ")[2] != across.split("<img ")[2]
