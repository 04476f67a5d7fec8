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
from click.testing import Result
from invoking import ROOT, done, invoke, problem
from PIL import Image, ImageFilter

EMBEDS = pytest.mark.slow  # what loads the packaged encoder
DOCS = ROOT / "docs" / "audit.md"


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
        picture = (bright + 2 * (fine - fine.mean()) + 60).clip(0, 255).astype(np.uint8)
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


@pytest.fixture(scope="module")
def examples(place: Path) -> list[list[str]]:
    """The commands of docs/audit.md, in whose folder there is all that they name."""
    shutil.copytree(place / "clean", place / "train")
    (place / "new").mkdir()
    for i in range(52, 60):
        shutil.copy(place / "images" / f"i{i}.png", place / "new")
    (place / "new" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = [f"i{i},C000000{1 if i % 4 < 2 else 2};C0000009\n" for i in range(52, 60)]
    rows[2] = "i54,C0000001;C0000009\n"  # looks like the other kind
    (place / "new_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    lines = re.findall(r"^    annotator (.*)", DOCS.read_text(), re.MULTILINE)
    return [shlex.split(line.split(" > ")[0]) for line in lines]


@EMBEDS
def test_the_examples_of_the_docs(
    place: Path, examples: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done(invoke("build-index", "train", "concepts.csv", "--thumbnails"))
    everything, as_json, new, sources = (invoke(*arguments) for arguments in examples)

    assert everything.exit_code == 1, everything.output
    leak, straddle, exact, label, odd = rows(everything)
    assert (leak["kind"], leak["id"], leak["other_id"]) == ("leak", "i05", "mirrored")
    assert leak["detail"] == "mirrored; train and test" and float(leak["score"]) > 0.9
    assert straddle["kind"] == "straddle"
    assert straddle["detail"] == "group p05: 2 in train, 1 in test"
    assert (exact["kind"], exact["id"], exact["other_id"]) == ("exact", "i09", "i09_again")
    assert (label["kind"], label["id"]) == ("label", "i20")
    assert label["detail"].startswith("lacks C0000001 (")
    assert "; holds C0000002 (" in label["detail"]
    assert (odd["kind"], odd["id"]) == ("unlike", "odd")
    assert "67 images: 1 exact, 1 leak, 1 straddle, 1 label, 1 unlike." in everything.stderr
    assert "Next: put the images of each pair or group on one side" in everything.stderr
    html = Path("audit.html").read_text()
    assert html.count("<img ") == 8 and "http" not in html.replace("http-equiv", "")

    assert as_json.exit_code == 1 and "Next: add --out" in as_json.stderr
    found = json.loads(as_json.stdout)
    assert found["counts"] == {"leak": 1, "exact": 1, "label": 1, "unlike": 1}
    assert [f["kind"] for f in found["findings"]] == list(found["counts"])

    assert new.exit_code == 1, new.output  # --fail-on label
    (doubt,) = rows(new)
    assert (doubt["kind"], doubt["id"]) == ("label", "i54")
    assert "broken.png" in new.stderr and "1 image could not be used" in new.stderr

    assert sources.exit_code == 1, sources.output
    made, noise = rows(sources)
    assert (made["kind"], made["id"], made["other_id"]) == ("copy", "made_0", "i05")
    assert made["detail"].startswith("mirrored; similarity ") and noise["kind"] == "source"
    assert Path("sources.html").read_text().count("<img ") == 4


@EMBEDS
def test_sources_in_an_index(
    place: Path, examples: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for index, options in (("pictures", ["--thumbnails"]), ("plain", [])):
        arguments = ("build-index", place / "train", place / "concepts.csv", "--index", index)
        done(invoke(*arguments, *options))
    result = invoke("audit", place / "synthetic", "--against", "pictures", "--format", "json")
    made, other = json.loads(result.stdout)["findings"]
    assert (made["kind"], made["id"], made["other_id"]) == ("copy", "made_0", "i05")
    assert made["detail"].startswith("mirrored; ") and len(made["sources"]) == 5
    assert made["sources"][0]["flag"] == "copy" and made["sources"][1]["flag"] != "copy"
    assert other["kind"] != "copy" and result.exit_code == 1
    result = invoke("audit", place / "synthetic", "--against", "plain", "--out", "x.html")
    assert {row["kind"] for row in rows(result)} <= {"close", "source"} and result.exit_code == 0
    assert "keeps no small pictures" in result.stderr
    assert "no picture" in Path("x.html").read_text()


@EMBEDS
def test_a_sound_collection_passes(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "audit.html"
    result = invoke("audit", place / "clean", "--split", place / "split.csv", "--out", page,
                    "--cache", tmp_path / "cache.sqlite")  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "kind,id,other_id,score,detail\n")
    assert "40 images: nothing was found." in result.stderr
    assert "Unlike images were not looked for: that takes 50 images." in result.stderr
    assert "Nothing was found" in page.read_text()
    again = invoke("audit", place / "clean", "--cache", tmp_path / "cache.sqlite")
    assert (again.exit_code, again.stdout) == (0, result.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fail-on", "exact,nonsense"), "no kind nonsense"),
        (("--against", "x", "--split", "y"), "--against takes only images"),
        (("--threshold", "0.2"), "--threshold"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in problem(invoke("audit", tmp_path, *arguments), code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv"),
        (["--index", "milvus://host:1/name"], "milvus://host:1/name is on a server"),
        (["--against", "milvus://host:1/name"], "milvus://host:1/name is on a server"),
    ],
)
def test_what_is_refused_before_any_work(arguments: list[str], said: str, tmp_path: Path) -> None:
    Image.new("L", (64, 64), 99).save(tmp_path / "a.png")
    assert said in problem(invoke("audit", tmp_path, *arguments))
