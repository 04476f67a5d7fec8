"""The main way through the real command with the packaged encoder: images in, run out, F1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from invoking import ROOT, check_sound, command, done, info, invoke, problem, process
from PIL import Image

from annotator.collection import Collection

pytestmark = pytest.mark.slow

TRAIN, TEST = 24, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    """Folders of images, their tables, and an index that the command built."""
    folder = tmp_path_factory.mktemp("main-way")
    tables: dict[str, list[str]] = {"train": [], "test": []}
    for side, n in (("train", TRAIN), ("test", TEST)):
        (folder / side).mkdir()
        for i in range(n):
            draw(folder / side / f"{side}{i:02d}.png", i % 3, i + 100 * (side == "test"))
            tables[side].append(f"{side}{i:02d},C{i % 3};C9\n")
    for side, rows in tables.items():
        (folder / f"{side}.csv").write_text("ID,CUIs\n" + "".join(rows))
    (folder / "names.csv").write_text("CUI,Name\nC9,in all of them\n")
    arguments = ("train", "train.csv", "--names", "names.csv", "--index", "index", "--k", 5)
    built = process(command("build-index", *arguments), folder)
    assert (built.returncode, built.stdout) == (0, ""), built.stderr
    assert "24 images, 4 concepts (24 embedded, 0 known before)" in built.stderr
    return folder


def annotate(place: Path, *arguments: object, images: str = "test") -> Result:
    return invoke("annotate", place / images, "--index", place / "index", *arguments)


@pytest.fixture(scope="module")
def plain(place: Path) -> Result:
    return annotate(place)


def test_a_run_is_valid_and_right(place: Path, plain: Result, tmp_path: Path) -> None:
    assert plain.exit_code == 0
    run = tmp_path / "run.csv"
    run.write_bytes(plain.stdout_bytes)
    assert plain.stdout.startswith("ID,CUIs\ntest00,C9;C0\ntest01,C9;C1\ntest02,C9;C2\n")
    assert invoke("validate", run, "--ids", place / "test.csv").exit_code == 0
    scored = invoke("evaluate", run, place / "test.csv", "--json")
    assert json.loads(scored.stdout)["f1"] == 1.0


def test_a_repetition_gives_the_same_bytes(place: Path, plain: Result) -> None:
    cached = annotate(place)
    computed = annotate(place, "--no-cache")
    other = process(command("annotate", place / "test", "--index", place / "index"))
    assert other.returncode == 0
    assert cached.stdout == computed.stdout == other.stdout == plain.stdout


@pytest.mark.parametrize(
    ("year", "separator", "header"),
    [("2019", "\t", ""), ("2025", ",", "ID,CUIs\n")],
)
def test_formats_of_other_years(
    place: Path, plain: Result, year: str, separator: str, header: str
) -> None:
    rows = plain.stdout.removeprefix("ID,CUIs\n").replace(",", separator)
    result = annotate(place, "--format", year)
    assert (result.exit_code, result.stdout) == (0, header + rows)


def test_a_zip_in_a_file(place: Path, plain: Result, tmp_path: Path) -> None:
    output = tmp_path / "submission.zip"
    output.write_text("an older one")
    done(annotate(place, "--zip", "--output", output))
    with zipfile.ZipFile(output) as archive:
        assert archive.namelist() == ["submission.csv"]
        assert archive.read("submission.csv") == plain.stdout_bytes
    assert annotate(place, "--zip").stdout_bytes == output.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["submission.zip"]


def test_outputs_that_cannot_be_written(place: Path, tmp_path: Path) -> None:
    said = problem(annotate(place, "--output", tmp_path / "nowhere" / "run.csv"))
    assert "nowhere/run.csv cannot be written: No such file or directory" in said
    if Path("/dev/full").exists():
        full = annotate(place, "--output", "/dev/full")
        assert full.exit_code == 1 and "No space left on device" in full.stderr
        assert Path("/dev/full").is_char_device()


def test_json_lines_with_the_neighbours(place: Path) -> None:
    result = annotate(place, "--format", "jsonl", "--explain")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["id"] for line in lines] == [f"test{i:02d}" for i in range(TEST)]
    for i, line in enumerate(lines):
        assert len(line["neighbors"]) == 5  # what the index records
        assert sum(n["weight"] for n in line["neighbors"]) == pytest.approx(1, abs=1e-5)
        assert f"C{i % 3}" in line["neighbors"][0]["cuis"]
        names = {c["cui"]: c["name"] for c in line["concepts"]}
        assert names == {"C9": "in all of them", f"C{i % 3}": ""}
        assert 0 < line["expected_f1"] <= 1
    brief = annotate(place, "--format", "jsonl", "--k", "2")
    assert "neighbors" not in brief.stdout and brief.stdout.count("\n") == TEST
    itself = annotate(place, "--format", "jsonl", "--explain", images="train/train07.png")
    nearest = json.loads(itself.stdout)["neighbors"][0]
    assert nearest["id"] == "train07" and nearest["similarity"] > 0.99999


def test_ids_set_the_order_and_a_missing_one_has_an_empty_row(place: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("test04\nabsent\ntest00\n")
    result = annotate(place, "--ids", tmp_path / "ids.txt")
    assert result.exit_code == 3
    assert result.stdout == "ID,CUIs\ntest04,C9;C1\nabsent,\ntest00,C9;C0\n"
    assert (
        "1 x no image has this id. Check the ids against the file names.\n    absent\n"
        in result.stderr
    )


def test_one_broken_image_costs_no_other(place: Path, plain: Result, tmp_path: Path) -> None:
    shutil.copytree(place / "test", tmp_path / "test")
    broken = tmp_path / "test" / "test03.png"
    broken.write_bytes(broken.read_bytes()[:300])
    result = invoke("annotate", tmp_path / "test", "--index", place / "index")
    assert result.exit_code == 3
    assert result.stdout == plain.stdout.replace("test03,C9;C0\n", "test03,\n")
    assert "1 x truncated PNG." in result.stderr
    assert "test03.png\n1 image could not be used" in result.stderr
    strict = invoke("annotate", tmp_path / "test", "--index", place / "index", "--on-error", "fail")
    assert "test03.png: truncated PNG" in problem(strict)


def test_blank_images_are_refused_unless_they_are_allowed(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(place / "test" / "test00.png", images)
    Image.new("L", (300, 200)).save(images / "black.png")
    arguments = ("annotate", images, "--index", place / "index")
    for _ in range(2):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (3, "ID,CUIs\nblack,\ntest00,C9;C0\n")
        assert "1 x blank: all pixels have (nearly) the same value." in result.stderr
        assert str(images / "black.png") in result.stderr
        allowed = invoke(*arguments, "--allow-blank", "--format", "jsonl")
        assert allowed.exit_code == 0
        black, test00 = map(json.loads, allowed.stdout.splitlines())
        assert black["concepts"] and black["notes"] == ["blank"] and "notes" not in test00
    (tmp_path / "c.csv").write_text("ID,CUIs\nblack,C1\ntest00,C2\n")
    build = ("build-index", images, tmp_path / "c.csv", "--index", tmp_path / "i", "--no-tune")
    report = tmp_path / "report.csv"
    built = invoke(*build, "--report", report)
    assert built.exit_code == 3 and info(tmp_path / "i")["images"] == 1
    assert "black.png,blank," in report.read_text()
    assert invoke(*build, "--allow-blank").exit_code == 0
    assert info(tmp_path / "i")["images"] == 2


def test_notes_do_not_depend_on_the_cache(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    with Image.open(place / "test" / "test00.png") as picture:
        black = Image.new("L", picture.size)
        pages = [picture.convert("L"), black, black]
        pages[0].save(images / "stack.tif", save_all=True, append_images=pages[1:])
    arguments = ("annotate", images, "--index", place / "index", "--format", "jsonl")
    first, again, fresh = invoke(*arguments), invoke(*arguments), invoke(*arguments, "--no-cache")
    assert json.loads(first.stdout)["notes"] == ["frame_replaced"]
    assert first.stdout == again.stdout == fresh.stdout
    for result in (first, again, fresh):
        assert result.exit_code == 0 and "1 x middle frame is blank" in result.stderr


def test_an_index_of_other_pixels_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ("--index", tmp_path / "index")
    with monkeypatch.context() as patched:
        patched.setattr("annotator.encoders.torch_embedder.DECODER_VERSION", 1)
        done(invoke("build-index", place / "test", place / "test.csv", *index, "--no-tune"))
    said = problem(invoke("annotate", place / "test", *index))
    assert "version 1 of the decoder" in said and "Build the index again" in said


def test_a_build_with_a_broken_image(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "test", tmp_path / "test")
    (tmp_path / "test" / "test03.png").write_bytes(b"")
    arguments = ("build-index", tmp_path / "test", place / "test.csv", "--index", tmp_path / "i")
    result = invoke(*arguments)
    assert result.exit_code == 3 and "1 x empty file." in result.stderr
    assert "5 images" in result.stderr
    assert invoke(*arguments, "--on-error", "fail").exit_code == 1
    assert info(tmp_path / "i")["images"] == 5


def test_another_precision_than_the_index_has_is_refused(place: Path) -> None:
    recorded = info(place / "index")["precision"]
    other = {"fp32": "bf16", "bf16": "fp32"}[recorded]
    said = problem(annotate(place, "--precision", other))
    assert f"precision: {other}, not {recorded}" in said


def test_an_index_without_write_access_is_read(place: Path, plain: Result, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is closed to root")
    shutil.copytree(place / "index", tmp_path / "index")
    (tmp_path / "index").chmod(0o500)
    result = invoke("annotate", place / "test", "--index", tmp_path / "index")
    (tmp_path / "index").chmod(0o700)
    assert result.stdout == plain.stdout


def known(cache: Path) -> int:
    """How many vectors a build has kept so far."""
    try:
        with closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as database:
            count: int = database.execute("SELECT count(*) FROM vectors").fetchone()[0]
            return count
    except sqlite3.Error:
        return 0


def test_an_interrupted_build_ends_quickly_and_continues(
    tmp_path: Path, draw: Callable[[Path, int, int], None]
) -> None:
    n = 500  # a few seconds of work for one worker
    (tmp_path / "images").mkdir()
    draw(tmp_path / "one.png", 0, 0)
    for i in range(n):  # what follows a picture makes its content another one, at no cost
        content = (tmp_path / "one.png").read_bytes() + str(i).encode()
        (tmp_path / "images" / f"i{i:03d}.png").write_bytes(content)
    rows = "".join(f"i{i:03d},C{i % 3}\n" for i in range(n))
    (tmp_path / "concepts.csv").write_text(f"ID,CUIs\n{rows}")
    arguments = command(
        "build-index", tmp_path / "images", tmp_path / "concepts.csv",
        "--index", tmp_path / "index", "--batch-size", 4, "--workers", 1,
    )  # fmt: skip
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A job that a script put into the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as build:
        deadline = time.monotonic() + 120
        while known(tmp_path / "index" / "embeddings.sqlite") < 8:
            assert build.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        build.send_signal(signal.SIGINT)
        stdout, stderr = build.communicate(timeout=20)
    assert (build.returncode, stdout) == (130, "")
    assert "Interrupted." in stderr and "Traceback" not in stderr
    assert invoke("info", "--index", tmp_path / "index").exit_code == 1
    before = known(tmp_path / "index" / "embeddings.sqlite")
    assert 8 <= before < n
    again = invoke(*arguments[3:-4], "--no-tune")
    assert again.exit_code == 0
    assert f"({n - before} embedded, {before} known before)" in again.stderr
    check_sound(tmp_path / "index")


# How the vectors are fitted


def build(patterns: Collection, directory: Path, *options: object) -> tuple[str, dict[str, Any]]:
    """What a build of the 120 patterns says, and the facts of its index."""
    folder = Path(patterns.images[0].where).parents[1]
    said = done(
        invoke("build-index", folder / "images", folder / "concepts.csv",
               "--groups", folder / "groups.csv", "--embedder", "efficientnet-lite0@64",
               "--index", directory, *options)
    )  # fmt: skip
    return said, info(directory)


def test_a_build_fits_and_tunes(patterns: Collection, tmp_path: Path) -> None:
    said, facts = build(patterns, tmp_path / "index", "--k", 6)
    assert "Voting tuned across patients: k 6, " in said
    assert "on 120 images." in said
    assert facts["voting"]["k"] == 6 and facts["embedder"] == "efficientnet-lite0@64"
    images = Path(patterns.images[0].where).parent
    result = invoke("annotate", images, "--index", tmp_path / "index", "--format", "jsonl")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 120 and all(line["familiarity"] > 0.2 for line in lines)
    assert "version v000002" in done(invoke("tune", "--index", tmp_path / "index", "--k", 3))
    assert invoke("annotate", images, "--index", tmp_path / "index").exit_code == 0


def test_a_build_that_is_not_tuned(patterns: Collection, tmp_path: Path) -> None:
    said, facts = build(patterns, tmp_path / "index", "--no-tune", "--beta", 9)
    assert "Projection fitted to the concepts (ridge regression, penalty 1)." in said
    assert "Voting tuned" not in said
    assert facts["voting"]["beta"] == 9
    failed = problem(invoke("tune", "--index", tmp_path / "index"))
    assert "has no neighbour lists" in failed


def test_other_adaptations(patterns: Collection, tmp_path: Path) -> None:
    said, facts = build(patterns, tmp_path / "index", "--adaptation", "looks")
    assert "Projection fitted to the concepts" not in said and "Voting tuned" in said
    assert facts["dim"] < 2768
    said, facts = build(patterns, tmp_path / "index", "--adaptation", "none", "--no-tune")
    assert "Projection fitted to the concepts" not in said
    assert "(0 embedded, 120 known before)" in said
    assert facts["dim"] == 2768 and facts["voting"]["beta"] == 64.0
