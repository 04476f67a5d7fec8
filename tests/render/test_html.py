"""Rendering escapes, embeds and leaves nothing out silently."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import annotator.render
from annotator.render.html import data_uri, render_page

HOSTILE = "</title><script>alert('x')</script>\"&"
TEMPLATES = Path(annotator.render.__file__).parent / "templates"
AUDIT = {"notes": [], "sections": [], "picture_of": None, "other_picture_of": None}


def test_values_are_text() -> None:
    page = render_page("audit.html", title=HOSTILE, intro=HOSTILE, **AUDIT)
    assert "<script" not in page and page.count("&lt;script&gt;") == 3


def test_nothing_is_loaded_and_scripts_run_only_where_a_page_has_one() -> None:
    page = render_page("audit.html", title="a", intro="b", **AUDIT)
    assert "default-src 'none'" in page and "script-src" not in page
    assert "http://" not in page and "https://" not in page


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_page("audit.html", title="a", **AUDIT)


def test_no_template_turns_escaping_off() -> None:
    for path in TEMPLATES.glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape", path.read_text(encoding="utf-8")), path.name


def test_pictures_are_inline() -> None:
    encoded = base64.b64encode(b"\xff\xd8jpeg").decode()
    assert data_uri(b"\xff\xd8jpeg") == f"data:image/jpeg;base64,{encoded}"
