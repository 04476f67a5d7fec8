from __future__ import annotations

import base64

from annotator.render.html import document, picture, text


def test_what_comes_from_outside_is_text() -> None:
    hostile = "<script>alert('x')</script>\""
    page = document(hostile, f'<p title="{text(hostile)}">{text(hostile)}</p>')
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_nothing_is_fetched() -> None:
    page = document("a", "<p>b</p>", script="let x = 1;")
    assert "default-src 'none'" in page
    assert "http://" not in page and "https://" not in page


def test_pictures_are_within() -> None:
    html = picture(b"\xff\xd8jpeg", 'a "b"')
    assert base64.b64encode(b"\xff\xd8jpeg").decode() in html
    assert "a &quot;b&quot;" in html
    assert "<img" not in picture(b"", "lost")
