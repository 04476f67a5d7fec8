from __future__ import annotations

import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.errors import FormatError
from annotator.tables.formats import read_ids, read_rows
from annotator.tables.labels import read_labels
from annotator.tables.run import (
    FORMATS,
    Problem,
    id_fault,
    local_ids_note,
    recognise_year,
    render_run,
    validate_run,
    zip_run,
)

ROWS = [("a", ["C1", "C2"]), ("b", []), ("c", ["C3"])]
IDS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("year", "text"),
    [
        ("2019", "a\tC1;C2\nb\t\nc\tC3\n"),
        ("2021", "a|C1;C2\nb|\nc|C3\n"),
        ("2024", "a,C1;C2\nb,\nc,C3\n"),
        ("2025", "ID,CUIs\na,C1;C2\nb,\nc,C3\n"),
        ("2026", "ID,CUIs\na,C1;C2\nb,\nc,C3\n"),
    ],
)
def test_render(year, text):
    assert render_run(ROWS, year) == text


ids = st.text(st.sampled_from("abXYZ019._- é"), min_size=1, max_size=8).map(
    lambda text: f"i{text}".strip()  # the letter keeps it from being a header word such as `ID`
)
cuis = st.lists(st.from_regex(r"C[0-9]{7}", fullmatch=True), unique=True, max_size=5)


@pytest.mark.parametrize("year", FORMATS)
@settings(deadline=None)
@given(rows=st.dictionaries(ids, cuis, min_size=1, max_size=8))
def test_what_is_written_is_read_back(tmp_path_factory, year, rows):
    path = tmp_path_factory.mktemp("run") / "run.csv"
    text = render_run(rows.items(), year)
    path.write_text(text, encoding="utf-8", newline="")
    assert {
        row.id: list(filter(None, (row.cell or "").split(";"))) for row in read_rows(path)
    } == rows
    assert read_ids(path) == list(rows)
    assert validate_run(path, list(rows), year) == []
    zip_run(text, path.with_suffix(".zip"))
    assert validate_run(path.with_suffix(".zip"), list(rows), year) == []
    recognised = recognise_year(path, list(rows))
    assert FORMATS[recognised] == FORMATS[year]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("", [])], "is empty"),
        ([("a,b", [])], "comma"),
        ([("a|b", [])], "comma"),
        ([("a\tb", [])], "tab"),
        ([('a"b', [])], "quote"),
        ([(" a", [])], "outer white space"),
        ([("a\n", [])], "outer white space"),
        ([("a\nb", [])], "line end"),
        ([("a/b/", [])], "is a folder's"),
        ([("\ufeffa", [])], "unprintable"),
        ([("a", []), ("a", [])], "'a' is repeated"),
        ([("a", ["c1"])], "'c1' is not a concept id"),
        ([("a", ["C1\n"])], "is not a concept id"),
        ([("a", ["CHEST X-RAY"])], "is not a concept id"),
        ([("a", ["A,B"])], "is not a concept id"),
        ([("a", ["C1", "C1"])], "has a CUI twice"),
        ([("a", [f"C{i}" for i in range(101)])], "has 101 CUIs"),
    ],
)
def test_render_refuses(rows, message):
    with pytest.raises(FormatError, match=message):
        render_run(rows, "2019")


def test_render_names_the_years_that_there_are():
    with pytest.raises(FormatError, match="2018") as error:
        render_run(ROWS, "2018")
    assert "2019, 2021" in error.value.hint


def test_zip_is_deterministic(tmp_path):
    text = render_run(ROWS, "2025")
    target = tmp_path / "run.zip"
    assert zip_run(text, target) == zip_run(text) == target.read_bytes()
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["submission.csv"]
    assert read_labels(target).concepts == {"a": ("C1", "C2"), "b": (), "c": ("C3",)}


def check(tmp_path, content: str | bytes, ids=IDS, year: str = "2026") -> list[tuple[int, str]]:
    path = tmp_path / "run.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(problem.line, problem.message) for problem in validate_run(path, ids, year)]


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        pytest.param("ID,CUIs\na,C1\n\nb,\nc,\n", 3, "the line is blank", id="blank"),
        pytest.param("ID,CUIs\na,C1\nb,\nc,\n \t\n", 5, "the line is blank", id="white line"),
        pytest.param("id,CUIs\na,\nb,\nc,\n", 1, "the header `ID,CUIs` is wanted", id="header"),
        pytest.param("ID,CUIs \na,\nb,\nc,\n", 1, "the header `ID,CUIs` is wanted", id="header 2"),
        pytest.param("ID,CUIs,\na,\nb,\nc,\n", 1, "the header `ID,CUIs` is wanted", id="header 3"),
        pytest.param("a,\nb,\nc,\n", 1, "the header `ID,CUIs` is wanted", id="no header"),
        pytest.param("ID,CUIs\na,C1,C2\nb,\nc,\n", 2, "3 columns where 2", id="three columns"),
        pytest.param("ID,CUIs\na,\nb\nc,\n", 3, "1 columns where 2", id="id alone"),
        pytest.param("ID,CUIs\na, C1\nb,\nc,\n", 2, "white space", id="space before CUIs"),
        pytest.param("ID,CUIs\na,\nb ,\nc,\n", 3, "white space", id="space after id"),
        pytest.param("ID,CUIs\na,\nb,\nc,\nb,\n", 5, "'b' is on line 3 already", id="repeated id"),
        pytest.param("ID,CUIs\na,\nb,\nc,\nd,\n", 5, "'d' is not in the ground", id="unknown id"),
        pytest.param("ID,CUIs\na,\nb,C1;\nc,\n", 3, "an empty part", id="trailing semicolon"),
        pytest.param("ID,CUIs\na,c1\nb,\nc,\n", 2, "'c1' is not a CUI", id="lower case"),
        pytest.param("ID,CUIs\na,C1 C2\nb,\nc,\n", 2, "'C1 C2' is not a CUI", id="space between"),
        pytest.param("ID,CUIs\na,C1; C1\nb,\nc,\n", 2, "'C1' is there 2 times", id="repeated CUI"),
        pytest.param(
            "ID,CUIs\nb,\na,\nc,\n",
            2,
            "'b' stands where the ground truth has 'a' (2 rows",
            id="order",
        ),
        pytest.param("ID,CUIs\na,\nc,\n", 0, "1 images are missing: b", id="missing"),
        pytest.param('ID,CUIs\na,\nb,"\nc,\n', 3, "a quote is opened", id="open quote"),
        pytest.param(b"ID,CUIs\na,\nb\xe9,\nc,\n", 3, "byte 0xe9", id="latin-1"),
        pytest.param("\ufeffID,CUIs\na,\nb,\nc,\n", 1, "byte order mark", id="BOM"),
        pytest.param(
            "ID,CUIs\na," + ";".join(f"C{i}" for i in range(101)) + "\nb,\nc,\n",
            2,
            "101 CUIs where 100",
            id="too many",
        ),
    ],
)
def test_one_problem_is_found_alone(tmp_path, body, line, message):
    [(found_line, found)] = check(tmp_path, body)
    assert found_line == line
    assert message in found


@pytest.mark.parametrize(
    "body",
    [
        "ID,CUIs\na,C1;C2\nb,\nc,C3\n",
        "ID,CUIs\r\na,C1;C2\r\nb,\r\nc,C3\r\n",
        '"ID","CUIs"\n"a","C1; C2"\nb,""\nc,C3',
        "ID,CUIs\na," + ";".join(f"C{i}" for i in range(100)) + "\nb,\nc,\n",
    ],
)
def test_valid_runs(tmp_path, body):
    assert check(tmp_path, body) == []


def test_all_problems_come_in_the_order_of_lines(tmp_path):
    found = check(tmp_path, "ID,CUIs\nc,C1;C1\n\nx,CO2\na, C3\n")
    assert [line for line, _ in found] == [2, 2, 3, 4, 4, 5, 0]
    assert found[-1][1] == "1 images are missing: b"


def test_a_missing_image_does_not_put_the_later_ones_out_of_place(tmp_path):
    ids = [f"x{i}" for i in range(10)]
    body = "ID,CUIs\n" + "".join(f"{i},\n" for i in ids[1:])
    assert check(tmp_path, body, ids) == [(0, "1 images are missing: x0")]


def test_missing_images_have_examples(tmp_path):
    assert check(tmp_path, "ID,CUIs\n", list("abcde")) == [
        (0, "5 images are missing: a, b, c, ...")
    ]


def test_an_empty_file_has_no_header(tmp_path):
    assert check(tmp_path, "", []) == [(1, "the header `ID,CUIs` is wanted here")]


def test_a_zip_with_another_name_inside(tmp_path):
    path = tmp_path / "run.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/run.csv", render_run([("a", ["c1".upper()])], "2026"))
    assert validate_run(path, ["a"]) == [
        Problem(0, "the zip holds 'folder/run.csv'; it must hold 'submission.csv'")
    ]


def test_a_missing_run_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        validate_run(tmp_path / "none.csv", IDS)


# Other years


@pytest.mark.parametrize(
    ("year", "body"),
    [
        ("2019", "a\tC1;C2\nb\t\nc\tC3\n"),
        ("2019", "c\tC1;C1\n\nb\na\tc3\n"),  # any order; repeats and no tab are harmless
        ("2019", "a\t" + ";".join(f"C{i}" for i in range(101)) + "\nb\t\nc\t\n"),
        ("2021", "c|C1; C2\na|c1\nb|\n"),
        ("2024", "c,C1; C2\na,c1\nb,\n"),
        ("2025", "ID,CUIs\na,C1\nb,\nc,C3\n"),
    ],
)
def test_valid_runs_of_other_years(tmp_path, year, body):
    assert check(tmp_path, body, year=year) == []


@pytest.mark.parametrize(
    ("year", "body", "line", "message"),
    [
        ("2019", "a\tC1\nb\tC1; C2\nc\t\n", 2, "white space"),  # of which the script makes ` C2`
        ("2019", "a\tC1;\nb\t\nc\t\n", 1, "an empty part"),
        ("2019", "a\tC1\tC2\nb\t\nc\t\n", 1, "3 columns where 2"),
        ("2019", "a\tCO1\nb\t\nc\t\n", 1, "'CO1' is not a CUI"),
        ("2019", "ID\tCUIs\na\t\nb\t\nc\t\n", 1, "a header, which runs of this year do not have"),
        ("2019", "a\t\nb\t\nc\t\nc\tC1\n", 4, "'c' is on line 3 already"),
        ("2021", "ID|CUIs\na|\nb|\nc|\n", 1, "a header, which"),
        ("2021", "a|\nb\nc|\n", 2, "1 columns where 2"),
        ("2021", "a|\n\nb|\nc|\n", 2, "blank"),
        ("2021", "a|C1;C1\nb|\nc|\n", 1, "'C1' is there 2 times"),
        ("2024", "a," + ";".join(f"C{i}" for i in range(101)) + "\nb,\nc,\n", 1, "101 CUIs where"),
        ("2024", "a,\n b,\nc,\n", 2, "white space"),
        ("2024", "a,\nb,\nx/c.png,\n", 3, "'x/c.png' is not in the ground truth, which has 'c'"),
        ("2025", "ID,CUIs\nb,\na,\nc,\n", 2, "stands where the ground truth has 'a'"),
        ("2025", "a,\nb,\nc,\n", 1, "the header `ID,CUIs` is wanted"),
    ],
)
def test_problems_of_other_years(tmp_path, year, body, line, message):
    found = check(tmp_path, body, year=year)
    assert [found_line for found_line, _ in found if found_line] == [line]
    assert message in found[0][1]


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("a\tC1,C2\n", "2019"),
        ("ID\tCUIs\na\tC1\n", "2019"),
        ("a|C1\n", "2021"),
        ("a,\n", "2024"),
        ("x,C1\n", "2024"),
        ('"a",""\n', "2024"),
        ("ID,CUIs\n", "2026"),
        ("\ufeffid, cuis\na,\n", "2026"),
        ("", "2026"),
        ("a\xe9", "2026"),
    ],
)
def test_the_year_is_recognised(tmp_path, text, year):
    path = tmp_path / "run.csv"
    path.write_bytes(text.encode("latin-1" if "\xe9" in text else "utf-8"))
    assert recognise_year(path, IDS) == year


def test_a_run_of_an_unknown_year(tmp_path):
    (tmp_path / "run.csv").write_text("a,C1\n")
    with pytest.raises(FormatError, match="no run format for '2016'"):
        validate_run(tmp_path / "run.csv", ["a"], "2016")


@settings(deadline=None)
@given(st.text(max_size=6))
def test_a_run_holds_every_id_without_a_fault(text):
    if id_fault(text):
        with pytest.raises(FormatError):
            render_run([(text, [])], "2026")
    else:
        line = render_run([(text, [])], "2026").splitlines()[1]
        assert line == f"{text},"


def test_local_ids_are_written_counted_and_reported(tmp_path):
    rows = [("a", ["C1", "CHEST_X-RAY"]), ("b", ["50%25", "CHEST_X-RAY"]), ("c", [])]
    for year in FORMATS:
        text = render_run(rows, year)
        assert "CHEST_X-RAY" in text and "50%25;CHEST_X-RAY" in text
        (tmp_path / "run.csv").write_text(text)
        problems = validate_run(tmp_path / "run.csv", ["a", "b", "c"], year)
        assert [problem.message for problem in problems] == [
            "'CHEST_X-RAY' is not a CUI",
            "'50%25' is not a CUI",
            "'CHEST_X-RAY' is not a CUI",
        ]
    assert local_ids_note(rows).startswith(
        "2 of the 3 concepts of the run are no CUIs (50%25, CHEST_X-RAY), and the task's checker"
    )
    assert local_ids_note(rows[2:]) == local_ids_note([("a", ["C1"])]) == ""
