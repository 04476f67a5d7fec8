"""Labels in Excel workbooks and Parquet files."""

from __future__ import annotations

import builtins
import datetime
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import FormatError
from annotator.tables.formats import read_column, read_ids
from annotator.tables.labels import read_labels

openpyxl = pytest.importorskip("openpyxl")

Write = Callable[..., Path]
ONE_HOT = [["ID", "Mass", "Chest X-ray"], ["a", 1, 0], ["b", 1, 1], ["c", 0, None]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*sheets: Sequence[Sequence[Any]], name: str = "labels.xlsx") -> Path:
        book = openpyxl.Workbook()
        book.remove(book.active)
        for rows in sheets:
            sheet = book.create_sheet()
            for row in rows:
                sheet.append(row)
        book.save(tmp_path / name)
        return tmp_path / name

    return write


def test_a_column_for_each_label(write: Write) -> None:
    labels = read_labels(write(ONE_HOT, name="labels.dat"))  # recognised by its content
    assert labels.concepts == {"a": ("MASS",), "b": ("MASS", "CHEST_X-RAY"), "c": ()}
    assert labels.names == {"MASS": "Mass", "CHEST_X-RAY": "Chest X-ray"}
    assert labels.understood.endswith(
        "labels.dat: 3 images, 2 labels in words, a column for each label (1, 0)"
    )


@pytest.mark.parametrize("cells", [(True, False), (1.0, 0.0), ("x", None), ("yes", "no")])
def test_yes_and_no(write: Write, cells: tuple[object, object]) -> None:
    yes, no = cells
    path = write([["ID", "Mass", "Cyst"], ["a", yes, no], ["b", no, yes]])
    assert read_labels(path).concepts == {"a": ("MASS",), "b": ("CYST",)}


def test_lists_under_a_title_in_the_first_of_several_sheets(write: Write) -> None:
    path = write(
        [["Our labels, 2026"], [], [None, "Image", "Finding"], [None, "a.dcm", "mass; C0000001"],
         [None, "b.dcm", None]],
        [["nothing"]],
    )  # fmt: skip
    labels = read_labels(path)
    assert labels.concepts == {"a.dcm": ("MASS", "C0000001"), "b.dcm": ()}
    assert "sheet 'Sheet', the first of 2" in labels.understood
    assert "the title 'Our labels, 2026' is left out" in labels.understood


def test_numbers_are_ids_as_they_are_shown(write: Write) -> None:
    path = write([["ID", "CUIs"], [7, "C1"], [8.0, "C2"], [9, "C3"]])
    book = openpyxl.load_workbook(path)
    book.active["A4"].number_format = "0000"
    book.save(path)
    assert list(read_labels(path).concepts) == ["7", "8", "0009"]
    assert read_ids(path) == ["7", "8", "0009"]
    assert read_column(f"{path}:cuis") == {"7": "C1", "8": "C2", "0009": "C3"}


@pytest.mark.parametrize(
    ("id_", "cause"),
    [
        (datetime.datetime(2026, 3, 1), "row 3: '2026-03-01 00:00:00' is a date to Excel"),
        (1234567890123456789, "row 3: .* is a number of more digits than Excel keeps"),
        ("=CONCATENATE(1,2)", "row 3: '' is a formula that was never calculated"),
        ("#REF!", "row 3: '#REF!' is an error of Excel"),
        (1.5, None),
        (None, "row 3: the row has no image id"),
    ],
)
def test_ids_that_excel_has_changed(write: Write, id_: object, cause: str | None) -> None:
    path = write([["ID", "CUIs", "Date"], ["a", "C1", datetime.date(2026, 1, 1)], [id_, "C2", ""]])
    if cause is None:
        assert list(read_labels(path).concepts) == ["a", "1.5"]
        return
    with pytest.raises(FormatError, match=cause):
        read_labels(path)


def test_the_values_of_formulas(write: Write) -> None:
    """As Excel saves them: the formula, and what it gave."""
    path = write([["ID", "CUIs"], ["a", "C1"], ["b", 2]])
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                cell = b'<c r="B3" t="str"><f>"C"&amp;2</f><v>C2</v></c>'
                assert b'<c r="B3" t="n"><v>2</v></c>' in data
                data = data.replace(b'<c r="B3" t="n"><v>2</v></c>', cell)
            new.writestr(name, data)
    path.write_bytes(changed.getvalue())
    assert read_labels(path).concepts == {"a": ("C1",), "b": ("C2",)}


def test_workbooks_that_cannot_be_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="is empty: nothing is in its first sheet, 'Sheet'"):
        read_labels(write([], ONE_HOT))
    damaged = write(ONE_HOT)
    with zipfile.ZipFile(damaged, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("xl/workbook.xml", "<workbook>")
    with pytest.raises(FormatError, match="not a readable Excel workbook") as caught:
        read_labels(damaged)
    assert "CSV UTF-8" in caught.value.hint
    monkeypatch.setattr("annotator.tables.workbook.MAX_CELLS", 5)
    with pytest.raises(FormatError, match="more than 5 cells"):
        read_labels(write(ONE_HOT))
    monkeypatch.setattr("annotator.tables.workbook.MAX_BYTES", 100)
    with pytest.raises(FormatError, match="MiB when unpacked"):
        read_labels(write(ONE_HOT))


def test_without_openpyxl(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(ONE_HOT)
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(FormatError, match="takes openpyxl") as caught:
        read_labels(path)
    assert "[excel]" in caught.value.hint


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"xl/workbook.bin": b""}, "xlsb"),
        ({"mimetype": b"", "content.xml": b""}, "OpenDocument spreadsheet"),
        ({"Index/Document.iwa": b""}, "Numbers spreadsheet"),
        ({"word/document.xml": b""}, "0 csv files"),
    ],
)
def test_spreadsheets_of_other_kinds(tmp_path: Path, members: dict[str, bytes], kind: str) -> None:
    path = tmp_path / "labels"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(FormatError, match=kind):
        read_labels(path)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "labels.parquet"
    columns = {
        "image_id": ["a", "b", "c"],
        "labels": [["Mass", "Effusion, left"], [], None],
        "image": [{"bytes": b"x", "path": "x"}] * 3,
    }
    parquet.write_table(pyarrow.table(columns), path)
    labels = read_labels(path)
    assert labels.concepts == {"a": ("MASS", "EFFUSION%2C_LEFT"), "b": (), "c": ()}
    assert "in lists, in column labels" in labels.understood
    flags = {"id": [1.0, 2.0], "Mass": [True, False], "Cyst": [False, True]}
    parquet.write_table(pyarrow.table(flags), path)
    assert read_labels(path).concepts == {"1": ("MASS",), "2": ("CYST",)}
    path.write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(FormatError, match="not a readable Parquet file"):
        read_labels(path)
