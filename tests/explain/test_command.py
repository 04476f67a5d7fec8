"""`annotator explain` through the real command, as docs/explain.md shows it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from annotator.cli import cli

if TYPE_CHECKING:
    from annotator.phantoms import SamplePaths

SMALL = "efficientnet-lite0@64"
ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^    (annotator .*)$", DOCS, re.MULTILINE)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def scans(sample: SamplePaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images and one that is none."""
    folder = tmp_path_factory.mktemp("scans")
    for path in sorted(sample.images.glob("*.png"))[:2]:
        shutil.copy(path, folder)
    shutil.copy(min(sample.images.glob("*.jpg")), folder / "über alles.jpg")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


class Sources(HTMLParser):
    """What a page takes from elsewhere, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith(("data:", "#")):
                self.outside.append(f"{tag} {value}")
            if name == "id":
                self.ids.append(value or "")


def read(page: Path) -> tuple[Sources, dict[str, Any]]:
    sources = Sources()
    sources.feed(page.read_text(encoding="utf-8"))
    return sources, json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_examples_of_the_docs(tmp_path: Path, sample: SamplePaths, sample_index: Path) -> None:
    assert len(EXAMPLES) == 3
    (tmp_path / "sample" / "images").mkdir(parents=True)
    for path in sorted(sample.images.iterdir())[:3]:
        shutil.copy(path, tmp_path / "sample" / "images")
    shutil.copy(min(sample.images.glob("*.png")), tmp_path / "scan.png")
    for example in EXAMPLES:
        program, *arguments = shlex.split(example)
        assert program == "annotator"
        done = subprocess.run(
            [sys.executable, "-m", "annotator", *arguments], cwd=tmp_path, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "ANNOTATOR_INDEX": str(sample_index)},
            capture_output=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "Next: open re" in done.stderr or "why.png: scan with 5" in done.stderr
    assert (tmp_path / "report.json").is_file() and (tmp_path / "why.png").is_file()
    pages = sorted(path.name for path in (tmp_path / "reports").glob("*.html"))
    assert len(pages) == 4 and pages[0] == "index.html"
    assert len(list((tmp_path / "heatmaps").glob("*.png"))) >= 3


def test_pages_of_a_folder(scans: Path, sample_index: Path, tmp_path: Path) -> None:
    out, heatmaps = tmp_path / "pages", tmp_path / "maps"
    arguments = (scans, "--index", sample_index, "--out", out, "--heatmaps", heatmaps)
    result = invoke("explain", *arguments, "--neighbors", 2)
    assert (result.exit_code, result.stdout) == (3, "")
    assert (
        "1 x plain text, not an image" in result.stderr
        and "1 image could not be used" in result.stderr
    )
    assert "Next: open" in result.stderr
    linked = Sources()
    linked.feed((out / "index.html").read_text(encoding="utf-8"))
    names = [target.removeprefix("a ") for target in linked.outside]
    assert len(names) == 3 and all((out / name).is_file() for name in names)
    assert "bad" in (out / "index.html").read_text(encoding="utf-8")
    for name in names:
        sources, figures = read(out / name)
        assert not sources.outside  # a page needs nothing but itself
        cuis = [concept["cui"] for concept in figures["concepts"]]
        assert cuis and cuis == [e["cui"] for e in figures["explanations"]]
        drawn = [e["cui"] for e in figures["explanations"] if (e["deletion"] or {}).get("tells")]
        assert sources.ids == drawn
        text = (out / name).read_text(encoding="utf-8")
        assert "Not for clinical use" in text
        assert ("averages over places" in text) == bool(drawn)
        for concept in figures["concepts"]:
            assert concept["name"] in text and f"{concept['score']:.2f}" in text
        for explained in figures["explanations"]:
            map_ = explained["contrast"]
            if map_ is None:
                assert explained["cases_without"] == 0
                continue
            outside = map_["background"] + map_["elsewhere"] + map_["constant"]
            assert sum(map(sum, map_["grid"])) + outside == pytest.approx(map_["total"], abs=1e-5)
        assert ("The index has this very image" in text) == (figures["same_image"] is not None)
        listed = {n["id"] for n in figures["neighbors"]}
        assert not {figures["id"], figures["same_image"]} & listed
        assert all(n["id"] in text for n in figures["neighbors"][:2])
        (image,) = [path for path in scans.iterdir() if path.stem == figures["id"]]
        with Image.open(image) as picture:
            proportions = picture.width / picture.height
        overlays = list(heatmaps.glob(f"{Path(name).stem}.*.png"))
        assert len(overlays) == len(drawn)
        for overlay in overlays:
            with Image.open(overlay) as picture:
                assert picture.width / picture.height == pytest.approx(proportions, abs=0.02)
    again = invoke("explain", scans, "--index", sample_index, "--out", tmp_path / "again",
                   "--neighbors", 2)  # fmt: skip
    assert again.exit_code == 3
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_one_image_on_one_page(scans: Path, sample_index: Path, tmp_path: Path) -> None:
    image, page = min(scans.glob("phantom*.png")), tmp_path / "why.html"
    result = invoke("explain", image, "--index", sample_index, "--out", page, "--method",
                    "occlusion")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "approximate (occlusion)" in result.stderr
    sources, figures = read(page)
    assert not sources.outside and figures["method"] == "occlusion"
    drawn = any((e["deletion"] or {}).get("tells") for e in figures["explanations"])
    assert ("Each place was covered" in page.read_text(encoding="utf-8")) == drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == ["why.html", "why.json"]


def test_a_figure_of_one_image(scans: Path, sample_index: Path, tmp_path: Path) -> None:
    image = min(scans.glob("phantom*.png"))
    for name, start in (("why.png", b"\x89PNG"), ("why.SVG", b"<?xml")):
        result = invoke("explain", image, "--index", sample_index, "--out", tmp_path / name,
                        "--neighbors", 3)  # fmt: skip
        assert (result.exit_code, result.stdout) == (0, ""), result.stderr
        assert f"{image.stem} with 3 of its neighbours" in result.stderr
        assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 2


def test_neighbours_pictures_from_the_indexed_images(
    sample: SamplePaths, scans: Path, sample_index: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    options = ("--split", sample.split, "--only", "train", "--embedder", SMALL, "--index", bare)
    built = invoke("build-index", sample.images, sample.concepts, *options, "--no-tune")
    assert built.exit_code == 0, built.stderr
    image = min(scans.glob("phantom*.png"))
    pages = []
    for more in ((), ("--images", sample.images)):
        page = tmp_path / "why.html"
        assert invoke("explain", image, "--index", bare, "--out", page, *more).exit_code == 0
        pages.append(page.read_text(encoding="utf-8"))
    assert "no picture" in pages[0] and "no picture" not in pages[1]


def test_what_cannot_be_done_is_said(scans: Path, sample_index: Path, tmp_path: Path) -> None:
    index = ("--index", sample_index)
    many = invoke("explain", scans, *index, "--out", tmp_path / "one.html")
    assert many.exit_code == 1 and "4 images" in many.stderr and "--out reports/" in many.stderr
    figure = ("explain", min(scans.glob("phantom*")), *index, "--out", tmp_path / "why.png")
    for pages_only in (("--heatmaps", tmp_path / "maps"), ("--method", "additive")):
        refused = invoke(*figure, *pages_only)
        assert refused.exit_code == 2 and "require pages" in refused.stderr
    for out in ("one.html", "one.png"):
        bad = invoke("explain", scans / "bad.png", *index, "--out", tmp_path / out)
        assert bad.exit_code == 3 and "1 x plain text" in bad.stderr and "Next" not in bad.stderr
    method = invoke("explain", min(scans.glob("phantom*")), *index, "--out", tmp_path / "one.html",
                    "--method", "patches")  # fmt: skip
    assert method.exit_code == 1 and "not made from patches" in method.stderr
    assert "--method occlusion" in method.stderr
    assert not list(tmp_path.iterdir())
