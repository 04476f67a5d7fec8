from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.problems import Problem
from service.uploads import MultipartReader, Upload

BOUNDARY = b"----boundary-7f3a"
NAMES = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters='"\\'), min_size=1,
    max_size=20,
)  # fmt: skip


def part(data: bytes, filename: str | None, headers: bytes = b"") -> bytes:
    name = b"" if filename is None else b'; filename="' + filename.encode() + b'"'
    head = b'Content-Disposition: form-data; name="image"' + name + b"\r\n" + headers
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n" + data + b"\r\n"


def read(pieces: list[bytes], max_files: int = 10) -> list[Upload]:
    reader = MultipartReader(BOUNDARY, max_files, lambda n: None)
    for piece in pieces:
        reader.write(piece)
    return reader.close()


def end() -> bytes:
    return b"--" + BOUNDARY + b"--\r\n"


def test_one_file() -> None:
    assert read([part(b"abc", "a.png") + end()]) == [Upload("a.png", b"abc")]


# Contents made of pieces of the boundary are the hard ones.
FRAGMENTS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"-", b"--", BOUNDARY[:9], b"\r\n--" + BOUNDARY[:5]]
)
CONTENTS = st.one_of(st.binary(max_size=60), st.lists(FRAGMENTS, max_size=8).map(b"".join)).filter(
    lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data
)


@given(st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=5), st.data())
def test_however_the_body_is_cut(files: list[tuple[str, bytes]], data: st.DataObject) -> None:
    body = b"".join(part(content, name) for name, content in files) + end()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12).map(sorted))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert read(pieces) == [Upload(name, content) for name, content in files]


@given(st.binary(max_size=300), st.integers(1, 40))
def test_rubbish_is_a_problem_and_nothing_else(body: bytes, size: int) -> None:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    with pytest.raises(Problem) as caught:
        read(pieces)
    assert caught.value.status == 400


@given(st.data())
def test_a_body_that_stops_early_is_never_taken_for_whole(data: st.DataObject) -> None:
    body = part(b"first", "1.png") + part(b"second", "2.png") + end()
    length = data.draw(st.integers(0, len(body) - len(b"--\r\n")))
    with pytest.raises(Problem, match="malformed_multipart"):
        read([body[:length]])


def test_names_are_utf_8_and_paths_are_kept_for_the_caller() -> None:
    uploads = read([part(b"x", "Röntgen 1.png") + part(b"y", "a/b.png") + end()])
    assert [upload.filename for upload in uploads] == ["Röntgen 1.png", "a/b.png"]
    broken = part(b"x", "?.png").replace(b"?", b"\xff") + end()
    assert read([broken])[0].filename == "\ufffd.png"


def test_parts_with_an_image_type_need_no_name() -> None:
    assert read([part(b"x", None, b"Content-Type: image/png\r\n") + end()]) == [Upload("", b"x")]


def test_a_field_that_was_left_empty_is_passed_over() -> None:
    assert read([part(b"", "") + part(b"x", "a") + end()]) == [Upload("a", b"x")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (part(b"5", None) + end(), "not_a_file"),
        (part(b"", "") + end(), "no_image"),
        (part(b"x", "a") * 3 + end(), "too_many_images"),
        (part(b"x", "a", b"X: " + b"y" * 5000 + b"\r\n") + end(), "malformed_multipart"),
        (part(b"x", "a", b"X: y\r\n" * 20) + end(), "malformed_multipart"),
        (part(b"x", "a").replace(b"form-data", b"attachment") + end(), "malformed_multipart"),
        (part(b"x", "a").replace(b"Content-Disposition", b"Other") + end(), "malformed_multipart"),
        (part(b"\r\n--" + BOUNDARY + b"x", "a") + end(), "malformed_multipart"),
        (part(b"\r\n--" + BOUNDARY + b" " * 65 + b"\r\n", "a") + end(), "malformed_multipart"),
    ],
)
def test_what_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(Problem, match=code):
        read([body], max_files=2)


@pytest.mark.parametrize(
    "content",
    [b"\r\n--C", b"\r\n", b"\r\n--", b"-", b"\r", b"\r\n-B" + b" " * 90, b"\r--B-"],
)
def test_no_bytes_cost_much_more_than_others(content: bytes) -> None:
    """A step of Python for each of them would be a hundred times as much."""

    def seconds(content: bytes) -> float:
        body = part(b"", "a").replace(BOUNDARY, b"B")[:-2] + content * ((1 << 20) // len(content))
        pieces = [body[i : i + 65536] for i in range(0, len(body), 65536)]
        taken = []
        for _ in range(3):
            reader = MultipartReader(b"B", 10, lambda n: None)
            started = time.process_time()
            for piece in pieces:
                reader.write(piece)
            taken.append(time.process_time() - started)
        return min(taken)

    assert seconds(content) < 25 * seconds(b"x")


@pytest.mark.parametrize("content", [b"\r\n--Bx", b"\r\n--B-x", b"\r\n--B" + b" " * 90])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_that_only_begins_with_the_boundary_is_refused_at_once(
    content: bytes, size: int
) -> None:
    body = part(b"", "a").replace(BOUNDARY, b"B")[:-2] + content
    reader = MultipartReader(b"B", 10, lambda n: None)
    with pytest.raises(Problem, match="malformed_multipart"):
        for i in range(0, len(body), size):
            reader.write(body[i : i + size])


@pytest.mark.parametrize("boundary", [b"", b"x" * 500])
def test_boundaries_that_are_none(boundary: bytes) -> None:
    with pytest.raises(Problem, match="malformed_multipart"):
        MultipartReader(boundary, 1, lambda n: None)


def test_the_caller_learns_of_each_file_before_its_content() -> None:
    counts: list[int] = []
    reader = MultipartReader(BOUNDARY, 5, counts.append)
    reader.write(part(b"x", "a"))
    reader.write(part(b"y" * 99, "b")[:-60])
    assert counts == [1, 2]
