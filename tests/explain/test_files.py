"""Names of files from ids, and the page that links them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from annotator.explain.files import contents, file_name
from annotator.pipeline import Annotation

HOSTILE = ["../../etc/passwd", "a/b", "a\\b", "", ".", "..", "index", "ü", "x" * 500, "<b>", "a b"]


def annotation(id_: str, error: str | None = None) -> Annotation:
    return Annotation(id_, ("C1",), (1.0,), 0.5, (), error=error)


@given(st.text() | st.sampled_from(HOSTILE))
def test_any_id_is_a_safe_name(id_: str) -> None:
    name = file_name(id_)
    assert name and not name.startswith(".") and len(name) < 120 and name != "index"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert file_name(id_) == name


def test_ordinary_ids_are_kept_and_others_stay_apart() -> None:
    assert file_name("ROCOv2_2023_train_000001") == "ROCOv2_2023_train_000001"
    assert file_name("1.2.840.10008.5") == "1.2.840.10008.5"
    ids = [*HOSTILE, "a_b", "a/b ", "b", "passwd"]
    assert len({file_name(id_) for id_ in ids}) == len(ids)


def test_contents_link_the_pages_and_name_what_failed() -> None:
    page = contents(
        [annotation("a/b"), annotation("<bad>", "truncated JPEG")], {"C1": "Brain & co"}
    )
    assert f'href="{file_name("a/b")}.html"' in page
    assert "Brain &amp; co" in page
    assert "&lt;bad&gt;" in page and "truncated JPEG" in page and "<bad>" not in page
