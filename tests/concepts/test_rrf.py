from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.concepts import rrf
from annotator.concepts.rrf import MRCONSO, MRHIER, MRREL, MRSTY, read_rows, recognise
from annotator.errors import FormatError
from index.progress import Work, reported_by

STY = "C0032285|T047|B2.2.1.2.1|Disease or Syndrome|AT17648347|256|\n"
REL = "C0032285|A0101|AUI|PAR|C0024115|A0202|AUI|isa|R1||MSH|MSH|||N||\n"
HIER = "C0032285|A0101|1|A0202|MSH|isa|A0303.A0202|C08.381|256|\n"


@pytest.mark.parametrize("name", ["MRCONSO.RRF", "mine.csv", "x"])
def test_files_are_recognised_by_content(write, conso, name: str) -> None:
    for text, layout in (
        (conso("C0032285", "Pneumonia"), MRCONSO),
        ("\ufeff" + conso("C0032285", "Lungenentzündung", lat="GER"), MRCONSO),
        (STY, MRSTY),
        (REL, MRREL),
        (HIER, MRHIER),
        ("C0032285|Pneumonia\n", None),
        ("CUI,Name\nC0032285,Pneumonia\n", None),
        ("", None),
    ):
        assert recognise(write(text, name)) is layout


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"2026AA/META/{name}.RRF", data)
    return file.getvalue()


ROWS = [("C1", "Lung"), ("C2", "Ümlaut"), ("C3", "Heart"), ("C4", "Hand")]


@pytest.mark.parametrize("block", [1, 7, 50, 1 << 20])
@pytest.mark.parametrize("packed", ["plain", "crlf", "gzip", "members", "zip"])
def test_streaming(write, conso, monkeypatch, packed: str, block: int) -> None:
    monkeypatch.setattr(rrf, "_BLOCK", block)
    lines = [conso(cui, name).encode() for cui, name in ROWS]
    data = b"".join(lines)
    whole = {
        "plain": data.removesuffix(b"\n"),
        "crlf": b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b"\r\n",
        "gzip": gzip.compress(data),
        "members": b"".join(map(gzip.compress, lines)) + bytes(20),
        "zip": zipped(MRCONSO=data, MRSTY=STY.encode()),
    }[packed]
    path = write(whole, "any")
    assert list(read_rows(path, MRCONSO, ["CUI", "STR"])) == ROWS
    assert list(read_rows(path, MRCONSO, ["STR"], {"CUI": {"C2", "C4"}, "LAT": ["ENG"]})) == [
        ("Ümlaut",),
        ("Hand",),
    ]
    if packed != "zip":  # a zip has several
        assert recognise(path) is MRCONSO


def test_only_one_line_at_a_time_is_kept(write, conso, monkeypatch) -> None:
    monkeypatch.setattr(rrf, "_LONGEST", 1000)
    monkeypatch.setattr(rrf, "_BLOCK", 100)
    path = write(gzip.compress(conso("C1", "Lung").encode() + b"x" * 100_000))
    with pytest.raises(FormatError, match="line 2: longer than"):
        list(read_rows(path, MRCONSO, ["CUI"]))


@given(columns=st.integers(0, 40).filter(lambda n: n != 18), at=st.integers(0, 4))
def test_the_number_of_columns_is_checked(tmp_path_factory, conso, columns: int, at: int) -> None:
    lines = [conso(cui, name) for cui, name in ROWS]
    lines.insert(at, "x|" * columns + "y|\n")
    if columns == 17:  # as many as there are, but the last is not ended
        lines[at] = lines[at].removesuffix("|\n") + "\n"
    path = tmp_path_factory.mktemp("rrf") / "MRCONSO.RRF"
    path.write_text("".join(lines))
    with pytest.raises(FormatError, match=f"MRCONSO.RRF, line {at + 1}: {columns + 1} columns"):
        list(read_rows(path, MRCONSO, ["CUI"]))


def test_what_is_wrong_with_a_file_is_said(write, conso, tmp_path) -> None:
    row = conso("C1", "Lung")
    for data, said in (
        (row.encode() + conso("C2", "Übersicht").encode("latin-1"), "line 2: byte 0xdc is not UTF"),
        (row + STY, "line 2: a row of MRSTY.RRF, where MRCONSO.RRF is wanted"),
        (gzip.compress(row.encode() * 99)[:-20], "ends in the middle"),
        (gzip.compress(row.encode())[:20] + bytes(50), "is damaged"),
        (zipped(MRSTY=STY.encode()), "holds 0 files called MRCONSO.RRF"),
        (b"PK\x03\x04 no zip", "is damaged"),
    ):
        with pytest.raises(FormatError, match=said):
            list(read_rows(write(data), MRCONSO, ["STR"]))
    for path, said in ((tmp_path / "none", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(FormatError, match=said):
            recognise(path)


def test_a_pipe_is_refused(tmp_path) -> None:
    read, write = os.pipe()
    with (
        os.fdopen(read, "rb"),
        os.fdopen(write, "wb"),
        pytest.raises(FormatError, match="is a pipe"),
    ):
        recognise(f"/dev/fd/{read}")


def test_progress_is_reported(write, conso, monkeypatch) -> None:
    monkeypatch.setattr(rrf, "_BLOCK", 10)
    shown: list[tuple[int, int]] = []

    def count(items: Iterable[bytes], work: Work) -> Iterator[bytes]:
        n = 0
        for item in items:
            n += work.size(item)
            yield item
        shown.append((n, work.total))

    path = write(conso("C1", "Lung"))
    with reported_by(count):
        assert len(list(read_rows(path, MRCONSO, ["CUI"]))) == 1
    ((n, total),) = shown
    assert n == total == path.stat().st_size > 10
