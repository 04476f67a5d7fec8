"""`annotator audit` as it is called, with the packaged encoder; the examples of docs/audit.md."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageFilter

from annotator.cli import cli

EMBEDS = pytest.mark.slow  # what loads the packaged encoder
DOCS = Path(__file__).parents[1] / "docs" / "audit.md"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 images of two kinds, two of each patient, with faults: the folder that docs/ speaks of."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    concepts, sides, patients = {}, {}, {}
    for i in range(64):
        noise = Image.fromarray(rng.normal(128, 300, (128, 128)).clip(0, 255).astype(np.uint8))
        fine = np.asarray(noise.filter(ImageFilter.GaussianBlur(3)), np.float64)
        bright = 140 * (np.exp(-3 * x**2 - y**2) if i % 4 < 2 else np.abs(np.sin(6 * y)))
        picture = (bright + fine - fine.mean() + 50).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"i{i:02d}.png")
        concepts[f"i{i:02d}"] = "C0000001;C0000009" if i % 4 < 2 else "C0000002;C0000009"
        sides[f"i{i:02d}"] = "test" if i >= 48 else "train"
        patients[f"i{i:02d}"] = f"p{i // 2:02d}"
    (folder / "clean").mkdir()
    for file in sorted((folder / "images").glob("i[0-3]*.png")):
        shutil.copy(file, folder / "clean")
    # A mirrored copy on the other side, a copy of a file, a patient on both sides, wrong concepts.
    image = Image.open(folder / "images" / "i05.png")
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(folder / "images" / "mirrored.jpg", quality=80)
    concepts["mirrored"], sides["mirrored"] = concepts["i05"], "test"
    shutil.copy(folder / "images" / "i09.png", folder / "images" / "i09_again.png")
    concepts["i09_again"], sides["i09_again"] = concepts["i09"], "train"
    patients["i50"] = patients["i10"]
    concepts["i20"] = "C0000002;C0000009"
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(folder / "images" / "odd.png")
    (folder / "synthetic").mkdir()
    shutil.copy(folder / "images" / "mirrored.jpg", folder / "synthetic" / "made_0.jpg")
    Image.fromarray(rng.integers(0, 255, (99, 99), np.uint8)).save(
        folder / "synthetic" / "made_1.png"
    )
    for name, header, table in (
        ("concepts.csv", "ID,CUIs", concepts),
        ("split.csv", "ID,split", sides),
        ("patients.csv", "ID,patient", patients),
    ):
        lines = "".join(f"{id_},{value}\n" for id_, value in table.items())
        (folder / name).write_text(f"{header}\n{lines}")
    return folder


@EMBEDS
def test_every_fault_is_found_and_shown(place: Path, tmp_path: Path) -> None:
    result = invoke(
        "audit", place / "images", place / "concepts.csv", "--split", place / "split.csv",
        "--groups", place / "patients.csv", "--out", tmp_path / "audit.html",
        "--cache", tmp_path / "cache.sqlite",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    leak, straddle, exact, label, odd = rows(result)
    assert (leak["kind"], leak["id"], leak["other_id"]) == ("leak", "i05", "mirrored")
    assert leak["detail"] == "mirrored; train and test" and float(leak["score"]) > 0.9
    assert (straddle["kind"], straddle["detail"]) == (
        "straddle",
        "group p05: 2 in train, 1 in test",
    )
    assert (exact["kind"], exact["id"], exact["other_id"]) == ("exact", "i09", "i09_again")
    assert (label["kind"], label["id"]) == ("label", "i20")
    assert (
        label["detail"].startswith("lacks C0000001 (") and "; holds C0000002 (" in label["detail"]
    )
    assert (odd["kind"], odd["id"]) == ("unlike", "odd")
    assert "67 images: 1 exact, 1 leak, 1 straddle, 1 label, 1 unlike." in result.stderr
    assert "Next: put the images of each pair or group on one side" in result.stderr
    html = (tmp_path / "audit.html").read_text()
    assert html.count("<img ") == 8 and "http" not in html.replace("http-equiv", "")

    again = invoke(
        "audit", place / "images", place / "concepts.csv", "--split", place / "split.csv",
        "--groups", place / "patients.csv", "--cache", tmp_path / "cache.sqlite",
        "--fail-on", "none", "--format", "json", "--limit", "1",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    found = json.loads(again.stdout)
    assert found["counts"] == dict.fromkeys(("leak", "straddle", "exact", "label", "unlike"), 1)
    assert [f["kind"] for f in found["findings"]] == list(found["counts"])
    assert "Next: add --out" in again.stderr


@EMBEDS
def test_a_sound_collection_passes(place: Path, tmp_path: Path) -> None:
    result = invoke(
        "audit", place / "clean", "--split", place / "split.csv", "--out", tmp_path / "audit.html"
    )
    assert (result.exit_code, result.stdout) == (0, "kind,id,other_id,score,detail\n")
    assert "40 images: nothing was found." in result.stderr
    assert "Nothing was found" in (tmp_path / "audit.html").read_text()


@EMBEDS
def test_sources_in_a_folder_and_in_an_index(place: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    built = invoke(
        "build-index", place / "clean", place / "concepts.csv", "--index", index, "--thumbnails"
    )
    assert built.exit_code == 0, built.output
    for against in (place / "clean", index):
        result = invoke("audit", place / "synthetic", "--against", against, "--format", "json")
        assert result.exit_code == 1, result.output
        made, noise = json.loads(result.stdout)["findings"]
        assert (made["kind"], made["id"], made["other_id"]) == ("copy", "made_0", "i05")
        assert made["detail"].startswith("mirrored; ") and len(made["sources"]) == 5
        assert noise["id"] == "made_1" and noise["kind"] != "copy"
    plain = tmp_path / "plain"
    invoke("build-index", place / "clean", place / "concepts.csv", "--index", plain)
    result = invoke("audit", place / "synthetic", "--against", plain, "--out", tmp_path / "x.html")
    assert (
        "keeps no small pictures" in result.stderr
        and "no picture" in (tmp_path / "x.html").read_text()
    )
    assert {row["kind"] for row in rows(result)} <= {"close", "source"}


@EMBEDS
def test_new_images_against_an_index(place: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    assert invoke("build-index", place / "images", place / "concepts.csv", "--index", index,
                  "--split", place / "split.csv", "--only", "train").exit_code == 0  # fmt: skip
    (tmp_path / "new").mkdir()
    for i in range(52, 60):
        shutil.copy(place / "images" / f"i{i}.png", tmp_path / "new")
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    wrong = {
        f"i{i}": "C0000001;C0000009" if i % 4 < 2 else "C0000002;C0000009" for i in range(52, 60)
    }
    wrong["i54"] = "C0000001;C0000009"  # looks like the other kind
    table = "".join(f"{id_},{cuis}\n" for id_, cuis in wrong.items())
    (tmp_path / "new.csv").write_text("ID,CUIs\n" + table)
    result = invoke("audit", tmp_path / "new", tmp_path / "new.csv", "--index", index)
    assert result.exit_code == 3, result.output  # one image could not be used
    kinds = {(row["kind"], row["id"]) for row in rows(result)}
    assert kinds == {("label", "i54")}
    assert "broken.png" in result.stderr


@EMBEDS
@pytest.mark.parametrize("n", range(len(re.findall(r"^    annotator ", DOCS.read_text(), re.M))))
def test_the_examples_of_the_docs_run(
    n: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = re.findall(r"^    annotator (.*)", DOCS.read_text(), re.MULTILINE)[n]
    if not (place / "train").exists():
        shutil.copytree(place / "clean", place / "train")
    monkeypatch.chdir(place)
    result = invoke(*shlex.split(command.split(" > ")[0]))
    assert result.exit_code in (0, 1), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Next: " in result.stderr or "build-index" in command


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--fail-on", "exact,nonsense"), "no kind nonsense"),
        (("--against", "x", "--split", "y"), "--against takes images alone"),
        (("--threshold", "0.2"), "--threshold"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    result = invoke("audit", tmp_path, *arguments)
    assert result.exit_code == 2 and problem in result.stderr and result.stdout == ""


def test_a_missing_table_is_said_before_any_work(place: Path) -> None:
    result = invoke("audit", place / "images", place / "none.csv")
    assert result.exit_code == 1 and "none.csv" in result.stderr and result.stdout == ""
