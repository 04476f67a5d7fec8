"""Files as they are sent, and ids in paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match, Route

from annotator.client.calls import File, batches, image, read_files
from annotator.errors import FormatError


def test_files_in_any_form(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(b"1")
    assert read_files(path) == read_files(str(path)) == read_files([path]) == [("scan.png", b"1")]
    assert read_files(b"2") == [("image-1", b"2")]
    assert read_files(("a.dcm", b"3")) == [("a.dcm", b"3")]
    assert read_files([b"2", path, ("a", b"3")]) == [
        ("image-1", b"2"), ("scan.png", b"1"), ("a", b"3")
    ]  # fmt: skip
    assert read_files((str(path), path)) == [("scan.png", b"1")] * 2  # two paths, and no name
    assert read_files(iter([path])) == [("scan.png", b"1")]
    with pytest.raises(FormatError, match="no image"):
        read_files([])
    with pytest.raises(FileNotFoundError):
        read_files(tmp_path / "absent.png")


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 5))
def test_batches_have_all_files_in_their_order(sizes: list[int], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotator.client.calls._MOST_BYTES", 4)
        files: list[File] = [bytes(size) for size in sizes]
        found = list(batches(files, at_once))
    assert [file for batch in found for file in batch] == (read_files(files) if files else [])
    for batch in found:
        assert 1 <= len(batch) <= at_once
        assert len(batch) == 1 or sum(len(content) for _, content in batch) <= 4


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_an_id_of_any_characters_is_one_part_of_the_path(image_id: str) -> None:
    import httpx

    url = httpx.URL("http://host").copy_with(raw_path=image(image_id).path.encode())
    route = Route("/v1/images/{id:path}", lambda request: None)
    matched, scope = route.matches({"type": "http", "path": url.path, "method": "GET"})
    assert matched == Match.FULL and scope["path_params"]["id"] == image_id
