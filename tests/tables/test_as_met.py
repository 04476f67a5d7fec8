"""Tables of concepts as programs and people write them: read right, or refused with the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotator.errors import FormatError
from annotator.tables.formats import read_concepts

WANTED = {"x_1": ("C0000001", "C0000002"), "x_2": ("C0000003",), "x_10": ("C0000002",)}
CELLS = {id_: ";".join(cuis) for id_, cuis in WANTED.items()}


def table(row: str = "{},{}\n", *, header: str = "ID,CUIs\n") -> str:
    """The table of `WANTED`, each row from its id and its cell of CUIs."""
    return header + "".join(row.format(id_, cell) for id_, cell in CELLS.items())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(table(), id="as it should be"),
        pytest.param("\ufeff" + table().replace("\n", "\r\n"), id="BOM and CRLF"),
        pytest.param(table().replace("\n", "\r"), id="CR alone"),
        pytest.param(table("{}\t{}\n", header="ID\tCUIs\n"), id="tabs"),
        pytest.param(table("{}|{}\n", header="ID|CUIs\n"), id="bars"),
        pytest.param("sep=,\r\n" + table(), id="Excel's word on the separator"),
        pytest.param("# my truth\n" + table(header=""), id="comment"),
        pytest.param(table() + "\n\n,\n,,\n   \n", id="blank rows at the end"),
        pytest.param(table("{},{},,,\n", header="ID,CUIs,,,\n"), id="commas at the end"),
        pytest.param(table(" {} , {} \n", header=" ID , CUIs \n"), id="spaces"),
        pytest.param(table("{}\u00a0,{}\u00a0\n"), id="no-break spaces"),
        pytest.param(table().lower().replace("id,cuis", "ID,CUIs"), id="lower case"),
        pytest.param(table('"{}","{}"\n', header='"ID","CUIs"\n'), id="quoted cells"),
        pytest.param(table(header="Image Index,Finding Labels\n"), id="other words in the header"),
    ],
)
def test_read_as_the_same(tmp_path: Path, content: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode())
    assert read_concepts(path) == WANTED


@pytest.mark.parametrize(
    ("content", "cause", "hint"),
    [
        pytest.param("", "is empty", "one row for each image", id="empty"),
        pytest.param("ID,CUIs\n", "has a header and no rows", "one row", id="header alone"),
        pytest.param(
            table("{};{}\n", header="ID;CUIs\n"), "no column of CUIs", "by a tab, `|` or comma",
            id="semicolons",
        ),
        pytest.param(
            table('"{},{}"\n', header='"ID,CUIs"\n'), "no column of CUIs", "outer quotes",
            id="rows in quotes",
        ),
        pytest.param(
            ",ID,CUIs\n0,x_1,C1\n", "line 1: the row has no image id", "index=False",
            id="index of pandas",
        ),
        pytest.param(
            table('{},"[\'{}\']"\n'), "line 2: \"['C0000001\" is not a CUI", "without brackets",
            id="list of Python",
        ),
        pytest.param(
            table('{},"[""{}""]"\n'), "line 2: '[\"C0000001' is not a CUI", "without brackets",
            id="list of JSON",
        ),
        pytest.param(
            table("{},\u201c{}\u201d\n"), "line 2: '\u201cC0000001' is not", "and quotes",
            id="quotes of Word",
        ),
        pytest.param("ID,CUIs\nx,nan\n", "line 2: 'NAN' is not a CUI", "empty", id="nan"),
        pytest.param("ID,CUIs\nx,N/A\n", "line 2: 'N/A' is not a CUI", "empty", id="N/A"),
        pytest.param(
            "ID,C0000001,C0000002\nx_1,1,0\n", "line 2: '1' is not a CUI", "a column for each",
            id="a column for each CUI",
        ),
        pytest.param(
            "ID,CUI\nx,C1\nx,C2\n", "line 3: the id 'x' is on line 2 already", "joined by `;`",
            id="a row for each CUI",
        ),
        pytest.param("CUIs,ID\nC1;C2,x\n", "'X' is not a CUI", "column 1 has some", id="swapped"),
        pytest.param(
            'ID,Caption,CUIs\nx,"of x, a scan",C1\n', "'OF' is not a CUI", "column 3 has some",
            id="a column between",
        ),
        pytest.param(table().replace("C", ""), "'0000001' is not a CUI", "C and digits", id="no C"),
        pytest.param(table() + "x\0,C1\n", "line 5: a null byte", "UTF-8", id="null byte"),
        pytest.param(table() + '"x,C1\n', "line 5: a quote is opened", "quotes", id="open quote"),
        pytest.param(
            (table() + "\u00e9,C1\n").encode("cp1252"), "line 5: byte 0xe9", "as UTF-8",
            id="Windows-1252",
        ),
        pytest.param(table().encode("utf-16"), "is text in UTF-16", "as UTF-8", id="UTF-16"),
        pytest.param(b"PK\3\4" + bytes(99), "not a readable zip", "workbook as CSV", id="workbook"),
    ],
)  # fmt: skip
def test_refused_with_the_cause(
    tmp_path: Path, content: str | bytes, cause: str, hint: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FormatError) as caught:
        read_concepts(path)
    assert cause in caught.value.message and str(path) in caught.value.message
    assert hint in caught.value.hint
