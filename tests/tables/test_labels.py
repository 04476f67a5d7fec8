"""Tables of labels as programs and people write them: read right, or refused with the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotator.errors import FormatError
from annotator.tables.labels import read_labels

WANTED = {"x_1": ("C0000001", "C0000002"), "x_2": ("C0000003",), "x_10": ("C0000002",)}
CELLS = {id_: ";".join(cuis) for id_, cuis in WANTED.items()}
WORDS = {"x_1": ("MASS", "CHEST_X-RAY"), "x_2": ("MASS",), "x_10": ("CHEST_X-RAY",), "x_11": ()}


def table(row: str = "{},{}\n", *, header: str = "ID,CUIs\n") -> str:
    """The table of `WANTED`, each row from its id and its cell of CUIs."""
    return header + "".join(row.format(id_, cell) for id_, cell in CELLS.items())


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(table(), id="as it should be"),
        pytest.param("\ufeff" + table().replace("\n", "\r\n"), id="BOM and CRLF"),
        pytest.param(table().replace("\n", "\r"), id="CR alone"),
        pytest.param(table("{}\t{}\n", header="ID\tCUIs\n"), id="tabs"),
        pytest.param(table("{}|{}\n", header="ID|CUIs\n"), id="bars"),
        pytest.param(table('{};"{}"\n', header="ID;CUIs\n"), id="semicolons"),
        pytest.param(table("{};{}\n", header="ID;CUIs\n"), id="semicolons without quotes"),
        pytest.param(table("{}\t{}\n", header="ID\tCUIs\n").encode("utf-16"), id="UTF-16"),
        pytest.param(
            b"\xfe\xff" + table("{}\t{}\n", header="ID\tCUIs\n").encode("utf-16-be"),
            id="UTF-16, big endian",
        ),
        pytest.param("sep=,\r\n" + table(), id="Excel's word on the separator"),
        pytest.param('sep=;\r\n' + table('{};"{}"\n', header="ID;CUIs\n"), id="on the semicolon"),
        pytest.param("# my truth\n" + table(header=""), id="comment"),
        pytest.param(table() + "\n\n,\n,,\n   \n", id="blank rows at the end"),
        pytest.param(table("{},{},,,\n", header="ID,CUIs,,,\n"), id="commas at the end"),
        pytest.param(table(" {} , {} \n", header=" ID , CUIs \n"), id="spaces"),
        pytest.param(table("{}\u00a0,{}\u00a0\n"), id="no-break spaces"),
        pytest.param(table("\u200b{},{}\n"), id="zero-width spaces"),
        pytest.param(table().lower().replace("id,cuis", "ID,CUIs"), id="lower case"),
        pytest.param(table('"{}","{}"\n', header='"ID","CUIs"\n'), id="quoted cells"),
        pytest.param(table('"{},{}"\n', header='"ID,CUIs"\n'), id="rows in quotes"),
        pytest.param(table(header="Image Index,Finding Labels\n"), id="other words in the header"),
        pytest.param(table(header="picture,what it shows\n"), id="a header by the column below"),
        pytest.param(table(header=""), id="no header"),
        pytest.param(table().replace("x_10,", "ID,CUIs\nx_10,"), id="two files joined"),
        pytest.param(table("'{}','{}'\n", header="'ID','CUIs'\n"), id="single quotes"),
        pytest.param(table("{},7,{}\n", header="ID,Age,CUIs\n"), id="a column between"),
        pytest.param(
            table('{},"of x, a scan",{}\n', header="ID,Caption,CUIs\n"), id="a caption between"
        ),
        pytest.param(
            "CUIs,ID\n" + "".join(f"{cell},{id_}\n" for id_, cell in CELLS.items()), id="swapped"
        ),
        pytest.param(
            ",ID,CUIs\n" + "".join(f"{i},{id_},{c}\n" for i, (id_, c) in enumerate(CELLS.items())),
            id="index of pandas",
        ),
        pytest.param(
            "ID,CUIs\n" + "".join(f'{id_},"{list(c)}"\n' for id_, c in WANTED.items()),
            id="list of Python",
        ),
        pytest.param(table('{},"[""{}""]"\n').replace(";", '"", ""'), id="list of JSON"),
        pytest.param(table("{},['{}']\n").replace(";", "' '"), id="array of NumPy"),
        pytest.param(table("{},[{}]\n"), id="list without quotes"),
        pytest.param(table("{},\u201c{}\u201d\n"), id="quotes of Word"),
        pytest.param(table('{},"{}"\n').replace(";", "\n"), id="line breaks in cells"),
        pytest.param(
            "ID,CUI\n" + "".join(f"{id_},{c}\n" for id_, cuis in WANTED.items() for c in cuis),
            id="a row for each CUI",
        ),
        pytest.param(
            "ID,C0000001,C0000002,C0000003\nx_1,1,1,0\nx_2,0,0,1\nx_10,0,1,0\n",
            id="a column for each CUI",
        ),
        pytest.param(
            "C0000003,C0000001,C0000002,image\n0,1,1,x_1\n1,0,0,x_2\n0,0,1,x_10\n",
            id="and the id in the last",
        ),
        pytest.param(
            "x_1\t\tC0000001\tC0000002\nx_2\t\tC0000003\nx_10\t\tC0000002\n", id="ROCO v1"
        ),
    ],
)  # fmt: skip
def test_read_as_the_same(write, content: str | bytes) -> None:  # type: ignore[no-untyped-def]
    labels = read_labels(write(content))
    assert labels.concepts == WANTED
    assert list(labels.concepts) == list(WANTED)
    assert labels.names == {}
    assert ": 3 images, 3 labels, " in labels.understood and "\n" not in labels.understood


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ID,Labels\nx_1,Mass;Chest X-ray\nx_2,mass\nx_10,chest  x-ray\nx_11,\n", "by ';', in col"),
        ("x_1,Mass|Chest X-ray\nx_2,Mass\nx_10,Chest X-ray\nx_11,\n", "separated by '|'"),
        ("x_1,Mass\uff1bChest X-ray\nx_2,Mass\nx_10,Chest X-ray\nx_11,\n", "separated by '\uff1b'"),
        ('x_1;"Mass, Chest X-ray"\nx_2;Mass\nx_10;Chest X-ray\nx_11;\n', "separated by ','"),
        ("ID,Labels\nx_1,Mass,Chest X-ray\nx_2,Mass\nx_10,Chest X-ray\nx_11,\n", "by ','"),
        ("file,tag\nx_1,Mass\nx_1,Chest X-ray\nx_2,Mass\nx_10,Chest X-ray\nx_11,\n", "one row a"),
        ("ID,Mass,Chest X-ray\nx_1,1,1\nx_2,1,0\nx_10,0,1\nx_11,0,0\n", "(1, 0)"),
        ("Mass,Chest X-ray,ID\n1.0,1.0,x_1\n1.0,,x_2\n0.0,1.0,x_10\n,0.0,x_11\n", "(1.0, 0.0)"),
        ("scan\tMass\tChest X-ray\nx_1\tx\tX\nx_2\tx\nx_10\t\tx\nx_11\n", "(x)"),
        ("ID;Mass;Chest X-ray\nx_1;yes;yes\nx_2;yes;no\nx_10;no;yes\nx_11;no;no\n", "(yes, no)"),
        ("ID;Mass;Chest X-ray\nx_1;WAHR;WAHR\nx_2;WAHR;FALSCH\nx_10;-;WAHR\nx_11;-;-\n", "(wahr"),
        (",Mass,Chest X-ray\nx_1,True,True\nx_2,True,False\nx_10,False,True\nx_11,False,False\n",
         "a column for each label (true, false)"),
    ],
)  # fmt: skip
def test_words_in_every_layout(write, content: str, said: str) -> None:  # type: ignore[no-untyped-def]
    labels = read_labels(write(content))
    assert labels.concepts == WORDS
    assert labels.names == {"MASS": "Mass", "CHEST_X-RAY": "Chest X-ray"}
    assert ": 4 images, 2 labels in words, " in labels.understood
    assert said in labels.understood


def test_cuis_and_words_together(write) -> None:  # type: ignore[no-untyped-def]
    labels = read_labels(write('ID,Labels\nx_1,"c0000001 C0000002; Effusion, left"\nx_2,HER2+\n'))
    assert labels.concepts == {"x_1": ("C0000001", "C0000002", "EFFUSION%2C_LEFT"),
                               "x_2": ("HER2+",)}  # fmt: skip
    assert labels.names == {"EFFUSION%2C_LEFT": "Effusion, left", "HER2+": "HER2+"}
    assert "4 labels (2 of them in words), separated by ';', in column Labels" in labels.understood


def test_words_as_they_are_mapped(write) -> None:  # type: ignore[no-untyped-def]
    path = write("ID,Labels\nx_1,Mass;chest x-ray;cyst\nx_2,tumour\n")
    mapping = {"MASS": ("C1", "C2"), "CHEST_X-RAY": ("C2",), "CYST": (), "OTHER": ("C9",)}
    labels = read_labels(path, mapping=mapping)
    assert labels.concepts == {"x_1": ("C1", "C2", "CYST"), "x_2": ("TUMOUR",)}
    assert labels.names == {"CYST": "cyst", "TUMOUR": "tumour"}
    assert labels.understood.endswith("; 2 labels by their mapping")


def test_nothing_is_said_in_many_words(write) -> None:  # type: ignore[no-untyped-def]
    empty = ["nan", "N/A", "None", "-", "[]", ""]
    rows = "".join(f"x_{i},{cell}\n" for i, cell in enumerate(empty))
    labels = read_labels(write(f"ID,Labels\n{rows}y,C1\n"))
    assert labels.concepts == {f"x_{i}": () for i in range(6)} | {"y": ("C1",)}
    assert "5 cells such as 'nan', 'N/A' read as no label" in labels.understood


def test_uncertain_cells_are_said(write) -> None:  # type: ignore[no-untyped-def]
    chexpert = (
        "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema\n"
        "CheXpert/train/p1/view1.jpg,Female,68,Frontal,AP,1.0,\n"
        "CheXpert/train/p2/view1.jpg,Male,41,Lateral,,,-1.0\n"
        "CheXpert/train/p2/view2.jpg,Male,41,Frontal,PA,0.0,1.0\n"
    )
    labels = read_labels(write(chexpert))
    assert list(labels.concepts.values()) == [("NO_FINDING",), (), ("EDEMA",)]
    assert "1 uncertain cells (-1.0) read as no" in labels.understood
    assert "not read: Sex, Age, Frontal/Lateral, AP/PA" in labels.understood
    never_sure = read_labels(write("ID,Mass,Cyst\na,1,-1\nb,0,u\n"))
    assert never_sure.concepts == {"a": ("MASS",), "b": ()}
    assert "2 uncertain cells (-1, u) read as no" in never_sure.understood


def test_columns_of_well_known_tables(write) -> None:  # type: ignore[no-untyped-def]
    nih = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
        "\n00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA\n00000002_000.png,No Finding,0,2,80"
        ",M,PA\n"
    )
    labels = read_labels(write(nih))
    assert labels.concepts == {"00000001_000.png": ("CARDIOMEGALY", "EMPHYSEMA"),
                               "00000002_000.png": ("NO_FINDING",)}  # fmt: skip
    mimic = "subject_id,study_id,dicom_id,Atelectasis,Edema\n1,5,a-b,1.0,\n1,6,c-d,,1.0\n"
    assert read_labels(write(mimic)).concepts == {"a-b": ("ATELECTASIS",), "c-d": ("EDEMA",)}
    vindr = "image_id,class_name,class_id,x_min\nq1,Mass,3,10\nq1,Mass,3,70\nq2,No finding,14,\n"
    assert read_labels(write(vindr)).concepts == {"q1": ("MASS",), "q2": ("NO_FINDING",)}


def test_the_column_that_is_named(write) -> None:  # type: ignore[no-untyped-def]
    path = write("ID,kind,organ\nx_1,scan,lung\nx_2,scan,liver\n")
    with pytest.raises(FormatError, match="several columns that may be of labels: 'kind', 'organ'"):
        read_labels(path)
    assert read_labels(path, column="Organ").concepts == {"x_1": ("LUNG",), "x_2": ("LIVER",)}
    both = read_labels(path, column=["kind", "organ"])
    assert both.concepts == {"x_1": ("SCAN", "LUNG"), "x_2": ("SCAN", "LIVER")}
    assert "in columns kind, organ" in both.understood
    with pytest.raises(FormatError, match="no column 'Finding'") as caught:
        read_labels(path, column="Finding")
    assert "Its columns: ID, kind, organ." in caught.value.hint
    headless = write("a,b\nx_1,mass\n")  # a name says that there is a header
    assert read_labels(headless, column="b").concepts == {"x_1": ("MASS",)}


def test_a_repeated_id_is_a_mistake_or_a_row_for_each_label(write) -> None:  # type: ignore[no-untyped-def]
    rows = "".join(f"x_{i},C{i % 3}\n" for i in range(20))
    for header, more in (
        ("ID,CUIs", "x_3,C9\n"),  # one image twice in a file of images
        ("ID,CUIs", "x_3,C0\n"),
        ("ID,CUI", "x_3,C0\n"),  # the same row twice
        ("ID,CUI", "x_3,C4;C5\n"),  # a list
        ("ID,CUI", "x_3,\n"),
    ):
        with pytest.raises(FormatError, match="line 22: the id 'x_3' is on line 5 already"):
            read_labels(write(f"{header}\n{rows}{more}"))
    labels = read_labels(write(f"ID,CUI\n{rows}x_3,C9\n"))
    assert labels.concepts["x_3"] == ("C0", "C9") and "one row a label" in labels.understood
    often = "".join(f"x_{i},C{j}\n" for j in range(3) for i in range(9))
    assert read_labels(write(f"ID,CUIs\n{often}")).concepts["x_8"] == ("C0", "C1", "C2")
    with pytest.raises(FormatError, match="yes and no in the column 'present'") as caught:
        read_labels(write("ID,finding,present\nx,mass,1\nx,cyst,0\ny,mass,0\ny,cyst,1\n"))
    assert "Keep the rows of labels that are there" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "cause", "hint"),
    [
        pytest.param("", "is empty", "one row for each image", id="empty"),
        pytest.param("ID,CUIs\n", "has a header and no rows", "one row", id="header alone"),
        pytest.param("x_1\nx_2\n", "no column of labels", "Separate id and labels", id="ids alone"),
        pytest.param("ID\nx_1\n", "no column of", "--label-column", id="ids under a header"),
        pytest.param("ID,Labels\nx,\ny,nan\n", "no column of labels", "", id="no label at all"),
        pytest.param("foo,bar\nabc,dog\nxyz,cat\n", "a header or an image?", "--label-column",
                     id="a header, or not"),
        pytest.param("My table,,\n\nID,CUIs\nx,C1\n", "a header or an image?", "Give a header",
                     id="title"),
        pytest.param("ID,CUIs\nx_1,C1\n,C2\n", "line 3: the row has no image id", "every row",
                     id="no id"),
        pytest.param("x_1,1,0\nx_2,0,1\n", "3 columns and no header", "header",
                     id="yes and no without names"),
        pytest.param("C1;C2,x_1\nC1;C3,x_2\n", "CUIs in its first column", "header", id="swapped"),
        pytest.param("ID,Caption,CUIs\nx,of x, a scan,C1\n", "line 2: 4 cells under 3", "quotes",
                     id="a comma without quotes"),
        pytest.param("ID,Caption\nx,a scan\ny,a bone\n", "no column that is one of labels",
                     "--label-column", id="captions"),
        pytest.param("ID,Labels\nx," + "a long story " * 9 + "\n", "line 2: .* is a text", "match",
                     id="texts"),
        pytest.param("ID,Finding\nx,There is a mass.\n", "line 2: .* is a text", "match",
                     id="sentences"),
        pytest.param("ID,split\nx,train\ny,test\n", "no column that is one of labels",
                     "--label-column", id="a split"),
        pytest.param("CUI,Name\nC1,Chest\nC2,Lung\n", "table of names", "--names", id="names"),
        pytest.param("ID,label\nx,0\ny,1\n", "yes and no, or 1 and 0, in its column 'label'",
                     "Call the column", id="a label of 0 and 1"),
        pytest.param("ID,label\nx,0\ny,3\n", "'0' is a number", "in words", id="numbers"),
        pytest.param("id_code,diagnosis\nab1,2\ncd2,4\n", "'2' is a number", "in words",
                     id="numbers beside ids of an unusual name"),
        pytest.param("ID,Mass,Cyst\nx,1,0\ny,0,2\nz,0,1\nu,0,1\n", "line 3: '2' in the column",
                     "Write 1", id="a count among yes and no"),
        pytest.param("ID,Mass,mass\nx,1,0\ny,0,1\n", "several columns of the label 'MASS'",
                     "Keep one", id="a label twice"),
        pytest.param("ID,Mass,Cyst\nx,0.2,0.7\ny,0.9,0.1\n", "no column that is", "--label-column",
                     id="probabilities"),
        pytest.param(table().replace("C", "").replace("UIs", "CUIs"), "'0000001' is a number",
                     "C and digits", id="no C"),
        pytest.param("ID,CUIs\nx,C1\ny,C2;CO3\n", "line 3: 'CO3' is not a CUI", "letter O",
                     id="a slip of the pen"),
        pytest.param("ID,CUIs\nx,C0000001 (Chest)\n", "holds a CUI and something else", "or",
                     id="a CUI and its name"),
        pytest.param("ID,Labels\nx,{'a': 1}\n", "line 2: .*: it begins like a list", "Join",
                     id="a dictionary"),
        pytest.param("ID,Labels\nx,a;b\ny,a\nz,b\nu,\"a,b\"\n", "line 5: 'a,b' holds ','",
                     "one separator", id="two separators"),
        pytest.param("ID,Labels\nx_1,mass\nx_2;mass,cyst\n", "'x_2;mass', an id, holds a separator",
                     "alike", id="rows of two kinds"),
        pytest.param(table("{}.0,{}\n").replace("x_", ""), "'1.0' is a number that a program",
                     "as text", id="ids as decimals"),
        pytest.param("ID,CUIs\n1.2E+10,C1\n", "is a number that a program", "as text",
                     id="ids as Excel writes large numbers"),
        pytest.param(table() + "x\0,C1\n", "line 5: a null byte", "UTF-8", id="null byte"),
        pytest.param(table() + '"x,C1\n', "line 5: a quote is opened", "quotes", id="open quote"),
        pytest.param(
            (table() + "\u00e9,C1\n").encode("cp1252"), "line 5: byte 0xe9", "as UTF-8",
            id="Windows-1252",
        ),
        pytest.param(table().encode("utf-32"), "UTF-16", "as UTF-8", id="UTF-32"),
        pytest.param(b"PK\3\4" + bytes(99), "not a readable zip", "workbook as CSV", id="no zip"),
        pytest.param(b"\xd0\xcf\x11\xe0" + bytes(99), "old Excel workbook", ".xlsx", id="xls"),
        pytest.param('{"x": ["C1"]}', "is JSON", "as CSV", id="JSON"),
        pytest.param("<html><table><tr>", "is HTML", ".xlsx", id="HTML"),
        pytest.param(b"\x1f\x8b" + bytes(9), "is compressed", "Unpack", id="gzip"),
    ],
)  # fmt: skip
def test_refused_with_the_cause(write, content: str | bytes, cause: str, hint: str) -> None:  # type: ignore[no-untyped-def]
    path = write(content)
    with pytest.raises(FormatError, match=cause) as caught:
        read_labels(path)
    assert str(path) in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "cell", ["['a'" + " " * 100_000 + "x", "C" + "0" * 100_000 + "x", "(" * 9999]
)
def test_hostile_cells_take_no_time(write, cell: str) -> None:  # type: ignore[no-untyped-def]
    """Patterns that backtrack would take hours."""
    with pytest.raises(FormatError):
        read_labels(write(f'ID,Labels\nx_1,"{cell}"\n'))


def test_ids_that_are_file_names_stay_as_they_are(write) -> None:  # type: ignore[no-untyped-def]
    for form in ("{}.png", "{}.JPG", "images/{}.png", "C:\\data\\{}.dcm"):
        rows = "".join(f"{form.format(id_)},{cell}\n" for id_, cell in CELLS.items())
        concepts = read_labels(write(f"ID,CUIs\n{rows}")).concepts
        assert concepts == {form.format(id_): cuis for id_, cuis in WANTED.items()}
