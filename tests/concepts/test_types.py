from __future__ import annotations

import gzip

import pytest

from annotator.concepts.types import read_types
from annotator.errors import AnnotatorError, FormatError

MRSTY = """\
C0032285|T047|B2.2.1.2.1|Disease or Syndrome|AT1|256|
C0024109|T023|A1.2.3.1|Body Part, Organ, or Organ Component|AT2|256|
C0000002|T047|B2.2.1.2.1|Disease or Syndrome|AT3|256|
C0000002|T046|B2.2.1.2|Pathologic Function|AT4||
C0000003|T060|B1.3.1.2|Diagnostic Procedure|AT5||
"""
OF = {
    "C0000002": ("T046", "T047"),
    "C0000003": ("T060",),
    "C0024109": ("T023",),
    "C0032285": ("T047",),
}


@pytest.mark.parametrize("name", ["MRSTY.RRF", "types.csv"])
def test_mrsty(write, name: str) -> None:
    for data in (MRSTY.encode(), gzip.compress(MRSTY.encode())):
        types = read_types(write(data, name))
        assert types.of == OF
        assert types.names["T023"] == "Body Part, Organ, or Organ Component"
        some = read_types(write(data, name), only={"C0032285", "C9"})
        assert some.of == {"C0032285": ("T047",)} and some.names == types.names


@pytest.mark.parametrize(
    "text",
    [
        "CUI,TUI\nC0032285,T047\nC0024109,T023\nC0000002,T047;T046\nC0000003,t060\nC5,\n",
        "T047\tC0032285\nT023\tc0024109\nT047\tC0000002\nT046\tC0000002\nT060\tC0000003\n",
        "semantic,concept\nT047,C0032285\nT023,C0024109\n\"T046,T047\",C0000002\nT060,C0000003\n",
    ],
)  # fmt: skip
def test_tables(write, text: str) -> None:
    types = read_types(write(text))
    assert types.of == OF
    assert types.names == dict.fromkeys(["T047", "T023", "T046", "T060"], "")


def test_names_in_a_table(write) -> None:
    types = read_types(write("CUI,TUI,STY\nC1,T047,Disease or Syndrome\nC2,T047,\n"))
    assert types.names == {"T047": "Disease or Syndrome"}


@pytest.mark.parametrize(
    ("texts", "tuis"),
    [
        (["T047,t023"], ("T047", "T023")),
        (["disease or syndrome", "T060"], ("T047", "T060")),
        (["T060, Body Part, Organ, or Organ Component ,T047,"], ("T060", "T023", "T047")),
        (["T047", "T047,Disease or Syndrome"], ("T047",)),
        ([], ()),
    ],
)
def test_types_are_named_by_tui_or_name(write, texts: list[str], tuis: tuple[str, ...]) -> None:
    assert read_types(write(MRSTY)).parse(texts) == tuis


def test_selection(write) -> None:
    types = read_types(write(MRSTY))
    assert types.only(["T047", "T023"]).of == {
        "C0000002": ("T047",),
        "C0024109": ("T023",),
        "C0032285": ("T047",),
    }
    assert types.by_type(["C0000002", "C0032285", "LOCAL"]) == {
        "T046": {"C0000002"},
        "T047": {"C0000002", "C0032285"},
    }


def test_what_is_wrong_is_said(write) -> None:
    types = read_types(write(MRSTY))
    with pytest.raises(AnnotatorError, match="no semantic type 'Disease of Syndrome'") as error:
        types.parse(["T047,Disease of Syndrome"])
    assert error.value.hint == "Similar: T047 Disease or Syndrome."
    with pytest.raises(AnnotatorError, match="no semantic type 'xxx'") as error:
        types.parse(["xxx"])
    assert error.value.hint.startswith("It has: T047 Disease or Syndrome; T0")
    for text, said in (
        ("CUI,name\nC1,x\n", "no column of CUIs beside one of semantic types"),
        ("CUI,TUI\nC1,T047\nC2,disease\n", "line 3: 'C2' has the semantic type 'DISEASE'"),
        ("CUI,TUI\nC1,T047\nlung,T047\n", "line 3: 'LUNG' has the semantic type 'T047'"),
        ("C1|ENG|P|L1|PF|S1|Y|A1||M|D|MSH|MH|D1|x|0|N|256|\n", "has no semantic types"),
        (MRSTY + "C1|T047|x|\n", "line 6: 3 columns"),
    ):
        with pytest.raises(FormatError, match=said):
            read_types(write(text))
