from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.errors import AnnotatorError, FormatError
from annotator.tables import table as tables
from annotator.tables.formats import (
    Row,
    read_captions,
    read_column,
    read_ids,
    read_rows,
    select_side,
    split_cuis,
)
from annotator.tables.labels import read_labels

WANTED = {"a1": ("C0000001", "C0000002"), "a2": (), "a3": ("C0000003",)}
BODY = "a1{0}C0000001;C0000002\na2{0}\na3{0}C0000003\n"


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BODY.format("\t"), id="2018-2020, 2021 truth"),
        pytest.param("a1\tC0000001,C0000002\na2\t\na3\tC0000003\n", id="2017, comma in the cell"),
        pytest.param("a1\tC0000001 C0000002\na2\t\na3\tC0000003\n", id="space in the cell"),
        pytest.param("image,tags\n" + BODY.format(","), id="2019 course copy"),
        pytest.param(BODY.format("|"), id="2021-2023 run"),
        pytest.param("ID\tcuis\n" + BODY.format("\t"), id="2022, 2023 truth"),
        pytest.param(BODY.format(","), id="2024 run"),
        pytest.param("ImageCLEFmedical 2025 ID,Cuis\n" + BODY.format(","), id="2025 truth"),
        pytest.param("ID,CUIs\n" + BODY.format(","), id="2026 and ROCOv2"),
        pytest.param("picture,labels\n" + BODY.format(","), id="header known by the column below"),
        pytest.param(
            "ID,CUIs,side\na1,C0000001;C0000002,x\na2,,x\na3,C0000003,y\n", id="3 columns"
        ),
        pytest.param(
            "a1\t\tC0000001\tC0000002\na2\t\t\na3\t\tC0000003\n",
            id="ROCO v1, two tabs after the id",
        ),
        pytest.param("\ufeffID,CUIs\r\n" + BODY.format(",").replace("\n", "\r\n"), id="BOM, CRLF"),
        pytest.param("\n\nID,CUIs\n\n" + BODY.format(",") + "\n  \n,\n", id="blank lines"),
        pytest.param(
            '"ID","CUIs"\n"a1","C0000001;C0000002"\n"a2",""\n"a3","C0000003"', id="quoted"
        ),
        pytest.param("a1,c0000001; C0000002;;C0000001\na2\na3, C0000003 \n", id="untidy"),
        pytest.param("# truth, of 2026\n\n#\nID,CUIs\n" + BODY.format(","), id="comments"),
        pytest.param("# no header\r\n" + BODY.format("\t"), id="comment, no header"),
        pytest.param("sep=,\r\n" + BODY.format(","), id="Excel's separator"),
        pytest.param('"sep=\t"\rID\tCUIs\r' + BODY.format("\t"), id="Excel's tab"),
    ],
)
def test_concepts_of_every_format(write, text):
    concepts = read_labels(write(text)).concepts
    assert concepts == WANTED
    assert list(concepts) == list(WANTED)


def test_lines_are_counted_over_what_precedes_the_table(write):
    path = write("# one\r\n\r\nsep=,\r\nID,CUIs\r\na,C1;C3\r\na,C2\r\n")
    with pytest.raises(FormatError, match="line 6: the id 'a' is on line 5 already"):
        read_labels(path)
    assert [record.line for record in tables.read_table(path, preamble=False).rows] == [
        1,
        3,
        4,
        5,
        6,
    ]
    assert read_ids(write("a\n#b\n")) == ["a", "#b"]


@pytest.mark.parametrize(
    "header",
    ["image_path", "Image Index", "dicom_id", "SOPInstanceUID", "PatientID", "img", "cuis"],
)
def test_headers_of_tables_without_cuis(write, header):
    assert read_ids(write(f"{header},side\na,x\n")) == ["a"]
    assert read_ids(write(f"{header}\na\n")) == ["a"]


@pytest.mark.parametrize("id_", ["image1", "covid", "img_1", "index", "key", "scan", "Patient"])
def test_ids_that_look_like_headers(write, id_):
    assert read_ids(write(f"{id_}\na\n")) == [id_, "a"]


def test_rows_keep_the_cell_as_written(write):
    path = write("ID,CUIs\na1, C1 ;C1;\na2,\na3\n\na4,C2\n")
    assert read_rows(path) == [
        Row(2, "a1", " C1 ;C1;"),
        Row(3, "a2", ""),
        Row(4, "a3", None),
        Row(6, "a4", "C2"),
    ]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("x,\ny,C1\n", ["x", "y"]),
        ("x\ny,C1\n", ["x", "y"]),
        ("ID,\ny,C1\n", ["y"]),
        ("x,C1\ny,C2\n", ["x", "y"]),
        ("ID,C1\ny,C2\n", ["ID", "y"]),  # no header holds a CUI
        ("x,CO1\ny,C2\n", ["x", "y"]),  # a slip of the pen (the letter O) is no column name
        ("picture,labels\ny,C2\n", ["y"]),
        ("x,chest\ny,abdomen\n", ["x", "y"]),  # no CUIs below, so no sign of a header
    ],
)
def test_header_is_recognised_by_content(write, text, ids):
    assert [row.id for row in read_rows(write(text))] == ids


def test_lines_are_counted_over_quoted_line_ends(write):
    path = write('ID,Caption\na,"one\ntwo"\n\nb,x\n')
    assert [(row.line, row.cell) for row in read_rows(path)] == [(2, "one\ntwo"), (5, "x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,CUIs\na,C1\nb,C2\na,C3\n", r"table.csv, line 4: the id 'a' is on line 2 already"),
        ("ID,CUIs\na,C1\nb,C2;CO3\n", r"table.csv, line 3: 'CO3' is not a CUI"),
        ("ID,CUIs\na,C1\n,C2\n", r"table.csv, line 3: the row has no image id"),
        ("a C1 C2\nb C3\n", r"has no column of labels"),
        ("", r"is empty"),
        ("\n , \n", r"is empty"),
        ('ID,CUIs\na,C1\nb,"C2\nc,C3\n', r"line 3: a quote is opened and never closed"),
    ],
)
def test_errors_name_file_and_line(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_labels(write(text))


def test_latin_1_is_an_error_with_line_and_byte(write):
    with pytest.raises(FormatError, match=r"line 2: byte 0xe9 at offset 6 is not UTF-8"):
        read_captions(write("ID,C\na,\xe9t\xe9\n".encode("latin-1").replace(b"a,", b"a")))


def test_files_that_are_no_tables(write, tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(FormatError, match="is a folder"):
        read_rows(tmp_path)
    with pytest.raises(FormatError, match="line 3: a null byte, as in a binary file"):
        read_rows(write(b"\x89PNG\r\n\x1a\n\0\0", "image.png"))


@given(st.lists(st.from_regex(r"C[0-9]{1,7}", fullmatch=True), unique=True))
def test_split_cuis_undoes_join(cuis):
    assert split_cuis(";".join(cuis)) == tuple(cuis)
    assert split_cuis(" , ".join(cuis + cuis)) == tuple(cuis)
    assert split_cuis("\t" + "\t;".join(cuis).lower()) == tuple(cuis)


def test_split_cuis_of_nothing():
    assert split_cuis("") == split_cuis(" ;, ") == split_cuis(None) == ()


def test_captions_of_rocov2(write):
    path = write('ID,Caption\na,"He said ""no"", and\nleft."\nb,Plain\n')
    assert read_captions(path) == {"a": 'He said "no", and\nleft.', "b": "Plain"}


@pytest.mark.parametrize(
    "content",
    [
        'ID;Caption\nx;"A, b; c"\ny;Plain, all\n'.encode("utf-8-sig"),
        "ID\tCaption\nx\tA, b; c\ny\tPlain, all\n".encode("utf-16"),
        b"ID,Caption\nx,A, b; c\ny,Plain, all\n",
    ],
)
def test_captions_as_spreadsheets_write_them(write, content):
    assert read_captions(write(content)) == {"x": "A, b; c", "y": "Plain, all"}


def test_captions_of_roco_v1(write):
    text = 'ROCO_1\t Axial CT, with a "mass"\nROCO_2\t"Open quote\nROCO_3\t A | B\n'
    assert read_captions(write(text, "captions.txt")) == {
        "ROCO_1": 'Axial CT, with a "mass"',
        "ROCO_2": '"Open quote',
        "ROCO_3": "A | B",
    }


def test_column(write):
    path = write('ID,split,"Patient, no."\na,train, p1 \nb,test\n')
    assert read_column(str(path)) == {"a": "train", "b": "test"}
    assert read_column(f"{path}:split") == {"a": "train", "b": "test"}
    assert read_column(f"{path}:patient, NO.") == {"a": "p1", "b": ""}
    with pytest.raises(FormatError, match="no column 'side'") as error:
        read_column(f"{path}:side")
    assert error.value.hint == "Its columns are: ID, split, Patient, no.."

    headless = write("scan,side\na,train\nb,test\n")  # by content; a name says that there is one
    assert read_column(f"{headless}:side") == {"a": "train", "b": "test"}
    assert read_column(str(write("ID,split\na,train\n", "x:y.csv"))) == {"a": "train"}


def test_column_errors(write, tmp_path):
    with pytest.raises(FormatError, match="only one column"):
        read_column(str(write("ID\na\nb\n")))
    with pytest.raises(FormatError, match="does not exist"):
        read_column(str(tmp_path / "none.csv"))
    with pytest.raises(FormatError, match="does not exist"):
        read_column(f"{tmp_path / 'none.csv'}:split")


@pytest.mark.parametrize("text", ["b\na\nc\n", "ID\nb\na\nc\n", "ID,CUIs\nb,C1\na,\nc,C2\n"])
def test_ids(write, text):
    assert read_ids(write(text)) == ["b", "a", "c"]


@pytest.mark.parametrize("read", [read_captions, read_ids, lambda path: read_column(str(path))])
def test_repeated_ids_are_an_error(write, read):
    with pytest.raises(FormatError, match="line 3: the id 'b' is on line 1 already"):
        read(write("b,x\na,x\nb,y\n"))


def zip_of(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_zip_with_one_csv(tmp_path):
    members = {"__MACOSX/._submission.csv": "?", "submission.csv": "ID,CUIs\n" + BODY.format(",")}
    assert read_labels(zip_of(tmp_path / "run.zip", members)).concepts == WANTED


def test_zips_that_cannot_be_read(tmp_path, write, monkeypatch):
    with pytest.raises(FormatError, match=r"holds 2 csv files \(found: a.csv, b.csv\)"):
        read_rows(zip_of(tmp_path / "two.zip", {"a.csv": "a", "b.csv": "b"}))
    with pytest.raises(FormatError, match=r"holds 0 csv files \(found: nothing\)"):
        read_rows(zip_of(tmp_path / "none.zip", {}))
    with pytest.raises(FormatError, match="not a readable zip"):
        read_rows(write("a,C1\n", "text.zip"))
    monkeypatch.setattr(tables, "MAX_BYTES", 2**20)
    with pytest.raises(FormatError, match="more than 1 MiB"):
        read_rows(zip_of(tmp_path / "bomb.zip", {"a.csv": " " * 2**21}))


def test_files_of_other_programs_are_named(tmp_path, write):
    with pytest.raises(FormatError, match="is text in UTF-16") as caught:
        read_rows(write("ID,CUIs\n".encode("utf-16")))
    assert "UTF-8" in caught.value.hint
    sheet = {"xl/workbook.xml": "", "[Content_Types].xml": ""}
    with pytest.raises(FormatError, match="is an Excel workbook") as caught:
        read_rows(zip_of(tmp_path / "table.xlsx", sheet))
    assert "CSV" in caught.value.hint
    with pytest.raises(FormatError, match="is an Office document"):
        read_rows(write(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "table.xls"))
    with pytest.raises(FormatError, match="not a readable zip") as caught:
        read_rows(write(b"PK\x03\x04" + bytes(100), "table.csv"))
    assert "Excel" in caught.value.hint


def test_imports_are_light():
    modules = "tables.formats", "tables.run", "evaluation.report", "evaluation.collection_stats"
    heavy = {"torch", "faiss", "PIL", "numpy", "pandas", "matplotlib", "pyarrow"}
    code = "import sys, " + ", ".join(f"annotator.{module}" for module in modules)
    root = Path(tables.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*sys.modules)"],
        cwd=root, capture_output=True, check=True,
    )  # fmt: skip
    assert not heavy & set(done.stdout.decode().split())


def test_one_side_of_a_split(write):
    split = str(write("ID,side\na,train\nb,test\n", "split.csv"))
    assert select_side(["a", "b", "z"], split, "test", []) == {"b"}
    assert select_side(["a", "b"], None, None, []) == {"a", "b"}
    for wrong in ((split, None), (None, "test")):
        with pytest.raises(AnnotatorError, match="belong together"):
            select_side(["a"], *wrong, [])
    with pytest.raises(AnnotatorError, match="no side 'valid'") as caught:
        select_side(["a"], split, "valid", [])
    assert "test, train" in caught.value.hint


def test_a_side_by_a_pattern_of_ids(write):
    ids = ["clef_train_1", "clef_train_20", "clef_test_3"]
    assert select_side(ids, None, "id:*_train_*", []) == {"clef_train_1", "clef_train_20"}
    assert select_side(ids, None, "id:*_[0-9]", []) == {"clef_train_1", "clef_test_3"}
    with pytest.raises(AnnotatorError, match=r"None of the 3 ids matches '\*_TEST_\*'") as caught:
        select_side(ids, None, "id:*_TEST_*", [])
    assert "such as 'clef_test_3'" in caught.value.hint
    with pytest.raises(AnnotatorError, match="by the ids alone"):
        select_side(ids, str(write("clef_test_3,test\n")), "id:*", [])
