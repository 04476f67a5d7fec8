"""`annotator map` as a command, and docs/map.md as it is written."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from annotator.cli import cli
from annotator.phantoms import write_sample
from index import StoredIndex

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "map.md"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["map", *(str(a) for a in arguments)])


def legend(path: Path) -> dict[str, int]:
    """How many points have each colour on a page."""
    found = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found is not None
    return {row["label"]: row["points"] for row in json.loads(found[1])["legend"] if row["points"]}


def test_a_page_and_a_picture(map_index: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "a.html", tmp_path / "a.PNG"
    result = invoke("--index", map_index, "--output", page, "--out", picture)
    assert (result.exit_code, result.stdout) == (0, "")
    size = page.stat().st_size / 1e6
    assert result.stderr.splitlines() == [
        f"{page}: 60 images, by concept, pictures of 192 pixels, {size:.1f} MB.",
        f"{picture}: 60 images, by concept.",
        f"Next: open {page} in a browser; --concepts or --color gives the points other colours.",
    ]
    assert legend(page).keys() == {"Chest", "Brain, left", "none of these"} | {
        name for name in legend(page) if name.startswith("costs")
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.PNG", "a.html"]
    first = page.read_bytes(), picture.read_bytes()
    assert invoke("--index", map_index, "--out", page, "--out", picture).exit_code == 0
    assert (page.read_bytes(), picture.read_bytes()) == first


def test_a_sample_of_the_images(map_index: Path, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    options = ("--index", map_index, "--out", page, "--limit", 20, "--thumbnail-size", 0)
    result = invoke(*options)
    assert "Drawing 20 of 60 images, chosen at random" in result.stderr
    assert "20 of 60 images, by concept, no pictures, 0.0 MB" in result.stderr
    first = page.read_bytes()
    assert sum(legend(page).values()) == 20
    invoke(*options, "--seed", 5)
    assert page.read_bytes() != first


def test_concepts_by_name(map_index: Path, tmp_path: Path, stored: StoredIndex) -> None:
    page = tmp_path / "a.html"
    result = invoke("--index", map_index, "--out", page, "--concepts", "brain, left")
    assert result.exit_code == 0
    held = sum("C2" in stored.labels.row(i) for i in range(60))
    assert legend(page) == {"Brain, left": held, "without it": 60 - held}


def test_groups_and_a_column_of_a_table(map_index: Path, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    assert invoke("--index", map_index, "--out", page, "--color", "group").exit_code == 0
    first = ["p0", "p1", "p10", "p11", "p12", "p13", "p14", "p15"]
    assert legend(page) == {**dict.fromkeys(first, 2), "22 other values": 44}
    table = tmp_path / "sources.csv"
    rows = [(f"i{i:03d}", "x", "old" if i < 20 else "new") for i in range(50)]
    table.write_text("ID,site,scanner\n" + "".join(f"{','.join(row)}\n" for row in rows))
    result = invoke("--index", map_index, "--out", page, "--color", f"{table}:scanner")
    assert "by scanner" in result.stderr
    assert legend(page) == {"new": 30, "old": 20, "no value": 10}
    table.write_text("ID,site\nother,x\n")
    refused = invoke("--index", map_index, "--out", tmp_path / "b.html", "--color", table)
    assert refused.exit_code == 1 and "has a value for none of the 60 images" in refused.stderr
    assert "'i000'" in refused.stderr and "'other'" in refused.stderr
    assert not (tmp_path / "b.html").exists()


def test_an_index_without_pictures_and_groups(plain_index: Path, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    result = invoke("--index", plain_index, "--out", page)
    assert result.exit_code == 0 and "has no thumbnails: give --images" in result.stderr
    assert legend(page)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--out", "map.gif"), 2, "map.gif: the output of map is .html or .png"),
        (("--color", "group", "--concepts", "C1"), 2, "--concepts requires --color concept"),
        (("--limit", "0"), 2, "--limit"),
        (("--method", "tsne"), 2, "--method"),
        (("--concepts", "Brains"), 1, "called 'Brains'"),
        (("--color", "nowhere.csv:source"), 1, "nowhere.csv does not exist"),
        (("--out", "nowhere/map.png"), 1, "nowhere/map.png cannot be written"),
    ],
)
def test_what_is_refused(
    map_index: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = invoke("--index", map_index, *arguments)
    assert result.exit_code == code and message in result.stderr
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


def test_no_index(tmp_path: Path) -> None:
    result = invoke("--index", tmp_path / "none", "--out", tmp_path / "a.html")
    assert result.exit_code == 1 and result.stderr.startswith("Error: ")


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_without_umap_the_error_names_the_extra(map_index: Path, tmp_path: Path) -> None:
    result = invoke("--index", map_index, "--method", "umap", "--out", tmp_path / "a.png")
    assert result.exit_code == 1 and 'pip install "cui-annotator[umap]"' in result.stderr


@pytest.mark.slow
def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is written, on fewer phantoms."""
    lines = re.findall(r"^    (annotator .*)", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines[0] == "annotator sample sample/"
    sample = write_sample(tmp_path / "sample", n=40)
    monkeypatch.chdir(tmp_path)
    for line in lines[1:]:
        program, command, *arguments = shlex.split(line)
        assert program == "annotator"
        if command == "map" and (tmp_path / "map.html").exists():
            assert invoke(*arguments).exit_code == 0
            continue
        done = subprocess.run(
            [sys.executable, "-m", "annotator", command, *arguments], capture_output=True,
            text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {"map.html", "map.png", "lungs.html", "sides.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    with sample.concepts.open(encoding="utf-8", newline="") as file:
        held = [set(row["CUIs"].split(";")) for row in csv.DictReader(file)]
    lungs = legend(tmp_path / "lungs.html")
    assert lungs["none of these"] == sum(not row & {"C0032227", "C0032326"} for row in held)
    assert sum(legend(tmp_path / "map.html").values()) == 40
