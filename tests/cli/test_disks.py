"""Images as they lie on disks: ids, groups, selection, order, and entries that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from invoking import command, done, info, invoke, problem, process
from pydicom import dcmread

from annotator.tables.run import FORMATS

pytestmark = pytest.mark.slow

Draw = Callable[[Path, int, int], None]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """An index of 12 images with captions."""
    folder = tmp_path_factory.mktemp("disks")
    (folder / "train").mkdir()
    for i in range(12):
        draw(folder / "train" / f"train{i}.png", i % 3, i)
    for name, cell in (("concepts", "C{0};C9"), ("captions", "Kind {0}.")):
        rows = "".join(f"train{i},{cell.format(i % 3)}\n" for i in range(12))
        (folder / f"{name}.csv").write_text(f"ID,Cell\n{rows}")
    tables = (folder / "concepts.csv", "--captions", folder / "captions.csv")
    done(invoke("build-index", folder / "train", *tables, "--index", folder / "index"))
    return folder / "index"


@pytest.fixture
def images(tmp_path: Path, draw: Draw) -> Path:
    """Images named as those of 2026: numbers that are not padded."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 10, 11):
        draw(folder / f"test_{number}.png", number % 3, 100 + number)
    return folder


def annotate(index: Path, images: Path, *options: object) -> Result:
    return invoke("annotate", images, "--index", index, *options)


def ids(result: Result) -> list[str]:
    """The ids of a run."""
    return [line.split(",")[0] for line in result.stdout.splitlines()[1:]]


# DICOM


def test_a_tree_of_dicom_files_is_annotated_and_grouped(index: Path, dicom_tree: Path) -> None:
    arguments = (dicom_tree, "--groups", "dicom:PatientID", "--format", "jsonl", "--index", index)
    result = process(command("annotate", *arguments))
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    headers = [dcmread(path) for path in dicom_tree.glob("P?/S?/R[01]/IM000001")]
    assert {record["id"]: record["group"] for record in records} == {
        ds.SOPInstanceUID: ds.PatientID for ds in headers
    }
    assert Counter(record["group"] for record in records) == {"secret-0": 4, "secret-1": 4}
    assert all(record["concepts"] and "error" not in record for record in records)
    assert result.stderr.splitlines() == [
        "The ids of 8 DICOM files are their SOPInstanceUIDs, since names repeat among them, such "
        "as IM000001 (--id name, path or sop chooses).",
        "8 images are in 2 groups by PatientID",
        f"2 DICOM files without an image are skipped: {dicom_tree}/DICOMDIR, "
        f"{dicom_tree}/P0/S0/R2/IM000001",
    ]


def test_a_run_of_a_tree_of_dicom_files(index: Path, dicom_tree: Path) -> None:
    plain = annotate(index, dicom_tree)
    assert plain.exit_code == 0 and len(set(ids(plain))) == 8
    some = annotate(index, dicom_tree, "--where", "Modality=dx,MR", "--where", "PatientID=secret-1")
    assert some.exit_code == 0 and len(ids(some)) == 2 and set(ids(some)) < set(ids(plain))
    assert "6 images are left out by Modality and PatientID" in some.stderr
    assert "secret" not in some.stderr
    by_path = annotate(index, dicom_tree, "--id", "path")
    assert ids(by_path) == [f"P{i // 4}/S{i // 2 % 2}/R{i % 2}/IM000001" for i in range(8)]
    assert by_path.exit_code == 0  # the SR is skipped when it is decoded
    assert "IM000001 (" in problem(annotate(index, dicom_tree, "--id", "name"))


def test_an_index_of_a_tree_of_dicom_files(dicom_tree: Path, tmp_path: Path) -> None:
    paths = sorted(dicom_tree.glob("P?/S?/R[01]/IM000001"))
    table = tmp_path / "concepts.csv"
    table.write_text(
        "".join(f"{dcmread(p).SOPInstanceUID},C{i % 2}\n" for i, p in enumerate(paths))
    )
    made = invoke(
        "build-index", dicom_tree, table, "--groups", "dicom:PatientID", "--where", "Modality=DX",
        "--index", tmp_path / "index", "--no-tune",
    )  # fmt: skip
    assert "4 images are in 2 groups by PatientID" in done(made)
    assert "secret" not in made.stderr
    more = ("--where", "Modality=CR", "--groups", "dicom:PatientID")
    said = done(invoke("add", dicom_tree, table, *more, "--index", tmp_path / "index"))
    assert "4 images added; 8 in all" in said
    near = invoke(
        "search", dicom_tree, "--where", "Modality=CR", "--without", "group", "--format", "json",
        "--groups", "dicom:PatientID", "--index", tmp_path / "index",
    )  # fmt: skip
    patient_of = {dcmread(path).SOPInstanceUID: dcmread(path).PatientID for path in paths}
    rankings = [json.loads(line) for line in near.stdout.splitlines()]
    assert len(rankings) == 4
    for ranking in rankings:
        cases = {case["id"] for case in ranking["cases"]}
        assert {patient_of[case] for case in cases} == {"secret-0", "secret-1"} - {
            patient_of[ranking["query"]]
        }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--where", "Modalty=DX"), "Similar: Modality"),
        (("--where", "Modality"), "such as Modality=DX,CR"),
        (("--where", "Modality="), "such as Modality=DX,CR"),
        (("--where", "PixelData=1"), "holds no text or number"),
        (("--id", "uid"), "'uid' is not one of"),
        (("--groups", "dicom:PatientID"), "--groups requires --format jsonl"),
    ],
)
def test_wrong_usage(index: Path, images: Path, options: tuple[str, ...], said: str) -> None:
    assert said in problem(annotate(index, images, *options), 2)


def test_groups_by_a_keyword_that_is_none(index: Path, images: Path) -> None:
    wrong = ("--groups", "dicom:Patient", "--format", "jsonl")
    assert "Similar: Patient" in problem(annotate(index, images, *wrong))


def test_groups_from_a_table(index: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("ID,patient\ntest_1.png,p1\ntest_2,p2\n")
    result = annotate(index, images, "--groups", tmp_path / "patients.csv", "--format", "jsonl")
    groups = [json.loads(line)["group"] for line in result.stdout.splitlines()]
    assert groups == ["p1", "p2", "", ""]
    assert "1 ids of" in result.stderr and "'test_1.png' -> 'test_1'" in result.stderr


# Entries that cannot be used


@pytest.fixture
def awkward(images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The images with names that a run cannot hold, bad links and a closed folder beside them."""
    for name in ("a,b.png", 'c"d.png', "e\nf.png"):
        shutil.copy(images / "test_1.png", images / name)
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "patient").symlink_to(images / "unmounted")
    (images / "closed").mkdir()
    shutil.copy(images / "test_1.png", images / "closed" / "g.png")
    scandir = os.scandir

    def guarded(path: Any) -> Any:  # root may read a folder whatever its mode
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    return images


UNUSABLE = ["a,b.png", 'c"d.png', r"e\nf.png", "loop.png", "patient", "closed"]


def test_one_entry_never_refuses_a_run(index: Path, awkward: Path) -> None:
    result = annotate(index, awkward)
    assert result.exit_code == 3
    assert ids(result) == ["loop", "test_1", "test_2", "test_10", "test_11"]
    assert result.stdout.startswith("ID,CUIs\nloop,\ntest_1,C")
    for name in UNUSABLE:
        assert f"    {awkward / name}\n" in result.stderr
    assert "6 images could not be used" in result.stderr
    assert "Permission denied" in result.stderr and "levels of symbolic links" in result.stderr
    captions = invoke("caption", awkward, "--index", index)
    assert captions.exit_code == 3 and ids(captions) == ids(result)
    strict = annotate(index, awkward, "--on-error", "fail")
    assert "Rename the image" in problem(strict)


def test_names_that_no_run_can_hold_are_fine_elsewhere(index: Path, awkward: Path) -> None:
    result = annotate(index, awkward, "--format", "jsonl")
    assert result.exit_code == 3
    records = {record["id"]: record for record in map(json.loads, result.stdout.splitlines())}
    failed = {"e\nf", "loop", f"{awkward}/patient/", f"{awkward}/closed/"}
    assert {id_ for id_, record in records.items() if "error" in record} == failed
    assert records["a,b"]["concepts"] == records['c"d']["concepts"] != []


def test_one_entry_never_refuses_an_index(index: Path, awkward: Path, tmp_path: Path) -> None:
    names = ("test_1", '"a,b"', '"c""d"', '"e\nf"', "loop", "g")
    (tmp_path / "concepts.csv").write_text("ID,CUIs\n" + "".join(f"{name},C1\n" for name in names))
    tables = (awkward, tmp_path / "concepts.csv", "--no-tune")
    made = invoke("build-index", *tables, "--index", tmp_path / "index")
    assert made.exit_code == 3 and info(tmp_path / "index")["images"] == 3
    for name in UNUSABLE[2:]:
        assert f"    {awkward / name}\n" in made.stderr
    shutil.copytree(index, tmp_path / "other")
    added = invoke("add", *tables[:2], "--index", tmp_path / "other")
    assert added.exit_code == 3 and "3 images added" in added.stderr


def test_what_is_dropped_of_duplicates_is_named(index: Path, images: Path, tmp_path: Path) -> None:
    (images / "more").mkdir()
    for name in ("test_1", "test_2"):
        shutil.copy(images / f"{name}.png", images / "more" / f"{name}.png")
    rows = "".join(f"test_{number},C1\n" for number in (1, 2, 10, 11))
    (tmp_path / "concepts.csv").write_text(rows)
    first = ("--on-duplicate", "first")
    dropped = (  # those in `more` come first
        "2 images are left out, since the first with the same id is used: "
        f"{images / 'test_1.png'}, {images / 'test_2.png'}\n"
    )
    table, made = tmp_path / "concepts.csv", tmp_path / "made"
    for arguments in (
        ("annotate", images, "--index", index),
        ("caption", images, "--index", index),
        ("search", images, "--index", index),
        ("explain", images, "--index", index, "--out", tmp_path / "pages"),
        ("audit", images, table),
        ("build-index", images, table, "--index", made, "--no-tune"),
        ("add", images, table, "--index", made, "--replace"),
    ):
        result = invoke(*arguments, *first)
        assert result.stderr.count(dropped) == 1, (arguments, result.stderr)


# Ids and order


@pytest.mark.parametrize("year", FORMATS)
def test_what_annotate_writes_is_valid(
    index: Path, images: Path, tmp_path: Path, year: str
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("ID,CUIs\n" + "".join(f"test_{number},C1\n" for number in (1, 2, 10, 11)))
    run = tmp_path / "run.csv"
    done(annotate(index, images, "--format", year, "--output", run))
    said = done(invoke("validate", run, "--ids", truth, "--format", year))
    assert said == f"{run} is a valid run for 4 images by the rules of {year}.\n"
    recognised = done(invoke("validate", run, "--ids", truth))
    assert FORMATS[recognised.split("rules of ")[1][:4]] == FORMATS[year]
    zipped = tmp_path / "run.zip"
    done(annotate(index, images, "--format", year, "--zip", "--output", zipped))
    done(invoke("validate", zipped, "--ids", truth, "--format", year))


def test_validation_by_the_rules_of_another_year(images: Path, tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("b,C1\na,\n")
    (tmp_path / "ids.txt").write_text("a\nb\n")
    run = ("validate", tmp_path / "run.csv", "--ids", tmp_path / "ids.txt")
    assert "by the rules of 2024, recognised by its separator" in done(invoke(*run))
    result = invoke(*run, "--format", "2026")
    assert result.exit_code == 1 and "the header `ID,CUIs` is wanted" in result.stdout
    assert result.stderr == "2 problems by the rules of 2026.\n"


def test_ids_that_are_paths_keep_their_form(index: Path, images: Path, tmp_path: Path) -> None:
    plain = annotate(index, images)
    table = tmp_path / "test.csv"
    table.write_text(
        "path,side\ndata/test_10.png,x\nC:\\data\\test_2.PNG,y\nabsent.png,y\ntest_1,y\n"
    )
    result = annotate(index, images, "--ids", table)
    cells = dict(line.split(",") for line in plain.stdout.splitlines())
    assert result.exit_code == 3
    assert result.stdout == (
        f"ID,CUIs\ndata/test_10.png,{cells['test_10']}\nC:\\data\\test_2.PNG,{cells['test_2']}\n"
        f"absent.png,\ntest_1,{cells['test_1']}\n"
    )
    assert f"2 ids of {table} are file names, paths or" in result.stderr
    assert "'data/test_10.png' -> 'test_10'" in result.stderr
    side = annotate(index, images, "--split", table, "--only", "y")
    assert ids(side) == ["test_1", "test_2"] and side.exit_code == 0
    assert side.stderr.count("ids of") == 1


def test_ids_of_which_none_has_an_image(index: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("scan_1\nscan_2\n")
    said = problem(annotate(index, images, "--ids", tmp_path / "ids.txt"))
    assert "None of the 4 images matches one of the 2 ids of" in said
    assert "'test_1'" in said and "'scan_1'" in said


def test_a_run_whose_ids_differ_from_the_truth_in_their_extension(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("ID,CUIs\na.png,C1\n")
    (tmp_path / "truth.csv").write_text("ID,CUIs\na,C1\n")
    run = (tmp_path / "run.csv", tmp_path / "truth.csv")
    said = problem(invoke("evaluate", *run))
    assert "the id 'a.png' is not in the ground truth" in said
    assert "The ground truth has 'a'; ids are compared exactly" in said
    assert "has 'a'; ids are compared exactly" in problem(invoke("evaluate", *run, "--captions"))
    (tmp_path / "split.csv").write_text("ID,side\nx/a.png,test\n")
    (tmp_path / "run.csv").write_text("ID,CUIs\na,C1\n")
    scored = invoke("evaluate", *run, "--split", tmp_path / "split.csv", "--only", "test")
    assert scored.exit_code == 0 and "'x/a.png' -> 'a'" in scored.stderr
